"""Functions that drop single values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tgres_py.errors import BadRequest
from tgres_py.functions.params import Float
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Matrix, Part, SeriesBlock
from tgres_py.functions.summary import by_part, column_percentiles

Bools = NDArray[np.bool_]


@render_function(group="Filter Data")
def removeAboveValue(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """Drops the values above ``n``.

    load 10s  a 1 5 _ 3
    eval removeAboveValue(a, 3)  => removeAboveValue(a, 3): 1 _ _ 3
    """
    return _remove_beyond(seriesList, "removeAboveValue", n, lambda values: values > n)


@render_function(group="Filter Data")
def removeBelowValue(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """Drops the values below ``n``.

    load 10s  a 1 5 _ 3
    eval removeBelowValue(a, 3)  => removeBelowValue(a, 3): _ 5 _ 3
    """
    return _remove_beyond(seriesList, "removeBelowValue", n, lambda values: values < n)


@render_function(group="Filter Data")
def removeAbovePercentile(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """Drops the values above the ``n``-th percentile of their series.

    load 10s  a 1 5 2 3
    eval removeAbovePercentile(a, 50)  => removeAbovePercentile(a, 50): 1 _ 2 3
    """
    return _remove_beyond_percentile(seriesList, "removeAbovePercentile", n, np.greater)


@render_function(group="Filter Data")
def removeBelowPercentile(seriesList: SeriesBlock, n: Float) -> SeriesBlock:
    """Drops the values below the ``n``-th percentile of their series.

    load 10s  a 1 5 2 3
    eval removeBelowPercentile(a, 50)  => removeBelowPercentile(a, 50): _ 5 _ 3
    """
    return _remove_beyond_percentile(seriesList, "removeBelowPercentile", n, np.less)


def _remove_beyond_percentile(
    block: SeriesBlock, function: str, n: float, is_beyond: Callable[[Matrix, Matrix], Bools]
) -> SeriesBlock:
    """A series that has such a percentile gets nPercentile's tag, too (as in graphite-web); one
    without values or of n beyond 100 stays.
    """
    if n == 0:
        raise BadRequest(f"target: {function}(): n is 0; the percentile must not be 0")
    limits = by_part(block, lambda values: column_percentiles(values.T, n, strict=False))

    def compute(part: Part) -> tuple[Grid, Matrix]:
        beyond = is_beyond(part.values, limits[part.index][:, None])
        return part.grid, np.where(beyond, np.nan, part.values)

    labels = []
    for label, limit in zip(block.labels, limits.tolist(), strict=True):
        tags = {} if math.isnan(limit) else {"nPercentile": str(n)}
        labels.append(label.derived(f"{function}({label.name}, {n:g})", **tags))
    return SeriesBlock(labels, block.map_values(compute).parts)


def _remove_beyond(
    block: SeriesBlock, function: str, n: float, is_beyond: Callable[[Matrix], Bools]
) -> SeriesBlock:
    def compute(part: Part) -> tuple[Grid, Matrix]:
        return part.grid, np.where(is_beyond(part.values), np.nan, part.values)

    return block.map_values(compute).map_labels(
        lambda label: label.derived(f"{function}({label.name}, {n:g})")
    )
