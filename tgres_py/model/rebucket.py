"""Slots of one retention re-bucketed into another: what whisper-resize does to a file, for many series at once.

For each slot of a new archive one old archive is asked, the first of these that knows anything of its time:

    1. one of equal step, if its slots would be made the same way (the finest, or unchanged CF and
       xFilesFactor): copied slot for slot
    2. the finest whose reach the slot lies in
         equal step   copied
         finer        rolled up by the new CF and xFilesFactor, archive by archive as whisper would have done
                      (steps that don't divide: a slot belongs where it begins)
         coarser      its value stands in the slot that holds its time; the slots between are unknown. Not where a
                      finer archive knows any part of the coarse slot: what is a gap there stays one
    3. the same for slots that reach beyond what the old archive covers

A finer archive that knows some slots but too few for the xFilesFactor makes the new slot unknown, as the new
rules say; a coarser one that was rolled up under the old rules doesn't fill it again.

What is lost: resolution and reach that the new retention hasn't; in a coarse slot whose finer slots are gone, a
change of CF or xFilesFactor can't be made up for: it keeps the old consolidation.
whisper-resize (whisper 1.1.10) without ``--aggregate`` lets the last finer slot stand for a coarser one; with it,
points of coarser archives overwrite slots of finer ones. We do neither.

Arrays are slot-major, float64 (n_slots, n_series), NaN = unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tgres_py.model.consolidation import known_min, rollup
from tgres_py.model.retention import Archive, BundleSpec, Cf

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Slots(NamedTuple):
    """Consecutive slots of one archive, ``values`` (n_slots, n_series) from slot ``first``."""

    first: int
    values: Floats

    @property
    def end(self) -> int:
        return self.first + len(self.values)


class _Level(NamedTuple):
    """What one old archive says about a new one; ``known``: whether it knows any part of the slot."""

    first: int
    values: Floats
    known: Bools

    @property
    def end(self) -> int:
        return self.first + len(self.values)


def oldest_slot(archive: Archive, now_s: int) -> int:
    """The oldest slot in reach: the newest is that of ``now_s``."""
    return now_s // archive.step_s - archive.size + 1


def rebucket(
    old: BundleSpec,
    new: BundleSpec,
    sources: Sequence[Slots],
    now_s: int,
    base: Sequence[Slots] | None = None,
) -> list[Slots]:
    """The slots of all archives of ``new``, one Slots for each (may be empty).

    ``sources``: the known window of each archive of ``old``, all with the same series; the caller keeps them.
    ``base``: what there is of the new archives already; where it knows a part of a coarser slot, that slot's value isn't
    put into it. What is older than an archive's reach at ``now_s`` neither counts nor comes out.
    """
    reach = [oldest_slot(archive, now_s) for archive in old.archives]
    cut = [_cut(slots, oldest) for slots, oldest in zip(sources, reach, strict=True)]
    levels = [
        _levels(archive, slots, finer, new, now_s, base)
        for archive, slots, finer in zip(old.archives, cut, _known_finer(old, cut), strict=True)
    ]
    n_series = sources[0].values.shape[1]
    out = []
    for number, archive in enumerate(new.archives):
        oldest = oldest_slot(archive, now_s)
        ordered = [
            (levels[j][number], reach[j] * old.archives[j].step_s)
            for j in _preference(old, new, number)
        ]
        out.append(_merged(ordered, archive.step_s, oldest, n_series))
    return out


def _preference(old: BundleSpec, new: BundleSpec, number: int) -> list[int]:
    """Numbers of the old archives in the order in which a new one asks them."""
    order = list(range(len(old.archives)))
    unchanged = old.cf == new.cf and old.xff == new.xff
    step_s = new.archives[number].step_s
    same = next((j for j in order if old.archives[j].step_s == step_s), None)
    if same is not None and (unchanged or number == 0):
        order.remove(same)
        order.insert(0, same)
    return order


def _cut(slots: Slots, oldest: int) -> Slots:
    skip = min(max(0, oldest - slots.first), len(slots.values))
    return Slots(slots.first + skip, slots.values[skip:])


def _known_finer(old: BundleSpec, sources: Sequence[Slots]) -> list[Bools]:
    """For each slot of each old archive: whether a finer one knows any part of it."""
    found = [np.zeros(sources[0].values.shape, np.bool_)]
    first, known = sources[0].first, ~np.isnan(sources[0].values)  # of all archives so far
    for number, slots in enumerate(sources[1:], 1):
        factor = old.archives[number].step_s // old.archives[number - 1].step_s
        first, known = first // factor, any_of_groups(first, known, factor)
        if len(slots.values) == 0 or len(known) == 0:
            found.append(np.zeros(slots.values.shape, np.bool_))
            if len(slots.values):
                first, known = slots.first, ~np.isnan(slots.values)
            continue
        low, high = min(first, slots.first), max(first + len(known), slots.end)
        wide = np.zeros((high - low, known.shape[1]), np.bool_)
        wide[first - low : first - low + len(known)] = known
        own = slice(slots.first - low, slots.end - low)
        found.append(wide[own].copy())
        wide[own] |= ~np.isnan(slots.values)
        first, known = low, wide
    return found


def _known_within(base: Slots, base_s: int, slots: Slots, step_s: int) -> Bools:
    """For each of the coarser ``slots``: whether ``base`` knows a slot that begins in it."""
    found = np.zeros(slots.values.shape, np.bool_)
    at = np.arange(base.first, base.end) * base_s // step_s - slots.first
    inside = np.flatnonzero((at >= 0) & (at < len(found)))
    np.logical_or.at(found, at[inside], ~np.isnan(base.values[inside]))
    return found


def any_of_groups(first: int, known: Bools, factor: int) -> Bools:
    """Whether any of each group of ``factor`` slots is known; the first group is that of slot ``first``."""
    padded = np.pad(known, ((first % factor, -(first + len(known)) % factor), (0, 0)))
    grouped: Bools = np.logical_or.reduce(padded.reshape(-1, factor, known.shape[1]), axis=1)
    return grouped


def _levels(
    archive: Archive,
    slots: Slots,
    known_finer: Bools,
    new: BundleSpec,
    now_s: int,
    base: Sequence[Slots] | None,
) -> list[_Level]:
    """What an old archive's slots come to in each new archive."""
    levels: list[_Level] = []
    rolled: _Level | None = None
    for number, target in enumerate(new.archives):
        if target.step_s < archive.step_s:
            hidden = known_finer
            if base is not None:
                hidden = hidden | _known_within(base[number], target.step_s, slots, archive.step_s)
            alone = Slots(slots.first, np.where(hidden, np.nan, slots.values))
            levels.append(_spread(alone, archive.step_s, target, now_s))
            continue
        if rolled is None:
            rolled = _grouped(slots, archive.step_s, target.step_s, new)
        else:
            factor = target.step_s // new.archives[number - 1].step_s
            rolled = _rolled(rolled, factor, new)
        levels.append(rolled)
    return levels


