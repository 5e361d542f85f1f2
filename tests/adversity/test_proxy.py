"""A flush that is cut, stalled or half-closed at each of its steps: nothing is lost, nothing counts twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.adversity.proxy import Fault, Proxy
from tests.adversity.test_postgres_away import real_socket
from tests.rig import Rig
from tests.test_flusher import until
from tgres_py import clock
from tgres_py.errors import StoreUnavailable
from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate
from tgres_py.storage.postgres import PostgresStore

NOW_S = 1_700_000_000 // 360 * 360
SUM = BundleSpec((Archive(10, 360, 12),), Cf.SUM, 0.0, OnDuplicate.SUM)
# the text of a statement travels when a connection uses it for the first time
STEPS = {"begin": b"BEGIN", "upsert": b"INSERT INTO ts", "number": b"late_seq", "commit": b"COMMIT"}


SERIES = 12  # so many that rows go in by COPY
FLUSH_STEPS = {
    "startup packet": b"application_name",
    "staging table": b"CREATE TEMP TABLE",
    "rows of series": b'COPY "rrd"',
    "begin": b"BEGIN",
    "copy": b"PGCOPY\n",
    "end of copy": b"\xff\xffc\x00\x00\x00\x04",
    "upsert": b"INSERT INTO ts",
    "commit": b"COMMIT",
    "last points": b"last_s",
}


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    async with Proxy(real_socket(database)) as proxy:
        yield proxy


@pytest.fixture
async def rig(proxy: Proxy, database: str, tmp_path: Path) -> AsyncIterator[Rig]:
    name = database.partition("?")[0].rpartition("/")[2]
    user = database.partition("://")[2].partition("@")[0]
    dsn = f"postgresql://{user}@127.0.0.1:{proxy.port}/{name}?sslmode=disable"
    store = PostgresStore(dsn, connect_timeout_s=1, command_timeout_s=1)
    rig = Rig(store, tmp_path / "journal", SUM, now_s=NOW_S)
    await rig.start()
    yield rig
    rig.journal.close()
    await store.close()
    clock.replace_source(None)


async def with_stored_chunk(rig: Rig) -> None:
    """One slot is in the store; a late point of it and a new one wait."""
    rig.add([("a", NOW_S, 1.0)])
    await rig.flusher.settle_until(NOW_S + 10)
    rig.add([("a", NOW_S, 2.0), ("a", NOW_S + 20, 4.0)])
    assert rig.intake.late_points == 1


async def settled(rig: Rig) -> None:
    """The flusher's next tries: what a lost connection has locked is free soon."""
    deadline = time.monotonic() + 15
    while True:
        try:
            await rig.flusher.settle()
            return
        except StoreUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


