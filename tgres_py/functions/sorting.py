"""Functions that order series. Equal ones keep their order; unknown goes below all numbers."""

from __future__ import annotations

import re

from tgres_py.functions.params import AggFunc, Boolean
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import SeriesBlock
from tgres_py.functions.summary import each_series, order_of

_DIGITS = re.compile(r"\d+")


@render_function(group="Sorting")
def sortBy(
    seriesList: SeriesBlock, func: AggFunc = "average", reverse: Boolean = False
) -> SeriesBlock:
    """By ``func`` over each series' values, ascending unless ``reverse``.

    load 10s  a 3 4
    load 10s  b 1 2
    eval sortBy(*, "max")        => b: 1 2 | a: 3 4
    eval sortBy(*, "max", true)  => a: 3 4 | b: 1 2
    """
    return seriesList.take(order_of(each_series(seriesList, func), reverse))


@render_function(group="Sorting")
def sortByName(
    seriesList: SeriesBlock, natural: Boolean = False, reverse: Boolean = False
) -> SeriesBlock:
    """By name; with ``natural`` numbers inside the names count as numbers.

    load 10s  web10 1
    load 10s  web9 2
    eval sortByName(*)              => web10: 1 | web9: 2
    eval sortByName(*, true)        => web9: 2 | web10: 1
    eval sortByName(*, true, true)  => web10: 1 | web9: 2
    """

    def key(place: int) -> str:
        name = seriesList.labels[place].name
        return _DIGITS.sub(lambda digits: digits.group().zfill(10), name) if natural else name

    return seriesList.take(sorted(range(len(seriesList)), key=key, reverse=reverse))


@render_function(group="Sorting")
def sortByTotal(seriesList: SeriesBlock) -> SeriesBlock:
    """By the sum of the values, largest first.

    load 10s  a 1 2
    load 10s  b 3 4
    eval sortByTotal(*)  => b: 3 4 | a: 1 2
    """
    return seriesList.take(order_of(each_series(seriesList, "sum"), reverse=True))


@render_function(group="Sorting")
def sortByMaxima(seriesList: SeriesBlock) -> SeriesBlock:
    """By the largest value, largest first.

    load 10s  a 1 2
    load 10s  b 3 4
    eval sortByMaxima(*)  => b: 3 4 | a: 1 2
    """
    return seriesList.take(order_of(each_series(seriesList, "max"), reverse=True))


@render_function(group="Sorting")
def sortByMinima(seriesList: SeriesBlock) -> SeriesBlock:
    """By the smallest value, smallest first. Series without a value above 0 are left out.

    load 10s  a 5 2
    load 10s  b 1 4
    load 10s  c 0 -1
    eval sortByMinima(*)  => b: 1 4 | a: 5 2
    """
    above = (each_series(seriesList, "max") > 0).nonzero()[0].tolist()
    positive = seriesList.take(above)
    return positive.take(order_of(each_series(positive, "min")))
