"""Lines and curves laid through a series: its average, percentile or trend, and where that leads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.polynomial import polynomial, polyutils

from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.aggregation import Array
from tgres_py.functions.params import AggFunc, Boolean, Date, Float, Integer, Interval, Suggest
from tgres_py.functions.reads import Context, Range, StepSet, half_range
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Label, Matrix, Part, Row, SeriesBlock
from tgres_py.functions.summary import column_percentiles, each_series
from tgres_py.functions.timeshift import moment
from tgres_py.target.attime import parse_interval

_DEGREE_MAX = 20
_SCALED = (-1.0, 1.0)  # where powers up to the twentieth can be told apart
_ROWS_TOGETHER = 1_000


def _line_steps(arguments: Mapping[str, Any], steps: StepSet, context: Context) -> StepSet:
    return steps if arguments["keepStep"] else half_range(arguments, steps, context)


@render_function(group="Calculate", steps=_line_steps)
def aggregateLine(
    seriesList: SeriesBlock,
    func: AggFunc = "average",
    keepStep: Boolean = False,
    *,
    context: Context,
) -> SeriesBlock:
    """A horizontal line at the ``func`` of all values of each series: three points (start, middle
    and end of the range), with ``keepStep`` as many as the series has.

    load 10s  a 1 2 _ 3
    eval aggregateLine(a)               => aggregateLine(a, 2): 2 2 2
    eval aggregateLine(a, "max", true)  => aggregateLine(a, 3): 3 3 3 3
    """
    numbers = each_series(seriesList, func).tolist()
    step_s = max(1, (context.until_s - context.from_s) // 2)
    line = Grid(context.from_s, context.until_s, step_s)
    rows: list[Row] = []
    for number, (label, grid, values) in zip(numbers, seriesList.rows(), strict=True):
        shown = "None" if np.isnan(number) else f"{number:g}"
        name = f"aggregateLine({label.name}, {shown})"
        if keepStep:
            rows.append((label.derived(name), grid, np.full(len(values), number)))
        else:
            tags = {"name": _python_text(number, func)}
            rows.append((Label(name, name, tags, xff=context.xff), line, np.full(3, number)))
    return SeriesBlock.of_rows(rows)


def _python_text(number: float, func: str) -> str:
    """As Python shows graphite-web's number: a count is whole there."""
    if np.isnan(number):
        return "None"
    return str(int(number) if func == "count" else number)


@render_function(group="Calculate")
def nPercentile(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """A horizontal line at the ``n``-th percentile of each series' values; series without values
    are left out.

    load 10s  a 1 2 _ 3
    load 10s  b _ _ _ _
    eval nPercentile(group(a, b), 50)  => nPercentile(a, 50): 2 2 2 2
    """
    if not n:
        raise BadRequest("target: nPercentile(): n must not be 0")
    rows: list[Row] = []
    numbers = np.full(len(seriesList), np.nan)
    for part in seriesList.parts:
        if part.values.shape[1]:
            numbers[part.index] = column_percentiles(part.values.T, n)
    for number, (label, grid, _) in zip(numbers.tolist(), seriesList.rows(), strict=True):
        if not np.isnan(number):
            slots = max(0, (grid.end_s - grid.start_s) // grid.step_s)
            new = label.derived(f"nPercentile({label.name}, {n:g})", nPercentile=str(n))
            rows.append((new, grid, np.full(slots, number)))
    return SeriesBlock.of_rows(rows)


@dataclass(slots=True)
class Trend:
    """Lines through the rows of a matrix: value = ``middle`` + ``slope`` * (column - ``centre``);
    (k,) each, NaN where fewer than two points are known.
    """

    centre: Array
    middle: Array
    slope: Array

    def at(self, columns: Array) -> Matrix:
        """(k, columns)."""
        out: Matrix = self.middle[:, None] + self.slope[:, None] * (columns - self.centre[:, None])
        return out


def trend(values: Matrix) -> Trend:
    """Least squares through the known values, centred, so that no digits are lost."""
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=1), 1)
    columns = np.arange(values.shape[1], dtype=np.float64)
    centre = (known * columns).sum(axis=1) / count
    middle = np.where(known, values, 0.0).sum(axis=1) / count
    away = np.where(known, columns - centre[:, None], 0.0)
    with np.errstate(all="ignore"):
        rise = (away * np.where(known, values - middle[:, None], 0.0)).sum(axis=1)
        slope = np.where(count > 1, rise / (away * away).sum(axis=1), np.nan)
    return Trend(centre, np.where(count > 1, middle, np.nan), slope)


@dataclass(frozen=True, slots=True)
class SourceAndOwn:
    """The range that linearRegression's dates say, and the call's own."""

    def windows(
        self, arguments: Mapping[str, Any], steps: Callable[[], StepSet], context: Context
    ) -> tuple[Range, ...]:
        own = (context.from_s, context.until_s)
        return source_range(arguments["startSourceAt"], arguments["endSourceAt"], context), own


def source_range(start: int | str | None, end: int | str | None, context: Context) -> Range:
    """BadRequest when it is empty."""
    from_s, until_s = context.from_s, context.until_s
    if start is not None:
        from_s = moment(start, "linearRegression", "startSourceAt", context)
    if end is not None:
        until_s = moment(end, "linearRegression", "endSourceAt", context)
    if from_s >= until_s:
        raise BadRequest("target: linearRegression(): startSourceAt must be before endSourceAt")
    return from_s, until_s


