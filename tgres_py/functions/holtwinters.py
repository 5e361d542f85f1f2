"""Holt-Winters: a forecast of each point from level, slope and season, and how far it usually is off.

Triple exponential smoothing with alpha = gamma = 0.1 and beta = 0.0035, as in graphite-web. Each
step depends on the one before it, so there is a loop over time; all series of a grid go at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from tgres_py.errors import BadRequest
from tgres_py.functions.aggregation import Array
from tgres_py.functions.params import Interval, LooseInteger, Suggest
from tgres_py.functions.reads import Context, Lookback, LookbackAndOwn
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Label, Matrix, Part, SeriesBlock
from tgres_py.target.attime import parse_interval

ALPHA = 0.1
BETA = 0.0035
GAMMA = 0.1
SEASON_POINTS_MIN = 2

Bootstrap = Annotated[Interval, Suggest("7d", "30d")]
Season = Annotated[Interval, Suggest("1d", "7d")]


@dataclass(slots=True)
class Analysis:
    """``predictions``, ``deviations``: (k, slots) like the values; NaN = none."""

    predictions: Matrix
    deviations: Matrix


class _State:
    """Level, slope and forecast of all rows after one column; (k,) each."""

    def __init__(self, first: Array) -> None:
        self.level = first  # NaN: unknown
        self.slope = np.zeros(len(first))
        self.forecast = first  # of the next value; NaN: none


def analyse(values: Matrix, season: int, context: Context) -> Analysis:
    """``season``: in columns; below 2 counts as 2 (as graphite-web's master)."""
    season = max(season, SEASON_POINTS_MIN)
    rows, slots = values.shape
    predictions = np.full((rows, slots), np.nan)
    deviations = np.zeros((rows, slots))
    seasonals = np.zeros((rows, slots))
    none = np.zeros(rows)
    if not slots:
        return Analysis(predictions, deviations)
    state = _State(values[:, 0])
    for column in range(slots):
        context.check_time()
        before = column - season
        now = seasonals[:, before] if before >= 0 else none
        following = seasonals[:, before + 1] if before + 1 >= 0 else none
        deviation = deviations[:, before] if before >= 0 else none
        predictions[:, column] = state.forecast
        seasonals[:, column], deviations[:, column] = _advance(
            state, values[:, column], now, following, deviation
        )
    return Analysis(predictions, deviations)


def _advance(
    state: _State, actual: Array, season: Array, next_season: Array, deviation: Array
) -> tuple[Array, Array]:
    """Takes in one value of each row; its seasonal part and deviation. An unknown value forgets the
    level and the forecast.
    """
    known = ~np.isnan(actual)
    level = np.where(np.isnan(state.level), actual, state.level)
    expected = np.where(np.isnan(state.forecast), 0.0, state.forecast)
    new_level = ALPHA * (actual - season) + (1 - ALPHA) * (level + state.slope)
    new_slope = BETA * (new_level - level) + (1 - BETA) * state.slope
    new_season = GAMMA * (actual - new_level) + (1 - GAMMA) * season
    new_deviation = GAMMA * np.abs(actual - expected) + (1 - GAMMA) * deviation
    state.level = np.where(known, new_level, np.nan)
    state.slope = np.where(known, new_slope, 0.0)
    state.forecast = np.where(known, new_level + new_slope + next_season, np.nan)
    return np.where(known, new_season, 0.0), np.where(known, new_deviation, 0.0)


def _season_points(seasonality: str, step_s: int) -> int:
    season_s = parse_interval(seasonality, "seasonality")
    if season_s < 0:
        raise BadRequest(f"target: holtWinters: seasonality {seasonality!r} must be positive")
    return season_s // step_s


def _after_bootstrap(part: Part, context: Context) -> tuple[Grid, int]:
    """The grid without the bootstrap interval, and how many columns that is."""
    old = part.grid
    start_s = old.start_s + context.lookback_s
    return Grid(start_s, old.end_s, old.step_s), context.lookback_s // old.step_s


_FORECAST_TAGS = {"holtWintersForecast": "1", "holtWintersDeviation": "1"}
_BAND_TAGS = {
    **_FORECAST_TAGS,
    "holtWintersConfidenceUpper": "1",
    "holtWintersConfidenceLower": "1",
}


def _fresh(label: Label, name: str, expression: str, tags: dict[str, str]) -> Label:
    """The label of a series made anew: it consolidates by the average and has no options."""
    return Label(name, expression, {**label.tags, **tags}, xff=label.xff)


@render_function(group="Calculate", reads=Lookback("bootstrapInterval"), slot_ns=17_000)
def holtWintersForecast(
    seriesList: SeriesBlock,
    bootstrapInterval: Bootstrap = "7d",
    seasonality: Season = "1d",
    *,
    context: Context,
) -> SeriesBlock:
    """What each point was to be expected to be, from the points before it: level, slope, and the
    season that repeats each ``seasonality``. ``bootstrapInterval`` before the range is read too.

    load 10s  a 1 2 3
    eval holtWintersForecast(a, "1min", "20s")  => holtWintersForecast(a): _ 1 1.10035
    """

    def compute(part: Part) -> tuple[Grid, Matrix]:
        grid, skipped = _after_bootstrap(part, context)
        analysis = analyse(part.values, _season_points(seasonality, grid.step_s), context)
        return grid, analysis.predictions[:, skipped:]

    def relabel(label: Label) -> Label:
        name = f"holtWintersForecast({label.name})"
        return _fresh(label, name, name, _FORECAST_TAGS)

    with np.errstate(all="ignore"):
        return seriesList.map_values(compute).map_labels(relabel)


@render_function(group="Calculate", reads=Lookback("bootstrapInterval"), slot_ns=17_000)
def holtWintersConfidenceBands(
    seriesList: SeriesBlock,
    delta: LooseInteger = 3,
    bootstrapInterval: Bootstrap = "7d",
    seasonality: Season = "1d",
    *,
    context: Context,
) -> SeriesBlock:
    """Between which values each point was to be expected: the Holt-Winters forecast less and plus
    ``delta`` times the usual deviation. Two series for each: lower, upper.

    load 10s  a 1 2 3
    eval holtWintersConfidenceBands(a, 1, "1min", "20s")  => holtWintersConfidenceLower(a): _ 0.9 0.820385 | holtWintersConfidenceUpper(a): _ 1.1 1.380315
    """
    return _bands(seriesList, delta, seasonality, context)


def _bands(block: SeriesBlock, delta: float, seasonality: str, context: Context) -> SeriesBlock:
    labels = []
    for label in block.labels:
        for side in ("Lower", "Upper"):
            name = f"holtWintersConfidence{side}({label.name})"
            labels.append(_fresh(label, name, label.path_expression, _BAND_TAGS))
    parts = []
    with np.errstate(all="ignore"):
        for part in block.parts:
            grid, skipped = _after_bootstrap(part, context)
            found = analyse(part.values, _season_points(seasonality, grid.step_s), context)
            middle, off = found.predictions[:, skipped:], delta * found.deviations[:, skipped:]
            both = np.stack([middle - off, middle + off], axis=1)
            index = np.stack([2 * part.index, 2 * part.index + 1], axis=1)
            parts.append(Part(grid, both.reshape(len(both) * 2, both.shape[2]), index.reshape(-1)))
    return SeriesBlock(labels, parts)


@render_function(group="Calculate", reads=Lookback("bootstrapInterval"), slot_ns=17_000)
def holtWintersConfidenceArea(
    seriesList: SeriesBlock,
    delta: LooseInteger = 3,
    bootstrapInterval: Bootstrap = "7d",
    seasonality: Season = "1d",
    *,
    context: Context,
) -> SeriesBlock:
    """The Holt-Winters confidence bands of one series, drawn as an area.

    load 10s  a 1 2 3
    eval holtWintersConfidenceArea(a, 1, "1min", "20s")  => holtWintersConfidenceArea(a): _ 0.9 0.820385 | holtWintersConfidenceArea(a): _ 1.1 1.380315
    """
    if len(seriesList) != 1:
        raise BadRequest(
            f"target: holtWintersConfidenceArea() takes exactly one series, {len(seriesList)} are given"
        )
    bands = _bands(seriesList, delta, seasonality, context)
    name = f"holtWintersConfidenceArea({bands.labels[1].path_expression})"

    def relabel(label: Label, **options: bool) -> Label:
        new = label.derived(name, holtWintersConfidenceArea="1")
        new.options = {**label.options, "stacked": True, **options}
        return new

    lower, upper = bands.labels
    return SeriesBlock([relabel(lower, invisible=True), relabel(upper)], bands.parts)


@render_function(group="Calculate", reads=LookbackAndOwn("bootstrapInterval"), slot_ns=17_000)
def holtWintersAberration(
    seriesList: list[SeriesBlock],
    delta: LooseInteger = 3,
    bootstrapInterval: Bootstrap = "7d",
    seasonality: Season = "1d",
    *,
    context: Context,
) -> SeriesBlock:
    """How far each point lies outside of the Holt-Winters confidence bands: above them positive,
    below negative, inside 0.

    load 10s  a 1 2 3
    eval holtWintersAberration(a, 1, "1min", "20s")  => holtWintersAberration(a): 0 0.9 1.619685
    """
    earlier, own = seriesList
    bands = _bands(earlier, delta, seasonality, context)
    by_name = {label.name: values for label, _, values in bands.rows()}
    rows = []
    for label, grid, values in own.rows():
        lower, upper = (
            _fitted(by_name.get(f"holtWintersConfidence{side}({label.name})"), len(values))
            for side in ("Lower", "Upper")
        )
        with np.errstate(all="ignore"):
            above = np.where(values > upper, values - upper, 0.0)
            off = np.where(values < lower, values - lower, above)
        name = f"holtWintersAberration({label.name})"
        rows.append((_fresh(label, name, name, {"holtWintersAberration": "1"}), grid, off))
    return SeriesBlock.of_rows(rows)


def _fitted(band: Matrix | None, slots: int) -> Array:
    """A band's first ``slots`` values, NaN where it has none (read from a coarser archive)."""
    out = np.full(slots, np.nan)
    if band is not None:
        out[: len(band)] = band[:slots]
    return out
