"""Brings the registry in line with rows of ``rrd`` that others made, renamed or removed.

It looks at the rows themselves, not at what was done to them, so changes may be told late, twice or in any
order: a row that is gone retires its series, a row with another name renames it, a row that is new
becomes a series without anything in memory. Operators' verbs of this server go the same way.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.ingest.intake import Intake
from tgres_py.ingest.registry import Registry
from tgres_py.model.points import Ids, Parsed, PointBlock
from tgres_py.storage.port import SeriesRows, Store

log = logging.getLogger(__name__)

RrdIds = NDArray[np.int64]

SLICE = 2_000  # rows that are worked on before the loop's others get their turn: some milliseconds
RECEIVER = "rename"  # under which the ledger counts points that change their series
FLOOR_S = 60  # series that are adopted within this time share segments of the ring


@dataclass(slots=True)
class Followed:
    """How many series were affected. ``untagged``: names that are not to be in the index of tags."""

    retired: int = 0
    forgotten: int = 0
    named: int = 0
    adopted: int = 0
    untagged: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.retired or self.forgotten or self.named or self.adopted)


class Follower:
    """Belongs to the event loop's thread. The registry is open."""

    def __init__(self, intake: Intake, store: Store, lock: asyncio.Lock) -> None:
        """``lock``: the flusher's; who holds it is alone in changing rows from inside the server."""
        self._intake = intake
        self._registry: Registry = intake.registry
        self._store = store
        self._lock = lock
        self._unsettled: set[int] = set()  # rows whose names other series had

    async def apply(self, rrd_ids: RrdIds | None) -> Followed:
        """Looks at these rows (None: at all) and follows. StoreUnavailable: nothing or a part is done."""
        async with self._lock:
            done = Followed()
            if rrd_ids is None:
                await self._apply(None, done)
            else:
                for at in range(0, len(rrd_ids), SLICE):
                    await self._apply(rrd_ids[at : at + SLICE], done)
            await self._settle(done)
        if done:
            log.info(
                "series that others changed: %d new, %d renamed or back, %d in the trash, %d gone",
                done.adopted,
                done.named,
                done.retired,
                done.forgotten,
            )
        return done

    async def _settle(self, done: Followed) -> None:
        """Names that were handed on in a circle: once more, as long as that helps."""
        while waiting := self._unsettled:
            self._unsettled = set()
            await self._apply(np.array(sorted(waiting), np.int64), done)
            if self._unsettled >= waiting:
                return

    async def _apply(self, rrd_ids: RrdIds | None, done: Followed) -> None:
        registry = self._registry
        if rrd_ids is None:
            # before the store is read: a row that is made meanwhile isn't missing
            known = registry.rrd_id[: registry.table.size]
            mine = np.unique(known[known > 0])
            rows = await self._store.load_series()
        else:
            mine = rrd_ids
            rows = await self._store.find_series(rrd_ids)
        gone = np.setdiff1d(mine, rows.rrd_id)
        kept = (await self._store.load_trash(gone)).rrd_id if len(gone) else gone
        self._remove(np.intersect1d(gone, kept), np.setdiff1d(gone, kept), done)
        await self._name(rows, done)
        adopted = await self._find_new(rows)
        if len(adopted.names):
            await self._adopt(adopted, done)
        self._intake.journal_names()
        if done.named or done.adopted:
            done.untagged += await self._store.find_untagged(rows.rrd_id)

    def _remove(self, trashed: RrdIds, gone: RrdIds, done: Followed) -> None:
        registry = self._registry
        done.retired += len(registry.retire(self._all_of(trashed)))
        ids = self._all_of(gone)
        if len(ids):
            registry.forget(ids)
            done.forgotten += len(ids)

    def _all_of(self, rrd_ids: RrdIds) -> Ids:
        """All series of these rows; a row may have had several names in this run."""
        known = self._registry.rrd_id[: self._registry.table.size]
        return np.flatnonzero(np.isin(known, rrd_ids)).astype(np.int32)

    async def _name(self, rows: SeriesRows, done: Followed) -> None:
        """Gives known series the names that their rows have."""
        registry = self._registry
        for at in range(0, len(rows.names), SLICE):
            part = slice(at, at + SLICE)
            self._join_doubles(rows.rrd_id[part])
            ids = registry.by_row(rows.rrd_id[part])
            known = np.flatnonzero(ids >= 0)
            names = [rows.names[at + i] for i in known.tolist()]
            ids = ids[known]
            now = registry.names(ids)
            other = [i for i in range(len(ids)) if names[i] != now[i] or registry.retired[ids[i]]]
            if other:
                self._rename(ids[other], [names[i] for i in other], done)
            await asyncio.sleep(0)

    def _rename(self, ids: Ids, names: list[str], done: Followed) -> None:
        registry = self._registry
        wanted = dict(zip(names, ids.tolist(), strict=True))
        for name, id_ in wanted.items():
            holder = registry.table.get(name.encode())
            # points came under the new name before this server heard of it; they are the same row's
            if (
                holder >= 0
                and holder != id_
                and registry.rrd_id[holder] in (0, registry.rrd_id[id_])
            ):
                self._join(holder, id_)
        registry.rename(ids, names)
        done.named += int((~registry.retired[ids]).sum())
        self._unsettled |= set(registry.rrd_id[ids[registry.retired[ids]]].tolist())

    def _join_doubles(self, rrd_ids: RrdIds) -> None:
        """A row that was renamed may have been found under its new name as that of another series."""
        ids = self._all_of(rrd_ids)
        rows = self._registry.rrd_id[ids]
        if len(np.unique(rows)) == len(rows):
            return
        oldest: dict[int, int] = {}
        for id_, row in zip(ids.tolist(), rows.tolist(), strict=True):
            if oldest.setdefault(row, id_) != id_:
                self._join(id_, oldest[row])

    def _join(self, holder: int, id_: int) -> None:
        """What came under the name goes to the series whose name it is."""
        registry = self._registry
        ring = registry.ring
        one = np.array([holder], np.int32)
        segments, columns = ring.locate(one)
        registry.forget(one)
        segment = int(segments[0])
        if segment < 0:
            return
        step_s = registry.bundle_specs[registry.segment_bundle[segment]].archives[0].step_s
        low, high = ring.span(segment)
        values = ring.gather(segment, columns, low, high)[0]
        known = np.flatnonzero(~np.isnan(values))
        if len(known):
            ids = np.full(len(known), id_, np.int32)
            block = PointBlock(ids, (known + low) * step_s, values[known])
            self._intake.accept(RECEIVER, Parsed(block))

    async def _find_new(self, rows: SeriesRows) -> SeriesRows:
        """The rows that no series has, and whose names are free."""
        registry = self._registry
        chosen: list[int] = []
        for at in range(0, len(rows.names), SLICE):
            ids = registry.by_row(rows.rrd_id[at : at + SLICE])
            for i in np.flatnonzero(ids < 0).tolist():
                holder = registry.table.get(rows.names[at + i].encode())
                if holder < 0:
                    chosen.append(at + i)
                elif registry.rrd_id[holder] != 0:  # 0: its row is just being found
                    self._unsettled.add(int(rows.rrd_id[at + i]))
            await asyncio.sleep(0)
        return SeriesRows(
            rows.rrd_id[chosen], rows.bundle_id[chosen], [rows.names[i] for i in chosen]
        )

    async def _adopt(self, rows: SeriesRows, done: Followed) -> None:
        registry = self._registry
        bundles = dict(await self._store.load_bundles())
        for db_id in np.unique(rows.bundle_id).tolist():
            number = registry.bundle(bundles[db_id])
            registry.bundle_db_ids[number] = db_id
            floor_s = (clock.now_s() // FLOOR_S + 1) * FLOOR_S
            mine = np.flatnonzero(rows.bundle_id == db_id)
            for at in range(0, len(mine), SLICE):
                # a name may have come with a point since
                part = [
                    i
                    for i in mine[at : at + SLICE].tolist()
                    if registry.table.get(rows.names[i].encode()) < 0
                ]
                if part:
                    names = [rows.names[i] for i in part]
                    registry.adopt(names, rows.rrd_id[part], number, floor_s)
                    done.adopted += len(part)
                await asyncio.sleep(0)
