"""How alike two series are, as carbonapi tells it; and series shifted by what others mark."""

from __future__ import annotations

import re
from typing import Annotated

import numpy as np

from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.aggregation import Array
from tgres_py.functions.params import Integer, Options, String
from tgres_py.functions.reads import Context
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Label, Matrix, Row, SeriesBlock

_SPAN_CELLS = 2_000_000
_VERSION = re.compile(r"([0-9]{1,9})_([0-9]{1,9})")


def correlation(a: Matrix, b: Matrix) -> Array:
    """Pearson's coefficient of each row of ``a`` with that of ``b`` (k, slots), of the columns where
    both are known: (k,), NaN where either doesn't vary.
    """
    both = np.isfinite(a) & np.isfinite(b)
    count = np.maximum(both.sum(axis=1, keepdims=True), 1)
    with np.errstate(all="ignore"):
        x = np.where(both, a - np.where(both, a, 0.0).sum(axis=1, keepdims=True) / count, 0.0)
        y = np.where(both, b - np.where(both, b, 0.0).sum(axis=1, keepdims=True) / count, 0.0)
        size = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
        out: Array = np.where(size > 0, (x * y).sum(axis=1) / size, np.nan)
    return out


def _pair(
    a: SeriesBlock, b: SeriesBlock, function: str
) -> tuple[Label, Label, Grid, Matrix] | None:
    """Both labels, the first one's grid, and both rows (2, slots). None: one of them is empty."""
    if not len(a) or not len(b):
        return None
    if len(a) != 1 or len(b) != 1:
        raise BadRequest(f"target: {function}() compares one series with one other")
    [(first, grid, x)], [(second, _, y)] = a.rows(), b.rows()
    slots = min(len(x), len(y))
    return first, second, grid, np.stack([x[:slots], y[:slots]])


def _window(size: int, slots: int, function: str, context: Context) -> None:
    if size < 1:
        raise BadRequest(f"target: {function}(): the window is {size}; it must be at least 1 point")
    if size * slots > context.points_max:
        raise LimitExceeded(
            f"points compared by {function}()", size * slots, context.points_max, "query_points_max"
        )


