"""The store as an import uses it: values only fill unknown slots, and finished files are remembered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tgres_py.model.retention import Archive
from tgres_py.storage.port import ChunkRows
from tgres_py.storage.postgres import PostgresStore, write_parts, write_staged
from tgres_py.storage.queries import query


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
        parts = [("fill_stage", *part) for part in write_parts(rows)]
        parts += [("upsert_stage", *part) for part in write_parts(replacing)]
        async with self._writer.use() as connection, connection.transaction():
            for i, (statement, block, order) in enumerate(parts):
                if i:
                    await connection.execute(query("empty_stage"))
                await write_staged(connection, block, order, statement)
            if done:
                columns = [list(column) for column in zip(*done, strict=True)]
                await connection.execute(query("finish_import"), *columns)

    async def read_window(
        self, rrd_ids: NDArray[np.int64], number: int, archive: Archive, now_s: int
    ) -> ChunkRows:
        """All rows of an archive that are within its retention."""
        end_s = now_s + archive.step_s
        begin_s = end_s - archive.retention_s - archive.chunk_s
        return await self.read_chunks(rrd_ids, number, archive.width, begin_s, end_s, ring=archive)

    async def known_names(self, names: Sequence[str]) -> set[str]:
        """Those of the names that have a row."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("known_names"), list(names))
        return {row["name"] for row in rows}

    async def finished(self, names: Sequence[str]) -> dict[str, FileMark]:
        """The files that were imported for these series, by name."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("import_finished"), list(names))
        return {row["name"]: FileMark(*row) for row in rows}
