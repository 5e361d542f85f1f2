"""Functions that make series of nothing, or change how series are treated later."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from tgres_py.functions.aggregation import CONSOLIDATOR_NAMES
from tgres_py.functions.params import Float, Options, String
from tgres_py.functions.reads import Context, half_range
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Label, SeriesBlock


@render_function(group="Special", steps=half_range)
def constantLine(value: Float, *, context: Context) -> SeriesBlock:
    """A horizontal line at ``value``: three points, at start, middle and end of the range.

    eval constantLine(2.5)  => 2.5: 2.5 2.5 2.5
    """
    grid = Grid(context.from_s, context.until_s, max(1, (context.until_s - context.from_s) // 2))
    name = str(value)
    label = Label(name, f"constantLine({name})", {"name": name}, xff=context.xff)
    return SeriesBlock.uniform([label], grid, np.full((1, 3), value))


@render_function(group="Special")
def consolidateBy(
    seriesList: SeriesBlock, consolidationFunc: Annotated[String, Options(*CONSOLIDATOR_NAMES)]
) -> SeriesBlock:
    """Consolidates to fewer points (maxDataPoints, or a common step) by ``consolidationFunc``
    instead of the average.

    load 10s  a 1 2
    eval consolidateBy(a, "max")  => consolidateBy(a,"max"): 1 2
    """

    def relabel(label: Label) -> Label:
        new = label.derived(
            f'consolidateBy({label.name},"{consolidationFunc}")', consolidateBy=consolidationFunc
        )
        new.cf = consolidationFunc
        return new

    return seriesList.map_labels(relabel)
