"""The view ``tv``: which slots SQL users see, and with what values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import numpy as np
import pytest

from tests.test_store_conformance import chunk
from tgres_py.model.retention import Archive, BundleSpec
from tgres_py.storage.postgres import PostgresStore

NAN = float("nan")
FINE = Archive(step_s=3_600, size=10, width=4)  # 4 chunks of 4 hours
COARSE = Archive(step_s=86_400, size=6, width=6)


@pytest.fixture
async def connection(
    postgres_store: PostgresStore, database: str
) -> AsyncIterator[asyncpg.Connection]:
    """Inside one transaction, so that now() stands still."""
    [bundle] = await postgres_store.ensure_bundles([BundleSpec((FINE, COARSE))])
    await postgres_store.create_series(["a.b", "t;host=x"], np.full(2, bundle, np.int32))
    connection = await asyncpg.connect(database)
    async with connection.transaction():
        yield connection
    await connection.close()


async def now_s(connection: asyncpg.Connection) -> int:
    now: datetime = await connection.fetchval("SELECT now()")
    return int(now.timestamp())


async def write(
    store: PostgresStore, archive: int, ring: Archive, chunk_number: int, dp: list[float]
) -> None:
    n, start_s = chunk_number % ring.chunks, chunk_number * ring.chunk_s
    await store.write_chunks([chunk(1, n, start_s, dp, archive)])


async def values_of(connection: asyncpg.Connection, where: str) -> dict[int, float | None]:
    rows = await connection.fetch(f"SELECT time, value FROM tv WHERE name = 'a.b' AND {where}")
    found = {int(time.timestamp()): value for time, value in rows}
    assert len(found) == len(rows), "a slot shows twice"
    return found


async def test_values_stand_at_their_times(
    postgres_store: PostgresStore, connection: asyncpg.Connection
) -> None:
    latest = await now_s(connection) // FINE.chunk_s
    expected = {}
    for number in range(latest - 2, latest + 1):
        dp = [number * 10.0 + i for i in range(4)]
        await write(postgres_store, 0, FINE, number, dp)
        expected |= {number * FINE.chunk_s + i * 3_600: dp[i] for i in range(4)}
    newest = await now_s(connection) // 3_600
    visible = range((newest - 9) * 3_600, (newest + 1) * 3_600, 3_600)
    assert await values_of(connection, "step_s = 3600") == {
        time: expected[time] for time in visible if time in expected
    }
    assert len(expected) > len(visible)  # some were expired or to come


async def test_unknown_slots_are_null_and_missing_chunks_are_left_out(
    postgres_store: PostgresStore, connection: asyncpg.Connection
) -> None:
    number = await now_s(connection) // FINE.chunk_s - 1
    await write(postgres_store, 0, FINE, number, [1.0, NAN, 3.0, NAN])
    start = number * FINE.chunk_s
    assert await values_of(connection, "true") == {
        start: 1.0,
        start + 3_600: None,
        start + 7_200: 3.0,
        start + 10_800: None,
    }


async def test_nothing_of_an_earlier_lap_or_the_future(
    postgres_store: PostgresStore, connection: asyncpg.Connection
) -> None:
    latest = await now_s(connection) // FINE.chunk_s
    await write(postgres_store, 0, FINE, latest - FINE.chunks, [1.0] * 4)
    await write(postgres_store, 0, FINE, latest - FINE.chunks + 1 - 4 * FINE.chunks, [2.0] * 4)
    await write(postgres_store, 0, FINE, latest + 2, [3.0] * 4)
    assert await values_of(connection, "true") == {}


async def test_archives_are_told_apart_by_step(
    postgres_store: PostgresStore, connection: asyncpg.Connection
) -> None:
    now = await now_s(connection)
    await write(postgres_store, 0, FINE, now // FINE.chunk_s - 1, [1.0] * 4)
    await write(postgres_store, 1, COARSE, now // COARSE.chunk_s, [2.0] * 6)
    await write(postgres_store, 1, COARSE, now // COARSE.chunk_s - 1, [2.0] * 6)
    rows = await connection.fetch("SELECT DISTINCT archive, step_s, value FROM tv ORDER BY 1")
    assert [tuple(row) for row in rows] == [(0, 3_600, 1.0), (1, 86_400, 2.0)]
    coarse = await values_of(connection, "archive = 1")
    newest = now // 86_400 * 86_400
    assert sorted(coarse) == list(range(newest - 5 * 86_400, newest + 1, 86_400))


async def test_a_condition_on_time_changes_nothing_but_the_window(
    postgres_store: PostgresStore, connection: asyncpg.Connection
) -> None:
    latest = await now_s(connection) // FINE.chunk_s
    for number in range(latest - 2, latest + 1):
        await write(postgres_store, 0, FINE, number, [number + i / 10 for i in range(4)])
    everything = await values_of(connection, "true")
    times = sorted(everything)
    low, high = times[2], times[-2]
    window = f"time > '{datetime.fromtimestamp(low, UTC)}' AND time <= '{datetime.fromtimestamp(high, UTC)}'"
    assert await values_of(connection, window) == {
        time: value for time, value in everything.items() if low < time <= high
    }


async def test_tags_are_shown(
    connection: asyncpg.Connection, postgres_store: PostgresStore
) -> None:
    number = await now_s(connection) // FINE.chunk_s - 1
    rows = chunk(2, number % FINE.chunks, number * FINE.chunk_s, [1.0] * 4)
    await postgres_store.write_chunks([rows])
    found = await connection.fetch("SELECT name, value FROM tv WHERE tags ->> 'host' = 'x'")
    assert [tuple(row) for row in found] == [("t;host=x", 1.0)] * 4
