"""Rolling finer slots up into coarser ones, exactly as whisper 1.1.10 does (``aggregate``, ``__propagate``).

A coarser slot gets a value when at least one of its ``factor`` finer slots is known and
known / factor >= xFilesFactor. whisper keeps the xFilesFactor as a 32-bit float; so do we,
for 0.1 is a little more there: one known slot of ten is then not enough.

Sums are taken in the order of the slots, one addition after the other: the last bit equals that of
Python's sum() up to 3.11 (3.12 compensates). NaN is "unknown". Where whisper's arithmetic gives NaN (the sum of
inf and -inf) whisper stores a NaN that counts as known; here such a slot is unknown.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tgres_py.model.retention import Cf

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def known_min(factor: int, xff: float) -> int:
    """How many of ``factor`` finer slots must be known for a coarser one to get a value (at least 1)."""
    stored_xff = float(np.float32(xff))
    return next(known for known in range(1, factor + 1) if known / factor >= stored_xff)


def rollup(fine: Floats, factor: int, cf: Cf, xff: float) -> Floats:
    """Consolidates each ``factor`` rows of ``fine`` into one.

    ``fine``: float64 (n_slots, n_series), slot-major, first row at a multiple of the coarser step,
    NaN = unknown; the caller keeps it, it isn't changed. Rows beyond the last whole group are ignored.
    Returns float64 (n_slots // factor, n_series), NaN = unknown.
    """
    n_slots, n_series = fine.shape
    groups = n_slots // factor
    block = fine[: groups * factor].reshape(groups, factor, n_series)
    known = ~np.isnan(block)
    count = known.sum(axis=1)
    with np.errstate(all="ignore"):
        result = _RULES[cf](block, known, count)
    result[count < known_min(factor, xff)] = np.nan
    return result


def _sum(block: Floats, known: Bools, count: NDArray[np.intp]) -> Floats:
    # From 0.0 like Python's sum(), so that the sum of -0.0 is 0.0; adding 0.0 for an unknown changes nothing.
    total = np.zeros((block.shape[0], block.shape[2]))
    for j in range(block.shape[1]):
        total += np.where(known[:, j], block[:, j], 0.0)
    return total


def _average(block: Floats, known: Bools, count: NDArray[np.intp]) -> Floats:
    total = _sum(block, known, count)
    total /= count
    return total


def _avg_zero(block: Floats, known: Bools, count: NDArray[np.intp]) -> Floats:
    total = _sum(block, known, count)
    total /= block.shape[1]
    return total


def _last(block: Floats, known: Bools, count: NDArray[np.intp]) -> Floats:
    result = block[:, 0].copy()
    for j in range(1, block.shape[1]):
        np.copyto(result, block[:, j], where=known[:, j])
    return result


def _select(
    worse: Callable[[Floats, Floats], Bools], key: Callable[[Floats], Floats]
) -> Callable[[Floats, Bools, NDArray[np.intp]], Floats]:
    """The first known value that no other beats by ``key``: the tie rule of Python's max() and min().

    ``worse(a, b)``: a can't replace b. It is False for NaN, so that the first known value is taken.
    """

    def rule(block: Floats, known: Bools, count: NDArray[np.intp]) -> Floats:
        result = block[:, 0].copy()
        for j in range(1, block.shape[1]):
            value = block[:, j]
            np.copyto(result, value, where=known[:, j] & ~worse(key(value), key(result)))
        return result

    return rule


def _median(block: Floats, known: Bools, count: NDArray[np.intp]) -> Floats:
    """The middle known value, or the mean of the two in the middle (finite where both are)."""
    ordered = np.sort(block, axis=1)  # NaN last
    lower = np.maximum((count - 1) // 2, 0)[:, None]
    upper = np.minimum(count // 2, block.shape[1] - 1)[:, None]
    low = np.take_along_axis(ordered, lower, axis=1)[:, 0]
    high = np.take_along_axis(ordered, upper, axis=1)[:, 0]
    mean = (low + high) / 2
    middle: Floats = np.where(np.isinf(mean), low / 2 + high / 2, mean)  # halves don't overflow
    return middle


def _same(values: Floats) -> Floats:
    return values


_RULES: dict[Cf, Callable[[Floats, Bools, NDArray[np.intp]], Floats]] = {
    Cf.AVERAGE: _average,
    Cf.SUM: _sum,
    Cf.LAST: _last,
    Cf.MAX: _select(np.less_equal, _same),
    Cf.MIN: _select(np.greater_equal, _same),
    Cf.AVG_ZERO: _avg_zero,
    Cf.ABSMAX: _select(np.less_equal, np.abs),
    Cf.ABSMIN: _select(np.greater_equal, np.abs),
    Cf.MEDIAN: _median,
}
