"""Functions that make one series of several, point by point."""

from __future__ import annotations

import numpy as np

from tgres_py.errors import BadRequest
from tgres_py.functions.aggregation import reduce_known, reducer, short_name
from tgres_py.functions.grids import align
from tgres_py.functions.params import Boolean, Float, OldAggFunc
from tgres_py.functions.reads import Context, common_step
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Label, Matrix, SeriesBlock, concat
from tgres_py.functions.special import constant
from tgres_py.functions.summary import column_percentiles

FEW_NS = 12  # of a point that is only added, compared, …


@render_function(group="Combine", aliases=("sum",), steps=common_step, gives=1, point_ns=FEW_NS)
def sumSeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """The sum of all series, point by point. Unknown values count as nothing.

    Series of different steps are first consolidated to a common one.

    load 10s  a 1 2 _ _
    load 10s  b 1 _ 3 _
    eval sumSeries(a, b)  => sumSeries(a,b): 2 2 3 _
    """
    return aggregate_block(concat(seriesLists), "sum", context.xff)


@render_function(group="Combine", aliases=("avg",), steps=common_step, gives=1, point_ns=FEW_NS)
def averageSeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """The mean of all series, point by point. Unknown values don't count.

    load 10s  a 1 2 _ _
    load 10s  b 2 _ 3 _
    eval averageSeries(*)  => averageSeries(*): 1.5 2 3 _
    """
    return aggregate_block(concat(seriesLists), "average", context.xff)


@render_function(group="Combine", aliases=("min",), steps=common_step, gives=1, point_ns=FEW_NS)
def minSeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """The smallest value of all series, point by point.

    load 10s  a 1 2 _ _
    load 10s  b 2 _ 3 _
    eval minSeries(a, b)  => minSeries(a,b): 1 2 3 _
    """
    return aggregate_block(concat(seriesLists), "min", context.xff)


@render_function(group="Combine", aliases=("max",), steps=common_step, gives=1, point_ns=FEW_NS)
def maxSeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """The largest value of all series, point by point.

    load 10s  a 1 2 _ _
    load 10s  b 2 _ 3 _
    eval maxSeries(a, b)  => maxSeries(a,b): 2 2 3 _
    """
    return aggregate_block(concat(seriesLists), "max", context.xff)


@render_function(group="Combine", steps=common_step, gives=1, point_ns=FEW_NS)
def rangeOfSeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """The distance of the largest from the smallest value, point by point.

    load 10s  a 1 2 _ _
    load 10s  b 3 _ 3 _
    eval rangeOfSeries(a, b)  => rangeOfSeries(a,b): 2 0 0 _
    """
    return aggregate_block(concat(seriesLists), "rangeOf", context.xff)


@render_function(group="Combine", aliases=("stddev",), steps=common_step, gives=1)
def stddevSeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """The standard deviation of all series (of a population), point by point.

    load 10s  a 1 2 _ _
    load 10s  b 3 _ 3 _
    eval stddevSeries(a, b)  => stddevSeries(a,b): 1 0 0 _
    """
    return aggregate_block(concat(seriesLists), "stddev", context.xff)


@render_function(group="Combine", aliases=("diff",), steps=common_step, gives=1, point_ns=FEW_NS)
def diffSeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """The first series' value less the values of all others. An unknown value counts as nothing:
    then the next series is the first.

    load 10s  a 5 _ 4
    load 10s  b 1 1 _
    load 10s  c 2 2 _
    eval diffSeries(a, b, c)  => diffSeries(a,b,c): 2 -1 4
    """
    return aggregate_block(concat(seriesLists), "diff", context.xff)


@render_function(
    group="Combine", aliases=("multiply",), steps=common_step, gives=1, point_ns=FEW_NS
)
def multiplySeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """The product of all series, point by point; unknown where one is. A single series stays as it
    is.

    load 10s  a 2 3 _
    load 10s  b 4 _ 1
    eval multiplySeries(a, b)  => multiplySeries(a,b): 8 _ _
    eval multiplySeries(a)     => a: 2 3 _
    """
    if len(seriesLists) == 1 and len(seriesLists[0]) == 1:
        return seriesLists[0]
    return aggregate_block(concat(seriesLists), "multiply", context.xff)


@render_function(group="Combine", steps=common_step, gives=1)
def medianSeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """The median of all series, point by point.

    load 10s  a 1 2 _
    load 10s  b 2 4 3
    load 10s  c 9 _ _
    eval medianSeries(a, b, c)  => medianSeries(a,b,c): 2 3 3
    """
    return aggregate_block(concat(seriesLists), "median", context.xff)


@render_function(group="Combine", steps=common_step, gives=1, point_ns=FEW_NS)
def lastSeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """The value of the last series that has one, point by point.

    load 10s  a 1 2 _
    load 10s  b 2 _ _
    eval lastSeries(a, b)  => lastSeries(a,b): 2 2 _
    """
    return aggregate_block(concat(seriesLists), "last", context.xff)


