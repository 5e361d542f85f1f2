"""Migrations: in order, once, under a lock, resumable, and never over a newer schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.schema import describe
from tgres_py.errors import ConfigError
from tgres_py.storage.migrate import Migration, migrate, migrations
from tgres_py.storage.postgres import PostgresStore

FORMAT = Path(__file__).parents[1] / "tgres_py" / "storage" / "FORMAT.md"

STEPS = [
    Migration(1, "001_a.sql", "CREATE TABLE a (x int)"),
    Migration(2, "002_b.sql", "CREATE TABLE b (y int); INSERT INTO b VALUES (1)"),
    Migration(3, "003_c.sql", "ALTER TABLE a ADD COLUMN z int"),
]


@pytest.fixture
async def connection(empty_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(empty_database)
    yield connection
    await connection.close()


async def test_files_are_numbered_without_gaps() -> None:
    steps = migrations()
    assert [step.version for step in steps] == list(range(1, len(steps) + 1))
    assert all(step.name.startswith(f"{step.version:03}_") for step in steps)


async def test_the_documented_tables_are_those_of_all_migrations(
    connection: asyncpg.Connection,
) -> None:
    await migrate(connection)
    found = await connection.fetch(
        "SELECT table_name, string_agg(column_name, ', ' ORDER BY ordinal_position) AS columns"
        " FROM information_schema.columns WHERE table_schema = 'public' GROUP BY 1"
    )
    text = FORMAT.read_text("utf-8")
    for table, columns in found:
        assert f"{table}({columns})" in text


async def test_step_by_step_equals_all_at_once(
    connection: asyncpg.Connection, database: str
) -> None:
    steps = migrations()
    for count in range(1, len(steps) + 1):
        assert await migrate(connection, steps[:count]) == count
    all_at_once = await asyncpg.connect(database)
    try:
        description = await describe(connection)
        assert description == await describe(all_at_once)
        assert "column ts.dp double precision[] NOT NULL storage=m" in description
    finally:
        await all_at_once.close()


async def test_only_what_is_missing_is_applied(connection: asyncpg.Connection) -> None:
    assert await migrate(connection, STEPS[:2]) == 2
    assert await migrate(connection, STEPS) == 3
    assert await migrate(connection, STEPS) == 3
    assert await connection.fetchval("SELECT count(*) FROM b") == 1
    names = await connection.fetch("SELECT name FROM schema_version ORDER BY version")
    assert [name for (name,) in names] == [step.name for step in STEPS]


async def test_a_step_that_fails_leaves_nothing_and_can_be_repeated(
    connection: asyncpg.Connection,
) -> None:
    broken = [STEPS[0], Migration(2, "002_b.sql", "CREATE TABLE b (y int); SELECT 1 / 0")]
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection, broken)
    assert await connection.fetchval("SELECT to_regclass('b')") is None
    assert await migrate(connection, STEPS) == 3


async def test_a_session_that_dies_half_way_blocks_nobody(
    connection: asyncpg.Connection, empty_database: str
) -> None:
    dying = await asyncpg.connect(empty_database)
    slow = [STEPS[0], Migration(2, "002_b.sql", "CREATE TABLE b (y int); SELECT pg_sleep(60)")]
    task = asyncio.create_task(migrate(dying, slow))
    async with asyncio.timeout(10):
        while await connection.fetchval("SELECT to_regclass('a')") is None:
            await asyncio.wait([task], timeout=0.01)
        await connection.execute("SELECT pg_terminate_backend($1)", dying.get_server_pid())
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await task
        assert await migrate(connection, STEPS) == 3


async def test_many_servers_start_at_once(empty_database: str) -> None:
    stores = [PostgresStore(empty_database) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        assert await store.load_bundles() == []
        await store.close()


async def test_a_newer_schema_is_refused(
    connection: asyncpg.Connection, empty_database: str
) -> None:
    await migrate(connection, [*STEPS, Migration(99, "099_future.sql", "SELECT 1")])
    with pytest.raises(ConfigError, match="version 99, this tgres knows"):
        await PostgresStore(empty_database).open()