async def check(rig: Rig) -> None:
    """All points once; in the store, too."""
    await settled(rig)
    for _ in range(2):
        values = await rig.read("a", 0, NOW_S // 10, NOW_S // 10 + 3)
        assert values[[0, 2]].tolist() == [3.0, 4.0]
        assert (rig.intake.ledger.balance, rig.intake.ledger.held) == (0, 0)
        await rig.flusher.settle_until(NOW_S + 30)


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("step", STEPS)
async def test_a_merge_that_meets_a_fault(rig: Rig, proxy: Proxy, step: str, fault: Fault) -> None:
    await with_stored_chunk(rig)
    proxy.cut_all()  # a new connection prepares its statements anew, so their texts pass the proxy
    await asyncio.sleep(0.1)
    proxy.arm(fault, STEPS[step])
    with contextlib.suppress(StoreUnavailable):
        await rig.flusher.settle()
    assert proxy.hits == 1
    assert rig.intake.ledger.balance == 0
    await check(rig)


@pytest.mark.parametrize("step", FLUSH_STEPS)
async def test_a_flush_that_meets_a_fault(rig: Rig, proxy: Proxy, step: str) -> None:
    """A whole chunk of many new series, from the connection's first packet to the commit; each fault in turn."""
    chunk_s = 120
    for number, fault in enumerate(Fault):
        at_s = rig.now_s = NOW_S + number * chunk_s
        names = [f"{fault.name}{i}" for i in range(SERIES)]
        for slot in range(3):
            rig.add((name, at_s + slot * 10, float(slot + 1)) for name in names)
            rig.add((name, at_s + slot * 10, 0.5) for name in names)  # twice would show
        proxy.cut_all()
        await asyncio.sleep(0.05)
        proxy.arm(fault, FLUSH_STEPS[step])
        for _ in range(2):  # the first may meet connections that were cut
            with contextlib.suppress(StoreUnavailable):
                await rig.flusher.settle_until(at_s + chunk_s)
            if proxy.hits > number:
                break
        assert proxy.hits == number + 1
        assert rig.intake.ledger.balance == 0
        await until_written(rig, at_s + chunk_s)
        for _ in range(2):
            values = await rig.read(names[-1], 0, at_s // 10, at_s // 10 + 3)
            assert values.tolist() == [1.5, 2.5, 3.5]
            await rig.flusher.flush_now()
    assert (rig.intake.ledger.balance, rig.intake.ledger.held) == (0, 0)


async def until_written(rig: Rig, time_s: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            await rig.flusher.settle_until(time_s)
            return
        except StoreUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER])
async def test_a_kill_after_a_lost_commit(rig: Rig, proxy: Proxy, fault: Fault) -> None:
    """The next run asks the store which late points it has."""
    await with_stored_chunk(rig)
    proxy.arm(fault, b"COMMIT")
    with pytest.raises(StoreUnavailable):
        await rig.flusher.settle()
    await rig.kill()
    await rig.start()
    assert rig.recovered.late == (1 if fault is Fault.CUT_BEFORE else 0)
    await check(rig)


async def test_an_outage_is_told_once_and_makes_no_storm(
    rig: Rig, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory is read on; queries that need the store fail soon; few connections are tried."""
    caplog.set_level(logging.INFO, "tgres_py.storage.presence")
    await with_stored_chunk(rig)
    proxy.refuse = True
    proxy.cut_all()
    before = proxy.connects
    task = asyncio.create_task(rig.flusher.run())
    begin = time.monotonic()
    try:
        await until(lambda: rig.flusher.failures >= 3)
        tried, seconds = proxy.connects - before, time.monotonic() - begin
        assert tried <= 10 + 5 * seconds
        a = rig.registry.table.get(b"a")
        ids = rig.registry.by_row(rig.registry.rrd_id[a : a + 1])
        newest = NOW_S // 10 + 2
        assert (await rig.reader.fetch(ids, 0, newest, newest + 1)).tolist() == [[4.0]]
        with pytest.raises(StoreUnavailable):
            async with asyncio.timeout(5):
                await rig.reader.fetch(ids, 0, newest - 2, newest)
        proxy.refuse = False
        async with asyncio.timeout(15):
            while not await rig.flusher.reachable():  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)
        await until(lambda: rig.flusher.presence.available)
        assert rig.flusher.presence.pings <= 2 + time.monotonic() - begin
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    told = [r.message for r in caplog.records if "PostgreSQL" in r.message]
    assert len(told) == 2, told
    await check(rig)


async def test_sessions_of_lost_connections_end(rig: Rig) -> None:
    """Those of all pools; over TCP, where PostgreSQL would wait for hours."""
    store = rig.store
    assert isinstance(store, PostgresStore)
    for pool in store.pools.values():
        async with pool.use() as connection:
            for name, value in (
                ("idle_in_transaction_session_timeout", "1000"),
                ("tcp_keepalives_idle", "30"),
                ("tcp_keepalives_interval", "10"),
                ("tcp_keepalives_count", "3"),
            ):
                # of a unix socket, to which the proxy leads, SHOW says 0
                asked = "SELECT reset_val FROM pg_settings WHERE name = $1"
                assert await connection.fetchval(asked, name) == value


async def test_a_slow_line_only_takes_its_time(rig: Rig, proxy: Proxy) -> None:
    await with_stored_chunk(rig)
    proxy.bytes_per_s = 20_000
    await rig.flusher.settle()
    await check(rig)
