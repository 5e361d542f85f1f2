"""Coarse slots of which a part came live and a part comes from an import: rolled up again from both.

A server that began in the middle of an hour has made a value of what it saw of that hour, and an import keeps values
that are there. For a sum this would show as a dip for ever. So where, before the import, some of the finer slots were
known and the import fills others, the coarse slot becomes what whisper would have made of them all. It must lie
wholly within the reach of the finer archive: what is older can't be made anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tgres_py.model.consolidation import rollup
from tgres_py.model.retention import BundleSpec

Slots = NDArray[np.int64]
Floats = NDArray[np.float64]
Points = tuple[Slots, Floats]
"""(slots, values) of known slots of one archive; each slot once."""

NONE: Points = (np.empty(0, np.int64), np.empty(0))


def mixed_slots(
    spec: BundleSpec, before: Sequence[Points], imported: Sequence[Points], now_s: int
) -> list[Points]:
    """What replaces slots of each archive (of the finest: nothing).

    ``before``: what the store knows of each archive but the last; ``imported``: what comes, of all archives.
    """
    return [replaced for replaced, _ in _climb(spec, before, imported, now_s, every=False)]


def all_slots(
    spec: BundleSpec, before: Sequence[Points], imported: Sequence[Points], now_s: int
) -> list[tuple[Points, Points]]:
    """As ``mixed_slots``, for points that come without what they roll up to: all coarse slots that they touch.

    For each archive (what replaces, what only fills unknown slots): at the edge of the finer archive's reach a part of
    what a coarse slot was made of may be gone, so a value that is there stays.
    """
    return _climb(spec, before, imported, now_s, every=True)


def _climb(
    spec: BundleSpec,
    before: Sequence[Points],
    imported: Sequence[Points],
    now_s: int,
    every: bool,
) -> list[tuple[Points, Points]]:
    """From archive to archive: (replacing, filling) slots of each. ``every``: also where nothing was known."""
    out = [(NONE, NONE)]
    changed = NONE
    for number, (fine, coarse) in enumerate(zip(spec.archives, spec.archives[1:], strict=False)):
        factor = coarse.step_s // fine.step_s
        known, value = before[number]
        fresh = ~np.isin(imported[number][0], known)
        filled = imported[number][0][fresh], imported[number][1][fresh]
        parents = np.unique(filled[0] // factor)
        if not every:
            parents = np.intersect1d(known // factor, parents)
        parents = np.union1d(parents, changed[0] // factor)
        merged = (
            np.concatenate([filled[0], known, changed[0]]),
            np.concatenate([filled[1], value, changed[1]]),
        )
        slots, values = _rolled(parents, factor, merged, spec)
        whole = slots * factor >= now_s // fine.step_s - fine.size + 1
        replacing, filling = (slots[whole], values[whole]), (slots[~whole], values[~whole])
        out.append((replacing, filling if every else NONE))
        changed = (slots, values) if every else replacing
    return out


def _rolled(parents: Slots, factor: int, fine: Points, spec: BundleSpec) -> Points:
    """Coarse slots ``parents`` (ascending) from finer ones, of which the one that stands last counts."""
    if len(parents) == 0:
        return NONE
    place = np.searchsorted(parents, fine[0] // factor)
    place[place == len(parents)] = 0
    mine = parents[place] == fine[0] // factor
    block = np.full(len(parents) * factor, np.nan)
    block[place[mine] * factor + fine[0][mine] % factor] = fine[1][mine]
    values = rollup(block[:, None], factor, spec.cf, spec.xff)[:, 0]
    known = ~np.isnan(values)
    return parents[known], values[known]