@render_function(group="Transform")
def pearson(
    seriesA: SeriesBlock, seriesB: SeriesBlock, windowSize: Integer, *, context: Context
) -> SeriesBlock:
    """Pearson's correlation of two series over the last ``windowSize`` points, from -1 to 1; points
    where either is unknown don't count. Unknown while there are fewer, and where either doesn't
    vary. As in carbonapi.

    load 10s  a 1 2 3 4
    load 10s  b 2 4 3 2
    eval pearson(a, b, 2)  => pearson(a,b,2): _ 1 -1 -1
    """
    pair = _pair(seriesA, seriesB, "pearson")
    if pair is None:
        return SeriesBlock([], [])
    first, second, grid, rows = pair
    slots = rows.shape[1]
    _window(windowSize, slots, "pearson", context)
    out = np.full(slots, np.nan)
    if windowSize <= slots:
        a, b = np.lib.stride_tricks.sliding_window_view(rows, windowSize, axis=1)
        span = max(1, _SPAN_CELLS // windowSize)
        for start in range(0, len(a), span):
            context.check_time()
            some = slice(start, start + span)
            out[windowSize - 1 :][some] = correlation(a[some], b[some])
    label = first.derived(f"pearson({first.name},{second.name},{windowSize})", pearson="1")
    return SeriesBlock.of_rows([(label, grid, out)])


@render_function(group="Filter Series")
def pearsonClosest(
    series: SeriesBlock,
    seriesList: SeriesBlock,
    n: Integer,
    direction: Annotated[String, Options("abs", "pos", "neg")] = "abs",
) -> SeriesBlock:
    """The ``n`` series of ``seriesList`` that correlate most with one ``series``: in either way, only
    positively or only negatively. As in carbonapi.

    load 10s  a 1 2 3
    load 10s  up 5 6 8
    load 10s  down 3 2 1
    load 10s  flat 1 1 1
    eval pearsonClosest(a, {up,down,flat}, 1)         => down: 3 2 1
    eval pearsonClosest(a, {up,down,flat}, 2, "pos")  => up: 5 6 8
    """
    if n < 0:
        raise BadRequest(f"target: pearsonClosest(): n is {n}; it must not be negative")
    if not len(series) or not len(seriesList):
        return SeriesBlock([], [])
    if len(series) != 1:
        raise BadRequest("target: pearsonClosest(): the first argument must be one series")
    [(_, _, reference)] = series.rows()
    score = np.full(len(seriesList), np.nan)
    for part in seriesList.parts:
        if part.values.shape[1] == len(reference):
            against = np.broadcast_to(reference, part.values.shape)
            score[part.index] = correlation(part.values, against)
    rank = {"abs": np.abs(score), "pos": score, "neg": -score}[direction]
    order = np.argsort(-rank, kind="stable")  # NaN goes last
    return seriesList.take([place for place in order.tolist() if rank[place] >= 0][:n])


@render_function(group="Transform", aliases=("ksTest2",), slot_ns=24_000)
def kolmogorovSmirnovTest2(
    seriesA: SeriesBlock, seriesB: SeriesBlock, windowSize: Integer, *, context: Context
) -> SeriesBlock:
    """How likely it is that the values of two series in the last ``windowSize`` points come from one
    distribution (the p-value of the two-sample Kolmogorov-Smirnov test). As in carbonapi.

    load 10s  a 1 2 3 4
    load 10s  b 1 2 3 4
    eval kolmogorovSmirnovTest2(a, b, 2)  => kolmogorovSmirnovTest2(a,b,2): _ _ 1 1
    """
    pair = _pair(seriesA, seriesB, "kolmogorovSmirnovTest2")
    if pair is None:
        return SeriesBlock([], [])
    first, second, grid, rows = pair
    slots = rows.shape[1]
    _window(windowSize, slots, "kolmogorovSmirnovTest2", context)
    out = np.full(slots, np.nan)
    # the window is full one point earlier than the first answer (so in carbonapi)
    for column in range(windowSize, slots):
        context.check_time()
        window = rows[:, column - windowSize + 1 : column + 1]
        out[column] = same_distribution(*(row[np.isfinite(row)] for row in window))
    name = f"kolmogorovSmirnovTest2({first.name},{second.name},{windowSize})"
    return SeriesBlock.of_rows([(first.derived(name), grid, out)])


def same_distribution(a: Array, b: Array) -> float:
    """The p-value of the two-sample Kolmogorov-Smirnov test, by its limit for many values with
    Stephens' correction for few. NaN when either is empty.
    """
    if not len(a) or not len(b):
        return float("nan")
    a, b = np.sort(a), np.sort(b)
    at = np.concatenate([a, b])
    distance = np.abs(
        np.searchsorted(a, at, side="right") / len(a)
        - np.searchsorted(b, at, side="right") / len(b)
    ).max()
    size = np.sqrt(len(a) * len(b) / (len(a) + len(b)))
    spread = (size + 0.12 + 0.11 / size) * distance
    if spread < 0.2:  # the series below is 1 there, but converges slowly
        return 1.0
    terms = np.arange(1, 101)
    signs = np.where(terms % 2, 2.0, -2.0)
    likely = float((signs * np.exp(-2.0 * (spread * terms) ** 2)).sum())
    return min(1.0, max(0.0, likely))


@render_function(group="Transform")
def timeShiftByMetric(
    seriesList: SeriesBlock, markSource: SeriesBlock, versionRankIndex: Integer
) -> SeriesBlock:
    """Moves each version's series to where the latest version is. As in carbonapi.

    ``markSource``: one series for each version, whose name ends with ``MAJOR_MINOR`` and whose last
    known value marks when that version began; of each major version the highest minor one counts.
    ``versionRankIndex``: the node in the names of ``seriesList`` that is the version, or begins it.

    load 10s  app.1_0 1 2 3 4
    load 10s  app.2_0 5 6 7 8
    load 10s  mark.1_0 1 _ _ _
    load 10s  mark.2_0 _ _ 1 _
    eval timeShiftByMetric(app.*, mark.*, 1)  => timeShiftByMetric(app.1_0): 1 2 3 4 | timeShiftByMetric(app.2_0): 5 6 7 8
    """
    if len(seriesList) < 2 or len(markSource) < 2:
        raise BadRequest(
            "target: timeShiftByMetric(): at least two series and two series of marks are needed"
        )
    shifts = _version_shifts(markSource)
    rows: list[Row] = []
    for label, grid, values in seriesList.rows():
        nodes = label.tags.get("name", label.name).split(".")
        if not -len(nodes) <= versionRankIndex < len(nodes):
            continue
        version = nodes[versionRankIndex]
        shift_s = next((s for mark, s in shifts.items() if mark.startswith(version)), None)
        if shift_s is not None:
            moved = Grid(grid.start_s + shift_s, grid.end_s + shift_s, grid.step_s)
            rows.append((label.derived(f"timeShiftByMetric({label.name})"), moved, values))
    return SeriesBlock.of_rows(rows)


def _version_shifts(marks: SeriesBlock) -> dict[str, int]:
    """Seconds from each version's mark to that of the latest version, latest first."""
    found: dict[int, tuple[int, str, int]] = {}  # by major version: minor, name, time
    for label, grid, values in marks.rows():
        name = label.tags.get("name", label.name).rpartition(".")[2]
        version = _VERSION.search(name)
        known = np.flatnonzero(~np.isnan(values))
        if version and len(known):
            major, minor = int(version[1]), int(version[2])
            mark = (minor, name, grid.start_s + int(known[-1]) * grid.step_s)
            found[major] = max(found.get(major, mark), mark)
    if len(found) < 2:
        raise BadRequest(
            f"target: timeShiftByMetric(): {len(found)} marked versions (MAJOR_MINOR) found, two are needed"
        )
    latest_s = found[max(found)][2]
    return {name: latest_s - time_s for _, (_, name, time_s) in sorted(found.items(), reverse=True)}
