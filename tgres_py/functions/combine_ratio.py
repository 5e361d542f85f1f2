"""Functions that divide series by others: aligned by position, unknown where either is, or where the
divisor is 0.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tgres_py.errors import BadRequest
from tgres_py.functions.aggregation import reduce_known, reducer
from tgres_py.functions.alias import nodes_name
from tgres_py.functions.combine import (
    aggregate_block,
    check_equal_length,
    expressions,
    fresh_label,
)
from tgres_py.functions.combine_groups import groups
from tgres_py.functions.grids import align, consolidate_part
from tgres_py.functions.params import NodeOrTag
from tgres_py.functions.reads import Context, common_step
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Matrix, Part, Row, SeriesBlock, concat


@render_function(group="Combine", steps=common_step)
def divideSeries(
    dividendSeriesList: SeriesBlock, divisorSeries: SeriesBlock, *, context: Context
) -> SeriesBlock:
    """Each series divided by one other, point by point.

    load 10s  a 4 6 _ 1
    load 10s  b 2 4 1 0
    eval divideSeries(a, b)       => divideSeries(a,b): 2 1.5 _ _
    eval divideSeries(a, nosuch)  => divideSeries(a,MISSING): _ _ _ _
    """
    if not len(divisorSeries):
        return dividendSeriesList.map_values(
            lambda part: (part.grid, np.full(part.values.shape, np.nan))
        ).map_labels(lambda label: label.derived(f"divideSeries({label.name},MISSING)"))
    if len(divisorSeries) > 1:
        raise BadRequest(
            "target: divideSeries(): second argument must reference exactly 1 series "
            f"(got {len(divisorSeries)})"
        )
    [divisor] = divisorSeries.rows()
    return _quotients(((row, divisor) for row in dividendSeriesList.rows()), context)


@render_function(group="Combine", steps=common_step)
def divideSeriesLists(
    dividendSeriesList: SeriesBlock, divisorSeriesList: SeriesBlock, *, context: Context
) -> SeriesBlock:
    """The first series of one list divided by the first of the other, and so on.

    load 10s  a.x 4 6
    load 10s  b.x 2 4
    eval divideSeriesLists(a.*, b.*)  => divideSeries(a.x,b.x): 2 1.5
    """
    check_equal_length(dividendSeriesList, divisorSeriesList, "divideSeriesLists")
    return _quotients(
        zip(dividendSeriesList.rows(), divisorSeriesList.rows(), strict=True), context
    )


@render_function(group="Combine", aliases=("pct",), steps=common_step, optional_list=True)
def asPercent(
    seriesList: SeriesBlock,
    total: SeriesBlock | int | float | None = None,
    *nodes: NodeOrTag,
    context: Context,
) -> SeriesBlock:
    """The share of each series in ``total``, in percent.

    ``total``: a number, one series, as many series (paired by their names' order), or nothing: the
    sum of all. With ``nodes`` series and totals with equal nodes and tags belong together.

    load 10s  a.used 1 2
    load 10s  b.used 3 2
    load 10s  a.size 4 8
    load 10s  b.size 4 4
    eval asPercent(*.used)            => asPercent(a.used,sumSeries(*.used)): 25 50 | asPercent(b.used,sumSeries(*.used)): 75 50
    eval asPercent(a.used, 10)        => asPercent(a.used,10): 10 20
    eval asPercent(a.used, a.size)    => asPercent(a.used,a.size): 25 25
    eval asPercent(*.used, a.size)    => asPercent(a.used,a.size): 25 25 | asPercent(b.used,a.size): 75 25
    eval asPercent(*.used, *.size, 0) => asPercent(a.used,a.size): 25 25 | asPercent(b.used,b.size): 75 50
    """
    if isinstance(total, bool | str):
        raise BadRequest(f"target: asPercent(): total must be a number or series, not {total!r}")
    if not len(seriesList):
        return seriesList
    if nodes:
        if isinstance(total, int | float):
            raise BadRequest("target: asPercent(): total must be None or a seriesList")
        return _percent_by_nodes(seriesList, total, nodes, context)
    if total is None:
        return _percent_of_sum(seriesList, context)
    if not isinstance(total, SeriesBlock):
        return _percent_of_number(seriesList, total, context)
    if len(total) == len(seriesList):
        pairs = zip(_by_name(seriesList), _by_name(total), strict=True)
        return SeriesBlock.of_rows([_percent(row, other, context) for row, other in pairs])
    if len(total) == 1:
        return _percent_of_one(seriesList, total, context)
    raise BadRequest(
        "target: asPercent(): second argument must be missing, a single digit, reference exactly 1 "
        f"series or reference the same number of series as the first argument (got {len(total)})"
    )


@render_function(group="Combine", steps=common_step, optional_list=True)
def weightedAverage(
    seriesListAvg: SeriesBlock,
    seriesListWeight: SeriesBlock,
    *nodes: NodeOrTag,
    context: Context,
) -> SeriesBlock:
    """The mean of series weighted by others; those with equal ``nodes`` belong together.

    load 10s  a.mean 2 2
    load 10s  b.mean 4 4
    load 10s  a.count 1 3
    load 10s  b.count 1 1
    eval weightedAverage(*.mean, *.count, 0)  => weightedAverage(*.mean, *.count, 0): 3 2.5
    """
    check_equal_length(seriesListAvg, seriesListWeight, "weightedAverage")
    means = {nodes_name(row[0], nodes): row for row in seriesListAvg.rows()}
    weights = {nodes_name(row[0], nodes): row for row in seriesListWeight.rows()}
    rows = []
    for mean, weight in ((means[key], weights[key]) for key in means if key in weights):
        first, second = _padded(mean[2], weight[2])
        label = fresh_label(f"product({weight[0].name},{mean[0].name})", context)
        rows.append((label, mean[1], first * second))
    if not rows:
        return SeriesBlock([], [])
    [products] = aggregate_block(SeriesBlock.of_rows(rows), "sum", context.xff).rows()
    [sums] = aggregate_block(seriesListWeight, "sum", context.xff).rows()
    shown = [
        ",".join(sorted({label.path_expression for label in block.labels}))
        for block in (seriesListAvg, seriesListWeight)
    ]
    name = f"weightedAverage({shown[0]}, {shown[1]}, {','.join(map(str, nodes))})"
    values = _divided(*_padded(products[2], sums[2]))
    return SeriesBlock.uniform([fresh_label(name, context)], products[1], values[None, :])


def _by_name(block: SeriesBlock) -> list[Row]:
    return sorted(block.rows(), key=lambda row: row[0].name)


def _percent_of_sum(block: SeriesBlock, context: Context) -> SeriesBlock:
    totals = reduce_known(reducer("sum"), align(block).values, 0, 0.0)
    return _percent_of(block, totals, f"sumSeries({expressions(block)})", context)


def _percent_of_one(block: SeriesBlock, total: SeriesBlock, context: Context) -> SeriesBlock:
    both = concat((block, total))
    return _percent_of(
        block, align(both).values[-1], total.labels[0].name, context, align(both).grid.step_s
    )


def _percent_of_number(block: SeriesBlock, total: int | float, context: Context) -> SeriesBlock:
    _, _, first = next(block.rows())
    return _percent_of(block, np.full(len(first), float(total)), str(total), context)


def _percent_of(
    block: SeriesBlock, totals: Matrix, shown: str, context: Context, step_s: int | None = None
) -> SeriesBlock:
    """Percent of ``totals`` (slots,). Series of mixed steps are consolidated to a common one, and yet
    stamped with their own (as in graphite-web).
    """
    step_s = step_s or align(block).grid.step_s

    def compute(part: Part) -> tuple[Grid, Matrix]:
        values = consolidate_part(block, part, step_s // part.grid.step_s)
        width = max(values.shape[1], len(totals))
        wide = np.full((len(values), width), np.nan)
        wide[:, : values.shape[1]] = values
        divisor = np.full(width, np.nan)
        divisor[: len(totals)] = totals
        return part.grid, _divided(wide, divisor) * 100.0

    return block.map_values(compute).map_labels(
        lambda label: fresh_label(f"asPercent({label.name},{shown})", context)
    )


def _percent_by_nodes(
    block: SeriesBlock,
    total: SeriesBlock | None,
    nodes: tuple[int | str, ...],
    context: Context,
) -> SeriesBlock:
    """Groups of ``block`` against the totals of the same key: series of ``total`` (their sum), or
    the sum of the group itself.
    """
    series = dict(groups(block, lambda label: nodes_name(label, nodes)))
    sources = series
    if total is not None:
        sources = dict(groups(total, lambda label: nodes_name(label, nodes)))
    totals = {key: _sum_row(some, context) for key, some in sources.items()}
    rows: list[Row] = []
    for key in dict.fromkeys([*series, *totals]):
        partner = totals.get(key)
        if key not in series:
            assert partner is not None
            rows.append(_missing(partner, f"asPercent(MISSING,{partner[0].name})", rows, context))
            continue
        for row in series[key].rows():
            if partner is None:
                rows.append(_missing(row, f"asPercent({row[0].name},MISSING)", rows, context))
            else:
                rows.append(_percent(row, partner, context))
    return SeriesBlock.of_rows(rows)


def _sum_row(block: SeriesBlock, context: Context) -> Row:
    """A single series is its own sum, under its own name."""
    if len(block) == 1:
        return next(block.rows())
    aligned = align(block)
    values = reduce_known(reducer("sum"), aligned.values, 0, 0.0)
    return fresh_label(f"sumSeries({expressions(block)})", context), aligned.grid, values


def _missing(row: Row, name: str, before: list[Row], context: Context) -> Row:
    """All unknown, on the grid of the result before it if there is one (as in graphite-web)."""
    grid = before[-1][1] if before else row[1]
    return fresh_label(name, context), grid, np.full(len(row[2]), np.nan)


def _percent(row: Row, total: Row, context: Context) -> Row:
    grid, quotient = _quotient(row, total)
    label = fresh_label(f"asPercent({row[0].name},{total[0].name})", context)
    return label, grid, quotient * 100.0


def _quotients(pairs: Iterable[tuple[Row, Row]], context: Context) -> SeriesBlock:
    rows = []
    for dividend, divisor in pairs:
        label = fresh_label(f"divideSeries({dividend[0].name},{divisor[0].name})", context)
        rows.append((label, *_quotient(dividend, divisor)))
    return SeriesBlock.of_rows(rows)


def _quotient(dividend: Row, divisor: Row) -> tuple[Grid, Matrix]:
    aligned = align(SeriesBlock.of_rows([dividend, divisor]))
    return aligned.grid, _divided(aligned.values[0], aligned.values[1])


def _divided(dividend: Matrix, divisor: Matrix) -> Matrix:
    with np.errstate(all="ignore"):
        return np.where(divisor == 0, np.nan, dividend / divisor)


def _padded(first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
    """Both as long as the longer one."""
    slots = max(len(first), len(second))
    out = np.full((2, slots), np.nan)
    out[0, : len(first)] = first
    out[1, : len(second)] = second
    return out[0], out[1]
