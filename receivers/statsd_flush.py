"""statsd's flush: on the grid of the wall clock, what an Aggregator holds goes into the sink as blocks of points.

    instant   the interval's cells are handed over, in the loop's thread
    worker    names, percentiles, ids of known series (tgres_py/statsd/flush.py), while the loop takes further packets
    loop      series of new names, a few at a time; then the points, in blocks that take a millisecond or two each

All values of a flush have the time of the grid point that ends their interval. Lines aren't points: the ledger counts what
a flush makes of them, under the receiver ``statsd``, and the lines that a full queue lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from receivers.sink import Sink
from tgres_py import clock
from tgres_py.model.points import Ids, Parsed, PointBlock, Reason, Times, Values
from tgres_py.statsd.aggregate import Aggregator, Timed
from tgres_py.statsd.flush import FlushNumbers, Plan
from tgres_py.statsd.settings import StatsdSettings

log = logging.getLogger("tgres.statsd")

NAME = "statsd"  # the receiver's label in metrics
NAMES_EACH = 500  # new series between two turns of the loop
NAMES_MADE = 20_000  # that are there at the same time
POINTS_EACH = 16_384


class StatsdFlush:
    """Flushes of one Aggregator; it belongs to the event loop's thread.

    ``on_new`` is told the ids of numbers that are flushed for the first time.
    """

    def __init__(
        self, aggregator: Aggregator, sink: Sink, on_new: Callable[[Ids], None] = lambda ids: None
    ) -> None:
        self.aggregator = aggregator
        self.numbers = FlushNumbers(aggregator.settings)
        self._sink = sink
        self._on_new = on_new
        self._names_gone = sink.registry.names_gone
        self._lock = asyncio.Lock()
        self._ended = False

    async def run(self) -> None:
        """Flushes at each point of the grid, until it is cancelled or the last flush was."""
        interval_s = self.aggregator.settings.interval_s
        due = next_flush(clock.now(), interval_s)
        while not self._ended:
            now = clock.now()
            if now < due - interval_s:  # the clock was set back
                due = next_flush(now, interval_s)
            if now < due:
                await asyncio.sleep(due - now)
                continue
            due = next_flush(now, interval_s)
            try:
                await self.flush(round(due - interval_s))
            except Exception:
                log.exception("a flush failed; what it held is lost, the next one is at its time")

    async def last(self) -> None:
        """The end: what came since the last flush, with the time of the one that won't be."""
        self._ended = True
        await self.flush(round(next_flush(clock.now(), self.aggregator.settings.interval_s)))

    async def flush(self, stamp_s: int) -> int:
        """Gives all that was aggregated up to now to the sink, with this time; how many points that are."""
        interval = self.aggregator.take(stamp_s)
        timed = self.aggregator.take_timed()
        begin = clock.monotonic()
        async with self._lock:  # one after the other
            self._forget_gone()
            plan = await asyncio.to_thread(self.numbers.plan, interval)
            if self._forget_gone():  # while the worker was at it
                plan = await asyncio.to_thread(self.numbers.plan, interval)
            ids, rejected = await self._resolved(plan)
            rejected[Reason.NAN] += plan.unknown_values
            await self._hand_in(ids, np.full(len(ids), stamp_s, np.int64), plan.values, rejected)
            if timed:
                await self._hand_in_timed(timed)
            self.aggregator.flushed(stamp_s, len(ids), clock.monotonic() - begin)
            if self.numbers.estimated_key:
                log.warning(
                    "set %s had more than %d members (setExactMax): its size is an estimate",
                    self.numbers.estimated_key,
                    self.aggregator.settings.setExactMax,
                )
        return len(ids) + len(timed)

    def _forget_gone(self) -> bool:
        """Drops the remembered ids if some of them aren't their names' any more."""
        gone = self._sink.registry.names_gone
        if gone == self._names_gone:
            return False
        self._names_gone = gone
        self.numbers = self.numbers.with_settings(self.aggregator.settings)
        return True

    async def reconfigure(self, settings: StatsdSettings) -> None:
        """Other names and numbers from the next flush on."""
        async with self._lock:
            self.numbers = self.numbers.with_settings(settings)

    async def _resolved(self, plan: Plan) -> tuple[Ids, Counter[Reason]]:
        """Ids of all numbers of a plan, below 0 where refused."""
        ids, rejected = plan.ids, Counter[Reason]()
        missing = len(plan.missing)
        if not missing:
            return ids, rejected
        for begin in range(0, missing, NAMES_MADE):
            end = min(missing, begin + NAMES_MADE)
            names = await asyncio.to_thread(self.numbers.names, plan, begin, end)
            for first in range(0, len(names), NAMES_EACH):
                part = [name.encode() for name in names[first : first + NAMES_EACH]]
                found, refused = self._sink.registry.resolve(part)
                ids[plan.missing[begin + first : begin + first + len(part)]] = found
                rejected.update(refused.values())
                await asyncio.sleep(0)
        await asyncio.to_thread(self.numbers.learn, plan, ids)
        new = ids[plan.missing]
        self._on_new(new[new >= 0])
        return ids, rejected

    async def _hand_in(
        self, ids: Ids, times: Times, values: Values, rejected: Counter[Reason]
    ) -> None:
        taken = ids >= 0
        ids, times, values = ids[taken], times[taken], values[taken]
        for first in range(0, max(len(ids), 1), POINTS_EACH):
            part = slice(first, first + POINTS_EACH)
            block = PointBlock(ids[part], times[part], values[part])
            self._sink.accept(NAME, Parsed(block, +rejected), "")
            rejected = Counter()
            await asyncio.sleep(0)

    async def _hand_in_timed(self, timed: list[Timed]) -> None:
        """Points that were sent with their times."""
        rejected = Counter[Reason]()
        ids = np.empty(len(timed), np.int32)
        for first in range(0, len(timed), NAMES_EACH):
            part = [point.name.encode() for point in timed[first : first + NAMES_EACH]]
            ids[first : first + NAMES_EACH], refused = self._sink.registry.resolve(part)
            rejected.update(refused.values())
            await asyncio.sleep(0)
        times = np.array([point.time_s for point in timed], np.int64)
        values = np.array([point.value for point in timed], np.float64)
        unknown = np.isnan(values)
        rejected[Reason.NAN] += int((unknown & (ids >= 0)).sum())
        ids[unknown] = -1
        await self._hand_in(ids, times, values, rejected)


def next_flush(now: float, interval_s: float) -> float:
    """The first grid point after ``now``; the grid starts at 1970, as slots do."""
    return (math.floor(now / interval_s) + 1) * interval_s