@render_function(group="Calculate", reads=SourceAndOwn())
def linearRegression(
    seriesList: list[SeriesBlock],
    startSourceAt: Date | None = None,
    endSourceAt: Date | None = None,
    *,
    context: Context,
) -> SeriesBlock:
    """The straight line that is nearest to each series' values from ``startSourceAt`` to
    ``endSourceAt`` (default: the range of the request), drawn over the range of the request.

    load 10s  a 1 2 _ 4 6
    eval linearRegression(a)  => linearRegression(a, 1700000039, 1700000080): 0.85 2.05 3.25 4.45 5.65
    """
    source, own = seriesList
    from_s, until_s = source_range(startSourceAt, endSourceAt, context)
    rows: list[Row] = []
    for (label, grid, values), (_, source_grid, known) in zip(
        own.rows(), source.rows(), strict=False
    ):
        line = trend(known[None, :])
        if np.isnan(line.slope[0]):
            continue
        times = grid.start_s + grid.step_s * np.arange(len(values), dtype=np.float64)
        drawn = line.at((times - source_grid.start_s) / source_grid.step_s)[0]
        name = f"linearRegression({label.name}, {from_s}, {until_s})"
        tags = {**label.tags, "linearRegressions": f"{from_s}, {until_s}"}
        rows.append((Label(name, name, tags, xff=label.xff), grid, drawn))
    return SeriesBlock.of_rows(rows)


@render_function(group="Calculate")
def forecastLinear(
    seriesList: SeriesBlock,
    duration: Annotated[Interval, Suggest("1h", "1d", "7d")],
    *,
    context: Context,
) -> SeriesBlock:
    """The straight line that is nearest to each series' values, drawn on for ``duration`` beyond the
    range: when will the disk be full? Series with fewer than two values are left out. This is ours.

    load 10s  a 1 2 _ 4
    eval forecastLinear(a, "20s")  => forecastLinear(a,"20s"): 1 2 3 4 5 6
    """
    more_s = parse_interval(duration, "duration")
    if more_s < 0:
        raise BadRequest(f"target: forecastLinear(): duration {duration!r} must be positive")

    def compute(part: Part) -> tuple[Grid, Matrix]:
        grid, slots = _extended(part, more_s, "forecastLinear", context)
        return grid, trend(part.values).at(np.arange(slots, dtype=np.float64))

    block = _drawn(seriesList.map_values(compute))
    return block.map_labels(
        lambda label: label.derived(
            f'forecastLinear({label.name},"{duration}")', forecastLinear=duration
        )
    )


@render_function(group="Calculate")
def polyfit(
    seriesList: SeriesBlock,
    degree: Integer = 1,
    offset: Annotated[Interval, Suggest("1h", "1d", "7d")] = "0d",
    *,
    context: Context,
) -> SeriesBlock:
    """The curve (a polynomial of ``degree``) that is nearest to each series' values, drawn on for
    ``offset`` beyond the range. Series with fewer than two values are left out. As in carbonapi.

    load 10s  a 1 4 _ 16
    eval polyfit(a, 2)         => polyfit(a,2): 1 4 9 16
    eval polyfit(a, 2, "20s")  => polyfit(a,2,"20s"): 1 4 9 16 25 36
    """
    more_s = parse_interval(offset, "offset")
    if more_s < 0:
        raise BadRequest(f"target: polyfit(): offset {offset!r} must be positive")
    if not 1 <= degree <= _DEGREE_MAX:
        raise BadRequest(f"target: polyfit(): degree is {degree}; it must be 1 to {_DEGREE_MAX}")

    def compute(part: Part) -> tuple[Grid, Matrix]:
        grid, slots = _extended(part, more_s, "polyfit", context)
        return grid, _curves(part.values, degree, slots, context)

    shown = f',{degree},"{offset}"' if more_s else f",{degree}"
    return _drawn(seriesList.map_values(compute)).map_labels(
        lambda label: label.derived(f"polyfit({label.name}{shown})", polyfit=str(degree))
    )


def _curves(values: Matrix, degree: int, slots: int, context: Context) -> Matrix:
    """Of each row the polynomial through its known values, at columns 0 … ``slots``: (k, slots).

    Rows with the same unknown values are one system of equations with several right sides.
    """
    out = np.full((len(values), slots), np.nan)
    known = np.isfinite(values)
    alike: dict[bytes, list[int]] = {}
    for row, bits in enumerate(np.packbits(known, axis=1)):
        alike.setdefault(bits.tobytes(), []).append(row)
    for same in alike.values():
        at = np.flatnonzero(known[same[0]])
        if len(at) < 2:
            continue
        # fewer points than coefficients: the lowest degree that meets them all
        power = min(degree, len(at) - 1)
        ends = at[[0, -1]]
        scaled = polyutils.mapdomain(at, ends, _SCALED)
        wanted = polyutils.mapdomain(np.arange(slots), ends, _SCALED)
        for first in range(0, len(same), _ROWS_TOGETHER):
            context.check_time()
            rows = np.array(same[first : first + _ROWS_TOGETHER])
            curves = polynomial.polyfit(scaled, values[np.ix_(rows, at)].T, power)
            out[rows] = polynomial.polyval(wanted, curves)
    return out


def _extended(part: Part, more_s: int, function: str, context: Context) -> tuple[Grid, int]:
    """A part's grid drawn on by ``more_s``, and its columns. LimitExceeded."""
    old = part.grid
    slots = part.values.shape[1] + more_s // old.step_s
    made = slots * len(part.values)
    if made > context.points_max:
        raise LimitExceeded(
            f"points made by {function}()", made, context.points_max, "query_points_max"
        )
    end_s = old.end_s + more_s // old.step_s * old.step_s
    return Grid(old.start_s, end_s, old.step_s), slots


def _drawn(block: SeriesBlock) -> SeriesBlock:
    """Without the series for which there is no line."""
    kept = [
        place
        for place, (_, _, values) in enumerate(block.rows())
        if len(values) and not np.isnan(values[0])
    ]
    return block.take(kept)
