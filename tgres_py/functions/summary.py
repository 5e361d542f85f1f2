"""One number for each series of a block, by which series are filtered, sorted and described."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tgres_py.errors import BadRequest
from tgres_py.functions.aggregation import AGGREGATE_ALIASES, Array, reduce_known, reducer
from tgres_py.functions.series import Matrix, SeriesBlock

Numbers = NDArray[np.float64]


def each_series(block: SeriesBlock, func: str) -> Numbers:
    """``func`` over the values of each series: (n,), NaN = none.

    As graphite-web: of a series without values ``count`` and ``avg_zero`` are 0, the others unknown;
    sums are added one after another, so that the last digit, which is shown and sorted by, is its.
    BadRequest: unknown function.
    """
    name = AGGREGATE_ALIASES.get(func, func)
    function = reducer(func)
    in_order = _IN_ORDER.get(name)
    numbers = by_part(block, in_order or (lambda values: reduce_known(function, values, 1, 0.0)))
    if name in ("count", "avg_zero"):
        return np.nan_to_num(numbers, nan=0.0, posinf=math.inf, neginf=-math.inf)
    return numbers


def by_part(block: SeriesBlock, compute: Callable[[Matrix], Array]) -> Numbers:
    """``compute`` makes (k,) of the (k, slots) values of a part; together (n,), in order."""
    out = np.full(len(block), np.nan)
    for part in block.parts:
        out[part.index] = compute(part.values)
    return out


def _sum_in_order(values: Matrix) -> Numbers:
    known = ~np.isnan(values)
    if not values.shape[1]:
        return np.full(len(values), np.nan)
    total: Numbers = np.add.accumulate(np.where(known, values, 0.0), axis=1)[:, -1]
    return np.where(known.any(axis=1), total, np.nan)


def _average_in_order(values: Matrix) -> Numbers:
    count = np.count_nonzero(~np.isnan(values), axis=1)
    out: Numbers = _sum_in_order(values) / np.maximum(count, 1)
    return out


def _avg_zero_in_order(values: Matrix) -> Numbers:
    out: Numbers = np.nan_to_num(_sum_in_order(values), nan=0.0) / max(values.shape[1], 1)
    return out


def _stddev_in_order(values: Matrix) -> Numbers:
    away = values - _average_in_order(values)[:, None]
    return np.sqrt(_average_in_order(away * away))


def _diff_in_order(values: Matrix) -> Numbers:
    first = (~np.isnan(values)).argmax(axis=1) if values.shape[1] else 0
    signed = np.where(np.arange(values.shape[1]) == np.reshape(first, (-1, 1)), values, -values)
    return _sum_in_order(signed)


_IN_ORDER: dict[str, Callable[[Matrix], Numbers]] = {
    "average": _average_in_order,
    "avg_zero": _avg_zero_in_order,
    "diff": _diff_in_order,
    "stddev": _stddev_in_order,
    "sum": _sum_in_order,
}


def keys(numbers: Numbers) -> Numbers:
    """For sorting: unknown goes below all numbers."""
    return np.where(np.isnan(numbers), -math.inf, numbers)


def order_of(numbers: Numbers, reverse: bool = False) -> list[int]:
    """Places in ascending order of their keys; equal ones keep theirs, with ``reverse`` too."""
    sorting = keys(numbers)
    order: list[int] = np.argsort(-sorting if reverse else sorting, kind="stable").tolist()
    return order


def column_percentiles(
    values: Matrix, n: float, interpolate: bool = False, strict: bool = True
) -> Numbers:
    """graphite-web's n-th percentile of the known values of each column of (k, slots): (slots,).

    Rank n/100 * (known + 1), rounded up unless interpolated; beside the values it is the first or
    the last. Further out there is none: BadRequest, or unknown unless ``strict`` (both as there).
    """
    known = np.count_nonzero(~np.isnan(values), axis=0)
    ordered = np.sort(values, axis=0)  # NaN goes last
    exact = n / 100.0 * (known + 1)
    rank = np.floor(exact).astype(np.int64)
    fraction = exact - rank
    if not interpolate:
        rank += np.ceil(fraction).astype(np.int64)
    some = known > 0
    last = known if interpolate else known + 1
    inside = (rank >= 0) & (rank <= last)
    if strict and (some & ~inside).any():
        raise BadRequest(f"target: the {n:g}th percentile lies outside of the values")
    columns = np.arange(values.shape[1])
    place = np.clip(rank - 1, 0, np.maximum(known - 1, 0))
    out = ordered[place, columns]
    if interpolate:
        following = ordered[np.clip(rank, 0, np.maximum(known - 1, 0)), columns]
        out = np.where(rank < known, out + fraction * (following - out), out)
    return np.where(some & inside, out, np.nan)
