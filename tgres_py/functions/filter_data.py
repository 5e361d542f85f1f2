"""Functions that drop single values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tgres_py.errors import BadRequest
from tgres_py.functions.aggregation import Array
from tgres_py.functions.params import Float
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Matrix, SeriesBlock
from tgres_py.functions.summary import column_percentiles, each_series

Limit = Callable[[Matrix], Array | float]


@render_function(group="Filter Data")
def removeAboveValue(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """Drops the values above ``n``.

    load 10s  a 1 5 _ 3
    eval removeAboveValue(a, 3)  => removeAboveValue(a, 3): 1 _ _ 3
    """
    return _remove(seriesList, "removeAboveValue", n, above=lambda values: n)


@render_function(group="Filter Data")
def removeBelowValue(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """Drops the values below ``n``.

    load 10s  a 1 5 _ 3
    eval removeBelowValue(a, 3)  => removeBelowValue(a, 3): _ 5 _ 3
    """
    return _remove(seriesList, "removeBelowValue", n, below=lambda values: n)


@render_function(group="Filter Data")
def removeAbovePercentile(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """Drops the values above the ``n``-th percentile of their series.

    load 10s  a 1 5 2 3
    eval removeAbovePercentile(a, 50)  => removeAbovePercentile(a, 50): 1 _ 2 3
    """
    return _tagged(_remove(seriesList, "removeAbovePercentile", n, above=_percentile(n)), n)


@render_function(group="Filter Data")
def removeBelowPercentile(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """Drops the values below the ``n``-th percentile of their series.

    load 10s  a 1 5 2 3
    eval removeBelowPercentile(a, 50)  => removeBelowPercentile(a, 50): _ 5 _ 3
    """
    return _tagged(_remove(seriesList, "removeBelowPercentile", n, below=_percentile(n)), n)


def _tagged(block: SeriesBlock, n: float) -> SeriesBlock:
    """What still has values gets nPercentile's tag, too (as in graphite-web)."""
    known = each_series(block, "count").tolist()
    labels = [
        replace(label, tags={**label.tags, "nPercentile": str(n)}) if count else label
        for label, count in zip(block.labels, known, strict=True)
    ]
    return SeriesBlock(labels, block.parts)


def _percentile(n: float) -> Limit:
    if n == 0:
        raise BadRequest("target: n is 0; the percentile must not be 0")
    return lambda values: column_percentiles(values.T, n)[:, None]


def _remove(
    block: SeriesBlock,
    function: str,
    n: float,
    above: Limit | None = None,
    below: Limit | None = None,
) -> SeriesBlock:
    def keep(values: Matrix) -> Matrix:
        # comparisons with NaN are false: without a limit nothing goes
        if above is not None:
            return np.where(values > above(values), np.nan, values)
        assert below is not None
        return np.where(values < below(values), np.nan, values)

    return block.map_values(lambda part: (part.grid, keep(part.values))).map_labels(
        lambda label: label.derived(f"{function}({label.name}, {n:g})")
    )
