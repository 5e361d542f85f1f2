"""Functions that compute new values for each series by itself."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.aggregation import reduce_known, reducer
from tgres_py.functions.params import AggFunc, Boolean, Float, Interval, Suggest
from tgres_py.functions.reads import Context, step_from
from tgres_py.functions.registry import render_function
from tgres_py.functions.rounding import round_half_even
from tgres_py.functions.series import Grid, Matrix, Part, SeriesBlock
from tgres_py.target.attime import parse_interval


@render_function(group="Transform")
def scale(seriesList: SeriesBlock, factor: Float) -> SeriesBlock:
    """Multiplies all values by ``factor``.

    load 10s  a 1 _ -2
    eval scale(a, 2.5)  => scale(a,2.5): 2.5 _ -5
    """
    return seriesList.map_values(lambda part: (part.grid, part.values * factor)).map_labels(
        lambda label: label.derived(f"scale({label.name},{factor:g})", scale=str(factor))
    )


@render_function(group="Transform")
def derivative(seriesList: SeriesBlock) -> SeriesBlock:
    """The difference of each value from the one before it; unknown where either is.

    load 10s  a 1 4 _ 5 3
    eval derivative(a)  => derivative(a): _ 3 _ _ -2
    """

    def compute(part: Part) -> tuple[Grid, Matrix]:
        return part.grid, _after_first(np.diff(part.values, axis=1), part.values)

    return seriesList.map_values(compute).map_labels(
        lambda label: label.derived(f"derivative({label.name})", derivative="1")
    )


@render_function(group="Transform")
def perSecond(
    seriesList: SeriesBlock, maxValue: Float | None = None, minValue: Float | None = None
) -> SeriesBlock:
    """How much a counter grows each second, to 6 digits; unknown where it fell.

    With ``maxValue`` a counter that fell has wrapped there, with ``minValue`` alone it has started
    anew from it; values beyond either are unknown and aren't compared with.

    load 10s  a 10 30 _ 50 60 5
    eval perSecond(a)       => perSecond(a): _ 2 _ _ 1 _
    eval perSecond(a, 64)   => perSecond(a): _ 2 _ _ 1 1
    """

    def compute(part: Part) -> tuple[Grid, Matrix]:
        delta = growth(part.values, maxValue, minValue)
        return part.grid, round_half_even(delta / part.grid.step_s, 6)

    return seriesList.map_values(compute).map_labels(
        lambda label: label.derived(f"perSecond({label.name})", perSecond="1")
    )


@render_function(group="Transform", steps=step_from("intervalString"))
def summarize(
    seriesList: SeriesBlock,
    intervalString: Annotated[Interval, Suggest("10min", "1h", "1d")],
    func: AggFunc = "sum",
    alignToFrom: Boolean = False,
    *,
    context: Context,
) -> SeriesBlock:
    """Buckets of ``intervalString``, each the ``func`` of its values.

    Buckets start at multiples of the interval since 1970 UTC, with ``alignToFrom`` at the series'
    first point.

    load 10s  a 1 2 3 _ 5 _
    eval summarize(a, "20s", "sum", true)   => summarize(a, "20s", "sum", true): 3 3 5
    eval summarize(a, "30s", "max", true)   => summarize(a, "30s", "max", true): 3 5
    """
    interval_s = parse_interval(intervalString, "intervalString")
    if interval_s <= 0:
        raise BadRequest(f"target: summarize(): intervalString {intervalString!r} must be positive")
    suffix = ", true" if alignToFrom else ""

    def compute(part: Part) -> tuple[Grid, Matrix]:
        grid = bucket_grid(part, interval_s, alignToFrom, context.points_max)
        return grid, fill_buckets(part, grid, func, xff_column(seriesList, part))

    return seriesList.map_values(compute).map_labels(
        lambda label: label.derived(
            f'summarize({label.name}, "{intervalString}", "{func}"{suffix})',
            summarize=intervalString,
            summarizeFunction=func,
        )
    )


def growth(values: Matrix, limit: float | None, floor: float | None) -> Matrix:
    """Non-negative differences of a counter that may wrap at ``limit`` or restart at ``floor``."""
    if limit is not None:
        values = np.where(values > limit, np.nan, values)
    if floor is not None:
        values = np.where(values < floor, np.nan, values)
    delta = np.diff(values, axis=1)
    fell = delta < 0
    if limit is not None:
        delta = np.where(fell, delta + limit + 1 - (floor or 0), delta)
    elif floor is not None:
        delta = np.where(fell, values[:, 1:] - floor, delta)
    else:
        delta = np.where(fell, np.nan, delta)
    return _after_first(delta, values)


def bucket_grid(part: Part, interval_s: int, align_to_from: bool, points_max: int) -> Grid:
    """The buckets that hold a part's range. LimitExceeded when they would be too many."""
    start_s, end_s = part.grid.start_s, part.grid.end_s
    if align_to_from:
        end_s = start_s + -(-(end_s - start_s) // interval_s) * interval_s
    else:
        start_s -= start_s % interval_s
        end_s += interval_s - end_s % interval_s
    buckets = (end_s - start_s) // interval_s * len(part.values)
    if buckets > points_max:
        raise LimitExceeded("points made by summarize()", buckets, points_max, "query_points_max")
    return Grid(start_s, end_s, interval_s)


def fill_buckets(part: Part, grid: Grid, func: str, xff: Matrix) -> Matrix:
    """``func`` of the points in each bucket of ``grid``: (k, buckets). ``xff`` (k, 1) is measured
    against interval/step.
    """
    old = part.grid
    slots = min(part.values.shape[1], max(0, -(-(old.end_s - old.start_s) // old.step_s)))
    times = old.start_s + old.step_s * np.arange(slots)
    edges = np.arange(grid.start_s, grid.end_s + 1, grid.step_s)
    first = np.searchsorted(times, edges)  # of each bucket, and behind the last
    sizes = np.diff(first)
    if not len(sizes) or not sizes.max(initial=0):
        return np.full((len(part.values), len(sizes)), np.nan)
    # a column of NaN behind the values pads buckets that hold fewer points than others
    padded = np.concatenate(
        [part.values[:, :slots], np.full((len(part.values), 1), np.nan)], axis=1
    )
    columns = first[:-1, None] + np.arange(sizes.max())
    columns = np.where(np.arange(sizes.max()) < sizes[:, None], columns, slots)
    return reduce_known(reducer(func), padded[:, columns], 2, xff, grid.step_s / old.step_s, sizes)


def xff_column(block: SeriesBlock, part: Part) -> Matrix:
    return np.array([[block.labels[place].xff] for place in part.index.tolist()])


def _after_first(changes: Matrix, values: Matrix) -> Matrix:
    """``changes`` between neighbours, put behind a first column of NaN: as long as ``values``."""
    out = np.full(values.shape, np.nan)
    out[:, 1:] = changes
    return out
