"""Functions that make one series of several."""

from __future__ import annotations

from tgres_py.functions.aggregation import reduce_known, reducer
from tgres_py.functions.grids import align
from tgres_py.functions.params import AggFunc
from tgres_py.functions.reads import Context, common_step
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Label, SeriesBlock, concat


@render_function(group="Combine", aliases=("sum",), steps=common_step)
def sumSeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """The sum of all series, point by point. Unknown values count as nothing.

    Series of different steps are first consolidated to a common one.

    load 10s  a 1 2 _ _
    load 10s  b 1 _ 3 _
    eval sumSeries(a, b)  => sumSeries(a,b): 2 2 3 _
    """
    return aggregate_block(concat(seriesLists), "sum", context.xff)


@render_function(group="Combine", aliases=("avg",), steps=common_step)
def averageSeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """The mean of all series, point by point. Unknown values don't count.

    load 10s  a 1 2 _ _
    load 10s  b 2 _ 3 _
    eval averageSeries(*)  => averageSeries(*): 1.5 2 3 _
    """
    return aggregate_block(concat(seriesLists), "average", context.xff)


@render_function(group="Combine", optional_list=True)
def group(*seriesLists: SeriesBlock) -> SeriesBlock:
    """All series of several lists as one list.

    load 10s  a 1 2
    load 10s  b 3 4
    eval group(b, a)  => b: 3 4 | a: 1 2
    """
    return concat(seriesLists)


def aggregate_block(block: SeriesBlock, func: AggFunc, xff: float) -> SeriesBlock:
    """One series: ``func`` over all of the block's; empty when the block is.

    Named by the distinct path expressions; keeps the tags that all have alike (graphite-web's
    aggregate). A point is known when known/all series >= ``xff`` and at least one is.
    """
    if not len(block):
        return block
    aligned = align(block)
    values = reduce_known(reducer(func), aligned.values, 0, xff)
    name = (
        f"{func}Series({','.join(dict.fromkeys(label.path_expression for label in block.labels))})"
    )
    tags = {**common_tags(block, name), "aggregatedBy": func}
    return SeriesBlock.uniform([Label(name, name, tags, xff=xff)], aligned.grid, values[None, :])


def common_tags(block: SeriesBlock, name: str) -> dict[str, str]:
    """The tags that all series have with equal values; without a common name tag, ``name``."""
    tags = dict(block.labels[0].tags)
    for label in block.labels[1:]:
        for tag in [tag for tag, value in tags.items() if label.tags.get(tag) != value]:
            del tags[tag]
    return {"name": name, **tags}
