"""The numbers of timers: all timers of a flush together, on matrices.

Timers of about the same number of values form one matrix (a row each, filled up with infinity at the end to a power of two), so
that a flush is a few sorts and running sums, be it ten thousand timers or one with a million values.

Rules of lib/process_metrics.js of npm statsd 0.9.0: n values, sorted; percentile p takes k = round half up(|p| / 100 * n) of
them, the first k for p > 0, the last k else; n = 1: k = 1; k = 0: p has no numbers. What JavaScript reads beyond the ends
(p > 100, p <= -100) is undefined: the sums are NaN or don't appear, which comes to nothing in the store.
Standard deviation of the population; sums in order of the sorted values, as there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from tgres_py.kernels.statsd import filled_rows, running_sums, square_deviations
from tgres_py.statsd.js import number_text
from tgres_py.statsd.settings import HistogramRule

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Column = tuple[str, Ints, Floats]
"""(name after the key, positions of timers int64 (n,), values float64 (n,))."""

CELLS_MAX = 1 << 22  # of one matrix, unless one timer has more
NO_RULE = -1
_PERCENT = re.compile(r"_(top)?[0-9]+$")


class TimerNumbers:
    """Works out the numbers that the settings ask for."""

    def __init__(
        self,
        percentiles: tuple[float, ...],
        histogram: tuple[HistogramRule, ...],
        wanted: tuple[str, ...],
        interval_s: float,
    ) -> None:
        self._percentiles = [
            (p, number_text(p).replace(".", "_", 1).replace("-", "top", 1)) for p in percentiles
        ]
        self._histogram = histogram
        self._rules = np.empty(0, np.int32)  # by cell
        self._wanted = frozenset(wanted)
        self._interval_s = interval_s

    def takes(self, name: str) -> bool:
        """Whether calculatedTimerMetrics lets a number through: upper_90 is called upper_percent there."""
        return not self._wanted or _PERCENT.sub("_percent", name, count=1) in self._wanted

    def learn(self, keys: Mapping[int, str]) -> None:
        """Chooses bins for new keys by cell: those of the first rule whose text is in the key."""
        if not (self._histogram and keys):
            return
        grow = max(keys) + 1 - len(self._rules)
        if grow > 0:
            self._rules = np.concatenate([self._rules, np.full(2 * grow, NO_RULE, np.int32)])
        for cell, key in keys.items():
            found = (i for i, rule in enumerate(self._histogram) if rule.metric in key)
            self._rules[cell] = next(found, NO_RULE)

    def columns(
        self, cells: NDArray[np.int32], weights: Floats, sizes: Ints, values: Floats
    ) -> Iterator[Column]:
        """All numbers of all timers. ``values``: grouped by timer, ``sizes`` of them each; not changed."""
        for name, at, numbers in self._all(cells, weights, sizes, values):
            if len(at) and self.takes(name.partition(".")[0]):
                yield name, at, numbers

    def _all(
        self, cells: NDArray[np.int32], weights: Floats, sizes: Ints, values: Floats
    ) -> Iterator[Column]:
        starts = np.cumsum(sizes) - sizes
        for at, width in _batches(sizes):
            sorted_ = filled_rows(values, starts[at], sizes[at], width)
            sorted_.sort(axis=1)
            yield from self._batch(at, sizes[at], sorted_)
            if self._histogram:
                yield from self._bins(at, self._rules[cells[at]], sizes[at], sorted_)
        everywhere = np.arange(len(cells))
        yield "count", everywhere, weights
        yield "count_ps", everywhere, weights / self._interval_s

    def _batch(self, at: Ints, n: Ints, sorted_: Floats) -> Iterator[Column]:
        rows = np.arange(len(at))
        taken = [_taken(percentile, n) for percentile, _ in self._percentiles]
        sums, squares = running_sums(sorted_, _ends(self._percentiles, taken, n))
        total, square = sums[:, 0], squares[:, 0]
        with np.errstate(invalid="ignore", over="ignore"):
            for i, (percentile, label) in enumerate(self._percentiles):
                part = sums[:, i + 1], squares[:, i + 1]
                if percentile <= 0:  # what is above the end
                    part = total - part[0], square - part[1]
                yield from _percentile(percentile > 0, label, at, n, taken[i], sorted_, *part)
            mean = total / n
            yield "std", at, np.sqrt(square_deviations(sorted_, n, mean) / n)
            yield "upper", at, sorted_[rows, n - 1]
            yield "lower", at, sorted_[:, 0]
            yield "sum", at, total
            yield "sum_squares", at, square
            yield "mean", at, mean
            middle = sorted_[rows, n // 2]
            even = (sorted_[rows, np.maximum(n // 2 - 1, 0)] + middle) / 2
            yield "median", at, np.where(n % 2 == 1, middle, even)

    def _bins(
        self, at: Ints, rules: NDArray[np.int32], n: Ints, sorted_: Floats
    ) -> Iterator[Column]:
        """How many values fall between each bin and the one before."""
        for number, rule in enumerate(self._histogram):
            rows = np.flatnonzero(rules == number)
            taken = np.zeros(len(rows), np.int64)
            for bound in rule.bins if len(rows) else ():
                inf = bound == np.inf
                upto = n[rows] if inf else np.count_nonzero(sorted_[rows] < bound, axis=1)
                label = "inf" if inf else number_text(bound).replace(".", "_", 1)
                yield f"histogram.bin_{label}", at[rows], np.maximum(upto - taken, 0).astype(float)
                taken = np.maximum(taken, upto)


def _batches(sizes: Ints) -> Iterator[tuple[Ints, int]]:
    """Positions of timers that share a matrix, and its width; timers without values are in none."""
    if not len(sizes):
        return
    exponents = np.where(sizes > 0, np.ceil(np.log2(np.maximum(sizes, 1))), -1).astype(np.int64)
    for exponent in np.unique(exponents[exponents >= 0]).tolist():
        width = 1 << exponent
        at = np.flatnonzero(exponents == exponent)
        rows = max(1, CELLS_MAX // width)
        for first in range(0, len(at), rows):
            part = at[first : first + rows]
            yield part, int(sizes[part].max())


def _taken(percentile: float, n: Ints) -> Ints:
    """How many of the values a percentile takes; 0: it has no numbers."""
    return np.where(n > 1, np.floor(abs(percentile) / 100 * n + 0.5), 1).astype(np.int64)


def _ends(percentiles: list[tuple[float, str]], taken: list[Ints], n: Ints) -> Ints:
    """How many values the running sums have to be known of: all, then up to where each percentile's part ends or begins."""
    ends = [n]
    for (percentile, _), k in zip(percentiles, taken, strict=True):
        ends.append(np.minimum(k, n) if percentile > 0 else np.maximum(n - k, 0))
    return np.ascontiguousarray(np.stack(ends, axis=1))


def _percentile(
    lowest: bool,
    label: str,
    at: Ints,
    n: Ints,
    k: Ints,
    sorted_: Floats,
    total: Floats,
    square: Floats,
) -> Iterator[Column]:
    """``k`` of the values, the lowest or the highest of them; ``total``, ``square``: their sums."""
    rows = np.flatnonzero(k > 0)
    at, n, k, total, square = at[rows], n[rows], k[rows], total[rows], square[rows]
    edge = np.minimum(k, n) - 1 if lowest else np.maximum(n - k, 0)
    # the sum before the first value is undefined, but a single value is taken as it is
    inside = k <= n if lowest else (k < n) | (n == 1)
    bounded = k <= n
    yield f"count_{label}", at, k.astype(np.float64)
    yield f"{'upper' if lowest else 'lower'}_{label}", at[bounded], sorted_[rows, edge][bounded]
    at, k, total, square = at[inside], k[inside], total[inside], square[inside]
    yield f"mean_{label}", at, total / k
    yield f"sum_{label}", at, total
    yield f"sum_squares_{label}", at, square
