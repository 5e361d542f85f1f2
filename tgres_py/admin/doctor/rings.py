"""How regularly series arrive, seen in the ring cache: known slots of the newest rows. Pure.

A sender that is slower than its archive's step leaves a regular pattern: its k-th point lies in slot
``first + k * interval / step``, rounded down. Lost points break that pattern, so they are not taken for one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tgres_py.model.retention import BundleSpec

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

POINTS_MIN = 5  # fewer tell nothing about a pattern
SLOWER = 1.05  # mean slots between points from which a sender counts as slower than the step
NEARLY = 0.1  # distance from a whole number of slots that is still taken for one
ROWS_MIN, ROWS_MAX = 60, 400


@dataclass(slots=True)
class Pattern:
    """Of each series (column of the block): ``interval`` in slots, NaN where there is no regular one."""

    interval: Floats

    @property
    def slow(self) -> Bools:
        """Every second, third … slot is used."""
        whole = np.abs(self.interval - np.round(self.interval)) <= NEARLY
        return (self.interval > SLOWER) & (np.round(self.interval) >= 2) & whole

    @property
    def uneven(self) -> Bools:
        """The interval is no multiple of the step: some slots stay empty, in turn."""
        return (self.interval > SLOWER) & ~self.slow


def rows_wanted(spec: BundleSpec) -> int:
    """Newest rows of a segment that tell enough: three slots of the next archive."""
    steps = [a.step_s for a in spec.archives]
    coarse = steps[1] // steps[0] if len(steps) > 1 else 1
    return min(ROWS_MAX, max(ROWS_MIN, 4 * coarse))


def pattern_of(block: Floats) -> Pattern:
    """``block``: float64 (slots, series), NaN = unknown, as RingStore.block gives it."""
    series = block.shape[1]
    column, row = np.nonzero(~np.isnan(block.T))
    count = np.bincount(column, minlength=series)
    interval = np.full(series, np.nan)
    enough = count >= POINTS_MIN
    start = np.cumsum(count) - count  # where a series' points begin in ``row``
    at = np.flatnonzero(enough)
    if len(at) == 0:
        return Pattern(interval)
    first, last = row[start[at]], row[start[at] + count[at] - 1]
    mean = np.full(series, np.nan)
    mean[at] = (last - first) / (count[at] - 1)
    origin = np.zeros(series, np.int64)
    origin[at] = first
    chosen = enough[column]
    column, row = column[chosen], row[chosen]
    nth = np.flatnonzero(chosen) - start[column]
    off = np.abs(row - origin[column] - nth * mean[column])
    worst = np.zeros(series)
    np.maximum.at(worst, column, off)
    regular = enough & (worst < 1.0)
    interval[regular] = mean[regular]
    return Pattern(interval)


def unmet_xff(block: Floats, first_slot: int, ratio: int, xff: float) -> Bools:
    """Series all of whose coarser slots stay empty: bool (series,).

    A slot of ``ratio`` finest ones is rolled up when known / ratio >= ``xff``. Looked at are the whole coarser
    slots of the block that hold anything, two at least.
    """
    skip = -first_slot % ratio
    whole = (len(block) - skip) // ratio
    if whole < 2 or ratio < 2 or xff <= 0:
        return np.zeros(block.shape[1], np.bool_)
    known = ~np.isnan(block[skip : skip + whole * ratio])
    share = known.reshape(whole, ratio, -1).sum(1) / ratio
    used = share > 0
    met = share >= xff
    unmet: Bools = (used.sum(0) >= 2) & ~met.any(0)
    return unmet
