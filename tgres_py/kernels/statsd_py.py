"""What statsd aggregates between two flushes: counters, gauges, timers and sets by key; the pure twin of ``_statsd.pyx``.

Each key has a cell, a small number that stays its own until nothing of the key is left; then another key may get it. ``take``
ends an interval: what it held goes to the caller, as arrays that any thread may work on, and the next one begins.

Sets keep 64-bit hashes of their members. Beyond ``set_max`` of them, those whose lowest ``level`` bits aren't all 0 are forgotten,
one bit more each time; the size is then what is left times 2**level (adaptive sampling, Wegman; Flajolet 1990), with a standard
error of about 1.2/sqrt(set_max): 0.4 % at 100,000.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Cells = NDArray[np.int32]
Sizes = NDArray[np.int64]

KEY_BYTES = 300  # measured: a text and its places, and the list of a counter
MEMBER_BYTES = 100  # of a set: its hash and its place


class TakenTimers(NamedTuple):
    """``weights``, ``sizes`` (n,) belong to ``cells``; ``log_cells``, ``log_values``: all values in order of arrival.

    A cell of -1 in the log: the timer was deleted.
    """

    cells: Cells
    weights: Floats
    sizes: Sizes
    log_cells: Cells
    log_values: Floats


class Taken(NamedTuple):
    """What an interval held; all of it belongs to the caller.

    ``fresh``: cells that got a key in it; their keys lie in ``key_bytes``, one after the other, and end at ``key_ends``.
    ``counters``, ``gauges``: (cells, values); ``sets``: (cells, sizes, which of them are estimates).
    """

    fresh: Cells
    key_bytes: bytes
    key_ends: Sizes
    counters: tuple[Cells, Floats]
    gauges: tuple[Cells, Floats]
    timers: TakenTimers
    sets: tuple[Cells, Floats, NDArray[np.bool_]]


class _Timer:
    __slots__ = ("age", "size", "weight")

    def __init__(self) -> None:
        self.age = 0
        self.size = 0
        self.weight = 0.0


class _Members:
    __slots__ = ("age", "hashes", "level")

    def __init__(self) -> None:
        self.age = 0
        self.hashes: set[int] = set()
        self.level = 0


class StatsdCells:
    """One owner, one thread. The limits may be changed at any time.

    ``keys_max``: keys, each type counted by itself; of one interval: ``values_max`` values of all timers, ``set_max`` members that
    a set keeps, ``members_max`` members of all sets. Counters whose key contains one of ``kept`` never go.

    ``refused_keys`` counts events of keys that found no room, ``refused_values`` timer values and ``refused_members``
    members that didn't.
    """

    def __init__(
        self,
        keys_max: int,
        values_max: int,
        set_max: int,
        members_max: int,
        kept: tuple[str, ...] = (),
    ) -> None:
        self.refused_keys = 0
        self.refused_values = 0
        self.refused_members = 0
        self.keys = 0
        self.keys_max = keys_max
        self.values_max = values_max
        self.set_max = set_max
        self.members_max = members_max
        self._members = 0
        self._kept = kept
        self._cells: dict[str, int] = {}
        self._spare: list[int] = []
        self._fresh: dict[str, int] = {}
        self._counters: dict[str, list[float]] = {}  # value, age in intervals
        self._gauges: dict[str, list[float]] = {}
        self._timers: dict[str, _Timer] = {}
        self._sets: dict[str, _Members] = {}
        self._log_cells = array("i")
        self._log_values = array("d")

    @property
    def bytes_used(self) -> int:
        """Memory of keys and of the interval's values, about."""
        values = (self._log_cells.itemsize + self._log_values.itemsize) * len(self._log_cells)
        return self.keys_bytes + self.members_bytes + values

    @property
    def keys_bytes(self) -> int:
        return KEY_BYTES * self.keys

    @property
    def values_held(self) -> int:
        """Of all timers, since the last take."""
        return len(self._log_cells)

    @property
    def members_bytes(self) -> int:
        """Memory of the members of all sets, about."""
        return MEMBER_BYTES * self._members

    # -- events ------------------------------------------------------------------------------

    def _cell(self, key: str) -> int:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._spare.pop() if self._spare else len(self._cells)
            self._cells[key] = self._fresh[key] = cell
        return cell

    def _room(self, key: str) -> bool:
        if self.keys >= self.keys_max:
            self.refused_keys += 1
            return False
        self.keys += 1
        self._cell(key)
        return True

    def count(self, key: str, amount: float) -> None:
        cell = self._counters.get(key)
        if cell is None:
            if self._room(key):
                self._counters[key] = [amount, 0]
            return
        cell[0] = cell[0] + amount if cell[0] == cell[0] else amount  # JavaScript: NaN is no value
        cell[1] = 0

    def gauge(self, key: str, value: float, signed: bool) -> None:
        """Sets a gauge; ``signed``: changes it, if it is there and neither 0 nor NaN."""
        cell = self._gauges.get(key)
        if cell is None:
            if self._room(key):
                self._gauges[key] = [value, 0]
            return
        before = cell[0]
        cell[0] = before + value if signed and before and before == before else value
        cell[1] = 0

    def time(self, key: str, value: float, weight: float) -> None:
        if len(self._log_values) >= self.values_max:
            self.refused_values += 1
            return
        timer = self._timers.get(key)
        if timer is None:
            if not self._room(key):
                return
            timer = self._timers[key] = _Timer()
        timer.weight += weight
        timer.size += 1
        timer.age = 0
        self._log_cells.append(self._cells[key])
        self._log_values.append(value)

    def member(self, key: str, member: str) -> None:
        of = self._sets.get(key)
        if of is None:
            if not self._room(key):
                return
            of = self._sets[key] = _Members()
        of.age = 0
        number = hash(member)  # seeded anew for each process: nobody can send members that collide
        if number & ((1 << of.level) - 1) or number in of.hashes:
            return
        if self._members >= self.members_max:
            self.refused_members += 1
            return
        of.hashes.add(number)
        self._members += 1
        while len(of.hashes) > self.set_max:
            of.level += 1
            low = (1 << of.level) - 1
            self._members -= len(of.hashes)
            of.hashes = {kept for kept in of.hashes if not kept & low}
            self._members += len(of.hashes)

    def scan(self, data: bytes, start: int) -> tuple[int, int]:
        """(where it stopped, lines taken): takes plain lines of ``data`` from ``start`` on, up to one that isn't plain.

        This twin leaves all lines to the caller.
        """
        return start, 0

    # -- the end of an interval --------------------------------------------------------------

    def take(self, counters_ttl: int, timers_ttl: int, gauges_ttl: int, sets_ttl: int) -> Taken:
        """What the interval held; then counters, timers and sets start again.

        What was idle for its ttl in intervals goes (ttl 0: nothing goes).
        """
        keys = [key.encode() for key in self._fresh]
        taken = Taken(
            np.array(list(self._fresh.values()), np.int32),
            b"".join(keys),
            np.cumsum([len(key) for key in keys], dtype=np.int64),
            self._columns(self._counters),
            self._columns(self._gauges),
            self._taken_timers(),
            (
                self._cells_of(self._sets),
                np.array([len(of.hashes) << of.level for of in self._sets.values()], np.float64),
                np.array([of.level > 0 for of in self._sets.values()], np.bool_),
            ),
        )
        self._fresh = {}
        self._end_counts(counters_ttl, gauges_ttl)
        self._end_values(timers_ttl, sets_ttl)
        for key in [key for key in self._cells if not self._is_live(key)]:
            self._spare.append(self._cells.pop(key))
        return taken

    def _cells_of(
        self, keys: dict[str, _Timer] | dict[str, _Members] | dict[str, list[float]]
    ) -> Cells:
        return np.fromiter((self._cells[key] for key in keys), np.int32, len(keys))

    def _columns(self, of: dict[str, list[float]]) -> tuple[Cells, Floats]:
        return self._cells_of(of), np.array([cell[0] for cell in of.values()], np.float64)

    def _taken_timers(self) -> TakenTimers:
        timers = self._timers.values()
        return TakenTimers(
            self._cells_of(self._timers),
            np.array([timer.weight for timer in timers], np.float64),
            np.array([timer.size for timer in timers], np.int64),
            np.array(self._log_cells, np.int32),
            np.array(self._log_values, np.float64),
        )

    def _end_counts(self, counters_ttl: int, gauges_ttl: int) -> None:
        for cells, ttl in ((self._counters, counters_ttl), (self._gauges, gauges_ttl)):
            counts = cells is self._counters
            for key, cell in list(cells.items()):
                cell[1] += 1
                kept = counts and any(part in key for part in self._kept)
                if ttl and cell[1] >= ttl and not kept:
                    del cells[key]
                    self.keys -= 1
                elif counts:
                    cell[0] = 0.0

    def _end_values(self, timers_ttl: int, sets_ttl: int) -> None:
        for key, timer in list(self._timers.items()):
            timer.age += 1
            if timers_ttl and timer.age >= timers_ttl:
                del self._timers[key]
                self.keys -= 1
            timer.weight = 0.0
            timer.size = 0
        for key, of in list(self._sets.items()):
            of.age += 1
            if sets_ttl and of.age >= sets_ttl:
                del self._sets[key]
                self.keys -= 1
            of.hashes, of.level = set(), 0
        self._members = 0
        self._log_cells, self._log_values = array("i"), array("d")

    def _is_live(self, key: str) -> bool:
        kinds = (self._counters, self._gauges, self._timers, self._sets)
        return any(key in of for of in kinds)

    # -- readings ----------------------------------------------------------------------------

    def counters(self) -> dict[str, float]:
        """In the order in which they came, as the others."""
        return {key: cell[0] for key, cell in self._counters.items()}

    def gauges(self) -> dict[str, float]:
        return {key: cell[0] for key, cell in self._gauges.items()}

    def timers(self) -> dict[str, list[float]]:
        """The values of this interval, in order of arrival."""
        values: dict[int, list[float]] = {self._cells[key]: [] for key in self._timers}
        for cell, value in zip(self._log_cells, self._log_values, strict=True):
            if cell >= 0:
                values[cell].append(value)
        return {key: values[self._cells[key]] for key in self._timers}

    # -- deletions ---------------------------------------------------------------------------

    def delete_counter(self, key: str) -> bool:
        """False when there is no such counter."""
        return self._deleted(self._counters.pop(key, None))

    def delete_gauge(self, key: str) -> bool:
        return self._deleted(self._gauges.pop(key, None))

    def delete_timer(self, key: str) -> bool:
        if not self._deleted(self._timers.pop(key, None)):
            return False
        gone = self._cells[key]
        for place, cell in enumerate(self._log_cells):
            if cell == gone:
                self._log_cells[place] = -1
        return True

    def _deleted(self, cell: object) -> bool:
        self.keys -= cell is not None
        return cell is not None


