"""Functions that choose series by their names or values. Names, tags and path expressions stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from tgres_py.errors import BadRequest
from tgres_py.functions.aggregation import reduce_known, reducer
from tgres_py.functions.params import (
    AggFunc,
    Float,
    HiddenDefault,
    Integer,
    LooseInteger,
    Options,
    String,
)
from tgres_py.functions.patterns import Substitution, compile_pattern
from tgres_py.functions.reads import Further
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import SeriesBlock, concat
from tgres_py.functions.summary import (
    Numbers,
    by_part,
    column_percentiles,
    each_series,
    order_of,
)

Chosen = NDArray[np.bool_]

# an unknown aggregate passes the first three (as in graphite-web)
_OPERATORS: dict[str, Callable[[Numbers, float], Chosen]] = {
    "!=": lambda numbers, threshold: ~(numbers == threshold),
    "<": lambda numbers, threshold: ~(numbers >= threshold),
    "<=": lambda numbers, threshold: ~(numbers > threshold),
    "=": lambda numbers, threshold: numbers == threshold,
    ">": lambda numbers, threshold: numbers > threshold,
    ">=": lambda numbers, threshold: numbers >= threshold,
}
OneByDefault = Annotated[LooseInteger, HiddenDefault()]
Operator = Annotated[String, Options(*_OPERATORS)]


@render_function(group="Filter Series")
def filterSeries(
    seriesList: SeriesBlock, func: AggFunc, operator: Operator, threshold: Float
) -> SeriesBlock:
    """The series whose ``func`` over all values compares so with ``threshold``.

    A series without values passes ``!=``, ``<`` and ``<=``.

    load 10s  a 1 2
    load 10s  b 3 4
    eval filterSeries(*, "max", ">", 3)     => b: 3 4
    eval filterSeries(*, "average", "=", 1.5)  => a: 1 2
    """
    return _where(seriesList, _OPERATORS[operator](each_series(seriesList, func), threshold))


@render_function(group="Filter Series")
def averageAbove(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """The series whose average is above ``n``.

    load 10s  a 1 2
    load 10s  b 3 4
    eval averageAbove(*, 2)  => b: 3 4
    """
    return _where(seriesList, each_series(seriesList, "average") > n)


@render_function(group="Filter Series")
def averageBelow(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """The series whose average is ``n`` at most, and those without values.

    load 10s  a 1 2
    load 10s  b 3 4
    eval averageBelow(*, 2)  => a: 1 2
    """
    return _where(seriesList, ~(each_series(seriesList, "average") > n))


@render_function(group="Filter Series")
def currentAbove(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """The series whose last known value is above ``n``.

    load 10s  a 1 2
    load 10s  b 3 4
    eval currentAbove(*, 3)  => b: 3 4
    """
    return _where(seriesList, each_series(seriesList, "last") > n)


@render_function(group="Filter Series")
def currentBelow(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """The series whose last known value is ``n`` at most, and those without values.

    load 10s  a 1 2
    load 10s  b 3 4
    eval currentBelow(*, 3)  => a: 1 2
    """
    return _where(seriesList, ~(each_series(seriesList, "last") > n))


@render_function(group="Filter Series")
def maximumAbove(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """The series whose largest value is above ``n``.

    load 10s  a 1 2
    load 10s  b 3 4
    eval maximumAbove(*, 2)  => b: 3 4
    """
    return _where(seriesList, each_series(seriesList, "max") > n)


@render_function(group="Filter Series")
def maximumBelow(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """The series whose largest value is ``n`` at most, and those without values.

    load 10s  a 1 2
    load 10s  b 3 4
    eval maximumBelow(*, 2)  => a: 1 2
    """
    return _where(seriesList, ~(each_series(seriesList, "max") > n))


@render_function(group="Filter Series")
def minimumAbove(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """The series whose smallest value is above ``n``.

    load 10s  a 1 2
    load 10s  b 3 4
    eval minimumAbove(*, 2)  => b: 3 4
    """
    return _where(seriesList, each_series(seriesList, "min") > n)


@render_function(group="Filter Series")
def minimumBelow(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """The series whose smallest value is ``n`` at most, and those without values.

    load 10s  a 1 2
    load 10s  b 3 4
    eval minimumBelow(*, 2)  => a: 1 2
    """
    return _where(seriesList, ~(each_series(seriesList, "min") > n))


@render_function(group="Filter Series", gives="n")
def highest(seriesList: SeriesBlock, n: OneByDefault = 1, func: AggFunc = "average") -> SeriesBlock:
    """The ``n`` series with the highest ``func``, highest first; a negative ``n`` leaves out so many.

    load 10s  a 1 2
    load 10s  b 3 4
    load 10s  c 0 9
    eval highest(*, 2)         => c: 0 9 | b: 3 4
    eval highest(*, 1, "min")  => b: 3 4
    """
    return _first(seriesList, int(n), func, reverse=True)


@render_function(group="Filter Series", gives="n")
def lowest(seriesList: SeriesBlock, n: OneByDefault = 1, func: AggFunc = "average") -> SeriesBlock:
    """The ``n`` series with the lowest ``func``, lowest first; those without values come first.

    load 10s  a 1 2
    load 10s  b 3 4
    load 10s  c 0 9
    eval lowest(*, 2, "max")  => a: 1 2 | b: 3 4
    """
    return _first(seriesList, int(n), func, reverse=False)


@render_function(group="Filter Series", gives="n")
def highestAverage(seriesList: SeriesBlock, n: LooseInteger) -> SeriesBlock:
    """The ``n`` series with the highest average.

    load 10s  a 1 2
    load 10s  b 3 4
    eval highestAverage(*, 1)  => b: 3 4
    """
    return _first(seriesList, int(n), "average", reverse=True)


@render_function(group="Filter Series", gives="n")
def highestCurrent(seriesList: SeriesBlock, n: LooseInteger) -> SeriesBlock:
    """The ``n`` series with the highest last known value.

    load 10s  a 1 5
    load 10s  b 3 4
    eval highestCurrent(*, 1)  => a: 1 5
    """
    return _first(seriesList, int(n), "last", reverse=True)


@render_function(group="Filter Series", gives="n")
def highestMax(seriesList: SeriesBlock, n: LooseInteger) -> SeriesBlock:
    """The ``n`` series with the largest values.

    load 10s  a 1 2
    load 10s  b 3 4
    eval highestMax(*, 1)  => b: 3 4
    """
    return _first(seriesList, int(n), "max", reverse=True)


@render_function(group="Filter Series", gives="n")
def highestMin(seriesList: SeriesBlock, n: LooseInteger) -> SeriesBlock:
    """The ``n`` series whose smallest values are the largest.

    load 10s  a 1 9
    load 10s  b 3 4
    eval highestMin(*, 1)  => b: 3 4
    """
    return _first(seriesList, int(n), "min", reverse=True)


@render_function(group="Filter Series", gives="n")
def lowestAverage(seriesList: SeriesBlock, n: LooseInteger) -> SeriesBlock:
    """The ``n`` series with the lowest average.

    load 10s  a 1 2
    load 10s  b 3 4
    eval lowestAverage(*, 1)  => a: 1 2
    """
    return _first(seriesList, int(n), "average", reverse=False)


@render_function(group="Filter Series", gives="n")
def lowestCurrent(seriesList: SeriesBlock, n: LooseInteger) -> SeriesBlock:
    """The ``n`` series with the lowest last known value.

    load 10s  a 1 5
    load 10s  b 3 4
    eval lowestCurrent(*, 1)  => b: 3 4
    """
    return _first(seriesList, int(n), "last", reverse=False)


@render_function(group="Filter Series", gives="n")
def lowestMax(seriesList: SeriesBlock, n: LooseInteger) -> SeriesBlock:
    """The ``n`` series whose largest values are the smallest.

    load 10s  a 1 9
    load 10s  b 3 4
    eval lowestMax(*, 1)  => b: 3 4
    """
    return _first(seriesList, int(n), "max", reverse=False)


@render_function(group="Filter Series", gives="n")
def lowestMin(seriesList: SeriesBlock, n: LooseInteger) -> SeriesBlock:
    """The ``n`` series with the smallest values.

    load 10s  a 1 9
    load 10s  b 3 4
    eval lowestMin(*, 1)  => a: 1 9
    """
    return _first(seriesList, int(n), "min", reverse=False)


@render_function(group="Filter Series", gives="n")
def limit(seriesList: SeriesBlock, n: Integer) -> SeriesBlock:
    """The first ``n`` series; a negative ``n`` leaves out so many at the end.

    load 10s  a 1
    load 10s  b 2
    load 10s  c 3
    eval limit(*, 1)   => a: 1
    eval limit(*, -1)  => a: 1 | b: 2
    """
    return seriesList.take(range(len(seriesList))[:n])


@render_function(group="Filter Series", gives="n")
def mostDeviant(seriesList: SeriesBlock, n: Integer) -> SeriesBlock:
    """The ``n`` series that vary most around their own mean, most first.

    load 10s  a 1 2 1
    load 10s  b 1 9 1
    load 10s  c _ _ _
    eval mostDeviant(*, 2)  => b: 1 9 1 | a: 1 2 1
    """
    deviations = each_series(seriesList, "stddev")
    order = [place for place in order_of(deviations, True) if not np.isnan(deviations[place])]
    return seriesList.take(order[:n])


@render_function(group="Filter Series")
def averageOutsidePercentile(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """The series whose average doesn't lie between the ``n``-th and the (100-n)-th percentile of
    all averages. Series without values are left out.

    load 10s  a 1 1
    load 10s  b 2 2
    load 10s  c 3 3
    load 10s  d 4 4
    eval averageOutsidePercentile(*, 75)  => a: 1 1 | b: 2 2 | d: 4 4
    """
    averages = each_series(seriesList, "average")
    low, high = _between(averages[:, None], n)
    outside = ~((low < averages) & (averages < high)) & ~np.isnan(averages)
    return _where(seriesList, outside)


@render_function(group="Filter Series")
def removeBetweenPercentile(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """The series that at some point don't lie between the ``n``-th and the (100-n)-th percentile of
    all series at that point. Unknown values lie nowhere.

    load 10s  a 1 1
    load 10s  b 2 2
    load 10s  c 3 3
    load 10s  d 4 4
    eval removeBetweenPercentile(*, 75)  => a: 1 1 | b: 2 2 | d: 4 4
    """
    if not len(seriesList):
        return seriesList
    shortest = min(part.values.shape[1] for part in seriesList.parts)
    columns = np.empty((len(seriesList), shortest))
    for part in seriesList.parts:
        columns[part.index] = part.values[:, :shortest]
    low, high = _between(columns, n)
    outside = ~((low < columns) & (columns < high)) & ~np.isnan(columns)
    return _where(seriesList, np.asarray(outside.any(axis=1)))


@render_function(group="Filter Series")
def removeEmptySeries(seriesList: SeriesBlock, xFilesFactor: Float | None = None) -> SeriesBlock:
    """The series with a value; with ``xFilesFactor``: of which at least such a share is known.

    load 10s  a 1 _ _ 2
    load 10s  b _ _ _ _
    eval removeEmptySeries(*)  => a: 1 _ _ 2
    """
    count = reducer("count")
    wanted = xFilesFactor or 0.0
    kept = by_part(seriesList, lambda values: reduce_known(count, values, 1, wanted))
    return _where(seriesList, ~np.isnan(kept))


@render_function(group="Filter Series")
def removeZeroSeries(seriesList: SeriesBlock, xFilesFactor: Float | None = None) -> SeriesBlock:
    """The series with a value other than 0; with ``xFilesFactor``: of whose values at least such a
    share is known and not 0.

    load 10s  a 0 _ 2
    load 10s  b 0 0 0
    eval removeZeroSeries(*)  => a: 0 _ 2
    """
    count = reducer("count")
    wanted = xFilesFactor or 0.0

    def kept(values: Numbers) -> Numbers:
        return reduce_known(count, np.where(values == 0, np.nan, values), 1, wanted)

    return _where(seriesList, ~np.isnan(by_part(seriesList, kept)))


@render_function(group="Filter Series")
def unique(*seriesLists: SeriesBlock) -> SeriesBlock:
    """The first series of each name.

    load 10s  a 1 2
    load 10s  b 3 4
    eval unique(a, b, a)  => a: 1 2 | b: 3 4
    """
    block = concat(seriesLists)
    first: dict[str, int] = {}
    for place, label in enumerate(block.labels):
        first.setdefault(label.name, place)
    return block.take(list(first.values()))


@render_function(group="Filter Series")
def grep(seriesList: SeriesBlock, pattern: String) -> SeriesBlock:
    """The series in whose names a regular expression (RE2's) finds something.

    load 10s  web1.cpu 1
    load 10s  db1.cpu 2
    eval grep(*.cpu, "^web\\d")  => web1.cpu: 1
    """
    find = compile_pattern(pattern, "pattern").search
    return seriesList.take(
        [place for place, label in enumerate(seriesList.labels) if find(label.name)]
    )


@render_function(group="Filter Series")
def exclude(seriesList: SeriesBlock, pattern: String) -> SeriesBlock:
    """The series in whose names a regular expression (RE2's) finds nothing.

    load 10s  web1.cpu 1
    load 10s  db1.cpu 2
    eval exclude(*.cpu, "^web\\d")  => db1.cpu: 2
    """
    find = compile_pattern(pattern, "pattern").search
    return seriesList.take(
        [place for place, label in enumerate(seriesList.labels) if not find(label.name)]
    )


@render_function(group="Filter Series")
def useSeriesAbove(
    seriesList: SeriesBlock, value: Float, search: String, replace: String
) -> SeriesBlock | Further:
    r"""Of each series with a value above ``value`` the series that its name becomes when what a
    regular expression (RE2's) finds in it is replaced.

    load 10s  web1.errors 0 9
    load 10s  web2.errors 0 1
    load 10s  web1.count 5 6
    load 10s  web2.count 7 8
    eval useSeriesAbove(*.errors, 5, "errors$", "count")  => web1.count: 5 6
    """
    substitute = Substitution(search, replace)
    above = each_series(seriesList, "max") > value
    names = [
        substitute(label.name)
        for label, is_above in zip(seriesList.labels, above.tolist(), strict=True)
        if is_above
    ]
    return Further(tuple(names), concat)


def _where(block: SeriesBlock, wanted: Chosen) -> SeriesBlock:
    return block.take(np.flatnonzero(wanted).tolist())


def _first(block: SeriesBlock, n: int, func: str, reverse: bool) -> SeriesBlock:
    return block.take(order_of(each_series(block, func), reverse)[:n])


def _between(columns: Numbers, n: float) -> tuple[Numbers, Numbers]:
    """The (100-n)-th and the n-th percentile of each column; n below 50 counts as 100-n."""
    if not len(columns):
        return np.empty(0), np.empty(0)
    if n < 50:
        n = 100 - n
    if n > 100:
        raise BadRequest("target: n must be a percentile from 0 to 100")
    return column_percentiles(columns, 100 - n), column_percentiles(columns, n)
