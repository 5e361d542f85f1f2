"""Works on changes of retention in the background: batch after batch, paced, until nothing is left.

All state is in the database (``storage/retention_jobs.py``): whoever runs the worker next goes on where the last
one was stopped or killed. One worker at a time has the series in memory: the server's, or that of a command on the
store alone, which holds the lock of servers meanwhile.
"""

from __future__ import annotations

import asyncio
import logging

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.errors import StoreUnavailable, TgresError
from tgres_py.ingest.flusher import PRESSURE, Flusher
from tgres_py.ingest.footprint import cache_bytes
from tgres_py.ingest.move import Batch, Mover
from tgres_py.model.points import Ids
from tgres_py.storage.port import Store
from tgres_py.storage.retention_jobs import Group, Job, Moves, RetentionJobs

log = logging.getLogger(__name__)

LOOK_S = 5.0  # others may leave jobs in the database
RETRY_S = 2.0
BATCH = (16, 1_024)  # series moved together, at first and at most
LOCK_S = 0.15  # the flusher is held up about this long
FORGET_BATCH = 500
FORGET_PAUSE_S = 0.05
LOOKS_MAX = 5  # for series that this server doesn't know yet
WORKING = ("running", "undoing", "forgetting")


class RetentionWorker:
    """``run`` in a server; ``work`` on one job without."""

    def __init__(self, flusher: Flusher, store: Store, jobs: RetentionJobs) -> None:
        self._flusher = flusher
        self._registry = flusher.registry
        self._store = store
        self._jobs = jobs
        self._mover = Mover(flusher, store, jobs)
        self._wake = asyncio.Event()
        self._size = BATCH[0]
        self.moved = 0  # series, since the start
        self.held_s_max = 0.0  # the longest time that the flusher was held up

    def wake(self) -> None:
        """There is a new job."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        told = False  # one line for each outage, and only where a job waits for its end
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if not self._registry.opened:
                continue
            job = None
            try:
                job = await self._jobs.next_job()
                if job is not None:
                    await self.work(job)
                    self.wake()
                told = False
            except StoreUnavailable as error:
                if job is not None and not told:
                    told = True
                    log.warning("change of retention %d: %s; trying again", job, error)
                await asyncio.sleep(RETRY_S)

    async def work(self, job_id: int) -> None:
        """Works until the job is finished or stopped. StoreUnavailable: it may be called again."""
        [job] = await self._jobs.jobs(job_id)
        begin = clock.monotonic()
        try:
            if job.state == "running":
                await self._move_all(job, undo=False)
            elif job.state == "undoing":
                await self._move_all(job, undo=True)
                await self._forget(job_id, ("undone",))
            elif job.state == "forgetting":
                await self._forget(job_id, ("moved", "gone"))
        except StoreUnavailable:
            raise
        except Exception as error:
            known = isinstance(error, TgresError)
            log.error("change of retention %d is stopped: %s", job_id, error, exc_info=not known)
            text = f"{type(error).__name__}: {error}"
            await self._jobs.set_job_state(job_id, "stopped", WORKING, text)
            return
        ends = {"running": "done", "undoing": "undone", "forgetting": "forgotten"}
        if await self._jobs.set_job_state(job_id, ends[job.state], (job.state,)):
            seconds = clock.monotonic() - begin
            log.info("change of retention %d: %s after %.1f s", job_id, ends[job.state], seconds)

    # -- moving --------------------------------------------------------------------------------

    async def _move_all(self, job: Job, undo: bool) -> None:
        await self._jobs.release_moves(job.id)
        begin, count, looks = clock.monotonic(), 0, 0
        while True:
            group = await self._jobs.next_group(job.id, "moved" if undo else "waiting")
            if group is None:
                if undo or not await self._wait_for_unknown(job.id, looks):
                    return
                looks += 1
                continue
            while True:
                state, rate = await self._jobs.state_of_job(job.id)
                if state != job.state:
                    return
                await self._wait_for_room()
                pick = self._jobs.moved_series if undo else self._jobs.claim_moves
                moves = await pick(job.id, group, self._batch_size(rate))
                if not len(moves):
                    break
                held_s = await self._move(job.id, group, moves, undo)
                count += len(moves)
                group = group._replace(series=max(0, group.series - len(moves)))
                behind_s = count / rate - (clock.monotonic() - begin) if rate else 0.0
                # half of the time is the flusher's and the queries'
                await asyncio.sleep(max(held_s, behind_s))

    def _batch_size(self, rate: float) -> int:
        return max(1, min(self._size, int(rate))) if rate else self._size

    async def _wait_for_unknown(self, job: int, looks: int) -> bool:
        """Series that were left out, as this server hadn't heard of them: whether to try them again."""
        await self._jobs.release_moves(job)
        group = await self._jobs.next_group(job, "waiting")
        if group is None:
            return False
        if looks >= LOOKS_MAX:
            raise TgresError(
                f"{group.series} series are in the store, but not known here; restart the server"
            )
        await asyncio.sleep(RETRY_S)
        return True

    async def _wait_for_room(self) -> None:
        """Waits while memory is short or the store is away: writing points comes first."""
        intake = self._flusher.intake
        limit = intake.limits.cache_pause_bytes * PRESSURE
        while True:
            if self._flusher.presence.available and cache_bytes(intake) <= limit:
                return
            await asyncio.sleep(RETRY_S)

    async def _move(self, job: int, group: Group, moves: Moves, undo: bool) -> float:
        """Moves what this server knows of a batch; the seconds that the flusher was held up."""
        ids = self._ids(moves.new_ids if undo else moves.old_ids)
        if (ids < 0).any():
            await self._leave_out(job, moves.take(ids < 0), undo)
            moves, ids = moves.take(ids >= 0), ids[ids >= 0]
            if not len(moves):
                return RETRY_S / 10
        bundles = dict(await self._store.load_bundles())
        bundle_id = group.old_bundle if undo else group.new_bundle
        after = moves.old_ids if undo else moves.new_ids

        async def commit(cut_s: int) -> None:
            await self._jobs.switch_rows(job, moves, bundle_id, cut_s, undo)

        async def committed() -> bool:
            return len(await self._jobs.rows_there(after)) == len(moves)

        since_s = int(moves.cut_s.min()) if undo else None
        batch = Batch(ids, after, bundles[bundle_id], since_s, group.series, commit, committed)
        try:
            held_s = await self._mover.move(batch)
        except LookupError:
            before = moves.new_ids if undo else moves.old_ids
            there = np.isin(before, await self._jobs.rows_there(before))
            await self._leave_out(job, moves.take(~there), undo)
            await self._jobs.release_moves(job)
            return RETRY_S / 10
        self.moved += len(moves)
        self.held_s_max = max(self.held_s_max, held_s)
        self._size = int(np.clip(len(moves) * min(2.0, LOCK_S / max(held_s, 1e-3)), *BATCH))
        return held_s

    async def _leave_out(self, job: int, moves: Moves, undo: bool) -> None:
        """Series that aren't there any more leave the job; those that are only unknown here are tried again."""
        before = moves.new_ids if undo else moves.old_ids
        gone = moves.take(~np.isin(before, await self._jobs.rows_there(before)))
        if undo:
            await self._jobs.mark_gone(job, gone)
            if len(gone) < len(moves):
                raise TgresError("series are in the store, but not known here; restart the server")
        else:
            await self._jobs.drop_moves(job, gone)

    def _ids(self, rrd_ids: NDArray[np.int64]) -> Ids:
        """The ids of rows, -1 where a row is unknown."""
        known = self._registry.rrd_id[: self._registry.table.size]
        living = ~self._registry.retired[: len(known)]
        ids = np.flatnonzero(living & np.isin(known, rrd_ids)).astype(np.int32)
        place = dict(zip(known[ids].tolist(), ids.tolist(), strict=True))
        return np.array([place.get(rrd_id, -1) for rrd_id in rrd_ids.tolist()], np.int32)

    # -- forgetting ----------------------------------------------------------------------------

    async def _forget(self, job: int, states: tuple[str, ...]) -> None:
        while True:
            if not await self._jobs.forget_some(job, states, FORGET_BATCH):
                return
            await asyncio.sleep(FORGET_PAUSE_S)
