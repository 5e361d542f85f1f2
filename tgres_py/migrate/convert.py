"""Points of one series under other archives than they were kept in: ``model/rebucket.py`` for lists of slots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tgres_py.migrate.mixed import Points
from tgres_py.model.rebucket import Slots, rebucket
from tgres_py.model.retention import BundleSpec


def converted(
    old: BundleSpec, new: BundleSpec, points: Sequence[Points], now_s: int
) -> list[Points]:
    """The points of all archives of ``new``, from those of all archives of ``old``."""
    out = []
    for first, values in rebucket(old, new, [_dense(one) for one in points], now_s):
        known = np.flatnonzero(~np.isnan(values[:, 0]))
        out.append((known + first, values[known, 0]))
    return out


def _dense(points: Points) -> Slots:
    slots, values = points
    if len(slots) == 0:
        return Slots(0, np.empty((0, 1)))
    first = int(slots.min())
    block = np.full((int(slots.max()) - first + 1, 1), np.nan)
    block[slots - first, 0] = values
    return Slots(first, block)
