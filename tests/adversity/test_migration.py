"""A migration of the schema that is stopped at any statement, with data of the older one in the tables."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.acceptance.process import ServerProcess, wait_for
from tests.adversity.loop_thread import LoopThread
from tests.adversity.test_outages import script
from tests.schema import describe
from tests.test_cli_serve import refusal
from tgres_py.model.retention import parse_retention
from tgres_py.storage.migrate import Migration, migrate, migrations
from tgres_py.storage.postgres import PostgresStore

RETENTION = "1s:2h,10s:1d"
OLD_S = int(time.time()) - 3_000

# What a server of the first schema stored: one series with a chunk of ten slots, and an event.
DATA = f"""
INSERT INTO rrd_bundle (retention, cf, xff, on_duplicate, steps_s, sizes, widths)
VALUES ('{RETENTION}', 'average', 0.5, 'last', '{{1,10}}', '{{7200,8640}}', '{{480,480}}');
INSERT INTO rrd (name, bundle_id) VALUES ('old.a', 1);
INSERT INTO ts SELECT 1, 0, {OLD_S} / 480 % 16, {OLD_S} / 480 * 480, array_agg(i::float8)
FROM generate_series(0, 479) AS i;
INSERT INTO event (what) VALUES ('deploy');
"""


def statements(sql: str) -> list[str]:
    """The statements of a file; a body between $$ is a part of one."""
    sql = re.sub(r"^\s*--.*$", "", sql, flags=re.MULTILINE)
    parts, quoted = [""], False
    for line in sql.splitlines(keepends=True):
        parts[-1] += line
        quoted ^= line.count("$$") % 2 == 1
        if not quoted and line.rstrip().endswith(";"):
            parts.append("")
    return [part for part in parts if part.strip()]


async def contents(connection: asyncpg.Connection) -> dict[str, list[Any]]:
    """All rows of all tables."""
    tables = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    )
    return {
        name: [tuple(row) for row in await connection.fetch(f"SELECT * FROM {name} ORDER BY 1, 2")]
        for (name,) in tables
    }


async def die_at(dsn: str, watcher: asyncpg.Connection, steps: list[Migration]) -> None:
    """Migrates, and ends the connection as soon as the last step sleeps."""
    dying = await asyncpg.connect(dsn)
    task = asyncio.create_task(migrate(dying, steps))
    asleep = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1"
    async with asyncio.timeout(20):
        while not await watcher.fetchval(asleep, dying.get_server_pid()):
            assert not task.done(), task.exception()
            await asyncio.sleep(0.002)
        await watcher.execute("SELECT pg_terminate_backend($1)", dying.get_server_pid())
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await task


async def test_stopped_at_each_statement(empty_database: str) -> None:
    """Nothing of the step is left, the data is as it was, and the next try goes through."""
    connection = await asyncpg.connect(empty_database)
    try:
        tried = 0
        for number, step in enumerate(migrations()):
            done = migrations()[:number]
            before = await describe(connection), await contents(connection)
            pieces = statements(step.sql)
            for count in range(len(pieces) + 1):
                half = "".join(pieces[:count]) + "SELECT pg_sleep(60);"
                await die_at(
                    empty_database, connection, [*done, Migration(step.version, step.name, half)]
                )
                assert (await describe(connection), await contents(connection)) == before
                tried += 1
            assert await migrate(connection, [*done, step]) == step.version
            if number == 0:
                await connection.execute(DATA)
        assert tried > 20
    finally:
        await connection.close()
    store = PostgresStore(empty_database)
    await store.open()
    [(bundle_id, spec)] = await store.load_bundles()
    series = await store.load_series()
    assert (series.names, series.bundle_id.tolist()) == (["old.a"], [bundle_id])
    rows = await store.read_chunks(series.rrd_id, 0, 480, OLD_S - 480, OLD_S + 1)
    assert rows.dp.tolist() == [[float(i) for i in range(480)]]
    assert [(a.step_s, a.size) for a in spec.archives] == list(parse_retention(RETENTION))
    await store.close()


async def test_a_step_may_take_longer_than_other_statements(empty_database: str) -> None:
    """A change of a large table is not cut off and begun anew, for ever."""
    connection = await asyncpg.connect(empty_database, command_timeout=0.2)
    try:
        slow = Migration(1, "001_a.sql", "SELECT pg_sleep(0.5); CREATE TABLE a (x int)")
        assert await migrate(connection, [slow]) == 1
    finally:
        await connection.close()


# -- whole servers -----------------------------------------------------------------------------


class Held:
    """Holds every migration up at its last statement, until ``release``."""

    def __init__(self, dsn: str) -> None:
        self._loop = LoopThread().__enter__()
        self._connection: asyncpg.Connection = self._loop.run(asyncpg.connect(dsn))
        self._loop.run(self._connection.execute("BEGIN; LOCK TABLE schema_version IN SHARE MODE"))

    def waiting(self) -> int:
        """Sessions that wait for it."""
        count: int = self._loop.run(
            self._connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
        )
        return count

    def release(self) -> None:
        self._loop.run(self._connection.close())
        self._loop.__exit__(None, None, None)


def old_schema(dsn: str) -> None:
    async def make() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await migrate(connection, migrations()[:1])
            await connection.execute(DATA)
        finally:
            await connection.close()

    asyncio.run(make())


@pytest.fixture
def servers(tmp_path: Path, empty_database: str) -> Iterator[list[ServerProcess]]:
    """Two on one database, each with a data directory of its own."""
    old_schema(empty_database)
    two = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        two.append(
            ServerProcess(
                folder, "--store-timeout-s=1", "--dsn", empty_database, retentions=RETENTION
            )
        )
    yield two
    for server in two:
        server.close()


def test_a_server_killed_in_a_migration(servers: list[ServerProcess], empty_database: str) -> None:
    """Points are taken meanwhile; another one that waits for its turn goes on in its place."""
    held = Held(empty_database)
    first, second = servers
    try:
        first.launch()
        wait_for(lambda: held.waiting() > 0, "the migration waits", 20)
        second.launch()
        first.send(f"new.a 1 {int(time.time())}\n")
        time.sleep(1.5)  # longer than another statement may take
        for server in servers:
            assert server.get("/healthz")[0] == 200
            assert server.get("/readyz")[0] == 503
            assert server.get("/render?target=old.a")[0] == 503
        assert "ERROR" not in first.log + second.log
        first.kill()
    finally:
        held.release()
    wait_for(second.is_ready, "the other one is ready", 30)
    first.start()
    at_s = OLD_S // 480 * 480
    for server in servers:
        got = server.render("old.a", at_s - 1, at_s + 9)
        assert got == {"old.a": {at_s + i: float(i) for i in range(10)}}
        assert server.imbalance() == 0
        assert "Traceback" not in server.log
    now_s = int(time.time())
    assert list(first.render("new.a", now_s - 60, now_s)["new.a"].values()) == [1.0]
    assert [s.terminate() for s in servers] == [0, 0]


def test_an_older_server_than_the_schema_says_so_in_one_line(
    tmp_path: Path, empty_database: str
) -> None:
    old_schema(empty_database)
    script(empty_database, "INSERT INTO schema_version (version, name) VALUES (99, 'later')")
    text = refusal(tmp_path, "--dsn", empty_database)
    assert "schema has version 99" in text and "newer one" in text
