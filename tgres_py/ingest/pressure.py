"""Keeps the memory below its bound: how many further series fit, and what is shed when it is nearly full.

Looked at each second, more often near the bound, and what the index takes also after each thousand new names. New
series end where the index's share would, and where the ring could no longer be emptied: rows younger than the grace
can't be written yet, however fast the store is. The real resident memory, with that of the processes that belong to
the server, counts as well: from TIGHT of the bound on there are no new series and no further queries until it is
below CALM.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from tgres_py import clock
from tgres_py.ingest.footprint import cache_bytes, index_bytes, index_bytes_to_come, series_bytes
from tgres_py.ingest.intake import Intake
from tgres_py.machine import resident_bytes, trim_memory
from tgres_py.memory import Shares
from tgres_py.model.points import Reason

log = logging.getLogger(__name__)

TIGHT, CALM = 0.95, 0.9  # of the bound, resident
LOOK_S, LOOK_NEAR_S = 1.0, 0.1
NEAR = 0.8  # of the bound, from which it is looked more often
TRIM_EVERY_S = 10.0
QUIET_S = 10.0  # without refusals until the log says that they ended
SERIES_BYTES = 350  # of the index, while there are too few series to tell
TELLING_SERIES = 10_000
YOUNG_SHARE = 0.6  # of what the cache may hold before senders wait: rows that can't be written yet
SEGMENT = 4_096


@dataclass(slots=True)
class Refusing:
    """Whether new series are being refused for a reason, told once when it begins and once when it ends."""

    reason: Reason
    why: str
    count: int = 0
    since: float = 0.0
    on: bool = False

    def look(self, count: int, hint: str) -> None:
        now = clock.monotonic()
        if count > self.count:
            self.count, self.since = count, now
            if not self.on:
                self.on = True
                log.warning("points of new series are refused: %s%s", self.why, hint)
        elif self.on and now - self.since >= QUIET_S:
            self.on = False
            log.info("no new series was refused for %g s (%s); %d points were", QUIET_S, self.reason, count)


class MemoryWatch:
    """Belongs to the event loop's thread. ``resident``: bytes at the last look, ``children`` of them those
    of the server's other processes; ``tight``: whether memory is short.
    """

    def __init__(
        self,
        intake: Intake,
        shares: Shares,
        young_s: float,
        children_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        """``young_s``: age below which slots of the ring can't be written. ``children_bytes``: resident memory of the
        server's own processes besides this one.
        """
        self.shares = shares
        self.tight = False
        self.resident = self.children = 0
        self._intake = intake
        self._registry = intake.registry
        self._young_s = young_s
        self._children_bytes = children_bytes
        self._trimmed = float("-inf")
        self._young_bytes = 0  # of the segments seen so far
        self._segments = 0
        self._registry.on_growth = self._set_size_max
        self._refusing = (
            Refusing(Reason.MEMORY, "memory_max has no room for them"),
            Refusing(Reason.NEW_SERIES, "more come than series_new_per_s and its like allow"),
        )

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            self.look()
            if self.tight and clock.monotonic() - self._trimmed >= TRIM_EVERY_S:
                self._trimmed = clock.monotonic()
                await asyncio.to_thread(trim_memory)
            near = self.resident > NEAR * self.shares.total
            await asyncio.sleep(LOOK_NEAR_S if near else LOOK_S)

    def look(self) -> None:
        """Takes the memory's measure and sets how many series there may be."""
        self.children = self._children_bytes()
        self.resident = resident_bytes() + self.children
        self._set_tight()
        self._set_size_max()
        registry = self._registry
        top = registry.refused_prefixes(1)
        hints = {Reason.NEW_SERIES: f"; most under {top[0][0]}" if top else ""}
        for one in self._refusing:
            one.look(registry.refused[one.reason], hints.get(one.reason, ""))

    def _set_tight(self) -> None:
        total = self.shares.total
        if not self.tight and self.resident >= TIGHT * total:
            self.tight = True
            log.error(
                "memory: %d of %d MB (memory_max) are in use: no new series and no further queries until it is less",
                self.resident >> 20,
                total >> 20,
            )
        elif self.tight and self.resident < CALM * total:
            self.tight = False
            log.info(
                "memory: %d of %d MB are in use: all goes on", self.resident >> 20, total >> 20
            )

    def _set_size_max(self) -> None:
        registry = self._registry
        registry.size_max = registry.table.size + (0 if self.tight else self.series_left())

    def series_left(self) -> int:
        """How many further series fit into the shares of index and cache."""
        registry = self._registry
        used, size = index_bytes(registry) + index_bytes_to_come(registry), registry.table.size
        each = series_bytes(registry) / size if size >= TELLING_SERIES else SERIES_BYTES
        by_index = (self.shares.index - used) / each
        young = self.shares.cache_pause * YOUNG_SHARE - self._young()
        by_cache = young // self._segment_bytes() * SEGMENT
        return max(0, int(min(by_index, by_cache)))

    def _young(self) -> int:
        """Bytes of rows that can't be written yet when all series get points."""
        ring = self._intake.ring
        for segment in range(self._segments, ring.segments):
            self._young_bytes += ring.capacity(segment) * self._young_slots(segment) * 8
        self._segments = ring.segments
        return self._young_bytes

    def _young_slots(self, segment: int) -> int:
        registry = self._registry
        step_s = registry.bundle_specs[registry.segment_bundle[segment]].archives[0].step_s
        return int(self._young_s // step_s) + 2

    def _segment_bytes(self) -> float:
        """Of the next segment, if it is like those that are there."""
        ring = self._intake.ring
        columns = sum(map(ring.capacity, range(max(0, ring.segments - 16), ring.segments)))
        if not columns:
            return SEGMENT * 8.0 * 16
        recent = range(max(0, ring.segments - 16), ring.segments)
        rows = sum(ring.capacity(s) * self._young_slots(s) * 8 for s in recent)
        return SEGMENT * rows / columns

    @property
    def cache(self) -> int:
        """Bytes of the cache."""
        return cache_bytes(self._intake)
