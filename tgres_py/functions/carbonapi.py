"""Functions of carbonapi that combine and filter series, as its documentation describes them."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import numpy as np

from tgres_py.errors import BadRequest
from tgres_py.functions.combine import fresh_label
from tgres_py.functions.grids import align
from tgres_py.functions.params import Float, Interval, Options, String
from tgres_py.functions.reads import Context, common_step, step_from
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Matrix, Part, SeriesBlock, concat
from tgres_py.functions.transform import bucket_grid, fill_buckets
from tgres_py.target.attime import parse_interval

_METHODS = {
    "above": np.greater,
    "aboveOrEqual": np.greater_equal,
    "below": np.less,
    "belowOrEqual": np.less_equal,
}
Method = Annotated[String, Options(*_METHODS)]


@render_function(group="Combine")
def join(
    seriesA: SeriesBlock,
    seriesB: SeriesBlock,
    type: Annotated[String, Options("AND", "OR", "XOR", "SUB")] = "AND",
) -> SeriesBlock:
    """Joins two lists by the series' names: those of A that are in B too (AND), of A and those only
    in B (OR), in one of them only (XOR), or of A that aren't in B (SUB).

    load 10s  a 1 2
    load 10s  b 3 4
    load 10s  c 5 6
    eval join(group(a, b), group(b, c))         => b: 3 4
    eval join(group(a, b), group(b, c), "OR")   => a: 1 2 | b: 3 4 | c: 5 6
    eval join(group(a, b), group(b, c), "XOR")  => a: 1 2 | c: 5 6
    eval join(group(a, b), group(b, c), "SUB")  => a: 1 2
    """
    only_a, only_b = _without(seriesA, seriesB), _without(seriesB, seriesA)
    if type == "AND":
        return _without(seriesA, only_a)
    if type == "OR":
        return concat((seriesA, only_b))
    return concat((only_a, only_b)) if type == "XOR" else only_a


@render_function(group="Combine", steps=common_step)
def heatMap(seriesList: SeriesBlock, *, context: Context) -> SeriesBlock:
    """How much each series lies above the one before it: cumulative buckets become plain ones. The
    first series, which has none before it, is left out.

    load 10s  le.1 1 2 _
    load 10s  le.2 3 5 1
    load 10s  le.3 3 9 2
    eval heatMap(le.*)  => heatMap(le.2,le.1): 2 3 _ | heatMap(le.3,le.2): 0 4 1
    """
    if len(seriesList) < 2:
        return SeriesBlock([], [])
    aligned = align(seriesList)
    names = [label.name for label in seriesList.labels]
    labels = [fresh_label(f"heatMap({name},{before})", context) for before, name in pairwise(names)]
    return SeriesBlock.uniform(labels, aligned.grid, np.diff(aligned.values, axis=0))


@render_function(group="Transform", steps=step_from("interval"))
def slo(
    seriesList: SeriesBlock, interval: Interval, method: Method, value: Float, *, context: Context
) -> SeriesBlock:
    """The share of the known values in each ``interval`` that are above or below ``value``.

    load 10s  a 1 5 _ 7
    eval slo(a, "20s", "above", 2)  => slo(a, "20s", "above", 2): 0.5 1
    """
    name = f'"{interval}", "{method}", {value:g}'
    return _shares(seriesList, interval, method, value, context).map_labels(
        lambda label: label.derived(f"slo({label.name}, {name})", slo=interval)
    )


@render_function(group="Transform", steps=step_from("interval"))
def sloErrorBudget(
    seriesList: SeriesBlock,
    interval: Interval,
    method: Method,
    value: Float,
    objective: Float,
    *,
    context: Context,
) -> SeriesBlock:
    """The seconds of each ``interval`` by which slo() beats its ``objective``; negative when it is
    missed.

    load 10s  a 1 5 _ 7
    eval sloErrorBudget(a, "20s", "above", 2, 0.9)  => sloErrorBudget(a, "20s", "above", 2, 0.9): -8 2
    """
    name = f'"{interval}", "{method}", {value:g}, {objective:g}'
    return (
        _shares(seriesList, interval, method, value, context)
        .map_values(lambda part: (part.grid, (part.values - objective) * part.grid.step_s))
        .map_labels(
            lambda label: label.derived(
                f"sloErrorBudget({label.name}, {name})", sloErrorBudget=interval
            )
        )
    )


def _shares(
    block: SeriesBlock, interval: str, method: str, value: float, context: Context
) -> SeriesBlock:
    interval_s = parse_interval(interval, "interval")
    if interval_s <= 0:
        raise BadRequest(f"target: slo(): interval {interval!r} must be positive")
    compare = _METHODS[method]

    def compute(part: Part) -> tuple[Grid, Matrix]:
        grid = bucket_grid(part, interval_s, True, context.points_max)
        hits = np.where(np.isnan(part.values), np.nan, compare(part.values, value))
        xff = np.zeros((len(hits), 1))
        return grid, fill_buckets(Part(part.grid, hits, part.index), grid, "average", xff)

    return block.map_values(compute)


def _without(block: SeriesBlock, other: SeriesBlock) -> SeriesBlock:
    names = {label.name for label in other.labels}
    return block.take([i for i, label in enumerate(block.labels) if label.name not in names])
