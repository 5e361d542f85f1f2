"""Functions of carbonapi that join, take apart and scale lists of series, as its documentation
describes them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import numpy as np

from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.combine import fresh_label
from tgres_py.functions.grids import align
from tgres_py.functions.params import Float, Integer, Options, String
from tgres_py.functions.reads import Context, common_step
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Label, Matrix, Part, SeriesBlock, concat

_HEAT_POINTS = 5


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


@render_function(group="Transform", steps=common_step)
def heatMap(seriesList: SeriesBlock, *, context: Context) -> SeriesBlock:
    """How much each series lies above the one below it: cumulative buckets (``le.10``, ``le.100``)
    become plain ones. The lowest series, which has none below it, is left out.

    Series are put in order by the sum of the first five points at which all are known.

    load 10s  le.1 1 2 _
    load 10s  le.10 3 5 1
    load 10s  le.2 3 9 2
    eval heatMap(le.*)  => heatMap(le.10,le.1): 2 3 _ | heatMap(le.2,le.10): 0 4 1
    """
    if len(seriesList) < 2:
        return SeriesBlock([], [])
    aligned = align(seriesList)
    complete = np.flatnonzero(~np.isnan(aligned.values).any(axis=0))[:_HEAT_POINTS]
    order = np.argsort(aligned.values[:, complete].sum(axis=1), kind="stable")
    names = [seriesList.labels[place].name for place in order.tolist()]
    labels = [fresh_label(f"heatMap({name},{before})", context) for before, name in pairwise(names)]
    return SeriesBlock.uniform(labels, aligned.grid, np.diff(aligned.values[order], axis=0))


@render_function(group="Combine", steps=common_step)
def countValues(
    seriesList: SeriesBlock, valuesLimit: Integer = 32, *, context: Context
) -> SeriesBlock:
    """One line for each whole number that is a value of any series: how many series have it at each
    point. Parts behind the point are cut off. More than ``valuesLimit`` different values are
    refused.

    load 10s  a.state 0 1 1
    load 10s  b.state 1 1 _
    load 10s  c.state 2 1 0
    eval countValues(*.state)  => 0: 1 0 1 | 1: 1 3 1 | 2: 1 0 0
    """
    if not len(seriesList):
        return seriesList
    aligned = align(seriesList)
    whole = np.trunc(np.where(np.isfinite(aligned.values), aligned.values, np.nan))
    found = np.unique(whole[~np.isnan(whole)])
    if len(found) > valuesLimit:
        raise BadRequest(
            f"target: countValues(): {len(found)} different values; valuesLimit is {valuesLimit}"
        )
    slots = whole.shape[1]
    made = len(found) * slots
    if made > context.points_max:
        raise LimitExceeded(
            "points made by countValues()", made, context.points_max, "query_points_max"
        )
    known = ~np.isnan(whole)
    cells = np.searchsorted(found, whole[known]) * slots + np.nonzero(known)[1]
    counts = np.bincount(cells, minlength=made).astype(np.float64)
    labels = [fresh_label(f"{number:.0f}", context) for number in found.tolist()]
    return SeriesBlock.uniform(labels, aligned.grid, counts.reshape(len(found), slots))


@render_function(group="Transform")
def scaleAfterTimestamp(
    seriesList: SeriesBlock, factor: Float, timestamp: Integer = 0
) -> SeriesBlock:
    """Multiplies the values from the Unix time ``timestamp`` on by ``factor``: for a sender that
    changed its unit at that time.

    load 10s  a 1 2 _ 4
    eval scaleAfterTimestamp(a, 10, 1700000060)  => scaleAfterTimestamp(a,10,1700000060): 1 2 _ 40
    eval scaleAfterTimestamp(a, 10)              => scaleAfterTimestamp(a,10,0): 10 20 _ 40
    """

    def compute(part: Part) -> tuple[Grid, Matrix]:
        times = part.grid.start_s + part.grid.step_s * np.arange(part.values.shape[1])
        return part.grid, np.where(times >= timestamp, part.values * factor, part.values)

    def relabel(label: Label) -> Label:
        name = f"scaleAfterTimestamp({label.name},{factor:g},{timestamp})"
        return label.derived(name, scale=f"{factor:g}")

    return seriesList.map_values(compute).map_labels(relabel)


def _without(block: SeriesBlock, other: SeriesBlock) -> SeriesBlock:
    names = {label.name for label in other.labels}
    return block.take([i for i, label in enumerate(block.labels) if label.name not in names])
