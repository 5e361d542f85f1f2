"""The PostgreSQL store's part in changes of retention: jobs, which series they move, and who may run them.

A job's state: running, undoing, forgetting (somebody works on it, or will after a restart); done, undone,
forgotten, stopped. That a series moved is one transaction with the change of its row.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg
import numpy as np
from numpy.typing import NDArray

from tgres_py.storage.connection import CLIENT_ERRORS, Connector, Pool
from tgres_py.storage.queries import query

log = logging.getLogger(__name__)

RrdIds = NDArray[np.int64]

LIVE_LOCK = 0x746772657301  # held shared by servers, alone by who works on the store without one
SLOW_TIMEOUT_S = 600.0


@dataclass(slots=True)
class Job:
    """A change of retention; counts of series by what became of them, times in Unix seconds."""

    id: int
    state: str
    rate: float  # series/s at most, 0 = as fast as the server can spare
    what: str
    series: int
    failure: str
    created_at_s: int
    finished_at_s: int | None
    waiting: int
    moved: int
    undone: int
    gone: int
    uncleared: int  # of those moved and undone: what undo needs, or needed, is still there


class Group(NamedTuple):
    """Series of a job that go from one bundle to another: ids of both in rrd_bundle, and how many."""

    old_bundle: int
    new_bundle: int
    series: int


@dataclass(slots=True)
class Moves:
    """Series on their way, int64 (k,) each: rows in rrd before and after; ``cut_s``: of the move to be undone."""

    old_ids: RrdIds
    new_ids: RrdIds
    cut_s: RrdIds

    def __len__(self) -> int:
        return len(self.old_ids)

    def take(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Moves:
        return Moves(self.old_ids[which], self.new_ids[which], self.cut_s[which])


class ArchiveSample(NamedTuple):
    """What some series hold of one archive together; ``bytes``: of the arrays."""

    archive: int
    chunks: int
    bytes: int
    first_s: int


class LiveLock:
    """Says that somebody has the series in memory (shared: servers) or must be alone with them."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @property
    def held(self) -> bool:
        """False once the connection is lost."""
        return not self._connection.is_closed()

    def release(self) -> None:
        self._connection.terminate()


