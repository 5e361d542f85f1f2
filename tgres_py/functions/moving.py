"""The moving functions beside movingAverage, exponential averages, and the moving deviation."""

from __future__ import annotations

import numpy as np

from tgres_py.errors import BadRequest
from tgres_py.functions.aggregation import Array
from tgres_py.functions.calculate import WINDOW, WindowSize, moving_block
from tgres_py.functions.params import AggFunc, Float, Integer
from tgres_py.functions.reads import Context
from tgres_py.functions.registry import render_function
from tgres_py.functions.rounding import round_half_even
from tgres_py.functions.series import Grid, Label, Matrix, Part, SeriesBlock
from tgres_py.target.attime import parse_interval


@render_function(group="Calculate", reads=WINDOW, window_ns=25)
def movingWindow(
    seriesList: SeriesBlock,
    windowSize: WindowSize,
    func: AggFunc = "average",
    xFilesFactor: Float | None = None,
    *,
    context: Context,
) -> SeriesBlock:
    """``func`` of the last ``windowSize`` points (a number, or an interval such as "5min"), each
    point's own included.

    load 10s  a 1 2 3 _ 5
    eval movingWindow(a, 2, "max")  => movingMax(a,2): 1 2 3 3 5
    """
    return moving_block(seriesList, windowSize, func, xFilesFactor, context)


@render_function(group="Calculate", reads=WINDOW)
def movingMax(
    seriesList: SeriesBlock,
    windowSize: WindowSize,
    xFilesFactor: Float | None = None,
    *,
    context: Context,
) -> SeriesBlock:
    """The largest of the last ``windowSize`` points.

    load 10s  a 3 2 1 _ _
    eval movingMax(a, 2)  => movingMax(a,2): 3 3 2 1 _
    """
    return moving_block(seriesList, windowSize, "max", xFilesFactor, context)


@render_function(group="Calculate", reads=WINDOW)
def movingMin(
    seriesList: SeriesBlock,
    windowSize: WindowSize,
    xFilesFactor: Float | None = None,
    *,
    context: Context,
) -> SeriesBlock:
    """The smallest of the last ``windowSize`` points.

    load 10s  a 1 2 3 _ _
    eval movingMin(a, 2)  => movingMin(a,2): 1 1 2 3 _
    """
    return moving_block(seriesList, windowSize, "min", xFilesFactor, context)


@render_function(group="Calculate", reads=WINDOW, window_ns=25)
def movingMedian(
    seriesList: SeriesBlock,
    windowSize: WindowSize,
    xFilesFactor: Float | None = None,
    *,
    context: Context,
) -> SeriesBlock:
    """The median of the last ``windowSize`` points.

    load 10s  a 1 9 2 _ 5
    eval movingMedian(a, 3)  => movingMedian(a,3): 1 5 2 5.5 3.5
    """
    return moving_block(seriesList, windowSize, "median", xFilesFactor, context)


@render_function(group="Calculate", reads=WINDOW)
def movingSum(
    seriesList: SeriesBlock,
    windowSize: WindowSize,
    xFilesFactor: Float | None = None,
    *,
    context: Context,
) -> SeriesBlock:
    """The sum of the last ``windowSize`` points.

    load 10s  a 1 2 3 _ 5
    eval movingSum(a, 2)       => movingSum(a,2): 1 3 5 3 5
    eval movingSum(a, 2, 0.6)  => movingSum(a,2): _ 3 5 _ _
    """
    return moving_block(seriesList, windowSize, "sum", xFilesFactor, context)


@render_function(group="Calculate", reads=WINDOW, slot_ns=5_500)
def exponentialMovingAverage(
    seriesList: SeriesBlock, windowSize: WindowSize, *, context: Context
) -> SeriesBlock:
    """A mean in which newer points weigh more: each moves it by 2 / (``windowSize`` + 1) of the
    difference. An interval counts in seconds there.

    It starts from the plain mean of the window before the range, which is its first value; so each
    value comes one step late, and there is one more than the range has (as in graphite-web).

    load 10s  a 1 2 _ 5
    eval exponentialMovingAverage(a, 3)  => exponentialMovingAverage(a,3): 0 0.5 1.25 _ 3.125
    """
    is_interval = isinstance(windowSize, str)
    shown = f'"{windowSize}"' if is_interval else str(windowSize)
    size = abs(parse_interval(windowSize)) if isinstance(windowSize, str) else int(windowSize)
    weight = 2.0 / (size + 1)

    def compute(part: Part) -> tuple[Grid, Matrix]:
        old = part.grid
        points = context.lookback_s // old.step_s if is_interval else size
        grid = Grid(old.start_s + context.lookback_s, old.end_s, old.step_s)
        mean = _mean(part.values[:, :points])
        averages = exponential(part.values[:, points:], weight, mean, context)
        return grid, round_half_even(np.concatenate([mean[:, None], averages], axis=1), 6)

    with np.errstate(all="ignore"):
        block = seriesList.map_values(compute)
    return block.map_labels(
        lambda label: label.derived(
            f"exponentialMovingAverage({label.name},{shown})",
            exponentialMovingAverage=str(windowSize),
        )
    )


