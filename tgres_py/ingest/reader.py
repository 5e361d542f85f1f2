"""Values of any archive and window: rows of ``ts`` below a segment's floor, the ring above it.

Only the finest archive is in memory; what a coarser one will be is worked out from the ring when it is
asked for, by the same rollup that the flusher writes. A coarse slot that straddles the floor is rolled
up from both sides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tgres_py.ingest.registry import NO_FLOOR_S, Places, Registry
from tgres_py.model.consolidation import rollup
from tgres_py.model.points import Ids
from tgres_py.model.retention import BundleSpec
from tgres_py.storage.port import ChunkRows, Store

Floats = NDArray[np.float64]
COUNTS_ARCHIVE = -1  # number under which the rule ``mean`` keeps the points of each finest slot


def scatter(rows: ChunkRows, position: NDArray[np.int64], step_s: int, from_slot: int, out: Floats) -> None:
    """Writes chunk rows into a matrix of slots: row r goes to out[position[r]], cut to the matrix."""
    width = rows.dp.shape[1]
    for start_s in np.unique(rows.start_s).tolist():
        at = np.flatnonzero(rows.start_s == start_s)
        first = start_s // step_s - from_slot
        low, high = max(first, 0), min(first + width, out.shape[1])
        if low < high:
            out[position[at], low:high] = rows.dp[at, low - first : high - first]


def archives_of(spec: BundleSpec, block: Floats, first_slot: int) -> list[tuple[int, Floats]]:
    """The archives that a slot-major block of finest slots rolls up to.

    ``block``: float64 (n_slots, n_series) from ``first_slot``. Returns for each archive (first slot, block of
    its slots that lie wholly inside).
    """
    levels = [(first_slot, block)]
    for fine, coarse in zip(spec.archives, spec.archives[1:], strict=False):
        factor = coarse.step_s // fine.step_s
        first, values = levels[-1]
        start = -(-first // factor)
        end = max(start, (first + len(values)) // factor)
        inner = values[start * factor - first : end * factor - first]
        levels.append((start, rollup(inner, factor, spec.cf, spec.xff)))
    return levels


class Reader:
    def __init__(self, registry: Registry, store: Store) -> None:
        self.registry = registry
        self.store = store

    async def fetch(
        self,
        ids: Ids,
        archive: int,
        from_slot: int,
        until_slot: int,
        bundle: BundleSpec | None = None,
    ) -> Floats:
        """Slots from_slot <= slot < until_slot: float64 (len(ids), n), NaN = unknown.

        Of COUNTS_ARCHIVE only what is in the store; the ring has counts of its own.
        All ids share their retention. ``bundle``: the one that archive and slots belong to, where that may
        have changed meanwhile; what moved to another is read where it was. StoreUnavailable when the store is needed and away.
        """
        ids = np.asarray(ids, np.int32)
        out = np.full((len(ids), max(0, until_slot - from_slot)), np.nan)
        if out.size == 0:
            return out
        places = self.registry.places(ids, bundle)
        spec, segments, columns, _ = places
        step_s = spec.archives[max(archive, 0)].step_s
        stored: list[tuple[NDArray[np.int64], int]] = []  # positions whose older slots are in the store
        straddling: list[tuple[NDArray[np.int64], int]] = []
        for segment in np.unique(segments[segments >= 0]).tolist():
            at = np.flatnonzero(segments == segment)
            floor_s = self.registry.floor_s(segment)
            memory_from = from_slot
            if floor_s != NO_FLOOR_S:
                memory_from = max(from_slot, -(-floor_s // step_s))
                if memory_from > from_slot:
                    stored.append((at, memory_from))
                if floor_s % step_s and from_slot <= floor_s // step_s < until_slot:
                    straddling.append((at, floor_s // step_s))
            if memory_from < until_slot and archive != COUNTS_ARCHIVE:
                out[at, memory_from - from_slot :] = self._from_ring(
                    spec, archive, segment, columns[at], memory_from, until_slot
                )
        if stored:
            await self._from_store(places, archive, from_slot, until_slot, stored, out)
        for at, slot in straddling:
            factor = step_s // spec.archives[archive - 1].step_s
            fine = await self.fetch(
                ids[at], archive - 1, slot * factor, (slot + 1) * factor, bundle
            )
            rolled = rollup(np.ascontiguousarray(fine.T), factor, spec.cf, spec.xff)[0]
            # the store may hold a value of its own there: one that came as a point of this archive
            known = ~np.isnan(rolled)
            out[at[known], slot - from_slot] = rolled[known]
        return out

    def _from_ring(
        self, spec: BundleSpec, archive: int, segment: int, columns: Ids, from_slot: int, until_slot: int
    ) -> Floats:
        ring = self.registry.ring
        if archive == 0:
            return ring.gather(segment, columns, from_slot, until_slot)
        out = np.full((len(columns), until_slot - from_slot), np.nan)
        factor = spec.archives[archive].step_s // spec.archives[0].step_s
        low, high = ring.span(segment)
        first = max(from_slot, low // factor)
        end = min(until_slot, -(-high // factor))
        if first < end:
            fine = ring.gather(segment, columns, first * factor, end * factor)
            levels = archives_of(spec, np.ascontiguousarray(fine.T), first * factor)
            out[:, first - from_slot : end - from_slot] = levels[archive][1].T
        return out

    async def _from_store(
        self,
        places: Places,
        archive: int,
        from_slot: int,
        until_slot: int,
        stored: list[tuple[NDArray[np.int64], int]],
        out: Floats,
    ) -> None:
        """Fills the slots below each segment's first slot in memory."""
        position = np.concatenate([at for at, _ in stored])
        rrd_ids = places.rrd_ids[position]
        has_row = rrd_ids > 0
        position, rrd_ids = position[has_row], rrd_ids[has_row]
        if len(position) == 0:
            return
        place = places.spec.archives[max(archive, 0)]
        last = min(until_slot, max(slot for _, slot in stored))
        rows = await self.store.read_chunks(
            rrd_ids,
            archive,
            place.width,
            from_slot // place.width * place.chunk_s,
            last * place.step_s,
            ring=place,
        )
        if len(rows) == 0:
            return
        order = np.argsort(rrd_ids, kind="stable")
        where = position[order[np.searchsorted(rrd_ids[order], rows.rrd_id)]]
        if len({slot for _, slot in stored}) == 1 and len(stored) and position.size == out.shape[0]:
            scatter(rows, where, place.step_s, from_slot, out[:, : last - from_slot])
            return
        older = np.full((out.shape[0], last - from_slot), np.nan)
        scatter(rows, where, place.step_s, from_slot, older)
        for at, slot in stored:
            n = min(slot, last) - from_slot
            out[at, :n] = older[at, :n]
