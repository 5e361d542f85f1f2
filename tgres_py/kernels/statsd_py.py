"""What statsd aggregates between two flushes: counters, gauges and timers by key; the pure twin of ``_statsd.pyx``."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# (keys, weights float64[n], sizes int64[n], values float64[sum of sizes], grouped by key in their order)
TimerColumns = tuple[list[str], Floats, NDArray[np.int64], Floats]


class _Timer:
    __slots__ = ("age", "values", "weight")

    def __init__(self) -> None:
        self.age = 0
        self.values = array("d")
        self.weight = 0.0


class StatsdCells:
    """One owner, one thread. ``keys_max``: keys, each type counted by itself; ``values_max``: timer values of one interval.

    ``refused_keys`` counts events of keys that found no room, ``refused_values`` timer values that didn't.
    """

    def __init__(self, keys_max: int, values_max: int) -> None:
        self.refused_keys = 0
        self.refused_values = 0
        self.keys = 0
        self._keys_max = keys_max
        self._values_max = values_max
        self._value_count = 0
        self._counters: dict[str, list[float]] = {}  # value, age in intervals
        self._gauges: dict[str, list[float]] = {}
        self._timers: dict[str, _Timer] = {}

    # -- events ------------------------------------------------------------------------------

    def _room(self) -> bool:
        if self.keys >= self._keys_max:
            self.refused_keys += 1
            return False
        self.keys += 1
        return True

    def count(self, key: str, amount: float) -> None:
        cell = self._counters.get(key)
        if cell is None:
            if self._room():
                self._counters[key] = [amount, 0]
            return
        cell[0] = cell[0] + amount if cell[0] == cell[0] else amount  # JavaScript: NaN is no value
        cell[1] = 0

    def gauge(self, key: str, value: float, signed: bool) -> None:
        """Sets a gauge; ``signed``: changes it, if it is there and neither 0 nor NaN."""
        cell = self._gauges.get(key)
        if cell is None:
            if self._room():
                self._gauges[key] = [value, 0]
            return
        before = cell[0]
        cell[0] = before + value if signed and before and before == before else value
        cell[1] = 0

    def time(self, key: str, value: float, weight: float) -> None:
        if self._value_count >= self._values_max:
            self.refused_values += 1
            return
        timer = self._timers.get(key)
        if timer is None:
            if not self._room():
                return
            timer = self._timers[key] = _Timer()
        timer.values.append(value)
        timer.weight += weight
        timer.age = 0
        self._value_count += 1

    def scan(self, data: bytes, start: int) -> tuple[int, int]:
        """(where it stopped, lines taken): takes plain lines of ``data`` from ``start`` on, up to one that isn't plain.

        This twin leaves all lines to the caller.
        """
        return start, 0

    # -- readings ----------------------------------------------------------------------------

    def counters(self) -> tuple[list[str], Floats]:
        cells = self._counters
        return list(cells), np.array([cell[0] for cell in cells.values()], np.float64)

    def gauges(self) -> tuple[list[str], Floats]:
        cells = self._gauges
        return list(cells), np.array([cell[0] for cell in cells.values()], np.float64)

    def timers(self) -> TimerColumns:
        timers = list(self._timers.values())
        sizes = np.array([len(timer.values) for timer in timers], np.int64)
        parts = [np.frombuffer(timer.values) for timer in timers if timer.values]
        return (
            list(self._timers),
            np.array([timer.weight for timer in timers], np.float64),
            sizes,
            np.concatenate(parts) if parts else np.empty(0),
        )

    def end_interval(
        self, counters_ttl: int, timers_ttl: int, gauges_ttl: int, kept: tuple[str, ...]
    ) -> None:
        """Counters and timers start again; what was idle for its ttl in intervals goes (ttl 0: nothing goes).

        Counters whose key contains one of ``kept`` never go.
        """
        for cells, ttl in ((self._counters, counters_ttl), (self._gauges, gauges_ttl)):
            counts = cells is self._counters
            for key, cell in list(cells.items()):
                cell[1] += 1
                if ttl and cell[1] >= ttl and not (counts and any(part in key for part in kept)):
                    del cells[key]
                    self.keys -= 1
                elif counts:
                    cell[0] = 0.0
        for key, timer in list(self._timers.items()):
            timer.age += 1
            if timers_ttl and timer.age >= timers_ttl:
                del self._timers[key]
                self.keys -= 1
            elif timer.values:
                timer.values = array("d")
            timer.weight = 0.0
        self._value_count = 0

    # -- deletions ---------------------------------------------------------------------------

    def delete_counter(self, key: str) -> bool:
        return self._deleted(self._counters.pop(key, None))

    def delete_gauge(self, key: str) -> bool:
        return self._deleted(self._gauges.pop(key, None))

    def delete_timer(self, key: str) -> bool:
        return self._deleted(self._timers.pop(key, None))

    def _deleted(self, cell: object) -> bool:
        self.keys -= cell is not None
        return cell is not None
