"""Functions about totals: growth of counters, and running sums."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tgres_py.errors import BadRequest
from tgres_py.functions.gaps import neighbours
from tgres_py.functions.params import Float, IntOrInterval, String
from tgres_py.functions.reads import Context, Lookback, Range, StepSet
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Matrix, Part, SeriesBlock
from tgres_py.functions.transform import growth
from tgres_py.target.attime import parse_interval


@render_function(group="Transform")
def nonNegativeDerivative(
    seriesList: SeriesBlock, maxValue: Float | None = None, minValue: Float | None = None
) -> SeriesBlock:
    """How much a counter grew since the point before; unknown where it fell.

    With ``maxValue`` a counter that fell has wrapped there, with ``minValue`` alone it has started
    anew from it; values beyond either are unknown and aren't compared with.

    load 10s  a 10 30 _ 50 60 5
    eval nonNegativeDerivative(a)         => nonNegativeDerivative(a): _ 20 _ _ 10 _
    eval nonNegativeDerivative(a, 64)     => nonNegativeDerivative(a): _ 20 _ _ 10 10
    eval nonNegativeDerivative(a, minValue=0)  => nonNegativeDerivative(a): _ 20 _ _ 10 5
    """
    with np.errstate(all="ignore"):
        block = seriesList.map_values(
            lambda part: (part.grid, growth(part.values, maxValue, minValue))
        )
    return block.map_labels(
        lambda label: label.derived(
            f"nonNegativeDerivative({label.name})", nonNegativeDerivative="1"
        )
    )


@render_function(group="Transform")
def integral(seriesList: SeriesBlock) -> SeriesBlock:
    """The running sum from the start of the range; unknown values stay unknown.

    load 10s  a 1 _ 2 3
    eval integral(a)  => integral(a): 1 _ 3 6
    """

    def compute(part: Part) -> tuple[Grid, Matrix]:
        missing = np.isnan(part.values)
        sums = np.cumsum(np.where(missing, 0.0, part.values), axis=1)
        return part.grid, np.where(missing, np.nan, sums)

    with np.errstate(all="ignore"):
        block = seriesList.map_values(compute)
    return block.map_labels(lambda label: label.derived(f"integral({label.name})", integral="1"))


@render_function(group="Transform")
def integralByInterval(
    seriesList: SeriesBlock, intervalUnit: String, *, context: Context
) -> SeriesBlock:
    """The running sum, from 0 again at each ``intervalUnit`` counted from the start of the request.
    At unknown values it shows the sum so far.

    load 10s  a 1 _ 2 3
    eval integralByInterval(a, "20s")  => integralByInterval(a,'20s'): 1 1 2 5
    """
    interval_s = abs(parse_interval(intervalUnit, "intervalUnit"))
    if not interval_s:
        raise BadRequest("target: integralByInterval(): intervalUnit must not be 0")

    def compute(part: Part) -> tuple[Grid, Matrix]:
        old = part.grid
        slots = part.values.shape[1]
        times = old.start_s + old.step_s * np.arange(slots) - context.from_s
        starts = np.flatnonzero(times // interval_s != (times - old.step_s) // interval_s)
        return old, running_sums(part.values, starts.tolist())

    with np.errstate(all="ignore"):
        block = seriesList.map_values(compute)
    return block.map_labels(
        lambda label: label.derived(
            f"integralByInterval({label.name},'{intervalUnit}')", integralByInterval=intervalUnit
        )
    )


def running_sums(values: Matrix, starts: list[int]) -> Matrix:
    """Running sums that begin anew at the columns ``starts`` (ascending); unknown counts as 0."""
    known = np.where(np.isnan(values), 0.0, values)
    out = np.empty(values.shape)
    edges = [0, *(start for start in starts if start), values.shape[1]]
    for first, last in itertools.pairwise(edges):
        np.cumsum(known[:, first:last], axis=1, out=out[:, first:last])
    return out


@render_function(group="Transform", point_ns=2_000)
def integralWithReset(seriesList: SeriesBlock, resettingSeries: SeriesBlock) -> SeriesBlock:
    """The running sum, 0 again wherever ``resettingSeries`` (one series of the same step and
    length) is known and not 0. As in carbonapi.

    load 10s  a 1 2 3 _ 4
    load 10s  b 0 0 1 _ _
    eval integralWithReset(a, b)  => integralWithReset(a,b): 1 3 0 _ 4
    """
    if not len(seriesList):
        return seriesList
    if len(resettingSeries) != 1:
        raise BadRequest("target: integralWithReset(): resettingSeries must be one series")
    [(resetting, grid, marks)] = resettingSeries.rows()
    for part in seriesList.parts:
        if part.grid.step_s != grid.step_s or part.values.shape[1] != len(marks):
            raise BadRequest(
                "target: integralWithReset(): resettingSeries must have the same step and length"
            )
    resets = ~np.isnan(marks) & (marks != 0)

    def compute(part: Part) -> tuple[Grid, Matrix]:
        # a reset shows only where the series has a value; between, the sum goes on
        rows = [
            running_sums(
                np.where(resets, 0.0, row)[None, :],
                np.flatnonzero(resets & ~np.isnan(row)).tolist(),
            )
            for row in part.values
        ]
        return part.grid, np.where(np.isnan(part.values), np.nan, np.concatenate(rows))

    with np.errstate(all="ignore"):
        block = seriesList.map_values(compute)
    return block.map_labels(
        lambda label: label.derived(
            f"integralWithReset({label.name},{resetting.name})", integralWithReset="1"
        )
    )


@dataclass(frozen=True, slots=True)
class CounterLookback:
    """What a window of growth needs: the window, and the point before it. None: one point."""

    parameter: str

    def windows(
        self, arguments: Mapping[str, Any], steps: Callable[[], StepSet], context: Context
    ) -> tuple[Range, ...]:
        amount = {**arguments, self.parameter: arguments[self.parameter] or 1}
        [(from_s, until_s)] = Lookback(self.parameter).windows(amount, steps, context)
        return ((from_s - max(steps(), default=0), until_s),)


@render_function(group="Transform", reads=CounterLookback("windowSize"))
def rate(
    seriesList: SeriesBlock, windowSize: IntOrInterval | None = None, *, context: Context
) -> SeriesBlock:
    """How much a counter grows each second, on average over the last ``windowSize`` (points, or an
    interval such as "5min"; default: since the value before).

    A counter that falls has started anew from 0. Over a gap its growth is spread evenly. This is
    ours; graphite-web has perSecond.

    load 10s  a 10 30 _ 70 5 25
    eval rate(a)     => rate(a): _ 2 _ 2 0.5 2
    eval rate(a, 2)  => rate(a,2): _ 2 2 2 1.5 1.25
    """
    shown = "" if windowSize is None else f",{_shown(windowSize)}"

    def compute(part: Part) -> tuple[Grid, Matrix]:
        old = part.grid
        points = _points(windowSize, old.step_s)
        skipped = min(-(-context.lookback_s // old.step_s), part.values.shape[1])
        grid = Grid(old.start_s + skipped * old.step_s, old.end_s, old.step_s)
        return grid, _rates(part.values, old.step_s, points)[:, skipped:]

    with np.errstate(all="ignore"):
        block = seriesList.map_values(compute)
    return block.map_labels(
        lambda label: label.derived(f"rate({label.name}{shown})", rate=str(windowSize or 1))
    )


def _shown(window: int | float | str) -> str:
    return f'"{window}"' if isinstance(window, str) else str(window)


def _points(window: int | float | str | None, step_s: int) -> int:
    if isinstance(window, str):
        return max(1, abs(parse_interval(window)) // step_s)
    return int(window or 1)


def _rates(values: Matrix, step_s: int, points: int) -> Matrix:
    """Growth over the last ``points`` columns by the seconds that it took: like ``values``."""
    grown, columns = _increases(values)
    total, elapsed = (_trailing(matrix, points) for matrix in (grown, columns))
    return np.where(elapsed > 0, total / (np.maximum(elapsed, 1) * step_s), np.nan)


def _increases(values: Matrix) -> tuple[Matrix, Matrix]:
    """For each known value with one before it: how much it is above that (or above 0, when it fell),
    and how many columns lie between; else 0, 0.
    """
    grown, columns = np.zeros(values.shape), np.zeros(values.shape)
    if values.shape[1] < 2:
        return grown, columns
    before = neighbours(values)[0][:, :-1]
    last = np.take_along_axis(values, np.maximum(before, 0), axis=1)
    here = values[:, 1:]
    counts = (before >= 0) & ~np.isnan(here)
    change = np.where(here < last, here, here - last)
    grown[:, 1:] = np.where(counts, change, 0.0)
    columns[:, 1:] = np.where(counts, np.arange(1, values.shape[1]) - before, 0)
    return grown, columns


def _trailing(values: Matrix, points: int) -> Matrix:
    """Sums of the last ``points`` columns, fewer at the start: like ``values``."""
    sums = np.cumsum(values, axis=1, dtype=np.longdouble)
    out = sums.copy()
    out[:, points:] -= sums[:, :-points]
    result: Matrix = out.astype(np.float64)
    return result
