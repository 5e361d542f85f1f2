"""From what an interval held to named numbers: the heavy part of a flush, for any thread.

The series' ids are remembered by cell and kind of number, so that a flush of known keys is a few array operations; names are put
together only for numbers that are new. One flush at a time; ``plan`` may run beside the owner of the cells, since what it works
on has been handed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.kernels.statsd import Taken, TakenTimers, grouped
from tgres_py.statsd.names import Names, with_tag_values
from tgres_py.statsd.settings import StatsdSettings
from tgres_py.statsd.timers import TimerNumbers

Floats = NDArray[np.float64]
Cells = NDArray[np.int32]
UNKNOWN = -1
COUNT, GAUGE, RATE, SET, TIMER = "count", "gauge", "rate", "set", "timer."


class Column(NamedTuple):
    """A kind of number of many keys; ``kind``: one of the above, TIMER with the number's name behind it."""

    kind: str
    cells: Cells
    values: Floats


class Interval(NamedTuple):
    """What was handed over at a flush; ``own``: statsd's own numbers that are known by then."""

    taken: Taken
    own: dict[str, float]


class Plan(NamedTuple):
    """Numbers of a flush, NaN (no value) left out and counted in ``unknown_values``.

    ``ids``: int32 (n,), UNKNOWN where a series is wanted, at the places ``missing``, int64 (m,); for their names see ``names``.
    """

    columns: list[Column]
    ids: Cells
    values: Floats
    missing: NDArray[np.int64]
    unknown_values: int