def _spread(slots: Slots, step_s: int, target: Archive, now_s: int) -> _Level:
    """Coarser slots in a finer archive: each at its own time, as far as the new archive reaches."""
    oldest_s = oldest_slot(target, now_s) * target.step_s
    slots = _cut(slots, -(-oldest_s // step_s))
    first = slots.first * step_s // target.step_s
    places = np.arange(slots.first, slots.end) * step_s // target.step_s - first
    size = int(places[-1]) + 1 if len(places) else 0
    values = np.full((size, slots.values.shape[1]), np.nan)
    values[places] = slots.values
    return _Level(first, values, ~np.isnan(values))


def _grouped(slots: Slots, step_s: int, target_s: int, new: BundleSpec) -> _Level:
    """Slots in an archive of equal or coarser step."""
    known = ~np.isnan(slots.values)
    level = _Level(slots.first, slots.values, known)
    if target_s == step_s:
        return level
    if target_s % step_s == 0:
        return _rolled(level, target_s // step_s, new)
    return _uneven(slots, step_s, target_s, new)


def _rolled(level: _Level, factor: int, new: BundleSpec) -> _Level:
    """One step up: groups of ``factor`` slots, those at the ends filled up with unknown ones."""
    first = level.first // factor
    before = level.first - first * factor
    after = -level.end % factor
    values = level.values
    if before or after:
        values = np.pad(values, ((before, after), (0, 0)), constant_values=np.nan)
    any_known = any_of_groups(level.first, level.known, factor)
    return _Level(first, rollup(values, factor, new.cf, new.xff), any_known)


def _uneven(slots: Slots, step_s: int, target_s: int, new: BundleSpec) -> _Level:
    """A coarser step that is no multiple: groups of changing size, by the times at which slots begin."""
    if len(slots.values) == 0:
        return _Level(slots.first * step_s // target_s, slots.values, slots.values.astype(np.bool_))
    number = np.arange(slots.first, slots.end)
    group = number * step_s // target_s
    first, end = int(group[0]), int(group[-1]) + 1
    edges = -(-np.arange(first, end + 1) * target_s // step_s)  # first slot of each group
    sizes = np.diff(edges)
    most = int(sizes.max())
    block = np.full(((end - first) * most, slots.values.shape[1]), np.nan)
    block[(group - first) * most + number - edges[group - first]] = slots.values
    values = rollup(block, most, new.cf, 0.0)
    count = (~np.isnan(block)).reshape(-1, most, block.shape[1]).sum(axis=1)
    if new.cf == Cf.AVG_ZERO:
        values *= (most / sizes)[:, None]
    need = np.array([known_min(int(size), new.xff) for size in sizes])
    values[count < need[:, None]] = np.nan
    return _Level(first, values, np.asarray(count > 0))


def _merged(
    ordered: Sequence[tuple[_Level, int]], step_s: int, oldest: int, n_series: int
) -> Slots:
    """Each slot from the first level that knows it; ``ordered``: with the time from which each is whole."""
    filled = [level for level, _ in ordered if level.end > max(level.first, oldest)]
    if not filled:
        return Slots(oldest, np.empty((0, n_series)))
    first = max(oldest, min(level.first for level in filled))
    end = max(level.end for level in filled)
    out = np.full((end - first, n_series), np.nan)
    decided = np.zeros(out.shape, np.bool_)
    for whole in (True, False):
        for level, reach_s in ordered:
            low = max(first, level.first, -(-reach_s // step_s) if whole else first)
            if low >= level.end:
                continue
            part = slice(low - first, level.end - first)
            inner = slice(low - level.first, None)
            take = level.known[inner] & ~decided[part]
            out[part][take] = level.values[inner][take]
            decided[part] |= take
    return Slots(first, out)
