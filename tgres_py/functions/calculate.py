"""Functions over moving windows."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from tgres_py.functions.aggregation import reduce_known, reducer
from tgres_py.functions.params import AggFunc, Float, IntOrInterval, Suggest
from tgres_py.functions.reads import Context, Lookback
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Label, Matrix, Part, SeriesBlock

WindowSize = Annotated[IntOrInterval, Suggest(5, 7, 10, "1min", "5min", "10min", "30min", "1hour")]

WINDOW = Lookback("windowSize", of_future=False)

# Up to this many cells windows are taken one by one, as graphite-web does; beyond it averages come
# from running sums,
# and other functions go in spans of this size.
_DIRECT_CELLS_MAX = 4_000_000


@render_function(group="Calculate", reads=WINDOW)
def movingAverage(
    seriesList: SeriesBlock,
    windowSize: WindowSize,
    xFilesFactor: Float | None = None,
    *,
    context: Context,
) -> SeriesBlock:
    """The mean of the last ``windowSize`` points (a number, or an interval such as "5min"), each
    point's own included.

    The points before the range are read too, so that the first mean is as good as the others.

    load 10s  a 1 2 3 _ 5
    eval movingAverage(a, 2)      => movingAverage(a,2): 1 1.5 2.5 3 5
    eval movingAverage(a, "20s")  => movingAverage(a,"20s"): 1 1.5 2.5 3 5
    """
    return moving_block(seriesList, windowSize, "average", xFilesFactor, context)


def moving_block(
    block: SeriesBlock,
    window: int | float | str,
    func: AggFunc,
    xff: float | None,
    context: Context,
) -> SeriesBlock:
    """``func`` over a moving window of a block that was read ``context.lookback_s`` earlier
    (graphite-web's movingWindow).

    Points of a window: its seconds // step; a window shorter than the step has none, and all is
    unknown.
    """
    lookback_s = context.lookback_s
    tag = f"moving{func.capitalize()}"
    shown = f'"{window}"' if isinstance(window, str) else str(window)

    def compute(part: Part) -> tuple[Grid, Matrix]:
        old = part.grid
        points = lookback_s // old.step_s if isinstance(window, str) else int(window)
        grid = Grid(old.start_s + lookback_s, old.end_s, old.step_s)
        needed = (
            np.array([[block.labels[place].xff] for place in part.index.tolist()])
            if xff is None
            else np.full((len(part.values), 1), xff)
        )
        return grid, _moving(part.values, points, func, needed, context)

    def relabel(label: Label) -> Label:
        new = label.derived(f"{tag}({label.name},{shown})")
        new.tags[tag] = str(window)
        return new

    return block.map_values(compute).map_labels(relabel)


def _moving(values: Matrix, points: int, func: str, xff: Matrix, context: Context) -> Matrix:
    """Windows of ``points`` columns, the first beginning at column 1: (k, slots - points)."""
    rows, slots = values.shape
    width = max(0, slots - points)
    if points == 0 or width == 0:
        return np.full((rows, width), np.nan)
    if func == "average" and rows * width * points > _DIRECT_CELLS_MAX:
        return _moving_average(values[:, 1:], points, xff)
    windows = np.lib.stride_tricks.sliding_window_view(values[:, 1:], points, axis=1)
    out = np.empty((rows, width))
    span = max(1, _DIRECT_CELLS_MAX // (rows * points))
    for start in range(0, width, span):
        context.check_time()
        some = windows[:, start : start + span]
        # the function gets known values only (as graphite-web), so a window's size is what is known
        # in it
        sizes = np.maximum(np.count_nonzero(~np.isnan(some), axis=2), 1)
        out[:, start : start + span] = reduce_known(reducer(func), some, 2, xff, sizes=sizes)
    return out


def _moving_average(values: Matrix, points: int, xff: Matrix) -> Matrix:
    """By running sums around each row's mean, so that large values lose no digits."""
    finite = np.isfinite(values)
    total = np.maximum(finite.sum(axis=1, keepdims=True), 1)
    centre = np.where(finite, values, 0.0).sum(axis=1, keepdims=True) / total
    sums = _running(np.where(finite, values - centre, 0.0), points)
    finites = _running(finite, points)
    mean = centre + sums / np.maximum(finites, 1)
    count = finites
    if not (finite | np.isnan(values)).all():
        above, below = _running(np.isposinf(values), points), _running(np.isneginf(values), points)
        count = count + above + below
        mean = np.where(above > 0, np.inf, np.where(below > 0, -np.inf, mean))
        mean = np.where((above > 0) & (below > 0), np.nan, mean)
    return np.where((count > 0) & (count / points >= xff), mean, np.nan)


def _running(values: NDArray[Any], points: int) -> Matrix:
    """Sums of ``points`` neighbouring columns: (k, slots - points + 1)."""
    sums = np.zeros((len(values), values.shape[1] + 1), dtype=np.longdouble)
    np.cumsum(values, axis=1, dtype=np.longdouble, out=sums[:, 1:])
    out: Matrix = (sums[:, points:] - sums[:, :-points]).astype(np.float64)
    return out
