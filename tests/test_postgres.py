"""What the store in PostgreSQL does beyond the port: errors, lost connections, transactions, tags."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import asyncpg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.adversity.proxy import Proxy
from tests.adversity.test_postgres_away import real_socket
from tests.test_store_conformance import chunk, read_one, two_bundles
from tgres_py.errors import ConfigError, StoreUnavailable
from tgres_py.model.retention import Archive
from tgres_py.storage.connection import Connector
from tgres_py.storage.port import ChunkRows
from tgres_py.storage.postgres import NOTICES_MAX, PostgresStore, ring_places


async def kill_backends(dsn: str) -> None:
    """Ends all sessions of the database but our own, as a restart of PostgreSQL would."""
    admin = await asyncpg.connect(dsn)
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await admin.close()


# Errors


async def test_refused_connection(free_port: Callable[[], int]) -> None:
    store = PostgresStore(f"postgresql://me:secret@127.0.0.1:{free_port()}/db")
    for call in (store.open, store.ping, store.load_series, store.get_state):
        with pytest.raises(
            StoreUnavailable, match=r"PostgreSQL at postgresql://me:\*\*\*@"
        ) as info:
            await call()
        assert "secret" not in str(info.value)


async def test_a_server_that_never_answers(free_port: Callable[[], int]) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", port := free_port()):
        store = PostgresStore(f"postgresql://me@127.0.0.1:{port}/db", connect_timeout_s=0.2)
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailable):
                await store.open()


async def test_a_server_that_hangs_up(free_port: Callable[[], int]) -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.close()

    async with await asyncio.start_server(rude, "127.0.0.1", port := free_port()):
        with pytest.raises(StoreUnavailable):
            await PostgresStore(f"postgresql://me@127.0.0.1:{port}/db").open()


async def test_a_database_that_does_not_exist_yet(postgres_dsn: str) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await PostgresStore(postgres_dsn.replace("/postgres?", "/not_there?")).open()


@pytest.mark.parametrize("dsn", ["mysql://secret:secret@h/d", "postgresql://u:secret@h:port/d"])
async def test_a_dsn_that_is_none(dsn: str) -> None:
    with pytest.raises(ConfigError) as info:
        await PostgresStore(dsn).open()
    assert ":secret" not in str(info.value)


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:p@h:5/d", "postgresql://u:***@h:5/d"),
        ("postgresql://u:p@ss:w@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p/ss@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d?password=p&x=1", "postgresql://u@h/d?password=***&x=1"),
        ("host=h password='p q' user=u", "host=h password=*** user=u"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql:///d?host=/a:b@c", "postgresql:///d?host=/a:b@c"),
    ],
)
def test_errors_name_the_dsn_without_its_password(dsn: str, shown: str) -> None:
    assert Connector(dsn, 1, 1).masked_dsn == shown


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError("reset"), True),
        (TimeoutError(), True),
        (asyncpg.AdminShutdownError("terminating"), True),
        (asyncpg.CannotConnectNowError("starting up"), True),
        (asyncpg.CrashShutdownError("crash"), True),
        (asyncpg.QueryCanceledError("statement timeout"), True),
        (asyncpg.TooManyConnectionsError("too many clients"), True),
        (asyncpg.DiskFullError("no space"), True),
        (asyncpg.ReadOnlySQLTransactionError("read-only"), True),
        (asyncpg.ConnectionDoesNotExistError("closed"), True),
        (asyncpg.DeadlockDetectedError("deadlock"), True),
        (asyncpg.InternalClientError("cannot switch to state 15"), True),
        (asyncpg.UniqueViolationError("duplicate"), False),
        (asyncpg.UndefinedTableError("no table"), False),
        (asyncpg.InterfaceError("wrong use"), False),
        (ValueError("bug"), False),
    ],
)
def test_which_errors_pass(error: Exception, passes: bool) -> None:
    found = Connector("postgresql://h/d", 1, 1).unavailable(error)
    assert isinstance(found, StoreUnavailable) is passes


async def test_a_database_that_takes_no_connections_is_away(
    postgres_dsn: str, database: str
) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    admin = await asyncpg.connect(postgres_dsn)
    await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    try:
        with pytest.raises(StoreUnavailable, match="not currently accepting"):
            await PostgresStore(database).ping()
    finally:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await admin.close()


async def test_read_only_database(postgres_store: PostgresStore, database: str) -> None:
    admin = await asyncpg.connect(database)
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await admin.close()
    with pytest.raises(StoreUnavailable, match="read-only"):
        await postgres_store.write_chunks([], late_seq=1)


async def test_an_account_that_may_not_make_tables(empty_database: str) -> None:
    admin = await asyncpg.connect(empty_database)
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f"CREATE ROLE guest_{name} LOGIN")
    await admin.execute("REVOKE CREATE ON SCHEMA public FROM public")
    try:
        with pytest.raises(ConfigError, match="can't make tables"):
            await PostgresStore(empty_database.replace("//tgres@", f"//guest_{name}@")).open()
    finally:
        await admin.execute(f"DROP ROLE guest_{name}")
        await admin.close()


# Lost connections


async def test_connections_are_made_anew(postgres_store: PostgresStore, database: str) -> None:
    await postgres_store.write_chunks([chunk(1, 0, 0, [1, 2, 3, 4])])
    await kill_backends(database)
    for _ in range(2):  # the first call may find out, the second must work
        try:
            await postgres_store.write_chunks([chunk(1, 1, 40, [5, 6, 7, 8])])
            rows = await read_one(postgres_store, 1)
        except StoreUnavailable:
            continue
    assert [start_s for _, start_s, _ in rows] == [0, 40]


async def test_a_lock_held_too_long(database: str) -> None:
    store = PostgresStore(database, command_timeout_s=0.2)
    await store.open()
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("LOCK TABLE ts")
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailable, match="no answer in time"):
                await store.write_chunks([chunk(1, 0, 0, [1, 2, 3, 4])])
            with pytest.raises(StoreUnavailable):
                await read_one(store, 1)
    await store.write_chunks([chunk(1, 0, 0, [1, 2, 3, 4])])
    assert len(await read_one(store, 1)) == 1
    await store.close()
    await other.close()


async def test_the_state_waits_for_a_merge_that_is_being_committed(
    postgres_store: PostgresStore, database: str
) -> None:
    """Its server may have been killed: the points that it merged must not be merged again."""
    other = await asyncpg.connect(database)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("UPDATE server_state SET late_seq = 7")
    asking = asyncio.create_task(postgres_store.get_state())
    try:
        await asyncio.sleep(0.2)
        assert not asking.done()
        await transaction.commit()
        assert (await asking).late_seq == 7
    finally:
        asking.cancel()
        await other.close()


async def test_a_cancelled_write_leaves_a_usable_store(
    postgres_store: PostgresStore, database: str
) -> None:
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("LOCK TABLE ts")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await postgres_store.write_chunks([chunk(1, 0, 0, [1, 2, 3, 4])])
    await postgres_store.write_chunks([chunk(2, 0, 0, [1, 2, 3, 4])])
    assert len(await read_one(postgres_store, 2)) == 1
    await other.close()


async def test_a_ping_is_answered_though_all_connections_are_in_use(database: str) -> None:
    store = PostgresStore(database, pool_size=1)
    await store.open()
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("LOCK TABLE ts")
        reading = asyncio.create_task(read_one(store, 1))
        await asyncio.sleep(0)
        await store.ping(30)
        assert not reading.done()
    assert await reading == []
    await store.close()
    await other.close()


async def test_a_ping_that_gets_no_answer(database: str) -> None:
    async with Proxy(real_socket(database)) as proxy:
        name = database.partition("?")[0].rpartition("/")[2]
        user = database.partition("://")[2].partition("@")[0]
        dsn = f"postgresql://{user}@127.0.0.1:{proxy.port}/{name}?sslmode=disable"
        store = PostgresStore(dsn)
        await store.ping(30)
        proxy.freeze(True)
        for _ in range(2):  # over the connection that is there, and over a new one
            with pytest.raises(StoreUnavailable, match=r"no answer in 0\.2 s"):
                await store.ping(0.2)
        proxy.freeze(False)
        await store.ping(30)
        await store.close()


async def test_flush_requests_survive_a_restart(
    postgres_store: PostgresStore, database: str
) -> None:
    requests = postgres_store.flush_requests()
    admin = await asyncpg.connect(database)

    async def next_request(glob: str) -> str:
        waiting = asyncio.ensure_future(anext(requests))
        while not waiting.done():
            await admin.execute("SELECT pg_notify('tgres_flush', $1)", glob)
            await asyncio.wait([waiting], timeout=0.05)
        return waiting.result()

    async with asyncio.timeout(20):
        assert await next_request("a.*") == "a.*"
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tgres'"
            " AND datname = current_database()"
        )
        while await next_request("b.*") != "b.*":
            pass
    await requests.aclose()
    await admin.close()


async def test_a_flood_of_flush_requests_becomes_one_for_all(
    postgres_store: PostgresStore, database: str
) -> None:
    requests = postgres_store.flush_requests()
    admin = await asyncpg.connect(database)
    async with asyncio.timeout(20):
        first = asyncio.ensure_future(anext(requests))
        while not first.done():
            await admin.execute("NOTIFY tgres_flush, 'first'")
            await asyncio.wait([first], timeout=0.05)
        await admin.execute(
            "SELECT pg_notify('tgres_flush', 'g' || i) FROM generate_series(1, 3000) i"
        )
        got = [await anext(requests)]
        while got[-1] != "":
            got.append(await anext(requests))
    assert len(got) <= 2 * NOTICES_MAX
    await requests.aclose()
    await admin.close()


# Transactions


async def test_a_write_is_all_or_nothing(postgres_store: PostgresStore) -> None:
    bad = chunk(2, 0, 0, [1, 2, 3, 4])
    bad.archive = 40_000  # does not fit smallint
    with pytest.raises(asyncpg.PostgresError):
        await postgres_store.write_chunks([chunk(1, 0, 0, [1, 2, 3, 4]), bad], late_seq=9)
    assert await read_one(postgres_store, 1) == []
    assert (await postgres_store.get_state()).late_seq == 0


async def test_two_writers_in_opposite_order(database: str) -> None:
    """Neither a deadlock nor a lost slot: each fills the slots that the other leaves unknown."""
    stores = [PostgresStore(database), PostgresStore(database)]
    count, nan = 400, float("nan")
    ids = np.arange(count, dtype=np.int64)
    for store in stores:
        await store.open()
    for _ in range(3):
        await asyncio.gather(
            *(
                store.write_chunks(
                    [
                        ChunkRows(
                            0,
                            ids[::step],
                            np.zeros(count, np.int32),
                            np.zeros(count, np.int64),
                            np.tile(np.array(dp), (count, 1)),
                        )
                    ]
                )
                for store, step, dp in zip(
                    stores, (1, -1), ([1, nan, 1, nan], [nan, 2, nan, 2]), strict=True
                )
            )
        )
    rows = await stores[0].read_chunks(ids, 0, 4, 0, 1)
    assert rows.dp.tolist() == [[1, 2, 1, 2]] * count
    for store in stores:
        await store.close()


async def test_two_creators_of_the_same_series(database: str) -> None:
    stores = [PostgresStore(database) for _ in range(3)]
    for store in stores:
        await store.open()
    first, _ = await two_bundles(stores[0])
    names = [f"n{i}" for i in range(500)]
    orders = (names, names[::-1], names[250:] + names[:250])
    bundles = np.full(len(names), first, np.int32)
    results = await asyncio.gather(
        *(store.create_series(order, bundles) for store, order in zip(stores, orders, strict=True))
    )
    maps = [
        dict(zip(order, ids.tolist(), strict=True))
        for order, (ids, _) in zip(orders, results, strict=True)
    ]
    assert maps[0] == maps[1] == maps[2]
    for store in stores:
        await store.close()


async def test_tags_are_json(postgres_store: PostgresStore, database: str) -> None:
    first, _ = await two_bundles(postgres_store)
    names = ["plain", 'disk;dev="a";host=größe']
    await postgres_store.create_series(names, np.full(2, first, np.int32))
    connection = await asyncpg.connect(database)
    rows = await connection.fetch("SELECT name, tags FROM rrd ORDER BY name DESC")
    await connection.close()
    assert [(name, tags and json.loads(tags)) for name, tags in rows] == [
        ("plain", None),
        (names[1], {"dev": '"a"', "host": "größe"}),
    ]


# Geometry


@given(
    width=st.integers(1, 5),
    size=st.integers(1, 30),
    from_s=st.integers(-50, 3_000),
    length_s=st.integers(-10, 700),
)
def test_ring_places_are_those_of_the_window(
    width: int, size: int, from_s: int, length_s: int
) -> None:
    ring = Archive(10, size, width)
    first = -(-from_s // ring.chunk_s) * ring.chunk_s
    wanted = {
        start_s // ring.chunk_s % ring.chunks
        for start_s in range(first, from_s + length_s, ring.chunk_s)
    }
    found = [
        n
        for low, high in ring_places(ring, from_s, from_s + length_s)
        for n in range(low, high + 1)
    ]
    assert len(found) == len(set(found))
    assert set(found) == wanted
