"""The store as an import uses it: values only fill unknown slots, and finished files are remembered."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tgres_py.model.retention import Archive
from tgres_py.storage.port import ChunkRows, beyond_s
from tgres_py.storage.postgres import (
    SERVER_LOCK,
    SETTLE_CHANNEL,
    SETTLED_CHANNEL,
    PostgresStore,
    write_parts,
    write_staged,
)
from tgres_py.storage.queries import query

SETTLE_TIMEOUT_S = 300.0  # a million series take about 10 s
SETTLE_LOOK_S = 2.0  # how often a wait looks whether the servers, and PostgreSQL, are still there


class FileMark(NamedTuple):
    """A file that was imported: the name of its series, its size and time of last change, the time from which
    its slots were taken (0 = all), and how many known ones there were."""

    name: str
    size: int
    mtime_ns: int
    since_s: int
    slots: int = 0

    def covers(self, other: FileMark) -> bool:
        """Whether an import of ``other`` would bring nothing more."""
        return self[:3] == other[:3] and self.since_s <= other.since_s


class ImportStore(PostgresStore):
    async def fill_chunks(
        self,
        rows: Sequence[ChunkRows],
        done: Sequence[FileMark] = (),
        replacing: Sequence[ChunkRows] = (),
    ) -> None:
        """One transaction: puts known slots where nothing is known, those of ``replacing`` where they belong, and
        remembers ``done``.

        Same lap: a known slot of the store stays; newer lap: the row is replaced; older lap: the row is kept. So the
        result is the same whether a server writes a slot before or after the import. Idempotent.
        """
        filled, replaced = write_parts(rows), write_parts(replacing)
        async with self._writer.use() as connection, connection.transaction():
            for i, (block, order) in enumerate([*filled, *replaced]):
                if i:
                    await connection.execute(query("empty_stage"))
                if i < len(filled):
                    await write_staged(connection, block, order, "fill_stage")
                else:
                    await write_staged(connection, block, order, "upsert_stage", beyond_s())
            if done:
                columns = [list(column) for column in zip(*done, strict=True)]
                await connection.execute(query("finish_import"), *columns)

    async def settle(self, time_s: int) -> bool:
        """Asks running servers to put what is older than ``time_s`` into the store, and to read it from there.

        Returns when they have, or when there are none; False when one didn't answer within SETTLE_TIMEOUT_S or
        has ended meanwhile.
        """
        async with self._pool.use() as connection:
            servers = await connection.fetchval(query("count_servers"), SERVER_LOCK)
            if not servers:
                return True
            token = secrets.token_hex(8)
            answered = asyncio.Semaphore(0)

            def on_notify(_connection: object, _pid: int, _channel: str, payload: object) -> None:
                if payload == token:
                    answered.release()

            await connection.add_listener(SETTLED_CHANNEL, on_notify)
            try:
                await connection.execute(query("notify"), SETTLE_CHANNEL, f"{time_s} {token}")
                async with asyncio.timeout(SETTLE_TIMEOUT_S):
                    for missing in range(servers, 0, -1):
                        while not await _acquired(answered, SETTLE_LOOK_S):
                            left = await connection.fetchval(query("count_servers"), SERVER_LOCK)
                            if left < missing:
                                return False
            except TimeoutError:
                return False
            finally:
                await connection.remove_listener(SETTLED_CHANNEL, on_notify)
        return True

    async def read_window(
        self,
        rrd_ids: NDArray[np.int64],
        number: int,
        archive: Archive,
        now_s: int,
        from_s: int | None = None,
    ) -> ChunkRows:
        """The rows of an archive that hold slots from ``from_s`` (None: its retention) up to ``now_s``."""
        oldest_s = now_s - archive.retention_s if from_s is None else from_s
        return await self.read_chunks(
            rrd_ids,
            number,
            archive.width,
            oldest_s - archive.chunk_s,
            now_s + archive.step_s,
            ring=archive,
        )

    async def series_of(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(rrd_id, bundle_id) of those of the names that have a row."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("series_of_names"), list(names))
        return {row["name"]: (row["id"], row["bundle_id"]) for row in rows}

    async def finished(self, names: Sequence[str]) -> dict[str, FileMark]:
        """The files that were imported for these series, by name."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("import_finished"), list(names))
        return {row["name"]: FileMark(*row) for row in rows}


async def _acquired(semaphore: asyncio.Semaphore, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await semaphore.acquire()
    except TimeoutError:
        return False
