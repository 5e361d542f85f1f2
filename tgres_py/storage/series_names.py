"""The PostgreSQL store's operations on rows of ``rrd`` that are there already: trash, restore, rename, purge.

Each is one transaction that also tells all servers which rows changed (channel ``tgres_series``); a server
looks at these rows and brings its registry in line (``ingest/follow.py``), so the order in which it
hears of changes doesn't matter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
import numpy as np
import orjson
from numpy.typing import NDArray

from tgres_py.errors import BadRequest
from tgres_py.model.ident import parse_tags
from tgres_py.storage.connection import Pool
from tgres_py.storage.port import SeriesRows
from tgres_py.storage.queries import query

RrdIds = NDArray[np.int64]

CHANNEL = "tgres_series"
PAYLOAD_ROWS_MAX = 4_000_000  # of ranges that were written out
PAYLOAD_CHARS_MAX = 7_900  # PostgreSQL takes less than 8,000 bytes
LAST_LAG_S = 6 * 3_600  # how far last_s may lag behind
SLOW_TIMEOUT_S = 600.0

_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


def tags_json(name: str) -> bytes | None:
    """The tags of a name as JSON, without the tag ``name``, which the path is; None when there are none."""
    if ";" not in name:
        return None
    tags = parse_tags(name)
    del tags["name"]
    return orjson.dumps(tags)


def payloads(rrd_ids: RrdIds) -> list[str]:
    """Numbers and ranges, "3,7-9": texts that fit into notifications."""
    ids = np.unique(rrd_ids)
    breaks = np.flatnonzero(np.diff(ids) != 1) + 1
    texts: list[str] = []
    line = ""
    for run in np.split(ids, breaks) if len(ids) else []:
        part = f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}"
        if len(line) + len(part) + 1 > PAYLOAD_CHARS_MAX:
            texts.append(line)
            line = ""
        line = f"{line},{part}" if line else part
    return [*texts, line] if line else texts


def parse_payload(text: str) -> RrdIds | None:
    """The rows of a notification; None: all may have changed (an empty or strange text, or one that stands for more rows
    than are worth a list: every account of the database may notify).
    """
    found = [np.empty(0, np.int64)]
    left = PAYLOAD_ROWS_MAX
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        left -= max(0, last + 1 - first)
        if left < 0:
            return None
        found.append(np.arange(first, last + 1, dtype=np.int64))
    return np.concatenate(found)


@dataclass(slots=True)
class Batch:
    """Series that went to the trash together. Times in Unix seconds."""

    batch: int
    series: int
    first_name: str
    why: str
    deleted_at_s: int
    purged_at_s: int


@dataclass(slots=True)
class ArchiveSize:
    """What the store holds of one archive of a series. ``bytes``: of the arrays, as they lie on disk."""

    archive: int
    chunks: int
    bytes: int
    first_s: int
    last_s: int


class SeriesNames:
    """A part of ``PostgresStore``. All methods may raise StoreUnavailable."""

    _pool: Pool

    async def find_series(self, rrd_ids: RrdIds) -> SeriesRows:
        return await self._rows("find_series", rrd_ids.tolist())

    async def find_untagged(self, rrd_ids: RrdIds) -> list[str]:
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("find_untagged"), rrd_ids.tolist())
        return [row["name"] for row in rows]

    async def load_trash(self, rrd_ids: RrdIds) -> SeriesRows:
        return await self._rows("load_trash", rrd_ids.tolist())

    async def _rows(self, name: str, *args: object) -> SeriesRows:
        async with self._pool.use() as connection:
            rows = await connection.fetch(query(name), *args)
        return SeriesRows(
            np.array([row["id"] for row in rows], np.int64),
            np.array([row["bundle_id"] for row in rows], np.int32),
            [row["name"] for row in rows],
        )

    async def announce(self, rrd_ids: RrdIds) -> None:
        """Tells all servers that rows of ``rrd`` came, changed or went."""
        async with self._pool.use() as connection:
            await _announce(connection, rrd_ids)

    # -- trash -------------------------------------------------------------------------------

    async def next_batch(self) -> int:
        """A number for series that go to the trash together."""
        async with self._pool.use() as connection:
            number: int = await connection.fetchval(query("next_batch"))
        return number

    async def trash_series(self, rrd_ids: RrdIds, batch: int, why: str) -> RrdIds:
        """Moves series to the trash; the ids of those that were there. Their points stay."""
        async with self._pool.use() as connection, connection.transaction():
            rows = await connection.fetch(
                query("trash_series"), rrd_ids.tolist(), batch, why, timeout=SLOW_TIMEOUT_S
            )
            moved = np.array([row["id"] for row in rows], np.int64)
            await _announce(connection, moved)
        return moved

    async def restore_series(self, rrd_ids: RrdIds) -> RrdIds:
        """Moves series back; the ids of those that are back, the others' names live again."""
        async with self._pool.use() as connection, connection.transaction():
            rows = await connection.fetch(
                query("restore_series"), rrd_ids.tolist(), timeout=SLOW_TIMEOUT_S
            )
            back = np.array([row["id"] for row in rows], np.int64)
            await _announce(connection, back)
        return back

    async def batches(self, keep_s: float, batch: int | None = None) -> list[Batch]:
        """What is in the trash. ``keep_s``: how long it stays there."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("trash_batches"), int(keep_s), batch)
        return [Batch(**dict(row)) for row in rows]

    async def trash_of_batch(self, batch: int) -> SeriesRows:
        """The series of a batch, by name."""
        return await self._rows("trash_of_batch", batch)

    async def trash_due(self, age_s: float, batch: int | None, most: int) -> RrdIds:
        """Series that have been in the trash for ``age_s`` or longer, at most ``most``."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("trash_due"), float(age_s), batch, most)
        return np.array([row["id"] for row in rows], np.int64)

    async def purge_series(self, rrd_ids: RrdIds) -> int:
        """Removes series from the trash, and their points; how many chunks. There is no way back."""
        async with self._pool.use() as connection, connection.transaction():
            ids = rrd_ids.tolist()
            status = await connection.execute(query("purge_points"), ids, timeout=SLOW_TIMEOUT_S)
            await connection.execute(query("purge_rows"), ids)
            await _announce(connection, rrd_ids)
        return int(status.rpartition(" ")[2])

    # -- names -------------------------------------------------------------------------------

    async def names_taken(self, names: Sequence[str], but: RrdIds) -> list[str]:
        """Which names belong to series other than ``but``."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("names_taken"), list(names), but.tolist())
        return [row["name"] for row in rows]

    async def rename_series(self, rrd_ids: RrdIds, names: Sequence[str]) -> None:
        """Renames series, all or none; they may change places. Canonical names.

        BadRequest: a name is another series' (or twice among ``names``).
        """
        ids = rrd_ids.tolist()
        tags = [None if (json := tags_json(name)) is None else json.decode() for name in names]
        async with self._pool.use() as connection:
            try:
                async with connection.transaction():
                    await connection.execute(query("park_names"), ids, timeout=SLOW_TIMEOUT_S)
                    await connection.execute(
                        query("rename_series"), ids, list(names), tags, timeout=SLOW_TIMEOUT_S
                    )
                    await _announce(connection, rrd_ids)
            except asyncpg.UniqueViolationError:
                raise BadRequest("a new name is that of another series by now") from None

    async def merge_rows(self, from_id: int, to_id: int) -> None:
        """Fills the slots that series ``to_id`` doesn't know with those of ``from_id``, whose archives are
        equal; that one keeps its points."""
        async with self._pool.use() as connection:
            await connection.execute(query("merge_rows"), from_id, to_id, timeout=SLOW_TIMEOUT_S)

    # -- ages and sizes ----------------------------------------------------------------------

    async def touch_series(self, rrd_ids: RrdIds, last_s: RrdIds) -> None:
        """Notes when series last had a point, where what is noted is older by some hours."""
        async with self._pool.use() as connection:
            await connection.execute(
                query("touch_series"), rrd_ids.tolist(), last_s.tolist(), LAST_LAG_S
            )

    async def last_of_series(self, rrd_ids: RrdIds) -> tuple[RrdIds, RrdIds]:
        """(last_s, created_s) of each row, to some hours; 0 where nothing is known of it, or it is gone."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(
                query("last_of_series"), rrd_ids.tolist(), timeout=SLOW_TIMEOUT_S
            )
        known = {row["id"]: (row["last_s"] or 0, row["created_s"]) for row in rows}
        pairs = np.array([known.get(i, (0, 0)) for i in rrd_ids.tolist()], np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    async def last_slot_of_series(self, rrd_ids: RrdIds) -> dict[int, tuple[int, int]]:
        """(start_s, place from 1) of the last known slot of each series' newest chunk, by row; slow."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(
                query("last_slot_of_series"), rrd_ids.tolist(), timeout=SLOW_TIMEOUT_S
            )
        return {row["rrd_id"]: (row["start_s"], row["place"] or 1) for row in rows}

    async def sizes_of_series(self, rrd_id: int) -> list[ArchiveSize]:
        """What the store holds of a series, by archive."""
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("sizes_of_series"), rrd_id)
        return [ArchiveSize(**dict(row)) for row in rows]


async def _announce(connection: asyncpg.Connection, rrd_ids: RrdIds) -> None:
    if len(rrd_ids):
        await connection.execute(query("announce"), payloads(rrd_ids))
