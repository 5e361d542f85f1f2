"""Service level objectives: which share of an interval's values lies on the right side of a limit.

As in carbonapi: buckets begin with the first point; an interval longer than the range is read as a
whole, begun before the range; buckets shorter than the step are unknown; a last bucket that isn't
full counts with what it has.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from tgres_py.errors import BadRequest
from tgres_py.functions.aggregation import Array
from tgres_py.functions.params import Float, Interval, Options, String, Suggest
from tgres_py.functions.reads import AtLeast, Context, step_from
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Matrix, Part, SeriesBlock
from tgres_py.functions.transform import bucket_grid, fill_buckets
from tgres_py.target.attime import parse_interval

_METHODS = {
    "above": np.greater,
    "aboveOrEqual": np.greater_equal,
    "below": np.less,
    "belowOrEqual": np.less_equal,
}
Method = Annotated[String, Options(*_METHODS)]
Bucket = Annotated[Interval, Suggest("10min", "1h", "1d")]


@render_function(group="Transform", reads=AtLeast("interval"), steps=step_from("interval"))
def slo(
    seriesList: SeriesBlock, interval: Bucket, method: Method, value: Float, *, context: Context
) -> SeriesBlock:
    """The share of the known values in each ``interval`` that are above or below ``value``.

    load 10s  a 1 5 _ 7
    eval slo(a, "20s", "above", 2)  => slo(a, 20s, above, 2): 0.5 1
    eval slo(a, "30s", "below", 5)  => slo(a, 30s, below, 5): 0.5 0
    eval slo(a, "5s", "above", 2)   => slo(a, 5s, above, 2): _ _ _ _ _ _ _ _
    """
    return _shares(seriesList, interval, method, value, context).map_labels(
        lambda label: label.derived(f"slo({label.name}, {interval}, {method}, {value:g})")
    )


@render_function(group="Transform", reads=AtLeast("interval"), steps=step_from("interval"))
def sloErrorBudget(
    seriesList: SeriesBlock,
    interval: Bucket,
    method: Method,
    value: Float,
    objective: Float,
    *,
    context: Context,
) -> SeriesBlock:
    """The seconds of each ``interval`` by which slo() beats its ``objective`` (a share, 0.999);
    negative when it is missed.

    load 10s  a 1 5 _ 7
    eval sloErrorBudget(a, "20s", "above", 2, 0.9)  => sloErrorBudget(a, 20s, above, 2, 0.9): -8 2
    eval sloErrorBudget(a, "30s", "above", 2, 0.9)  => sloErrorBudget(a, 30s, above, 2, 0.9): -12 1
    """

    def relabel(name: str) -> str:
        return f"sloErrorBudget({name}, {interval}, {method}, {value:g}, {objective:g})"

    return _shares(seriesList, interval, method, value, context, objective).map_labels(
        lambda label: label.derived(relabel(label.name))
    )


def _shares(
    block: SeriesBlock,
    interval: str,
    method: str,
    value: float,
    context: Context,
    objective: float | None = None,
) -> SeriesBlock:
    """Shares; with ``objective`` the seconds by which they beat it."""
    interval_s = parse_interval(interval, "interval")
    if interval_s <= 0:
        raise BadRequest(f"target: slo(): interval {interval!r} must be positive")
    compare = _METHODS[method]

    def compute(part: Part) -> tuple[Grid, Matrix]:
        grid = bucket_grid(part, interval_s, True, context.points_max)
        placed = Grid(
            grid.start_s + context.lookback_s, grid.end_s + context.lookback_s, interval_s
        )
        if part.grid.step_s > interval_s:
            buckets = (grid.end_s - grid.start_s) // interval_s
            return placed, np.full((len(part.values), buckets), np.nan)
        hits = np.where(np.isnan(part.values), np.nan, compare(part.values, value))
        xff = np.zeros((len(hits), 1))
        shares = fill_buckets(Part(part.grid, hits, part.index), grid, "average", xff)
        if objective is not None:
            shares = (shares - objective) * _lengths_s(part, grid)
        return placed, shares

    return block.map_values(compute)


def _lengths_s(part: Part, grid: Grid) -> Array:
    """The seconds of each bucket, of the last one only those that have points: (buckets,)."""
    starts = np.arange(grid.start_s, grid.end_s, grid.step_s)
    end_s = part.grid.start_s + part.values.shape[1] * part.grid.step_s
    out: Array = np.minimum(starts + grid.step_s, end_s).astype(np.float64) - starts
    return out
