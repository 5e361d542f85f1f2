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
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tgres_py.statsd.js import number_text
from tgres_py.statsd.settings import HistogramRule

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Column = tuple[str, Ints, Floats]
"""(name after the key, positions of timers int64 (n,), values float64 (n,))."""

CELLS_MAX = 1 << 22  # of one matrix, unless one timer has more
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
        self._wanted = frozenset(wanted)
        self._interval_s = interval_s

    def takes(self, name: str) -> bool:
        """Whether calculatedTimerMetrics lets a number through: upper_90 is called upper_percent there."""
        return not self._wanted or _PERCENT.sub("_percent", name, count=1) in self._wanted

    def columns(
        self, keys: list[str], weights: Floats, sizes: Ints, values: Floats
    ) -> Iterator[Column]:
        """All numbers of all timers. ``values``: grouped by timer, ``sizes`` of them each; not changed."""
        for name, at, numbers in self._all(keys, weights, sizes, values):
            if len(at) and self.takes(name.partition(".")[0]):
                yield name, at, numbers

    def _all(
        self, keys: list[str], weights: Floats, sizes: Ints, values: Floats
    ) -> Iterator[Column]:
        starts = np.cumsum(sizes) - sizes
        for at, width in _batches(sizes):
            yield from self._batch(at, width, starts[at], sizes[at], values)
            if self._histogram:
                yield from self._bins(at, keys, starts[at], sizes[at], values)
        everywhere = np.arange(len(keys))
        yield "count", everywhere, weights
        yield "count_ps", everywhere, weights / self._interval_s

    def _batch(
        self, at: Ints, width: int, starts: Ints, sizes: Ints, values: Floats
    ) -> Iterator[Column]:
        n = sizes
        sorted_, inside = _matrix(width, starts, sizes, values)
        rows = np.arange(len(at))
        with np.errstate(invalid="ignore", over="ignore"):
            sums = np.cumsum(sorted_, axis=1)
            squares = np.cumsum(sorted_ * sorted_, axis=1)
            for percentile, label in self._percentiles:
                yield from _percentile(percentile, label, at, n, sorted_, sums, squares)
            total = sums[rows, n - 1]
            mean = total / n
            off = np.where(inside, sorted_ - mean[:, None], 0.0)
            yield "std", at, np.sqrt(np.cumsum(off * off, axis=1)[:, -1] / n)
            yield "upper", at, sorted_[rows, n - 1]
            yield "lower", at, sorted_[:, 0]
            yield "sum", at, total
            yield "sum_squares", at, squares[rows, n - 1]
            yield "mean", at, mean
            middle = sorted_[rows, n // 2]
            even = (sorted_[rows, np.maximum(n // 2 - 1, 0)] + middle) / 2
            yield "median", at, np.where(n % 2 == 1, middle, even)

    def _bins(
        self, at: Ints, keys: list[str], starts: Ints, sizes: Ints, values: Floats
    ) -> Iterator[Column]:
        """How many values fall between each bin and the one before; the first rule whose text is in the key."""
        for position, start, size in zip(at.tolist(), starts.tolist(), sizes.tolist(), strict=True):
            rule = next((r for r in self._histogram if r.metric in keys[position]), None)
            if rule is None:
                continue
            sorted_ = np.sort(values[start : start + size])
            taken = 0
            for bound in rule.bins:
                inf = bound == np.inf
                upto = size if inf else int(np.searchsorted(sorted_, bound, "left"))
                label = "inf" if inf else number_text(bound).replace(".", "_", 1)
                name = f"histogram.bin_{label}"
                yield name, np.array([position]), np.array([max(0, upto - taken)], np.float64)
                taken = max(taken, upto)


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


def _matrix(
    width: int, starts: Ints, sizes: Ints, values: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """(values sorted by row float64 (rows, width), which cells hold a value)."""
    columns = np.arange(width)
    inside = columns < sizes[:, None]
    sources = np.minimum(starts[:, None] + columns, len(values) - 1)
    sorted_ = np.where(inside, values[sources], np.inf)
    sorted_.sort(axis=1)
    return sorted_, inside


def _percentile(
    percentile: float,
    label: str,
    at: Ints,
    n: Ints,
    sorted_: Floats,
    sums: Floats,
    squares: Floats,
) -> Iterator[Column]:
    k = np.where(n > 1, np.floor(abs(percentile) / 100 * n + 0.5), 1).astype(np.int64)
    rows = np.flatnonzero(k > 0)
    at, n, k = at[rows], n[rows], k[rows]
    single = n == 1
    if percentile > 0:
        inside = k <= n
        edge = np.minimum(k, n) - 1
        bound, total, square = sorted_[rows, edge], sums[rows, edge], squares[rows, edge]
        side = "upper_"
    else:
        inside = (k < n) | single  # the sum before the first value is undefined
        before = np.where(inside & ~single, n - k - 1, 0)
        bound = sorted_[rows, np.maximum(n - k, 0)]
        total = sums[rows, n - 1] - np.where(single, 0.0, sums[rows, before])
        square = squares[rows, n - 1] - np.where(single, 0.0, squares[rows, before])
        side = "lower_"
    yield f"count_{label}", at, k.astype(np.float64)
    bounded = k <= n
    yield f"{side}{label}", at[bounded], bound[bounded]
    at, k, total, square = at[inside], k[inside], total[inside], square[inside]
    yield f"mean_{label}", at, total / k
    yield f"sum_{label}", at, total
    yield f"sum_squares_{label}", at, square
