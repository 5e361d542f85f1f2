"""What the parts of the ingest side take of the memory, bytes; each is quick to ask.

cache   ring        rows of the ring cache
        late        late points that wait for their merge
        journal     records that wait for the journal's disk
index   names       table of names
        ids         bundle, row and place of each id
        tree, tags  what queries find names by
        budget      buckets of new series by prefix
        statsd      what is aggregated until the next flush
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgres_py.ingest.registry import FOUND_BYTES, Registry

if TYPE_CHECKING:
    from tgres_py.ingest.intake import Intake

LATE_POINT_BYTES = 20  # id, time, value
LATE_BYTES = 512  # of a queued block besides: the object and the heads of its arrays
PLACE_BYTES = 12  # of each id in the ring: segment, column, and its place in the segment's list
AROUND = 1.08  # measured: what the allocator and the objects around an index take, too


def cache_parts(intake: Intake) -> dict[str, int]:
    """Bytes of the cache's parts by name."""
    journal = intake.journal
    return {
        "ring": intake.ring.row_bytes,
        "late": intake.late_points * LATE_POINT_BYTES + len(intake.late) * LATE_BYTES,
        "journal": journal.pending_bytes if journal is not None else 0,
    }


def cache_bytes(intake: Intake) -> int:
    """Their sum, asked for some times with each buffer."""
    journal = intake.journal
    return (
        intake.ring.row_bytes
        + intake.late_points * LATE_POINT_BYTES
        + len(intake.late) * LATE_BYTES
        + (journal.pending_bytes if journal is not None else 0)
    )


def index_parts(registry: Registry) -> dict[str, int]:
    """Bytes of the index's parts by name."""
    arrays = registry.bundle_of, registry.rrd_id, registry.retired
    return {
        "names": registry.table.bytes_used,
        "ids": sum(one.nbytes for one in arrays) + PLACE_BYTES * len(registry.bundle_of),
        "tree": registry.tree.bytes_used,
        "tags": registry.tags.bytes_used,
        "budget": registry.budget.bytes_used if registry.budget is not None else 0,
        **{part: size() for part, size in registry.beside.items()},
    }


def index_bytes(registry: Registry) -> int:
    """Memory of all that is kept for each series, as it is now."""
    return int(sum(index_parts(registry).values()) * AROUND)


def series_bytes(registry: Registry) -> int:
    """The same without what is kept beside them, with what waiting names will take."""
    beside = sum(size() for size in registry.beside.values())
    return index_bytes(registry) - int(beside * AROUND) + index_bytes_to_come(registry)


def index_bytes_to_come(registry: Registry) -> int:
    """What names that wait for tree and tags will take there, if they are like those that came there last, but not less
    than usual: a storm's first names aren't like the fleet's before."""
    return int(registry.waiting * max(registry.found_bytes, FOUND_BYTES) * AROUND)
