"""What PostgreSQL says of itself and of our tables, on a real one; the pools' own numbers."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from tgres_py.admin.frame import Admin, find_verb
from tgres_py.model.retention import Archive, BundleSpec
from tgres_py.storage import inspect
from tgres_py.storage.inspect import archive_stats, postgres_facts
from tgres_py.storage.port import ChunkRows
from tgres_py.storage.postgres import PostgresStore

SPEC = BundleSpec((Archive(10, 720, 240), Archive(60, 480, 240)))


async def fill(store: PostgresStore, series: int, known: int) -> dict[int, BundleSpec]:
    """Series with one chunk of the finest archive, ``known`` of its slots with a value."""
    [bundle] = await store.ensure_bundles([SPEC])
    names = [f"s{number}" for number in range(series)]
    ids, _ = await store.create_series(names, np.full(series, bundle, np.int32))
    values = np.full((series, 240), np.nan)
    values[:, :known] = np.random.default_rng(1).random((series, known))
    n, start_s = np.zeros(series, np.int32), np.full(series, 2_400_000)
    await store.write_chunks([ChunkRows(0, ids, n, start_s, values)])
    return dict(await store.load_bundles())


async def test_facts(postgres_store: PostgresStore) -> None:
    await fill(postgres_store, 3, 10)
    facts = await postgres_facts(postgres_store)
    assert int(facts.version.split(".")[0]) >= 14
    assert facts.settings["fsync"] == "off", "the tests' PostgreSQL"
    assert int(facts.settings["shared_buffers"]) % 8_192 == 0
    assert int(facts.settings["max_connections"]) >= facts.connections >= 1
    tables = {table.name: table for table in facts.tables}
    assert {"ts", "rrd", "rrd_bundle", "event"} <= set(tables)
    assert tables["ts"].table_bytes > 0 and tables["ts"].index_bytes > 0
    assert facts.database_bytes > sum(table.table_bytes for table in facts.tables)


async def test_statistics_of_archives(postgres_store: PostgresStore) -> None:
    bundles = await fill(postgres_store, 20, 60)
    [finest] = await archive_stats(postgres_store, bundles)
    assert (finest.archive, finest.series, finest.chunks) == (0, 20, 20)
    assert finest.known_share == pytest.approx(0.25)
    assert 20 * 60 * 8 < finest.stored_bytes < 20 * 2_000
    assert await archive_stats(postgres_store, {}) == [], "bundles that nobody knows"


async def test_of_many_chunks_a_sample_is_counted_up(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = await fill(postgres_store, 2_000, 240)
    async with postgres_store.pools["shared"].use() as connection:
        await connection.execute("ANALYZE ts")
    monkeypatch.setattr(inspect, "SAMPLE_ROWS", 1_000)  # half of the pages
    [finest] = await archive_stats(postgres_store, bundles)
    assert finest.chunks == pytest.approx(2_000, rel=0.5) and finest.known_share == 1


async def test_the_verb(postgres_store: PostgresStore) -> None:
    verb = find_verb("stats.storage")

    async def rows(**given: Any) -> list[dict[str, Any]]:
        return [row async for row in verb.start(Admin(postgres_store), given)]

    assert await rows() == [], "nothing is stored yet"
    await fill(postgres_store, 20, 60)
    [row, note] = await rows()
    assert row["archive"] == "10s:2h" and row["series"] == 20 and row["known_share"] == 0.25
    assert row["compression"] == pytest.approx(20 * 240 * 8 / row["stored_bytes"], rel=0.01)
    assert row["bytes_per_point"] == pytest.approx(row["stored_bytes"] / 1_200, rel=0.01)
    assert "bytes a series" in note["note"]
    assert {one["table"] for one in await rows(tables=True)} >= {"ts", "rrd"}


async def test_pools_count_what_they_do(postgres_store: PostgresStore) -> None:
    pool = postgres_store.pools["shared"]
    opened, used = pool.opened, pool.used_seconds.count
    assert pool.in_use == pool.waiting == 0
    free = asyncio.Event()

    async def hold() -> None:
        async with pool.use():
            await free.wait()

    tasks = [asyncio.create_task(hold()) for _ in range(pool.size + 2)]
    async with asyncio.timeout(30):
        while pool.in_use < pool.size or pool.waiting < 2:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
    assert (pool.in_use, pool.waiting) == (pool.size, 2)
    free.set()
    await asyncio.gather(*tasks)
    assert pool.in_use == pool.waiting == 0 and pool.failures == 0
    assert pool.opened - opened <= pool.size
    assert pool.used_seconds.count - used == pool.size + 2


async def test_pools_count_connections_that_are_refused() -> None:
    store = PostgresStore("postgresql://127.0.0.1:9/x")
    with pytest.raises(Exception, match="PostgreSQL at"):
        await store.load_bundles()
    assert store.pools["shared"].failures == 1 and store.pools["shared"].opened == 0
