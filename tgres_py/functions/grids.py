"""Bringing series of different steps onto one grid, once for all functions.

As graphite-web does it: the common step is the least common multiple; each series is consolidated
in groups counted from its own first point, by its own consolidation function and xFilesFactor; rows
are then aligned by position, not by time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tgres_py.functions.aggregation import consolidate
from tgres_py.functions.series import Grid, Matrix, Part, SeriesBlock


@dataclass(slots=True)
class Aligned:
    """``values``: (n, slots), row i is series i of the block; shorter ones padded with NaN."""

    grid: Grid
    values: Matrix


def consolidate_part(
    block: SeriesBlock, part: Part, per: int, values: Matrix | None = None
) -> Matrix:
    """A part's rows consolidated ``per`` to one, each by its label's function and xFilesFactor.

    ``values``: the rows to use instead of the part's own.
    """
    rows = part.values if values is None else values
    if per == 1:
        return rows
    labels = [block.labels[place] for place in part.index.tolist()]
    xff = np.array([[label.xff] for label in labels])
    functions = {label.cf for label in labels}
    if len(functions) == 1:
        return consolidate(rows, per, functions.pop(), xff)
    out = np.empty((len(rows), -(-rows.shape[1] // per)))
    for function in functions:
        chosen = [row for row, label in enumerate(labels) if label.cf == function]
        out[chosen] = consolidate(rows[chosen], per, function, xff[chosen])
    return out


def align(block: SeriesBlock) -> Aligned:
    """All series of a block that has some, on one grid."""
    step_s = math.lcm(*block.steps)
    start_s = min(part.grid.start_s for part in block.parts)
    end_s = max(part.grid.end_s for part in block.parts)
    grid = Grid(start_s, end_s - (end_s - start_s) % step_s, step_s)
    if len(block.parts) == 1:
        return Aligned(grid, block.parts[0].values)
    rows = [consolidate_part(block, part, step_s // part.grid.step_s) for part in block.parts]
    values = np.full((len(block), max(matrix.shape[1] for matrix in rows)), np.nan)
    for part, matrix in zip(block.parts, rows, strict=True):
        values[part.index, : matrix.shape[1]] = matrix
    return Aligned(grid, values)
