"""Values that are unlike the others: against their own past, other series, or other days."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from tgres_py.errors import BadRequest
from tgres_py.functions.params import Float, Integer, IntOrInterval, Suggest
from tgres_py.functions.reads import Context, Lookback, Range, StepSet
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Matrix, Part, Row, SeriesBlock
from tgres_py.functions.summary import column_percentiles
from tgres_py.functions.timeshift import ShiftUnit, shift_numbers, shift_seconds
from tgres_py.target.attime import parse_interval

# a deviation as small as the rounding of its own computation is none
_NOISE = 1e-12


@render_function(group="Calculate", reads=Lookback("window"))
def anomalies(
    seriesList: SeriesBlock,
    sigma: Float = 3,
    window: Annotated[IntOrInterval, Suggest("10min", "1h", "1d", 60)] = "1h",
    *,
    context: Context,
) -> SeriesBlock:
    """Only the values that are more than ``sigma`` standard deviations away from the mean of the
    ``window`` (points, or an interval) before them; all others are unknown. This is ours.

    The window is read before the range too. At least two of its values must be known.

    load 10s  a 5 6 5 6 5 9 5
    eval anomalies(a, 3, 4)  => anomalies(a,3,4): _ _ _ _ _ 9 _
    """
    if sigma < 0:
        raise BadRequest(f"target: anomalies(): sigma is {sigma:g}; it must not be negative")
    shown = f'"{window}"' if isinstance(window, str) else str(window)

    def compute(part: Part) -> tuple[Grid, Matrix]:
        old = part.grid
        skipped = min(context.lookback_s // old.step_s, part.values.shape[1])
        points = skipped if isinstance(window, str) else min(int(window), part.values.shape[1])
        grid = Grid(old.start_s + skipped * old.step_s, old.end_s, old.step_s)
        return grid, _outside(part.values, points, sigma)[:, skipped:]

    with np.errstate(all="ignore"):
        block = seriesList.map_values(compute)
    return block.map_labels(
        lambda label: label.derived(
            f"anomalies({label.name},{sigma:g},{shown})", anomalies=str(sigma)
        )
    )


def _outside(values: Matrix, points: int, sigma: float) -> Matrix:
    """Values further than ``sigma`` deviations from the mean of the ``points`` columns before them."""
    finite = np.isfinite(values)
    count = np.maximum(finite.sum(axis=1, keepdims=True), 1)
    centre = np.where(finite, values, 0.0).sum(axis=1, keepdims=True) / count
    away = np.where(finite, values - centre, 0.0)
    known = _sums_before(finite.astype(np.float64), points)
    mean = _sums_before(away, points) / np.maximum(known, 1)
    variance = _sums_before(away * away, points) / np.maximum(known, 1) - mean * mean
    distance = np.abs(values - centre - mean)
    limit = sigma * np.sqrt(np.maximum(variance, 0.0)) + _NOISE * np.abs(centre + mean)
    return np.where((known >= 2) & (distance > limit), values, np.nan)


def _sums_before(values: Matrix, points: int) -> Matrix:
    """Sums of the ``points`` columns before each (fewer at the start): like ``values``."""
    rows, slots = values.shape
    sums = np.zeros((rows, slots + 1), dtype=np.longdouble)
    np.cumsum(values, axis=1, dtype=np.longdouble, out=sums[:, 1:])
    columns = np.arange(slots)
    out: Matrix = (sums[:, columns] - sums[:, np.maximum(columns - points, 0)]).astype(np.float64)
    return out


@dataclass(frozen=True, slots=True)
class Baselines:
    """The call's own range, and those that baseline's arguments say (without the own one)."""

    def windows(
        self, arguments: Mapping[str, Any], steps: Callable[[], StepSet], context: Context
    ) -> tuple[Range, ...]:
        own = (context.from_s, context.until_s)
        numbers = shift_numbers(arguments["timeShiftStart"], arguments["timeShiftEnd"])
        shifts = [shift_seconds(arguments["timeShiftUnit"], number) for number in numbers if number]
        # two at least, so that the function gets a list
        return own, *([(own[0] + s, own[1] + s) for s in shifts] or [own])


@render_function(group="Calculate", reads=Baselines())
def baseline(
    seriesList: list[SeriesBlock],
    timeShiftUnit: ShiftUnit = "1d",
    timeShiftStart: Integer = 0,
    timeShiftEnd: Integer = 7,
    maxAbsentPercent: Float | None = None,
    minAvg: Float | None = None,
) -> SeriesBlock:
    """The median of what each series was ``timeShiftUnit`` times ``timeShiftStart`` … before
    ``timeShiftEnd`` earlier (the range itself doesn't count), point by point. As in carbonapi.

    Left out are series of which more than ``maxAbsentPercent`` of the points are unknown, or whose
    average is below ``minAvg``.

    load 10s  a 1 2 3 4 8
    eval baseline(a, "10s", 1, 4)  => baseline(a): _ 1 1.5 2 3
    """
    kept = _medians(seriesList, timeShiftStart, timeShiftEnd, (maxAbsentPercent, minAvg), False)
    return SeriesBlock.of_rows(
        [
            (label.derived(f"baseline({label.name})", baseline="1"), grid, median)
            for (label, grid, _), median in kept
        ]
    )


@render_function(group="Calculate", reads=Baselines())
def baselineAberration(
    seriesList: list[SeriesBlock],
    timeShiftUnit: ShiftUnit = "1d",
    timeShiftStart: Integer = 0,
    timeShiftEnd: Integer = 7,
    maxAbsentPercent: Float | None = None,
    minAvg: Float | None = None,
) -> SeriesBlock:
    """Each value divided by its baseline: 1.1 is a tenth more than usual. Where the baseline is 0 the
    result is 0. As in carbonapi.

    load 10s  a 1 2 3 4 9
    eval baselineAberration(a, "10s", 1, 4)  => baselineAberration(a): _ 2 2 2 3
    """
    kept = _medians(seriesList, timeShiftStart, timeShiftEnd, (maxAbsentPercent, minAvg), True)
    rows: list[Row] = []
    for (label, grid, values), median in kept:
        with np.errstate(all="ignore"):
            ratio = np.where(median == 0, np.where(np.isnan(values), np.nan, 0.0), values / median)
        new = label.derived(f"baselineAberration({label.name})", baselineAberration="1")
        rows.append((new, grid, ratio))
    return SeriesBlock.of_rows(rows)


def _medians(
    blocks: list[SeriesBlock],
    start: int,
    end: int,
    limits: tuple[float | None, float | None],
    fitted: bool,
) -> list[tuple[Row, Matrix]]:
    """The own row of each series (for those that are gone: an earlier one), and the medians of its
    earlier ones; ``fitted``: only series of now, medians cut or padded to their length.
    """
    own, *earlier = blocks
    count = sum(1 for number in shift_numbers(start, end) if number)
    current = {row[0].name: row for row in own.rows()}
    grid = next((grid for _, grid, _ in own.rows()), None)
    shown: dict[str, Row] = {}
    past: dict[str, list[Matrix]] = {}
    for block in earlier[:count]:
        for row in block.rows():
            name = row[0].name
            if name in current or not fitted:
                here = row[1] if grid is None else grid
                shown.setdefault(name, current.get(name, (row[0], here, row[2])))
                past.setdefault(name, []).append(row[2])
    out = []
    for name, rows in past.items():
        row = shown[name]
        slots = len(row[2])
        stacked = np.full((len(rows), slots), np.nan)
        for place, values in enumerate(rows):
            stacked[place, : len(values)] = values[:slots]
        median = column_percentiles(stacked, 50, interpolate=True)
        if _counts(median, *limits):
            out.append((row, median))
    return out


def _counts(median: Matrix, absent_max: float | None, mean_min: float | None) -> bool:
    known = median[~np.isnan(median)]
    absent = 100 * (1 - len(known) / len(median)) if len(median) else 0.0
    if absent_max is not None and absent > absent_max:
        return False
    return mean_min is None or not len(known) or float(known.mean()) >= mean_min


@render_function(group="Filter Series")
def tukeyAbove(
    seriesList: SeriesBlock, basis: Float, n: Integer, interval: IntOrInterval = 0
) -> SeriesBlock:
    """The ``n`` series with the most values that are at least ``basis`` times the interquartile range
    above the third quartile of all series' values. As in carbonapi.

    ``interval`` (points, or a time): only the last ones count, negative: only those before them.

    load 10s  a 1 2 1 2
    load 10s  b 2 1 9 9
    load 10s  c 1 1 2 1
    eval tukeyAbove(*, 1.5, 2)  => b: 2 1 9 9
    """
    return _tukey(seriesList, basis, n, interval, above=True)


@render_function(group="Filter Series")
def tukeyBelow(
    seriesList: SeriesBlock, basis: Float, n: Integer, interval: IntOrInterval = 0
) -> SeriesBlock:
    """The ``n`` series with the most values that are at least ``basis`` times the interquartile range
    below the first quartile of all series' values. As in carbonapi.

    ``interval`` (points, or a time): only the last ones count, negative: only those before them.

    load 10s  a 8 9 8 9
    load 10s  b 9 1 8 9
    load 10s  c 8 8 9 9
    eval tukeyBelow(*, 1.5, 2)  => b: 9 1 8 9
    """
    return _tukey(seriesList, basis, n, interval, above=False)


def _tukey(
    block: SeriesBlock, basis: float, n: int, interval: int | float | str, above: bool
) -> SeriesBlock:
    if basis <= 0 or n < 1:
        raise BadRequest("target: tukey: basis must be above 0, and n at least 1")
    regarded = [
        (part, _last_columns(part.values, interval, part.grid.step_s)) for part in block.parts
    ]
    values = np.concatenate([some[~np.isnan(some)] for _, some in regarded] or [np.empty(0)])
    if not len(values):
        return SeriesBlock([], [])
    ordered = np.sort(values)
    first, third = ordered[len(values) // 4], ordered[3 * len(values) // 4]
    with np.errstate(all="ignore"):
        fence = third + basis * (third - first) if above else first - basis * (third - first)
    outliers = np.zeros(len(block), dtype=np.int64)
    for part, some in regarded:
        outliers[part.index] = np.count_nonzero(some >= fence if above else some <= fence, axis=1)
    order = np.argsort(-outliers, kind="stable")
    return block.take([place for place in order[:n].tolist() if outliers[place]])


def _last_columns(values: Matrix, interval: int | float | str, step_s: int) -> Matrix:
    """The last columns (negative: all but those); all when there aren't as many."""
    points = parse_interval(interval) // step_s if isinstance(interval, str) else int(interval)
    slots = values.shape[1]
    if 0 < points < slots:
        return values[:, slots - points :]
    if 0 < -points < slots:
        return values[:, : slots + points]
    return values