def grouped(cells: Cells, values: Floats, timers: Cells, sizes: Sizes) -> Floats:
    """The values of a log by timer, ``sizes`` of them each, in order of arrival within one."""
    place = np.full(int(max(cells.max(initial=-1), timers.max(initial=-1))) + 1, -1, np.int64)
    place[timers] = np.arange(len(timers))
    kept = np.flatnonzero(cells >= 0)
    order = np.argsort(place[cells[kept]], kind="stable")
    return values[kept][order]


def filled_rows(values: Floats, starts: Sizes, sizes: Sizes, width: int) -> Floats:
    """A row for each part of ``values``, filled up with infinity to ``width``: float64 (n, width), the caller's own."""
    rows = np.full((len(starts), width), np.inf)
    for row, start, size in zip(rows, starts.tolist(), sizes.tolist(), strict=True):
        row[:size] = values[start : start + size]
    return rows


def running_sums(rows: Floats, counts: Sizes) -> tuple[Floats, Floats]:
    """Sums of the first so many values of each row, and of their squares, added up in order.

    ``counts``: int64 (n, m), up to the width of ``rows``; both results are float64 (n, m).
    """
    with np.errstate(invalid="ignore", over="ignore"):
        sums, squares = np.cumsum(rows, axis=1), np.cumsum(rows * rows, axis=1)
    last = np.maximum(counts - 1, 0)
    found = (np.take_along_axis(of, last, axis=1) for of in (sums, squares))
    total, square = (np.where(counts > 0, of, 0.0) for of in found)
    return total, square


def square_deviations(rows: Floats, sizes: Sizes, means: Floats) -> Floats:
    """Of each row's first ``sizes`` values: the squares of their differences from the mean, added up in order."""
    inside = np.arange(rows.shape[1]) < sizes[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.where(inside, rows - means[:, None], 0.0)
        total: Floats = np.cumsum(off * off, axis=1)[:, -1]
    return total
