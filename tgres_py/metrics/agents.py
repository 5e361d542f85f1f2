"""The server's own points: what /metrics says, as series under carbon's names, every so many seconds.

Names and meanings of carbon-cache's own (carbon 1.1, instrumentation.py) where there is the same thing:
dashboards made for it go on. Counts are of the last interval; times lie on the wall clock's grid.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tgres_py import clock
from tgres_py.machine import cpu_seconds, resident_bytes
from tgres_py.measure import Histogram
from tgres_py.model.points import Parsed, PointBlock, Reason

if TYPE_CHECKING:
    from tgres_py.server import Server

RECEIVER = "self"  # the receiver's label in metrics

CARBON_NAMES = {
    "metricsReceived": "points received, without these",
    "committedPoints": "slots of finest archives written to PostgreSQL",
    "updateOperations": "chunks of segments written",
    "pointsPerUpdate": "slots of one such write, on average",
    "avgUpdateTime": "seconds of one such write, on average",
    "creates": "new series",
    "droppedCreates": "points refused because they were of a new series (`series_max`, `series_new_…`, `memory_max`)",
    "errors": "writes that PostgreSQL or the journal's disk did not take",
    "cache.size": "slots in the ring cache and points in the late queue",
    "cache.queues": "series with slots in the ring cache",
    "cache.queries": "requests to /render",
    "cache.overflow": "points refused because there was no room",
    "activeConnections": "open TCP connections of senders",
    "cpuUsage": "CPU of the server, percent of one core, without PostgreSQL",
    "memUsage": "resident memory, bytes",
}
OWN_NAMES = {
    "tgres.series": "series known",
    "tgres.pointsDropped": "points refused, for whatever reason",
    "tgres.udpKernelDrops": "datagrams that the kernel dropped",
    "tgres.pointsHeld": "late points that wait for their merge",
    "tgres.ringBytes": "memory of the ring cache",
    "tgres.memoryMax": "the bound on memory (`memory_max`)",
    "tgres.memoryTight": "1 while memory is near it: no new series, no further queries",
    "tgres.journalBytes": "size of the journal",
    "tgres.storeAvailable": "1 while PostgreSQL answers and takes what is written, as /readyz says",
    "tgres.renderTime": "seconds of one /render, on average",
    "tgres.loopLag": "seconds that the event loop is late, on average",
}


def prefix_of(pattern: str) -> str:
    """The prefix of the names: ``{host}`` becomes the host's name, dots replaced as carbon does."""
    host = socket.gethostname().replace(".", "_").replace(";", "_").replace(" ", "_")
    return pattern.replace("{host}", host or "localhost").strip(".")


class OwnPoints:
    """Remembers the counters of the interval before."""

    def __init__(self, server: Server, prefix: str) -> None:
        self._server = server
        self._prefix = prefix
        self._before: Counter[str] = Counter()
        self._before_s = 0.0

    async def run(self, interval_s: int) -> None:
        """Stores points at each multiple of ``interval_s``, until it is cancelled."""
        self._totals_since()
        while True:
            now = clock.now()
            due = (math.floor(now / interval_s) + 1) * interval_s
            await asyncio.sleep(min(due - now, interval_s))
            if (now_s := clock.now_s()) >= due:
                self.store(now_s // interval_s * interval_s)

    def store(self, time_s: int) -> int:
        """Gives the points of now to the intake; how many that are. None while the store isn't loaded
        or there is no room."""
        values = self.values()
        server = self._server
        if not server.registry.opened or server.intake.paused:
            return 0
        names = [f"{self._prefix}.{name}".encode() for name in values]
        ids, refused = server.registry.resolve(names, budgeted=False)
        taken = ids >= 0
        block = PointBlock(
            ids[taken],
            np.full(int(taken.sum()), time_s, np.int64),
            np.array(list(values.values()), np.float64)[taken],
        )
        server.intake.accept(RECEIVER, Parsed(block, Counter(refused.values())))
        return len(block)

    def values(self) -> dict[str, float]:
        """Name to value; what has no meaning in an interval without events is left out."""
        since, seconds = self._totals_since()
        values: dict[str, float] = {name: since[name] for name in _COUNTED}
        flushes, renders, lags = since["flushes"], since["renders"], since["lags"]
        if flushes:
            values["pointsPerUpdate"] = since["committedPoints"] / flushes
            values["avgUpdateTime"] = since["flush_s"] / flushes
        if renders:
            values["tgres.renderTime"] = since["render_s"] / renders
        if lags:
            values["tgres.loopLag"] = since["lag_s"] / lags
        values["updateOperations"] = flushes
        values["cache.queries"] = renders
        values["cpuUsage"] = 100 * since["cpu_s"] / seconds if seconds else 0.0
        return {**values, **self._gauges()}

    def _gauges(self) -> dict[str, float]:
        server = self._server
        ring, intake = server.ring, server.intake
        slots = series = 0
        for segment in range(ring.segments):
            low, high = ring.span(segment)
            if low < high:
                slots += (high - low) * ring.used(segment)
                series += ring.used(segment)
        return {
            "cache.size": slots + intake.late_points,
            "cache.queues": series,
            "activeConnections": server.tcp_totals.connections,
            "memUsage": resident_bytes(),
            "tgres.series": len(server.registry),
            "tgres.pointsHeld": intake.ledger.held,
            "tgres.ringBytes": ring.row_bytes,
            "tgres.memoryMax": server.shares.total,
            "tgres.memoryTight": int(server.memory.tight),
            "tgres.journalBytes": server.journal.total_bytes,
            "tgres.storeAvailable": int(server.ready),
        }

    def _totals_since(self) -> tuple[Mapping[str, float], float]:
        """Growth of all counters since the last call, and the seconds between."""
        now, totals = clock.monotonic(), _totals(self._server)
        grown = {name: total - self._before[name] for name, total in totals.items()}
        seconds = now - self._before_s
        self._before, self._before_s = Counter(totals), now
        return grown, seconds


_COUNTED = (
    "metricsReceived",
    "committedPoints",
    "creates",
    "droppedCreates",
    "errors",
    "cache.overflow",
    "tgres.pointsDropped",
    "tgres.udpKernelDrops",
)


def _totals(server: Server) -> dict[str, float]:
    ledger, flusher, runtime = server.intake.ledger, server.flusher, server.runtime
    renders = list(server.meters.render_seconds.values())
    return {
        "metricsReceived": sum(ledger.received.values()) - ledger.received[RECEIVER],
        "committedPoints": ledger.flushed,
        "creates": server.registry.table.size,
        "droppedCreates": server.registry.refused.total(),
        "errors": flusher.failures + server.journal.failures,
        "cache.overflow": ledger.rejected[Reason.OVERLOAD],
        "tgres.pointsDropped": sum(ledger.rejected.values()),
        "tgres.udpKernelDrops": ledger.rejected[Reason.UDP_KERNEL],
        "flushes": flusher.flush_seconds.count,
        "flush_s": flusher.flush_seconds.sum,
        "renders": _count(renders),
        "render_s": sum(one.sum for one in renders),
        "lags": runtime.lag_seconds.count,
        "lag_s": runtime.lag_seconds.sum,
        "cpu_s": cpu_seconds(),
    }


def _count(histograms: list[Histogram]) -> int:
    return sum(one.count for one in histograms)
