"""The slow path: points whose slots are in the store already are merged there, with all that they roll up to.

Batched: for all points of a bundle and an archive, the slots around them are read (store and ring
together), changed by the rule of the retention, and rolled up; the changed coarser slots go on in the
next archive. What changed below a segment's floor becomes rows that hold these slots only. A batch of 200,000 points is sorted
and merged beside the event loop; floors and rows of series are looked up on it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tgres_py.ingest.intake import Late
from tgres_py.ingest.reader import COUNTS_ARCHIVE, Reader
from tgres_py.ingest.registry import Registry
from tgres_py.ingest.rows import rows_of_slots, unique_pairs
from tgres_py.model.consolidation import rollup
from tgres_py.model.points import Ids, Reason
from tgres_py.model.retention import BundleSpec, OnDuplicate
from tgres_py.storage.port import ChunkRows

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]

FAR_PAST_S = -(1 << 61)  # as when a point came: none did


@dataclass(slots=True)
class Changes:
    """Points on their way into one archive, in order of arrival. ``came_s``: when they came, int64."""

    ids: Ids
    slots: Longs
    values: Floats
    came_s: Longs

    def then(self, other: Changes) -> Changes:
        return Changes(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.slots, other.slots]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.came_s, other.came_s]),
        )


def no_changes() -> Changes:
    return Changes(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))


@dataclass(slots=True)
class Merge:
    """What a batch of late points came to."""

    rows: list[ChunkRows] = field(default_factory=list)
    stored: int = 0
    overwritten: int = 0
    rejected: Counter[Reason] = field(default_factory=Counter)


@dataclass(slots=True)
class Written:
    """Changed slots of one archive that belong to the store, from all windows."""

    rrd_ids: list[Longs] = field(default_factory=list)
    slots: list[Longs] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    counts: list[Floats] = field(default_factory=list)

    def rows(self, spec: BundleSpec, number: int) -> list[ChunkRows]:
        if not any(map(len, self.slots)):
            return []
        rrd_ids, slots = np.concatenate(self.rrd_ids), np.concatenate(self.slots)
        archive = spec.archives[number]
        rows = [rows_of_slots(number, archive, rrd_ids, slots, np.concatenate(self.values))]
        if self.counts:
            counts = np.concatenate(self.counts)
            rows.append(rows_of_slots(COUNTS_ARCHIVE, archive, rrd_ids, slots, counts))
        return rows


def floors_wanted(registry: Registry, batch: list[Late]) -> dict[int, int]:
    """Time up to which a segment's slots must be in the store before the batch can be merged.

    Points older than the finest archive reaches go straight into a coarser one; its slots must not be
    ones that the ring would be asked for.
    """
    wanted: dict[int, int] = {}
    for late in batch:
        segments, _ = registry.ring.locate(late.ids)
        for segment in np.unique(segments[segments >= 0]).tolist():
            spec = registry.bundle_specs[registry.segment_bundle[segment]]
            ages = late.now_s - late.times[segments == segment]
            for fine, coarse in zip(spec.archives, spec.archives[1:], strict=False):
                direct = (ages > fine.retention_s) & (ages <= coarse.retention_s)
                if direct.any():
                    newest = late.now_s - int(ages[direct].min())
                    end = (newest // coarse.step_s + 1) * coarse.step_s
                    wanted[segment] = max(end, wanted.get(segment, 0))
    return wanted


class LateMerger:
    def __init__(self, registry: Registry, reader: Reader) -> None:
        self._registry = registry
        self._reader = reader

    async def merge(self, batch: list[Late]) -> Merge:
        """Rows for the store; nothing is changed yet. StoreUnavailable when it can't be read."""
        result = Merge()
        ids = np.concatenate([late.ids for late in batch])
        times = np.concatenate([late.times for late in batch])
        values = np.concatenate([late.values for late in batch])
        came_s = np.repeat([late.now_s for late in batch], [len(late) for late in batch])
        ages = came_s - times
        bundles = self._registry.bundle_of[ids]
        result.rejected[Reason.UNMATCHED] += int((bundles < 0).sum())
        for bundle in np.unique(bundles[bundles >= 0]).tolist():
            spec = self._registry.bundle_specs[bundle]
            mine = bundles == bundle
            rolled = no_changes()
            younger = FAR_PAST_S  # points from the future, too, go to the finest archive
            for number, archive in enumerate(spec.archives):
                direct = mine & (ages > younger) & (ages <= archive.retention_s)
                younger = archive.retention_s
                slots = times[direct] // archive.step_s
                changes = Changes(ids[direct], slots, values[direct], came_s[direct])
                rolled = await self._archive(spec, number, rolled, changes, result)
            result.rejected[Reason.TOO_OLD] += int((mine & (ages > younger)).sum())
        return result

    async def _archive(
        self, spec: BundleSpec, number: int, rolled: Changes, direct: Changes, result: Merge
    ) -> Changes:
        """Merges changes into one archive; the changes that they make in the next one."""
        # direct points come last: they replace what the rollup says
        changes = rolled.then(direct)
        if len(changes.ids) == 0:
            return changes
        archive = spec.archives[number]
        last = number + 1 == len(spec.archives)
        factor = 1 if last else spec.archives[number + 1].step_s // archive.step_s
        parents = changes.slots // factor
        windows = parents * factor // archive.width
        further = no_changes()
        written = Written()
        is_direct = np.arange(len(changes.ids)) >= len(rolled.ids)
        for window in np.unique(windows).tolist():
            at = np.flatnonzero(windows == window)
            unique, row = np.unique(changes.ids[at], return_inverse=True)
            first = int(parents[at].min()) * factor
            end = (int(parents[at].max()) + 1) * factor
            known = await self._reader.fetch(unique, number, first, end)
            rule = spec.on_duplicate if number == 0 else OnDuplicate.LAST
            column = changes.slots[at] - first
            counts = None
            if rule == OnDuplicate.MEAN:
                counts = np.nan_to_num(
                    await self._reader.fetch(unique, COUNTS_ARCHIVE, first, end), nan=0.0
                )
            stored, cells = await asyncio.to_thread(
                apply, rule, known, row, column, changes.values[at], is_direct[at], counts
            )
            result.stored += stored
            result.overwritten += int(is_direct[at].sum()) - stored
            self._note(spec, number, unique, cells, first, known, counts, written)
            if not last:
                came_s = np.full((len(unique), known.shape[1] // factor), FAR_PAST_S)
                np.maximum.at(came_s, (row, parents[at] - first // factor), changes.came_s[at])
                await self._forget_reused(spec, number, unique, first, known, came_s)
                coarse = rollup(np.ascontiguousarray(known.T), factor, spec.cf, spec.xff)
                up = np.stack(np.nonzero(came_s != FAR_PAST_S))
                value = coarse[up[1], up[0]]
                ok = ~np.isnan(value)
                step_s = spec.archives[number + 1].step_s
                slots = up[1] + first // factor
                ok &= (slots + 1) * step_s <= self._floors_s(unique)[up[0]]
                when_s = came_s[up[0], up[1]]
                further = further.then(Changes(unique[up[0]][ok], slots[ok], value[ok], when_s[ok]))
        result.rows += await asyncio.to_thread(written.rows, spec, number)
        return further

    async def _forget_reused(
        self, spec: BundleSpec, number: int, ids: Ids, first: int, known: Floats, came_s: Longs
    ) -> None:
        """At the edge of the retention: slots whose place in whisper's ring a newer one had taken when the
        points came don't count in their rollup any more, though the store still has them.

        ``came_s``: int64 (n_series, n_parents), when the last point of each coarser slot came. Points may
        have waited for the store since; what took places meanwhile changes nothing.
        """
        archive = spec.archives[number]
        edges = came_s // archive.step_s + 1 - archive.size
        n = int(min(known.shape[1], edges.max() - first))
        if n > 0:
            edge_of = np.repeat(edges, known.shape[1] // edges.shape[1], axis=1)
            reused = np.arange(first, first + n) < edge_of[:, :n]
            start = first + archive.size
            newer = await self._reader.fetch(ids, number, start, start + n)
            known[:, :n][reused & ~np.isnan(newer)] = np.nan

    def _note(
        self,
        spec: BundleSpec,
        number: int,
        ids: Ids,
        cells: NDArray[np.intp],
        first: int,
        known: Floats,
        counts: Floats | None,
        written: Written,
    ) -> None:
        """Notes the changed cells that belong to the store."""
        slots = cells[1] + first
        step_s = spec.archives[number].step_s
        below = (slots + 1) * step_s <= self._floors_s(ids)[cells[0]]
        below &= self._registry.rrd_id[ids][cells[0]] > 0
        row, column = cells[0][below], cells[1][below]
        written.rrd_ids.append(self._registry.rrd_id[ids[row]])
        written.slots.append(slots[below])
        written.values.append(known[row, column])
        if counts is not None:
            written.counts.append(counts[row, column])

    def _floors_s(self, ids: Ids) -> Longs:
        """Time of each series' floor; far in the past where the store has nothing."""
        segments, _ = self._registry.ring.locate(ids)
        floors = np.empty(len(ids), np.int64)
        for segment in np.unique(segments).tolist():
            floors[segments == segment] = self._registry.floor_s(segment)
        return floors


def apply(
    rule: OnDuplicate,
    known: Floats,
    row: NDArray[np.intp],
    column: Longs,
    values: Floats,
    is_direct: NDArray[np.bool_],
    counts: Floats | None,
) -> tuple[int, NDArray[np.intp]]:
    """Merges points into ``known[row, column]``, in order: how many met an unknown cell, and all cells, intp (2, n).

    Only points with ``is_direct`` are counted; the others are rollups.
    """
    stored = 0
    first, _ = unique_pairs(row, column)
    cells = np.stack([row[first], column[first]])
    if rule == OnDuplicate.LAST:
        stored = int((np.isnan(known[cells[0], cells[1]]) & is_direct[first]).sum())
        known[row, column] = values
        return stored, cells
    for r, c, value in zip(row.tolist(), column.tolist(), values.tolist(), strict=True):
        old = known[r, c]
        if np.isnan(old):
            known[r, c] = value
            stored += 1
            if counts is not None:
                counts[r, c] = 1
        elif rule == OnDuplicate.SUM:
            known[r, c] = old + value
        elif rule == OnDuplicate.MEAN and counts is not None:
            counts[r, c] = max(counts[r, c], 1) + 1
            known[r, c] = old + (value - old) / counts[r, c]
        elif rule == OnDuplicate.MIN:
            known[r, c] = min(old, value)
        elif rule == OnDuplicate.MAX:
            known[r, c] = max(old, value)
    return stored, cells