@render_function(group="Combine", steps=common_step, gives=1)
def aggregate(
    seriesList: SeriesBlock,
    func: OldAggFunc,
    xFilesFactor: Float | None = None,
    *,
    context: Context,
) -> SeriesBlock:
    """One series: ``func`` of all, point by point. ``xFilesFactor`` of the series must be known.

    load 10s  a 1 2 _ _
    load 10s  b 2 _ 3 _
    eval aggregate(*, "sum")       => sumSeries(*): 3 2 3 _
    eval aggregate(*, "max", 0.6)  => maxSeries(*): 2 _ _ _
    """
    xff = context.xff if xFilesFactor is None else xFilesFactor
    return aggregate_block(seriesList, func, xff)


@render_function(group="Combine", steps=common_step)
def aggregateSeriesLists(
    seriesListFirstPos: SeriesBlock,
    seriesListSecondPos: SeriesBlock,
    func: OldAggFunc,
    xFilesFactor: Float | None = None,
    *,
    context: Context,
) -> SeriesBlock:
    """``func`` of the first series of both lists, of the second series of both, and so on.

    load 10s  a.x 1 2
    load 10s  b.x 3 5
    eval aggregateSeriesLists(a.*, b.*, "sum")  => sumSeries(a.x,b.x): 4 7
    """
    xff = context.xff if xFilesFactor is None else xFilesFactor
    return aggregate_pairs(seriesListFirstPos, seriesListSecondPos, func, xff)


@render_function(group="Combine", steps=common_step)
def sumSeriesLists(
    seriesListFirstPos: SeriesBlock, seriesListSecondPos: SeriesBlock, *, context: Context
) -> SeriesBlock:
    """The sums of the series of two lists, pair by pair.

    load 10s  a.x 1 2
    load 10s  b.x 3 5
    eval sumSeriesLists(a.*, b.*)  => sumSeries(a.x,b.x): 4 7
    """
    return aggregate_pairs(seriesListFirstPos, seriesListSecondPos, "sum", context.xff)


@render_function(group="Combine", steps=common_step)
def diffSeriesLists(
    seriesListFirstPos: SeriesBlock, seriesListSecondPos: SeriesBlock, *, context: Context
) -> SeriesBlock:
    """The differences of the series of two lists, pair by pair.

    load 10s  a.x 1 2
    load 10s  b.x 3 5
    eval diffSeriesLists(a.*, b.*)  => diffSeries(a.x,b.x): -2 -3
    """
    return aggregate_pairs(seriesListFirstPos, seriesListSecondPos, "diff", context.xff)


@render_function(group="Combine", steps=common_step)
def multiplySeriesLists(
    seriesListFirstPos: SeriesBlock, seriesListSecondPos: SeriesBlock, *, context: Context
) -> SeriesBlock:
    """The products of the series of two lists, pair by pair.

    load 10s  a.x 1 2
    load 10s  b.x 3 5
    eval multiplySeriesLists(a.*, b.*)  => multiplySeries(a.x,b.x): 3 10
    """
    return aggregate_pairs(seriesListFirstPos, seriesListSecondPos, "multiply", context.xff)


@render_function(
    group="Combine",
    aliases=("count",),
    steps=common_step,
    optional_list=True,
    gives=1,
    point_ns=FEW_NS,
)
def countSeries(*seriesLists: SeriesBlock, context: Context) -> SeriesBlock:
    """How many series there are, at each point, known or not. Without any list: 0.

    load 10s  a 1 2 _
    load 10s  b 1 _ _
    eval countSeries(*)   => countSeries(*): 2 2 2
    eval countSeries()    => 0: 0 0 0
    """
    if not seriesLists:
        return constant(0.0, "0", "countSeries()", context)
    block = concat(seriesLists)
    if not len(block):
        return block
    aligned = align(block)
    values = np.full((1, aligned.values.shape[1]), float(len(block)))
    label = fresh_label(f"countSeries({expressions(block)})", context)
    return SeriesBlock.uniform([label], aligned.grid, values)


@render_function(group="Combine", steps=common_step, gives=1)
def percentileOfSeries(
    seriesList: SeriesBlock, n: Float, interpolate: Boolean = False, *, context: Context
) -> SeriesBlock:
    """The ``n``-th percentile of all series, point by point.

    load 10s  a 1 2 _
    load 10s  b 2 4 _
    load 10s  c 3 6 _
    eval percentileOfSeries(*, 50)        => percentileOfSeries(*,50): 2 4 _
    eval percentileOfSeries(*, 40, true)  => percentileOfSeries(*,40): 1.6 3.2 _
    """
    if n <= 0:
        raise BadRequest(
            f"target: percentileOfSeries(): n is {n:g}; the percentile must be greater than 0"
        )
    if not len(seriesList):
        return seriesList
    aligned = align(seriesList)
    values = column_percentiles(aligned.values, n, interpolate)
    name = f"percentileOfSeries({seriesList.labels[0].path_expression},{n:g})"
    return SeriesBlock.uniform([fresh_label(name, context)], aligned.grid, values[None, :])