class FlushNumbers:
    """Makes plans, and learns which ids their names have."""

    def __init__(self, settings: StatsdSettings) -> None:
        self._settings = settings
        self._names = Names(settings)
        self._numbers = TimerNumbers(
            settings.percentThreshold,
            settings.histogram,
            settings.calculatedTimerMetrics,
            settings.interval_s,
        )
        self._keys: list[str] = []  # by cell, as ids are
        self._ids: dict[str, Cells] = {}
        self._own_ids: dict[str, int] = {}
        self.estimated = 0  # sizes of sets that were no counts, since the start
        self.estimated_key = ""  # one of the last flush, empty if there was none

    def with_settings(self, settings: StatsdSettings) -> FlushNumbers:
        """The same with other settings: it knows the keys, and learns ids anew."""
        made = FlushNumbers(settings)
        made._keys = self._keys
        made._numbers.learn(dict(enumerate(self._keys)))
        made.estimated = self.estimated
        return made

    def plan(self, interval: Interval) -> Plan:
        """The numbers of an interval, with all ids that are known."""
        columns = self.columns(interval)
        own, columns = columns[-1], columns[:-1]
        ids = [self._known(column) for column in columns]
        own_names = [self._names.own(leaf) for leaf in self._own_leaves]
        ids.append(np.array([self._own_ids.get(name, UNKNOWN) for name in own_names], np.int32))
        known = np.concatenate(ids)
        return Plan(
            [*columns, own],
            known,
            np.concatenate([column.values for column in (*columns, own)]),
            np.flatnonzero(known < 0),
            self._nans,
        )

    def names(self, plan: Plan, first: int, end: int) -> list[str]:
        """Of the numbers at ``missing[first:end]``; all of them at once may take far more memory than the numbers."""
        ends = np.cumsum([len(column.cells) for column in plan.columns])
        places = plan.missing[first:end]
        of = np.searchsorted(ends, places, side="right")
        names: list[str] = []
        for number in np.unique(of).tolist():
            column = plan.columns[number]
            here = places[of == number] - (ends[number] - len(column.cells))
            names += self._made(column.kind, column.cells[here].tolist())
        return names

    def columns(self, interval: Interval) -> list[Column]:
        """The numbers without NaN; the last column is statsd's own, its cells count ``own_leaves``."""
        begin = clock.monotonic()
        taken = interval.taken
        self._learn_keys(taken)
        self._nans = 0
        columns = [self._without_nan(column) for column in self._all(taken)]
        keys = (taken.counters[0], taken.timers.cells, taken.gauges[0], taken.sets[0])
        own = {
            "numStats": float(sum(map(len, keys))),
            "processing_time": _ms(clock.monotonic() - begin),
            **interval.own,
        }
        self._own_leaves = list(own)
        values = np.array(list(own.values()), np.float64)
        return [*columns, Column("own", np.arange(len(own), dtype=np.int32), values)]

    def named(self, interval: Interval) -> Iterator[tuple[str, float]]:
        """Names and values, without ids."""
        for column in self.columns(interval):
            for cell, value in zip(column.cells.tolist(), column.values.tolist(), strict=True):
                yield self._name(column.kind, cell), value

    def learn(self, plan: Plan, ids: Cells) -> None:
        """The ids of all of a plan's numbers; below 0 where a series was refused: it is tried again."""
        at = 0
        for column in plan.columns:
            found = ids[at : at + len(column.cells)]
            at += len(column.cells)
            if column.kind == "own":
                named = zip(self._own_leaves, found.tolist(), strict=True)
                self._own_ids = {self._names.own(leaf): id for leaf, id in named if id >= 0}
            else:
                self._ids[column.kind][column.cells] = np.maximum(found, UNKNOWN)

    # -- keys and ids by cell ----------------------------------------------------------------

    def _learn_keys(self, taken: Taken) -> None:
        """The keys of cells that are new, or another key's than before."""
        if not len(taken.fresh):
            return
        fresh, ends = taken.fresh.tolist(), taken.key_ends.tolist()
        self._keys += [""] * (max(fresh) + 1 - len(self._keys))
        begin = 0
        for cell, end in zip(fresh, ends, strict=True):
            self._keys[cell] = taken.key_bytes[begin:end].decode()
            begin = end
        self._numbers.learn({cell: self._keys[cell] for cell in fresh})
        for ids in self._ids.values():
            ids[taken.fresh[taken.fresh < len(ids)]] = UNKNOWN

    def _known(self, column: Column) -> Cells:
        ids = self._ids.get(column.kind)
        if ids is None or len(ids) < len(self._keys):
            grown = np.full(len(self._keys) * 5 // 4, UNKNOWN, np.int32)
            if ids is not None:
                grown[: len(ids)] = ids
            ids = self._ids[column.kind] = grown
        return ids[column.cells]

    def _made(self, kind: str, cells: list[int]) -> list[str]:
        if kind == "own":
            return [self._name(kind, cell) for cell in cells]
        default = self._settings.tagDefault
        return [with_tag_values(self._name(kind, cell), default) for cell in cells]

    def _name(self, kind: str, cell: int) -> str:
        names = self._names
        if kind == "own":
            return names.own(self._own_leaves[cell])
        key = self._keys[cell]
        if kind.startswith(TIMER):
            return names.timer(key, kind[len(TIMER) :])
        if kind == RATE:
            return names.rate(key)
        if kind == COUNT:
            return names.count(key)
        return names.gauge(key) if kind == GAUGE else names.set_size(key)

    # -- numbers -----------------------------------------------------------------------------

    def _all(self, taken: Taken) -> Iterator[Column]:
        cells, values = taken.counters
        yield Column(RATE, cells, values / self._settings.interval_s)
        if self._settings.flush_counts:
            yield Column(COUNT, cells, values)
        yield from self._of_timers(taken.timers)
        yield Column(GAUGE, *taken.gauges)
        cells, sizes, estimated = taken.sets
        self.estimated += int(estimated.sum())
        self.estimated_key = self._keys[cells[estimated][0]] if estimated.any() else ""
        yield Column(SET, cells, sizes)

    def _of_timers(self, timers: TakenTimers) -> Iterator[Column]:
        values = grouped(timers.log_cells, timers.log_values, timers.cells, timers.sizes)
        for name, at, numbers in self._numbers.columns(
            timers.cells, timers.weights, timers.sizes, values
        ):
            yield Column(TIMER + name, timers.cells[at], numbers)

    def _without_nan(self, column: Column) -> Column:
        known = ~np.isnan(column.values)
        if known.all():
            return column
        self._nans += int((~known).sum())
        return Column(column.kind, column.cells[known], column.values[known])


def _ms(seconds: float) -> float:
    """Whole milliseconds, as JavaScript's clock counts them."""
    return float(int(seconds * 1000))
