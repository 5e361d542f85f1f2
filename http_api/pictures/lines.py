"""From the values of a series to the points of its line: gaps, steps, areas. Arrays only.

slope      points joined; a gap where a value is unknown
staircase  each value level until the next one
connected  points joined across gaps of up to connectedLimit points
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tgres_py.functions.series import Grid

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
BREAK = -1


def trace(grid: Grid, known: NDArray[np.bool_], mode: str, limit: float) -> tuple[Floats, Places]:
    """Times of the line's points, and which value each has (BREAK: none, the line is interrupted)."""
    places = np.arange(len(known))
    if mode == "connected":
        places = np.flatnonzero(known)
        wide = np.flatnonzero(np.diff(places) - 1 > limit) + 1
        places = np.insert(places, wide, BREAK)
    else:
        places = np.where(known, places, BREAK)
    times = grid.start_s + grid.step_s * np.maximum(places, 0).astype(np.float64)
    if mode != "staircase":
        return times, places
    edges = np.repeat(times, 2)
    edges[1::2] += grid.step_s
    return edges, np.repeat(places, 2)


def along(values: Floats, places: Places) -> Floats:
    """The values at the line's points, NaN at its breaks."""
    if not len(values):
        return np.empty(0)
    return np.where(places == BREAK, np.nan, values[np.maximum(places, 0)])


class Stack:
    """Areas that lie on each other: each shows where no earlier one has been drawn."""

    def __init__(self) -> None:
        self.covered: dict[tuple[Grid, int], tuple[Floats, Floats]] = {}

    def place(self, grid: Grid, values: Floats) -> tuple[Floats, Floats]:
        """(from, to) of the band that is still free between 0 and ``values``."""
        key = (grid, len(values))
        low, high = self.covered.get(key, (np.zeros(len(values)), np.zeros(len(values))))
        level = np.nan_to_num(values)
        self.covered[key] = (np.minimum(low, level), np.maximum(high, level))
        base = np.where(level >= 0, np.minimum(high, level), np.maximum(low, level))
        return base, values


class Totals:
    """areaMode=stacked: running totals by position, unknown values add nothing."""

    def __init__(self) -> None:
        self.total = np.zeros(0)

    def add(self, values: Floats) -> Floats:
        if len(values) > len(self.total):
            self.total = np.pad(self.total, (0, len(values) - len(self.total)))
        level = self.total[: len(values)]
        out: Floats = values + level
        self.total[: len(values)] = level + np.nan_to_num(values)
        return out