class RetentionJobs:
    """A part of ``PostgresStore``. All methods may raise StoreUnavailable."""

    _pool: Pool
    _connector: Connector

    # -- who works on the store ----------------------------------------------------------------

    async def live_lock(self, shared: bool) -> LiveLock | None:
        """Takes the lock of servers (``shared``), or that of one who works without any; None: it isn't free."""
        connection = await self._connector.connect()
        try:
            if await connection.fetchval(query("try_live_lock"), LIVE_LOCK, shared):
                return LiveLock(connection)
        except CLIENT_ERRORS as error:
            connection.terminate()
            raise self._connector.unavailable(error, closed=True) or error from error
        connection.terminate()
        return None

    # -- jobs ----------------------------------------------------------------------------------

    async def create_job(
        self, what: str, rate: float, old_ids: RrdIds, old_bundles: RrdIds, new_bundles: RrdIds
    ) -> int:
        """A running job that moves series (rows of rrd) from bundle to bundle; its id."""
        async with self._pool.use() as connection, connection.transaction():
            job: int = await connection.fetchval(
                query("create_retention_job"), rate, what, len(old_ids)
            )
            columns = [a.tolist() for a in (old_ids, old_bundles, new_bundles)]
            await connection.execute(
                query("add_retention_moves"), job, *columns, timeout=SLOW_TIMEOUT_S
            )
        return job

    async def jobs(self, job: int | None = None) -> list[Job]:
        """All jobs, or the one; oldest first."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("retention_jobs"), job, timeout=SLOW_TIMEOUT_S)
        return [Job(**dict(row)) for row in rows]

    async def state_of_job(self, job: int) -> tuple[str, float]:
        """(state, rate)."""
        async with self._pool.use() as connection:
            [row] = await connection.fetch(query("retention_job_state"), job)
        return row["state"], row["rate"]

    async def next_job(self) -> int | None:
        """The oldest job that there is something to do for."""
        async with self._pool.use() as connection:
            found: int | None = await connection.fetchval(query("next_retention_job"))
        return found

    async def set_job_state(
        self, job: int, state: str, only_from: Sequence[str], failure: str = ""
    ) -> bool:
        """Changes a job's state if it is one of ``only_from``; whether it was."""
        ended = state not in ("running", "undoing", "forgetting")
        async with self._pool.use() as connection:
            status = await connection.execute(
                query("set_retention_job"), job, state, failure, ended, list(only_from)
            )
        return bool(status == "UPDATE 1")

    async def set_job_rate(self, job: int, rate: float) -> None:
        async with self._pool.use() as connection:
            await connection.execute(query("set_retention_rate"), job, rate)

    async def busy_series(self) -> RrdIds:
        """Rows of rrd that unfinished jobs are going to move, or to move back."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("busy_series"), timeout=SLOW_TIMEOUT_S)
        return np.array([row["id"] for row in rows], np.int64)

    async def later_jobs(self, job: int) -> list[int]:
        """Jobs that moved series again which this one had moved."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("later_moves"), job)
        return [row["job_id"] for row in rows]

    # -- moves ---------------------------------------------------------------------------------

    async def next_group(self, job: int, state: str) -> Group | None:
        async with self._pool.use() as connection:
            row = await connection.fetchrow(query("next_retention_group"), job, state)
        return Group(*row) if row else None

    async def claim_moves(self, job: int, group: Group, most: int) -> Moves:
        """The next series to be moved, with ids for their new rows."""
        return await self._moves("claim_moves", job, group, most)

    async def moved_series(self, job: int, group: Group, most: int) -> Moves:
        """The next series to be moved back."""
        return await self._moves("moved_series", job, group, most)

    async def _moves(self, name: str, job: int, group: Group, most: int) -> Moves:
        async with self._pool.use() as connection:
            rows = await connection.fetch(
                query(name), job, group.old_bundle, group.new_bundle, most
            )
        rows = sorted(rows, key=lambda row: row["old_id"])
        return Moves(*(np.array([row[i] for row in rows], np.int64) for i in range(3)))

    async def release_moves(self, job: int) -> None:
        """After a crash: what was half copied is removed and waits again."""
        async with self._pool.use() as connection, connection.transaction():
            rows = await connection.fetch(query("broken_off_moves"), job)
            ids = [row["new_id"] for row in rows]
            await connection.execute(query("delete_chunks"), ids, timeout=SLOW_TIMEOUT_S)
            await connection.execute(query("release_moves"), job)

    async def switch_rows(
        self, job: int, moves: Moves, bundle_id: int, cut_s: int, undo: bool
    ) -> None:
        """One transaction: the series' rows get their new ids (``undo``: the old ones) and bundle, and the job
        knows that. LookupError, and nothing is done, when one of the series isn't there any more."""
        before, after = moves.old_ids.tolist(), moves.new_ids.tolist()
        if undo:
            before, after = after, before
        async with self._pool.use() as connection, connection.transaction():
            rows = await connection.fetch(query("switch_rows"), before, after, bundle_id)
            if len(rows) != len(moves):
                raise LookupError("series were removed meanwhile")
            state = "undone" if undo else "moved"
            await connection.execute(query("mark_moves"), job, moves.old_ids.tolist(), state, cut_s)

    async def rows_there(self, rrd_ids: RrdIds) -> RrdIds:
        """Those that are rows of rrd."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("rows_there"), rrd_ids.tolist())
        return np.array([row["id"] for row in rows], np.int64)

    async def drop_moves(self, job: int, moves: Moves) -> None:
        """Series that were removed before they could move."""
        async with self._pool.use() as connection, connection.transaction():
            await connection.execute(query("delete_chunks"), moves.new_ids.tolist())
            await connection.execute(query("drop_moves"), job, moves.old_ids.tolist())

    async def mark_gone(self, job: int, moves: Moves) -> None:
        """Series that were removed before they could be moved back."""
        async with self._pool.use() as connection:
            await connection.execute(query("mark_moves"), job, moves.old_ids.tolist(), "gone", None)

    async def forget_some(self, job: int, states: Sequence[str], most: int) -> int:
        """Deletes the chunks that only undo would need, of some series; how many series, 0 = none are left."""
        async with self._pool.use() as connection, connection.transaction():
            rows = await connection.fetch(query("dead_rows"), job, list(states), most)
            dead = [row["dead_id"] for row in rows]
            await connection.execute(query("delete_chunks"), dead, timeout=SLOW_TIMEOUT_S)
            await connection.execute(query("drop_moves"), job, [row["old_id"] for row in rows])
            states_of = [row["state"] for row in rows]
            counts = states_of.count("moved"), states_of.count("undone")
            await connection.execute(query("count_cleared"), job, *counts)
        return len(rows)

    # -- what there is -------------------------------------------------------------------------

    async def chunk_spans(self, rrd_ids: RrdIds) -> dict[int, tuple[int, int]]:
        """(oldest, newest) start_s of the series' chunks, by archive."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("chunk_spans"), rrd_ids.tolist())
        return {row["archive"]: (row["first_s"], row["last_s"]) for row in rows}

    async def sizes_of_sample(self, rrd_ids: RrdIds) -> list[ArchiveSample]:
        async with self._pool.use() as connection:
            rows = await connection.fetch(
                query("sizes_of_sample"), rrd_ids.tolist(), timeout=SLOW_TIMEOUT_S
            )
        return [ArchiveSample(*row) for row in rows]
