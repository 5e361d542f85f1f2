"""Moves series to another bundle while their points go on coming: the protocol of one batch.

Under the flusher's lock, so nothing else writes to the store or moves a floor:

    1 seal     slots below the cut take no points (they wait as late points, which know their series by id)
    2 flush    what the ring holds below the cut goes to the old rows, in all archives
    3 copy     the old archives, store and ring, are re-bucketed; their new slots go to the new rows
    4 floor    the journal learns that the series' slots below the cut are in the store, and is on disk
    5 commit   one transaction: the row in rrd has the new id and bundle, the job says "moved"
    6 switch   in one step of the event loop: new place in the ring, slots above the cut carried over

What a kill leaves behind: before 5 the old bundle, its rows complete below the cut and the journal above it; the
new rows are nobody's, and the job removes them when it goes on. After 5 the new bundle: its rows are complete
below the cut, and the journal's points above it (told under the name, or the row of before) come into the new ring.
The cut is near now, so that few points take either way. Queries that were planned before 6 read the old rows and
columns (``Registry.places``), those after it the new: there is no moment at which either lacks a slot.

The same backwards is undo: the old rows lack what came after the first move's cut (``since_s``), and what came late for
slots before it, where they know nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.errors import StoreUnavailable
from tgres_py.ingest.flusher import Flusher
from tgres_py.ingest.journal import Kind, Record
from tgres_py.ingest.reader import COUNTS_ARCHIVE, scatter
from tgres_py.ingest.registry import NO_FLOOR_S
from tgres_py.ingest.rows import rows_of_block
from tgres_py.kernels import FLOOR_NONE
from tgres_py.model.points import Ids
from tgres_py.model.rebucket import Slots, any_of_groups, oldest_slot, rebucket
from tgres_py.model.retention import BundleSpec, OnDuplicate
from tgres_py.storage.port import ChunkRows, Store
from tgres_py.storage.retention_jobs import RetentionJobs

log = logging.getLogger(__name__)

Longs = NDArray[np.int64]
CELLS_MAX = 2_000_000  # slots that are worked on at once: 16 MB, 0.1 s
RETRY_S = 1.0


@dataclass(slots=True)
class Batch:
    """Series of one bundle that go to another. ``rrd_ids``: int64 (k,), their rows to be.

    ``since_s``: the rows hold what was there before; only slots that end after it are written, and those they don't
    know. None: they are new.
    ``expected``: how many there are in all from here on, for the size of their segment. At most SEGMENT_SERIES_MAX ids.
    ``commit(cut_s)``: step 5; ``committed()``: whether it was done, asked when its answer is lost.
    """

    ids: Ids
    rrd_ids: Longs
    spec: BundleSpec
    since_s: int | None
    expected: int
    commit: Callable[[int], Awaitable[None]]
    committed: Callable[[], Awaitable[bool]]


@dataclass(slots=True)
class _Carried:
    """Slots of the finest old archive on their way to the new ring, by time; counts: points of each."""

    ids: Ids
    times: Longs
    values: NDArray[np.float64]
    counts: NDArray[np.uint32]


class Mover:
    def __init__(self, flusher: Flusher, store: Store, jobs: RetentionJobs) -> None:
        self._flusher = flusher
        self._store = store
        self._jobs = jobs
        self._registry = flusher.registry
        self._ring = flusher.ring

    async def move(self, batch: Batch) -> float:
        """Moves one batch; the seconds that the flusher's lock was held. The registry is open, all series have
        rows. StoreUnavailable, LookupError (of ``commit``): nothing was moved."""
        async with self._flusher.lock:
            begin = clock.monotonic()
            await self._move(batch)
            return clock.monotonic() - begin

    async def _move(self, batch: Batch) -> None:
        registry, ring = self._registry, self._ring
        old = registry.bundle_specs[int(registry.bundle_of[batch.ids[0]])]
        number = await self._bundle(batch.spec)
        await self._take_in_others(batch.ids)
        segments = np.unique(ring.locate(batch.ids)[0]).tolist()
        target, cut_s = self._cut(batch, number, segments)
        cut_slot = -(-cut_s // old.archives[0].step_s)
        newest = self._flusher.intake.late_seq
        try:
            for segment in segments:
                ring.set_seal(segment, cut_slot)
            for segment in segments:
                await self._flush_old(segment, cut_slot, batch.ids)
            recent = await self._copy(batch, old, target, cut_s, segments)
            await self._journal_floor(batch.ids, cut_s)
            await self._commit(batch, cut_s)
            self._switch(batch, old, target, cut_slot, recent)
        finally:
            for segment in segments:
                ring.set_seal(segment, ring.floor(segment))
            self._flusher.intake.land_since(newest)

    async def _take_in_others(self, ids: Ids) -> None:
        """Names that were joined with one of the series in this run: what the ring holds of them goes to the
        rows that they share."""
        registry = self._registry
        retired = np.flatnonzero(registry.retired[: registry.table.size]).astype(np.int32)
        others = retired[np.isin(registry.rrd_id[retired], registry.rrd_id[ids])]
        if len(others) == 0:
            return
        await self._flusher.merge_late_now()
        segments = self._ring.locate(others)[0]
        for segment in np.unique(segments[segments >= 0]).tolist():
            await self._flusher.flush_until(segment, self._ring.span(segment)[1])
        registry.forget(others)

    async def _bundle(self, spec: BundleSpec) -> int:
        number = self._registry.bundle(spec)
        if self._registry.bundle_db_ids[number] == 0:
            [self._registry.bundle_db_ids[number]] = await self._store.ensure_bundles([spec])
        return number

    def _cut(self, batch: Batch, bundle: int, segments: list[int]) -> tuple[int, int]:
        """The segment that the series go to, and the time below which all is copied through the store: late
        enough that points rarely come for it, but above the floors of the old and the new segment."""
        step_s = batch.spec.archives[0].step_s
        recent_s = (clock.now_s() - int(self._flusher.pace.late_grace_s)) // step_s * step_s
        least_s = NO_FLOOR_S if batch.since_s is None else -(-batch.since_s // step_s) * step_s
        floor_s = max(recent_s, least_s)
        target = self._registry.destination(
            bundle, len(batch.ids), batch.expected, floor_s, least_s
        )
        floors = [self._registry.floor_s(segment) for segment in [*segments, target]]
        return target, -(-max(recent_s, *floors) // step_s) * step_s

    async def _flush_old(self, segment: int, cut_slot: int, ids: Ids) -> None:
        finest = self._registry.bundle_specs[self._registry.segment_bundle[segment]].archives[0]
        floor = self._ring.floor(segment)
        low, high = self._ring.span(segment)
        if floor != FLOOR_NONE and min(high, cut_slot) > floor + finest.size:
            # a newer lap would take the place of slots that are still needed: the slow and safe way
            await self._flusher.flush_until(segment, cut_slot)
            return
        while low < min(high, cut_slot):
            end = min(cut_slot, (low // finest.width + 1) * finest.width)
            rows = await self._flusher.rows_of(segment, low, end, ids)
            if rows:
                await self._store.write_chunks(rows)
            low = end

    # -- copy ----------------------------------------------------------------------------------

    async def _copy(
        self, batch: Batch, old: BundleSpec, target: int, cut_s: int, segments: list[int]
    ) -> list[tuple[Ids, Slots]]:
        """Steps 3. Returns the new finest slots between the new segment's floor and the cut, for its ring."""
        now_s = clock.now_s()
        windows = await self._windows(batch.ids, old, cut_s, segments, now_s)
        recent: list[tuple[Ids, Slots]] = []
        cells = sum(end - first for first, end in windows)
        cells += sum(archive.size for archive in batch.spec.archives[:1])
        most = max(1, CELLS_MAX // max(1, cells))
        floor = self._ring.floor(target)
        for at in range(0, len(batch.ids), most):
            ids, rrd_ids = batch.ids[at : at + most], batch.rrd_ids[at : at + most]
            sources = [
                Slots(first, (await self._flusher.reader.fetch(ids, i, first, end)).T)
                for i, (first, end) in enumerate(windows)
            ]
            base = None if batch.since_s is None else await self._stored(rrd_ids, batch.spec, now_s)
            slots = await asyncio.to_thread(rebucket, old, batch.spec, sources, now_s, base)
            rows = await asyncio.to_thread(_rows, batch, rrd_ids, slots, base, cut_s)
            rows += await self._counts(batch, old, ids, rrd_ids, windows[0])
            if rows:
                await self._store.write_chunks(rows)
            finest = slots[0]
            end = cut_s // batch.spec.archives[0].step_s
            first = min(max(finest.first, floor), finest.end)
            values = finest.values[first - finest.first : max(first, end) - finest.first]
            recent.append((ids, Slots(first, values)))
        return recent

    async def _windows(
        self, ids: Ids, old: BundleSpec, cut_s: int, segments: list[int], now_s: int
    ) -> list[tuple[int, int]]:
        """The slots of each old archive that anything is known of: (first, end)."""
        spans = await self._jobs.chunk_spans(self._registry.rrd_id[ids])
        step_s = old.archives[0].step_s
        rings = [self._ring.span(segment) for segment in segments]
        lows = [low * step_s for low, high in rings if low < high]
        highs = [high * step_s for low, high in rings if low < high]
        windows = []
        for number, archive in enumerate(old.archives):
            begin, end = [*lows, cut_s], [*highs, cut_s]
            if number in spans:
                begin.append(spans[number][0])
                end.append(spans[number][1] + archive.chunk_s)
            first = max(oldest_slot(archive, now_s), min(begin) // archive.step_s)
            windows.append((first, max(first, -(-max(end) // archive.step_s))))
        return windows

    async def _stored(self, rrd_ids: Longs, spec: BundleSpec, now_s: int) -> list[Slots]:
        """What the store knows of rows that the series don't have (yet, or again)."""
        spans = await self._jobs.chunk_spans(rrd_ids)
        found = []
        place = {rrd_id: i for i, rrd_id in enumerate(rrd_ids.tolist())}
        for number, archive in enumerate(spec.archives):
            first = end = oldest_slot(archive, now_s)
            if number in spans:
                first = max(first, spans[number][0] // archive.step_s)
                end = max(first, spans[number][1] // archive.step_s + archive.width)
            values = np.full((len(rrd_ids), end - first), np.nan)
            if first < end:
                from_s = first // archive.width * archive.chunk_s
                rows = await self._store.read_chunks(
                    rrd_ids, number, archive.width, from_s, end * archive.step_s, ring=archive
                )
                at = np.array([place[rrd_id] for rrd_id in rows.rrd_id.tolist()], np.int64)
                scatter(rows, at, archive.step_s, first, values)
            found.append(Slots(first, values.T))
        return found

    async def _counts(
        self, batch: Batch, old: BundleSpec, ids: Ids, rrd_ids: Longs, window: tuple[int, int]
    ) -> list[ChunkRows]:
        """Under the rule mean: how many points are in each finest slot, where the slots stay the same."""
        finest = batch.spec.archives[0]
        rules = {old.on_duplicate, batch.spec.on_duplicate}
        if rules != {OnDuplicate.MEAN} or old.archives[0].step_s != finest.step_s:
            return []
        first = max(window[0], oldest_slot(finest, clock.now_s()))
        if first >= window[1]:
            return []
        counts = await self._flusher.reader.fetch(ids, COUNTS_ARCHIVE, first, window[1])
        return list(rows_of_block(COUNTS_ARCHIVE, finest, rrd_ids, first, counts.T))

    # -- commit and switch ---------------------------------------------------------------------

    async def _journal_floor(self, ids: Ids, cut_s: int) -> None:
        journal = self._flusher.journal
        if journal is not None:
            journal.append(Record(Kind.FLOOR, ids, now_s=cut_s))
            if not await journal.synced() or journal.incomplete:
                raise StoreUnavailable("the journal's disk takes nothing")

    async def _commit(self, batch: Batch, cut_s: int) -> None:
        """With an answer lost, asks until it is known: memory and store must not differ."""
        try:
            await batch.commit(cut_s)
            return
        except StoreUnavailable as error:
            log.warning("change of retention: %s; asking what was done", error)
            lost = error
        while True:
            try:
                if await batch.committed():
                    return
                raise lost
            except StoreUnavailable as error:
                if error is lost:
                    raise
            await asyncio.sleep(RETRY_S)

    def _switch(
        self,
        batch: Batch,
        old: BundleSpec,
        target: int,
        cut_slot: int,
        recent: list[tuple[Ids, Slots]],
    ) -> None:
        """Nothing here waits."""
        ring = self._ring
        carried = self._gather(batch.ids, old, cut_slot)
        self._registry.move(batch.ids, target, batch.rrd_ids)
        step_s = batch.spec.archives[0].step_s
        for ids, slots in recent:
            slot, column = np.nonzero(~np.isnan(slots.values))
            if len(slot):
                ring.assign(
                    ids[column], (slot + slots.first) * step_s, slots.values[slot, column], None
                )
        for part in carried:
            if step_s == old.archives[0].step_s:
                ring.assign(part.ids, part.times, part.values, part.counts)
            else:
                # as if they came now; of their age nothing is late
                ring.store(part.ids, part.times, part.values, int(part.times.min()), 1 << 40)
        self._journal_image(batch.ids, target)

    def _gather(self, ids: Ids, old: BundleSpec, cut_slot: int) -> list[_Carried]:
        """What the old columns hold from the cut on, in order of time."""
        ring = self._ring
        segments, columns = ring.locate(ids)
        parts = []
        for segment in np.unique(segments).tolist():
            at = np.flatnonzero(segments == segment)
            low, high = ring.span(segment)
            low = max(low, cut_slot)
            if low >= high:
                continue
            block = ring.gather(segment, columns[at], low, high).T
            slot, column = np.nonzero(~np.isnan(block))
            if len(slot) == 0:
                continue
            counts = np.ones(len(slot), np.uint32)
            if old.on_duplicate == OnDuplicate.MEAN:
                every = ring.count_block(segment, low, high)
                counts = every[slot, columns[at][column]].astype(np.uint32)
            times = (slot + low) * old.archives[0].step_s
            parts.append(_Carried(ids[at[column]], times, block[slot, column], counts))
        return parts

    def _journal_image(self, ids: Ids, target: int) -> None:
        """The journal learns the new floor, the rows, and the slots as they are now in the new ring."""
        self._flusher.intake.journal_names()
        journal = self._flusher.journal
        low, high = self._ring.span(target)
        if journal is None or low == high:
            return
        spec = self._registry.bundle_specs[self._registry.segment_bundle[target]]
        _, columns = self._ring.locate(ids)
        block = self._ring.gather(target, columns, low, high).T
        slot, column = np.nonzero(~np.isnan(block))
        if len(slot) == 0:
            return
        counts = None
        if spec.on_duplicate == OnDuplicate.MEAN:
            every = self._ring.count_block(target, low, high)
            counts = every[slot, columns[column]].astype(np.uint32)
        times = (slot + low) * spec.archives[0].step_s
        values = block[slot, column]
        journal.append(Record(Kind.IMAGE, ids[column], times, values, counts=counts))


def _rows(
    batch: Batch, rrd_ids: Longs, slots: list[Slots], base: list[Slots] | None, cut_s: int
) -> list[ChunkRows]:
    """Rows of the new archives: finest slots below the cut, and all that coarser ones are known of."""
    if base is not None and batch.since_s is not None:
        slots = _lacking(batch.spec, slots, base, batch.since_s)
    rows: list[ChunkRows] = []
    for number, (archive, (first, values)) in enumerate(
        zip(batch.spec.archives, slots, strict=True)
    ):
        end = max(0, -(-cut_s // archive.step_s) - first)
        rows += rows_of_block(number, archive, rrd_ids, first, values[:end])
    return rows


def _lacking(spec: BundleSpec, slots: list[Slots], base: list[Slots], since_s: int) -> list[Slots]:
    """Of the slots those that ``base`` lacks: they end after ``since_s``, are unknown there, or are rolled up from
    such."""
    found: list[Slots] = []
    fresh: tuple[int, NDArray[np.bool_]] | None = (
        None  # of the next finer archive: slots that are new
    )
    for number, (archive, (first, values)) in enumerate(zip(spec.archives, slots, strict=True)):
        there = _window(base[number], first, len(values))
        wanted = np.isnan(there)
        wanted[max(0, since_s // archive.step_s - first) :] = True
        if fresh is not None:
            factor = archive.step_s // spec.archives[number - 1].step_s
            groups = any_of_groups(fresh[0], fresh[1], factor)
            at = fresh[0] // factor - first
            low, high = max(0, at), min(len(wanted), at + len(groups))
            if low < high:
                wanted[low:high] |= groups[low - at : high - at]
        part = np.where(wanted, values, np.nan)
        found.append(Slots(first, part))
        fresh = first, ~np.isnan(part) & ~(part == there)
    return found


def _window(slots: Slots, first: int, size: int) -> NDArray[np.float64]:
    """Slots first <= slot < first + size: float64 (size, n_series)."""
    out = np.full((size, slots.values.shape[1]), np.nan)
    low, high = max(first, slots.first), min(first + size, slots.end)
    if low < high:
        out[low - first : high - first] = slots.values[low - slots.first : high - slots.first]
    return out
