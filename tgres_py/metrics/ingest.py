"""Metrics of memory, journal and the way to the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgres_py.ingest.footprint import cache_parts, index_parts
from tgres_py.kernels.arrays import array_bytes
from tgres_py.metrics.declare import Declared, Group, Kind, Labelled
from tgres_py.model.points import REFUSED_IDS

if TYPE_CHECKING:
    from tgres_py.server import Server

PREFIXES_SHOWN = 20


def _refused_prefixes(server: Server) -> Labelled:
    for prefix, count in server.registry.refused_prefixes(PREFIXES_SHOWN):
        yield (prefix,), count


GROUPS = (
    Group(
        "Series",
        (
            Declared("tgres_series", Kind.GAUGE, "Series known.", lambda s: len(s.registry)),
            Declared(
                "tgres_series_refused_total",
                Kind.COUNTER,
                "Points refused because they were of a new series: limit (series_max), new_series (series_new_…), "
                "memory (memory_max).",
                lambda s: [((r.value,), s.registry.refused[r]) for r in REFUSED_IDS.values()],
                ("reason",),
            ),
            Declared(
                "tgres_new_series_refused_total",
                Kind.COUNTER,
                "Those that were beyond series_new_…, of the prefixes that had most.",
                _refused_prefixes,
                ("prefix",),
            ),
            Declared(
                "tgres_bundles",
                Kind.GAUGE,
                "Combinations of retention, roll-up and rule in use.",
                lambda s: len(s.registry.bundle_specs),
            ),
            Declared(
                "tgres_ring_segments",
                Kind.GAUGE,
                "Segments of the ring cache, of up to 4,096 series each.",
                lambda s: s.ring.segments,
            ),
        ),
    ),
    Group(
        "Memory",
        (
            Declared(
                "tgres_memory_max_bytes",
                Kind.GAUGE,
                "The bound, memory_max.",
                lambda s: s.shares.total,
            ),
            Declared(
                "tgres_memory_share_bytes",
                Kind.GAUGE,
                "What of it each share has: tls, cache, index, queries.",
                lambda s: [
                    (("tls",), s.shares.tls),
                    (("cache",), s.shares.cache),
                    (("index",), s.shares.index),
                    (("queries",), s.shares.queries),
                ],
                ("share",),
            ),
            Declared(
                "tgres_memory_bytes",
                Kind.GAUGE,
                "What the parts take: of the cache ring, late, journal; of the index names, ids, tree, tags, budget, statsd; "
                "and the processes that make heavy answers: workers.",
                lambda s: [
                    ((part,), size)
                    for part, size in {
                        **cache_parts(s.intake),
                        **index_parts(s.registry),
                        "workers": s.memory.children,
                    }.items()
                ],
                ("part",),
            ),
            Declared(
                "tgres_memory_resident_bytes",
                Kind.GAUGE,
                "Resident memory of the server and its own processes, at the last look.",
                lambda s: s.memory.resident,
            ),
            Declared(
                "tgres_numpy_bytes",
                Kind.GAUGE,
                "Bytes of numpy's arrays, exactly: points on their way, queries. The ring, names, ids and tree have memory "
                "of their own.",
                lambda s: array_bytes(),
            ),
            Declared(
                "tgres_memory_tight",
                Kind.GAUGE,
                "1 while resident memory is near the bound: no new series, no further queries.",
                lambda s: int(s.memory.tight),
            ),
            Declared(
                "tgres_series_left",
                Kind.GAUGE,
                "Further series that there is memory for.",
                lambda s: max(0, s.registry.size_max - s.registry.table.size),
            ),
        ),
    ),
    Group(
        "Late points",
        (
            Declared(
                "tgres_points_late_total",
                Kind.COUNTER,
                "Points that took the way of a merge.",
                lambda s: s.intake.ledger.late,
            ),
            Declared(
                "tgres_late_queue_points",
                Kind.GAUGE,
                "Points in the queue, late_points_max at most.",
                lambda s: s.intake.late_points,
            ),
            Declared(
                "tgres_merge_duration_seconds",
                Kind.HISTOGRAM,
                "Time of one merge of late points, PostgreSQL's part included.",
                lambda s: s.flusher.merge_seconds,
            ),
        ),
    ),
    Group(
        "Flush",
        (
            Declared(
                "tgres_points_flushed_total",
                Kind.COUNTER,
                "Slots of finest archives written to PostgreSQL.",
                lambda s: s.intake.ledger.flushed,
            ),
            Declared(
                "tgres_flushes_total",
                Kind.COUNTER,
                "Chunks of segments written.",
                lambda s: s.flusher.flushes,
            ),
            Declared(
                "tgres_flush_failures_total",
                Kind.COUNTER,
                "Writes that PostgreSQL did not take; they are repeated.",
                lambda s: s.flusher.failures,
            ),
            Declared(
                "tgres_flush_duration_seconds",
                Kind.HISTOGRAM,
                "Time of writing one chunk of a segment, roll-ups included.",
                lambda s: s.flusher.flush_seconds,
            ),
            Declared(
                "tgres_store_available",
                Kind.GAUGE,
                "1 while PostgreSQL answers and takes what is written, as /readyz says; 0 until the series are loaded.",
                lambda s: int(s.ready),
            ),
        ),
    ),
    Group(
        "Journal",
        (
            Declared(
                "tgres_journal_bytes",
                Kind.GAUGE,
                "Size of the journal's files, journal_bytes_max at most.",
                lambda s: s.journal.total_bytes,
            ),
            Declared(
                "tgres_journal_written_bytes_total",
                Kind.COUNTER,
                "Bytes written to the journal.",
                lambda s: s.journal.bytes_written,
            ),
            Declared(
                "tgres_journal_syncs_total",
                Kind.COUNTER,
                "Syncs of the journal.",
                lambda s: s.journal.syncs,
            ),
            Declared(
                "tgres_journal_sync_duration_seconds",
                Kind.HISTOGRAM,
                "Time of one sync (fdatasync).",
                lambda s: s.journal.sync_seconds,
            ),
            Declared(
                "tgres_journal_failures_total",
                Kind.COUNTER,
                "Writes and syncs that the disk did not take.",
                lambda s: s.journal.failures,
            ),
            Declared(
                "tgres_journal_failed",
                Kind.GAUGE,
                "1 while the journal can't be written: a crash would lose what came since.",
                lambda s: int(s.journal.failed is not None or s.journal.incomplete),
            ),
            Declared(
                "tgres_checkpoints_total",
                Kind.COUNTER,
                "Journal checkpoints.",
                lambda s: s.flusher.checkpoints,
            ),
            Declared(
                "tgres_checkpoint_duration_seconds",
                Kind.HISTOGRAM,
                "Time of one checkpoint.",
                lambda s: s.flusher.checkpoint_seconds,
            ),
            Declared(
                "tgres_recovery_seconds",
                Kind.GAUGE,
                "Time that the start took for series and journal.",
                lambda s: s.recovered.seconds if s.recovered else None,
            ),
            Declared(
                "tgres_recovered_points",
                Kind.GAUGE,
                "Points that the start took from the journal.",
                lambda s: s.recovered.points + s.recovered.late if s.recovered else None,
            ),
        ),
    ),
)