def _mean(values: Matrix) -> Array:
    """(k,): the mean of each row's known values, 0 when there is none."""
    count = np.count_nonzero(~np.isnan(values), axis=1)
    out: Array = np.nansum(values, axis=1) / np.maximum(count, 1)
    return out


def exponential(values: Matrix, weight: float, start: Array, context: Context) -> Matrix:
    """The running average that each known value moves by ``weight`` of the difference; unknown
    where the value is. ``start``: (k,), NaN = the first value.
    """
    out = np.full(values.shape, np.nan)
    mean = start.copy()
    for column in range(values.shape[1]):  # each depends on the one before; all series at once
        context.check_time()
        value = values[:, column]
        known = ~np.isnan(value)
        moved = np.where(np.isnan(mean), value, weight * value + (1 - weight) * mean)
        mean = np.where(known, moved, mean)
        out[known, column] = mean[known]
    return out


@render_function(
    group="Calculate", aliases=("exponentialWeightedMovingAverage",), slot_ns=5_500
)
def ewma(seriesList: SeriesBlock, alpha: Float, *, context: Context) -> SeriesBlock:
    """A mean in which newer points weigh more: each moves it by ``alpha`` (0 … 1) of the difference.
    It starts with the first value of the range. As in carbonapi.

    load 10s  a 1 2 _ 5
    eval ewma(a, 0.5)  => ewma(a,0.5): 1 1.5 _ 3.25
    """
    if not 0 <= alpha <= 1:
        raise BadRequest(f"target: ewma(): alpha is {alpha:g}; it must be 0 to 1")

    def compute(part: Part) -> tuple[Grid, Matrix]:
        start = np.full(len(part.values), np.nan)
        return part.grid, exponential(part.values, alpha, start, context)

    with np.errstate(all="ignore"):
        block = seriesList.map_values(compute)
    return block.map_labels(
        lambda label: label.derived(f"ewma({label.name},{alpha:g})", ewma=str(alpha))
    )


@render_function(group="Calculate")
def stdev(seriesList: SeriesBlock, points: Integer, windowTolerance: Float = 0.1) -> SeriesBlock:
    """The standard deviation of the last ``points`` points; unknown where fewer than the part
    ``windowTolerance`` of them are known. It starts with the range, from fewer points.

    load 10s  a 1 3 _ 3
    eval stdev(a, 2)         => stdev(a,2): 0 1 0 0
    eval stdev(a, 2, 0.6)    => stdev(a,2): _ 1 _ _
    """
    if points < 0:
        raise BadRequest(f"target: stdev(): points is {points}; it must not be negative")

    def compute(part: Part) -> tuple[Grid, Matrix]:
        if points == 0:
            return part.grid, np.full(part.values.shape, np.nan)
        return part.grid, _deviations(part.values, points, windowTolerance)

    def relabel(label: Label) -> Label:
        return label.derived(f"stdev({label.name},{points})", stdev=str(points))

    with np.errstate(all="ignore"):
        block = seriesList.map_values(compute)
    return block.map_labels(relabel)


def _deviations(values: Matrix, points: int, tolerance: float) -> Matrix:
    """By running sums in graphite-web's order, so that their rounding is the same: a variance that
    comes out negative is unknown there, too.
    """
    known = ~np.isnan(values)
    count = _window_sums(known.astype(np.float64), points)
    filled = np.where(known, values, 0.0)
    sums, squares = _window_sums(filled, points), _window_sums(filled * filled, points)
    out = np.sqrt(count * squares - sums * sums) / count
    return np.where((count > 0) & (count / points >= tolerance), out, np.nan)


def _window_sums(values: Matrix, points: int) -> Matrix:
    """Sums of the last ``points`` columns, in each step first the oldest taken away, then the newest
    added.
    """
    rows, slots = values.shape
    changes = np.zeros((rows, 2 * slots))
    changes[:, 1::2] = values
    if points < slots:
        changes[:, 2 * points :: 2] = -values[:, : slots - points]
    out: Matrix = np.cumsum(changes, axis=1)[:, 1::2]
    return out
