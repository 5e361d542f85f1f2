"""Reducing an axis of an array with holes: Graphite's aggregation functions, and xFilesFactor.

NaN is "no value". Arrays are float64 of any shape; ``axis`` is reduced. ``sizes`` (broadcasting
against the result) is the number of cells that really belong to a reduced group when groups are
padded with NaN; None: the whole axis. Source: graphite-web 1.1.10, aggFuncs and the consolidation
of its TimeSeries.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tgres_py.errors import BadRequest

Array = NDArray[np.float64]
Sizes = NDArray[np.int64] | int
Reducer = Callable[[Array, int, Sizes], Array]


def _known(values: Array) -> NDArray[np.bool_]:
    return ~np.isnan(values)


def _count(values: Array, axis: int, sizes: Sizes) -> Array:
    out: Array = np.count_nonzero(_known(values), axis=axis).astype(np.float64)
    return out


def _sum(values: Array, axis: int, sizes: Sizes) -> Array:
    known = _known(values)
    total: Array = np.add.reduce(values, axis=axis, where=known, initial=0.0)
    return np.where(known.any(axis=axis), total, np.nan)


def _average(values: Array, axis: int, sizes: Sizes) -> Array:
    return _sum(values, axis, sizes) / np.maximum(_count(values, axis, sizes), 1)


def _avg_zero(values: Array, axis: int, sizes: Sizes) -> Array:
    return _sum(values, axis, sizes) / sizes


def _min(values: Array, axis: int, sizes: Sizes) -> Array:
    out: Array = np.fmin.reduce(values, axis=axis)
    return out


def _max(values: Array, axis: int, sizes: Sizes) -> Array:
    out: Array = np.fmax.reduce(values, axis=axis)
    return out


def _range(values: Array, axis: int, sizes: Sizes) -> Array:
    return _max(values, axis, sizes) - _min(values, axis, sizes)


def _pick(values: Array, axis: int, places: NDArray[np.intp]) -> Array:
    out: Array = np.take_along_axis(values, np.expand_dims(places, axis), axis).squeeze(axis)
    return out


def _first(values: Array, axis: int, sizes: Sizes) -> Array:
    return _pick(values, axis, _known(values).argmax(axis=axis))


def _last(values: Array, axis: int, sizes: Sizes) -> Array:
    backwards = np.flip(values, axis)
    return _pick(backwards, axis, _known(backwards).argmax(axis=axis))


def _diff(values: Array, axis: int, sizes: Sizes) -> Array:
    return 2 * _first(values, axis, sizes) - _sum(values, axis, sizes)


def _multiply(values: Array, axis: int, sizes: Sizes) -> Array:
    known = _known(values)
    product: Array = np.multiply.reduce(values, axis=axis, where=known, initial=1.0)
    return np.where(np.count_nonzero(known, axis=axis) == sizes, product, np.nan)


def _median(values: Array, axis: int, sizes: Sizes) -> Array:
    ordered = np.sort(values, axis=axis)  # NaN goes last
    count = np.count_nonzero(_known(values), axis=axis)
    low = np.maximum((count - 1) // 2, 0)
    return (
        _pick(ordered, axis, low)
        + _pick(ordered, axis, np.minimum(count // 2, values.shape[axis] - 1))
    ) / 2


def _stddev(values: Array, axis: int, sizes: Sizes) -> Array:
    away = values - np.expand_dims(_average(values, axis, sizes), axis)
    return np.sqrt(_average(away * away, axis, sizes))


def _absmax(values: Array, axis: int, sizes: Sizes) -> Array:
    return _pick(values, axis, np.where(_known(values), np.abs(values), -1.0).argmax(axis=axis))


def _absmin(values: Array, axis: int, sizes: Sizes) -> Array:
    far = np.where(_known(values), np.abs(values), math.inf)
    return _pick(values, axis, far.argmin(axis=axis))


AGGREGATES: dict[str, Reducer] = {
    "average": _average,
    "avg_zero": _avg_zero,
    "count": _count,
    "diff": _diff,
    "last": _last,
    "max": _max,
    "median": _median,
    "min": _min,
    "multiply": _multiply,
    "range": _range,
    "stddev": _stddev,
    "sum": _sum,
}
AGGREGATE_ALIASES = {"avg": "average", "current": "last", "rangeOf": "range", "total": "sum"}
AGGREGATE_NAMES = tuple(sorted([*AGGREGATES, *AGGREGATE_ALIASES]))

CONSOLIDATORS: dict[str, Reducer] = {
    "average": _average,
    "avg": _average,
    "avg_zero": _avg_zero,
    "first": _first,
    "last": _last,
    "max": _max,
    "min": _min,
    "sum": _sum,
}
CONSOLIDATOR_NAMES = tuple(sorted(CONSOLIDATORS))
# what a series' own rollup function may be besides; not offered in consolidateBy (graphite-web has
# none of them)
_STORED_CONSOLIDATORS: dict[str, Reducer] = {
    "absmax": _absmax,
    "absmin": _absmin,
    "median": _median,
}


def reducer(name: str) -> Reducer:
    """The aggregation function of that name; BadRequest when there is none."""
    found = AGGREGATES.get(AGGREGATE_ALIASES.get(name, name))
    if found is None:
        raise BadRequest(f"unsupported aggregation function: {name}")
    return found


def short_name(func: str) -> str:
    """``sum`` of ``sumSeries``: aggregation functions may be called by their series function's name
    where several series become one.
    """
    return func.removesuffix("Series")


def reduce_known(
    reduce: Reducer,
    values: Array,
    axis: int,
    xff: float | Array,
    total: float | None = None,
    sizes: Sizes | None = None,
) -> Array:
    """``reduce`` along ``axis`` where enough is known, else NaN.

    Enough: at least one value, and known / ``total`` >= ``xff``; ``total`` defaults to the length
    of the axis.
    """
    if values.shape[axis] == 0:
        return np.full(values.sum(axis=axis).shape, np.nan)
    count = np.count_nonzero(_known(values), axis=axis)
    share = count / (values.shape[axis] if total is None else total)
    with np.errstate(all="ignore"):
        out = reduce(values, axis, values.shape[axis] if sizes is None else sizes)
    return np.where((count > 0) & (share >= xff), out, np.nan)


def consolidate(values: Array, per: int, cf: str, xff: float | Array) -> Array:
    """Groups of ``per`` columns from the first on, by a consolidation function: (n, slots) to (n,
    ceil(slots / per)).

    A short last group is measured against the full ``per`` by ``xff`` (as graphite-web). ``xff``
    may be (n, 1). BadRequest when ``cf`` is unknown.
    """
    function = CONSOLIDATORS.get(cf) or _STORED_CONSOLIDATORS.get(cf)
    if function is None:
        raise BadRequest(f"unsupported consolidation function: {cf}")
    rows, slots = values.shape
    groups = -(-slots // per)
    if groups == 1:  # ``per`` may be very much longer than the series
        only = np.array([slots])
        return reduce_known(function, values[:, None, :], 2, xff, per, only)
    if groups * per != slots:
        padded = np.full((rows, groups * per), np.nan)
        padded[:, :slots] = values
        values = padded
    sizes = np.full(groups, per, dtype=np.int64)
    if groups:
        sizes[-1] = slots - (groups - 1) * per
    return reduce_known(function, values.reshape(rows, groups, per), 2, xff, sizes=sizes)
