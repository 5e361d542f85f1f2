"""The points of a series that is in the trash, for another one, where that knows none.

In the store archive by archive where the archives are equal, else re-bucketed (``model/rebucket.py``). In a running
server the target's newest slots are in memory only, so there the points are given to its ring as well, in the
same step in which it is seen where it knows none; a target that has nothing in the store yet is written
there first, since the store is not read below a floor that isn't there. With the store alone, servers that
run on it are asked to put all that they hold there, and read it from there. Repeating it changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.admin.frame import Admin, Live, Row, note, progress
from tgres_py.admin.select import Series
from tgres_py.ingest.reader import scatter
from tgres_py.ingest.rows import rows_of_block
from tgres_py.kernels import FLOOR_NONE
from tgres_py.model.points import Parsed, PointBlock
from tgres_py.model.rebucket import Slots, oldest_slot, rebucket
from tgres_py.model.retention import Archive, BundleSpec
from tgres_py.storage.importing import ImportStore
from tgres_py.storage.port import ChunkRows
from tgres_py.storage.postgres import PostgresStore

RECEIVER = "merge"  # under which the ledger counts these points
AHEAD_S = 86_400  # points from the future


async def prepare(admin: Admin) -> AsyncIterator[Row]:
    """To be called once, after the sources went to the trash and before ``merge_into``."""
    store = admin.store
    if admin.live is None and isinstance(store, ImportStore):
        yield progress(0, None, "s: servers write out what they hold")
        if not await store.settle(clock.now_s() + 1):
            yield note("a server doesn't answer: what it holds in memory is not merged")


async def merge_into(admin: Admin, source: Series, target: Series) -> None:
    """One series into one other; the source's row stays in the trash. StoreUnavailable."""
    if admin.live is None:
        await _fill_store(admin.store, source, target)
        return
    await _write_out(admin.live, source, target)
    async with admin.live.flusher.lock:  # no floor moves between the two
        slots = await _fill_store(admin.store, source, target)
        _fill_ring(admin.live, int(target.rrd_id[0]), slots)


async def _write_out(live: Live, source: Series, target: Series) -> None:
    """What memory holds of the source goes to its row; the target gets a floor."""
    registry, flusher = live.registry, live.flusher
    held = registry.by_row(source.rrd_id)
    if held[0] >= 0:
        await flusher.flush_now(held)
    segments, _ = registry.ring.locate(registry.by_row(target.rrd_id))
    segment = int(segments[0])
    if segment >= 0 and registry.ring.floor(segment) == FLOOR_NONE:
        step_s = registry.bundle_specs[registry.segment_bundle[segment]].archives[0].step_s
        async with flusher.lock:
            cut_s = clock.now_s() - int(flusher.pace.late_grace_s)
            await flusher.flush_until(segment, cut_s // step_s)


async def _fill_store(store: PostgresStore, source: Series, target: Series) -> Slots:
    """Fills the target's rows; the source's slots of the target's finest archive."""
    old, new = source.specs[0], target.specs[0]
    source_row, target_row = int(source.rrd_id[0]), int(target.rrd_id[0])
    if old.archives == new.archives:
        await store.merge_rows(source_row, target_row)
        return await _read(store, source_row, 0, old.archives[0])
    held = [await _read(store, source_row, n, archive) for n, archive in enumerate(old.archives)]
    slots = rebucket(old, new, held, clock.now_s())
    await store.fill_chunks(_rows(new, target_row, slots))
    return slots[0]


def _rows(spec: BundleSpec, rrd_id: int, slots: list[Slots]) -> list[ChunkRows]:
    ids = np.array([rrd_id], np.int64)
    return [
        rows
        for number, (archive, part) in enumerate(zip(spec.archives, slots, strict=True))
        for rows in rows_of_block(number, archive, ids, part.first, part.values)
    ]


async def _read(store: PostgresStore, rrd_id: int, number: int, archive: Archive) -> Slots:
    """All that the store holds of one archive of a series."""
    now_s = clock.now_s()
    first = oldest_slot(archive, now_s)
    end = (now_s + AHEAD_S) // archive.step_s + 1
    out = np.full((1, end - first), np.nan)
    rows = await store.read_chunks(
        np.array([rrd_id], np.int64),
        number,
        archive.width,
        first // archive.width * archive.chunk_s,
        end * archive.step_s,
    )
    scatter(rows, np.zeros(len(rows), np.int64), archive.step_s, first, out)
    known = np.flatnonzero(~np.isnan(out[0]))
    last = int(known[-1]) + 1 if len(known) else 0
    return Slots(first, np.ascontiguousarray(out[:, :last].T))


def _fill_ring(live: Live, target_row: int, slots: Slots) -> None:
    """Points for those slots at or above the target's floor that it knows nothing of."""
    registry = live.registry
    ids = registry.by_row(np.array([target_row], np.int64))
    segments, columns = registry.ring.locate(ids)
    segment = int(segments[0])
    if segment < 0:
        return
    floor = registry.ring.floor(segment)
    first = max(slots.first, floor)
    if first >= slots.end:
        return
    mine = registry.ring.gather(segment, columns, first, slots.end)[0]
    theirs: NDArray[np.float64] = slots.values[first - slots.first :, 0]
    wanted = np.flatnonzero(np.isnan(mine) & ~np.isnan(theirs))
    if len(wanted):
        step_s = registry.bundle_specs[registry.segment_bundle[segment]].archives[0].step_s
        times = (wanted + first) * step_s
        block = PointBlock(np.full(len(wanted), ids[0], np.int32), times, theirs[wanted])
        live.intake.accept(RECEIVER, Parsed(block))