@render_function(group="Combine", steps=common_step, gives=1)
def powSeries(*seriesList: SeriesBlock, context: Context) -> SeriesBlock:
    """The first series to the power of the second, that to the power of the third, and so on;
    unknown where one is, and where the power has no value.

    load 10s  a 2 3 -1 0
    load 10s  b 3 _ 0.5 -1
    eval powSeries(a, b)  => powSeries(a,b): 8 _ _ _
    """
    block = concat(seriesList)
    if not len(block):
        return block
    aligned = align(block)
    values = aligned.values[0]
    for exponents in aligned.values[1:]:
        values = power(values, exponents)
    label = fresh_label(f"powSeries({','.join(label.name for label in block.labels)})", context)
    return SeriesBlock.uniform([label], aligned.grid, values[None, :])


@render_function(group="Combine", steps=common_step)
def powSeriesLists(
    sourceSeriesList: SeriesBlock, factorSeriesList: SeriesBlock, *, context: Context
) -> SeriesBlock:
    """The series of the first list to the power of those of the second, pair by pair.

    load 10s  a.x 2 3
    load 10s  b.x 3 2
    eval powSeriesLists(a.*, b.*)  => powSeries(a.x,b.x): 8 9
    """
    check_equal_length(sourceSeriesList, factorSeriesList, "powSeriesLists")
    pairs = zip(sourceSeriesList.rows(), factorSeriesList.rows(), strict=True)
    return concat(powSeries(SeriesBlock.of_rows(pair), context=context) for pair in pairs)


@render_function(group="Combine", optional_list=True)
def group(*seriesLists: SeriesBlock) -> SeriesBlock:
    """All series of several lists as one list.

    load 10s  a 1 2
    load 10s  b 3 4
    eval group(b, a)  => b: 3 4 | a: 1 2
    """
    return concat(seriesLists)


def aggregate_block(block: SeriesBlock, func: str, xff: float) -> SeriesBlock:
    """One series: ``func`` over all of the block's; empty when the block is.

    Named by the distinct path expressions; keeps the tags that all have alike (graphite-web's
    aggregate). A point is known when known/all series >= ``xff`` and at least one is.
    BadRequest: unknown function.
    """
    func = short_name(func)
    reduce = reducer(func)
    if not len(block):
        return block
    aligned = align(block)
    values = reduce_known(reduce, aligned.values, 0, xff)
    name = f"{func}Series({expressions(block)})"
    tags = {**common_tags(block, name), "aggregatedBy": func}
    return SeriesBlock.uniform([Label(name, name, tags, xff=xff)], aligned.grid, values[None, :])


def aggregate_pairs(first: SeriesBlock, second: SeriesBlock, func: str, xff: float) -> SeriesBlock:
    """``func`` of each pair, named by the names of both."""
    check_equal_length(first, second, "aggregateSeriesLists")
    reducer(short_name(func))
    rows = []
    for pair in zip(first.rows(), second.rows(), strict=True):
        name = f"{short_name(func)}Series({pair[0][0].name},{pair[1][0].name})"
        for label, grid, values in aggregate_block(SeriesBlock.of_rows(pair), func, xff).rows():
            rows.append((label.renamed(name), grid, values))
    return SeriesBlock.of_rows(rows)


def check_equal_length(first: SeriesBlock, second: SeriesBlock, function: str) -> None:
    if len(first) != len(second):
        raise BadRequest(
            f"target: {function}(): both lists must have as many series, "
            f"not {len(first)} and {len(second)}"
        )


def power(base: Matrix, exponent: Matrix) -> Matrix:
    """Unknown where there is no real and finite power of finite numbers."""
    with np.errstate(all="ignore"):
        out = np.power(base, exponent)
    failed = ~np.isfinite(out) & np.isfinite(base) & np.isfinite(exponent)
    return np.where(failed | np.isnan(base) | np.isnan(exponent), np.nan, out)


def expressions(block: SeriesBlock) -> str:
    """The distinct path expressions, in order."""
    return ",".join(dict.fromkeys(label.path_expression for label in block.labels))


def fresh_label(name: str, context: Context) -> Label:
    """Of a series that takes over nothing from those it is made of. LimitExceeded: see
    Context.count_name.
    """
    context.count_name(name)
    return Label(name, name, {"name": name}, xff=context.xff)


def common_tags(block: SeriesBlock, name: str) -> dict[str, str]:
    """The tags that all series have with equal values; without a common name tag, ``name``."""
    tags = dict(block.labels[0].tags)
    for label in block.labels[1:]:
        for tag in [tag for tag, value in tags.items() if label.tags.get(tag) != value]:
            del tags[tag]
    return {"name": name, **tags}
