"""/metrics: what the server counts, in Prometheus' text format; read from the owners when asked."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tgres_py.model.points import Reason

if TYPE_CHECKING:
    from tgres_py.server import Server


class ServerCollector(Collector):
    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        server = self._server
        ledger = server.intake.ledger
        received = CounterMetricFamily(
            "tgres_points_received", "Points that came in, refused ones included.", labels=["receiver"]
        )
        for receiver, count in sorted(ledger.received.items()):
            received.add_metric([receiver], count)
        yield received
        dropped = CounterMetricFamily("tgres_points_dropped", "Points refused.", labels=["reason"])
        for reason in Reason:
            dropped.add_metric([reason.value], ledger.rejected[reason])
        yield dropped
        for name, text, count in (
            ("tgres_points_stored", "Points that met an empty slot.", ledger.stored),
            ("tgres_points_overwritten", "Points that met a slot with a value.", ledger.overwritten),
            ("tgres_points_flushed", "Slots of finest archives written to PostgreSQL.", ledger.flushed),
            ("tgres_points_late", "Points that took the way of a merge.", ledger.late),
            ("tgres_flushes", "Chunks of segments written.", server.flusher.flushes),
            ("tgres_flush_failures", "Writes that PostgreSQL did not take.", server.flusher.failures),
            ("tgres_checkpoints", "Journal checkpoints.", server.flusher.checkpoints),
            ("tgres_journal_written_bytes", "Bytes written to the journal.", server.journal.bytes_written),
            ("tgres_journal_syncs", "Syncs of the journal.", server.journal.syncs),
        ):
            yield CounterMetricFamily(name, text, value=count)
        for name, text, value in (
            ("tgres_points_held", "Late points that wait for their merge.", ledger.held),
            ("tgres_series", "Series known.", len(server.registry)),
            ("tgres_ring_bytes", "Memory of the ring cache's rows.", server.ring.row_bytes),
            ("tgres_names_bytes", "Memory of the table of names.", server.registry.table.bytes_used),
            ("tgres_index_bytes", "Memory of the tree of names.", server.registry.tree.bytes_used),
            ("tgres_tag_index_bytes", "Memory of the index of tags.", server.registry.tags.bytes_used),
            ("tgres_journal_bytes", "Size of the journal's files.", server.journal.total_bytes),
            ("tgres_journal_pending_bytes", "Journal records in memory.", server.journal.pending_bytes),
            ("tgres_store_available", "1 when the last write succeeded.", int(server.flusher.available)),
            ("tgres_paused", "1 while TCP receivers don't read.", int(server.intake.paused)),
            ("process_resident_memory_bytes", "Resident memory.", resident_bytes()),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        yield from self._peers()
        yield from self._statsd()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily(
            "process_cpu_seconds", "CPU time of the server, without PostgreSQL.", value=usage.ru_utime + usage.ru_stime
        )

    def _peers(self) -> Iterator[Metric]:
        """Of other nodes, where there are any."""
        requests = CounterMetricFamily("tgres_peer_requests", "Requests to a peer.", labels=["peer"])
        failures = CounterMetricFamily(
            "tgres_peer_failures", "Requests that a peer did not answer well.", labels=["peer"]
        )
        available = GaugeMetricFamily(
            "tgres_peer_available", "1 when the peer's last answer was good.", labels=["peer"]
        )
        for peer in self._server.cluster.peers if self._server.cluster else ():
            requests.add_metric([peer.name], peer.requests)
            failures.add_metric([peer.name], peer.failures)
            available.add_metric([peer.name], int(peer.available))
        if self._server.cluster:
            yield from (requests, failures, available)


    def _statsd(self) -> Iterator[Metric]:
        """Of statsd's lines, which are no points before they are flushed."""
        if self._server.statsd is None:
            return
        of = self._server.statsd.aggregator
        for name, text, count in (
            ("tgres_statsd_bad_lines", "Lines of statsd that were not understood.", of.bad_lines_seen),
            ("tgres_statsd_events", "Events of DogStatsD clients.", of.inbox.seen),
            ("tgres_statsd_service_checks", "Service checks, counted only.", of.inbox.checks),
        ):
            yield CounterMetricFamily(name, text, value=count)
        refused = CounterMetricFamily(
            "tgres_statsd_refused", "What limits of statsd refused.", labels=["limit"]
        )
        for limit, count in of.limits().items():
            refused.add_metric([limit], count)
        yield refused


def resident_bytes() -> int:
    """Resident memory of this process; 0 where /proc doesn't tell."""
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def exporter(server: Server) -> Callable[[], bytes]:
    """A function that gives the text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServerCollector(server))
    return lambda: generate_latest(registry)
