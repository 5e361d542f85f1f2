"""One suite for both stores: what ``storage/port.py`` promises."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import asyncpg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.model.event import Event, EventQuery
from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate
from tgres_py.storage.memory import MemoryStore
from tgres_py.storage.port import ChunkRows, ServerState
from tgres_py.storage.postgres import PostgresStore

Store = MemoryStore | PostgresStore

NAN = float("nan")
WIDTH = 4
RING = Archive(step_s=10, size=16, width=WIDTH)  # 5 chunks of 40 s

FEW_EXAMPLES = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_fresh_ids = itertools.count(1_000_000, 1_000)


@pytest.fixture(params=["memory", "postgres"])
def store_dsn(request: pytest.FixtureRequest) -> str | None:
    """The DSN of a fresh database; None for the store in memory."""
    return request.getfixturevalue("database") if request.param == "postgres" else None


@pytest.fixture
async def store(store_dsn: str | None) -> AsyncIterator[Store]:
    store: Store = MemoryStore() if store_dsn is None else PostgresStore(store_dsn)
    await store.open()
    yield store
    await store.close()


def chunk(rrd_id: int, n: int, start_s: int, dp: list[float], archive: int = 0) -> ChunkRows:
    return ChunkRows(
        archive,
        np.array([rrd_id], np.int64),
        np.array([n], np.int32),
        np.array([start_s], np.int64),
        np.array([dp], np.float64),
    )


async def read_one(
    store: Store, rrd_id: int, archive: int = 0
) -> list[tuple[int, int, list[float]]]:
    """All chunks of a series as (n, start_s, values), NaN as None."""
    rows = await store.read_chunks(np.array([rrd_id]), archive, WIDTH, 0, 1 << 40)
    return sorted(
        (int(rows.n[i]), int(rows.start_s[i]), known(rows.dp[i])) for i in range(len(rows))
    )


def known(dp: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in dp]


# State


async def test_fresh_store_has_no_journal(store: Store) -> None:
    await store.ping()
    assert await store.get_state() == ServerState("", 0)


async def test_binding_a_journal_resets_the_late_records(store: Store) -> None:
    await store.set_journal_id("a")
    await store.write_chunks([], late_seq=7)
    await store.write_chunks([chunk(1, 0, 0, [1, 2, 3, 4])])
    assert await store.get_state() == ServerState("a", 7)
    await store.set_journal_id("b")
    assert await store.get_state() == ServerState("b", 0)


# Bundles and series


async def test_bundles_are_created_once(store: Store) -> None:
    fine = BundleSpec((RING, Archive(60, 60, 60)), Cf.MAX, 0.25, OnDuplicate.SUM)
    coarse = BundleSpec((RING,))
    first = await store.ensure_bundles([fine, coarse, fine])
    assert first[0] == first[2] != first[1]
    assert await store.ensure_bundles([coarse, fine]) == [first[1], first[0]]
    assert dict(await store.load_bundles()) == {first[0]: fine, first[1]: coarse}


async def test_bundles_may_come_while_others_are_made(store: Store) -> None:
    specs = [BundleSpec((RING,))]
    making = asyncio.create_task(store.ensure_bundles(specs))
    await asyncio.sleep(0)  # its first step; the answer is still on its way
    specs.append(BundleSpec((RING,), Cf.MAX))
    first = await making
    assert len(first) == 1
    assert (await store.ensure_bundles(specs))[:1] == first


async def test_bundles_that_differ_in_one_thing_differ(store: Store) -> None:
    specs = [
        BundleSpec((RING,)),
        BundleSpec((RING,), xff=0.4),
        BundleSpec((RING,), cf=Cf.LAST),
        BundleSpec((RING,), on_duplicate=OnDuplicate.MIN),
        BundleSpec((Archive(10, 16, 8),)),
        BundleSpec((Archive(10, 17, 4),)),
        BundleSpec((Archive(20, 16, 4),)),
    ]
    assert len(set(await store.ensure_bundles(specs))) == len(specs)


async def two_bundles(store: Store) -> tuple[int, int]:
    first, second = await store.ensure_bundles([BundleSpec((RING,)), BundleSpec((RING,), Cf.SUM)])
    return first, second


async def test_series_keep_their_bundle(store: Store) -> None:
    first, second = await two_bundles(store)
    ids, bundles = await store.create_series(["a", "b"], np.array([first, second], np.int32))
    assert bundles.tolist() == [first, second]
    again, kept = await store.create_series(
        ["c", "b", "a"], np.array([second, first, second], np.int32)
    )
    assert again[1:].tolist() == ids[::-1].tolist()
    assert kept.tolist() == [second, second, first]
    assert len({*ids.tolist(), *again.tolist()}) == 3


async def test_a_name_twice_in_one_call_is_one_series(store: Store) -> None:
    first, second = await two_bundles(store)
    ids, bundles = await store.create_series(
        ["x", "y", "x"], np.array([first, first, second], np.int32)
    )
    assert ids[0] == ids[2] != ids[1]
    assert bundles.tolist() == [first, first, first]
    assert len((await store.load_series()).names) == 2


async def test_no_names(store: Store) -> None:
    ids, bundles = await store.create_series([], np.empty(0, np.int32))
    assert len(ids) == len(bundles) == 0
    rows = await store.load_series()
    assert (len(rows.rrd_id), len(rows.bundle_id), rows.names) == (0, 0, [])


async def test_series_are_loaded_in_the_order_of_ids(store: Store) -> None:
    first, second = await two_bundles(store)
    names = [
        "z.1",
        "a.2",
        "back\\slash\\n",
        "tag;host=a;dev=s\\t",
        "größe.日本",
        "q\"uote'",
        "\\N",
        "%",
    ]
    bundle_ids = np.array([first, second] * 4, np.int32)
    ids, _ = await store.create_series(names, bundle_ids)
    rows = await store.load_series()
    assert rows.rrd_id.tolist() == sorted(ids.tolist())
    assert dict(zip(rows.names, rows.rrd_id.tolist(), strict=True)) == dict(
        zip(names, ids.tolist(), strict=True)
    )
    assert dict(zip(rows.names, rows.bundle_id.tolist(), strict=True)) == dict(
        zip(names, bundle_ids.tolist(), strict=True)
    )
    assert (rows.rrd_id.dtype, rows.bundle_id.dtype) == (np.int64, np.int32)


async def test_many_series_in_one_call(store: Store) -> None:
    first, _ = await two_bundles(store)
    names = [f"servers.web{i}.cpu.user" for i in range(9_000)]
    ids, _ = await store.create_series(names, np.full(len(names), first, np.int32))
    rows = await store.load_series()
    found = dict(zip(rows.names, rows.rrd_id.tolist(), strict=True))
    assert [found[name] for name in names] == ids.tolist()


# Chunks


@pytest.mark.parametrize(
    ("old_s", "new_s", "expected"),
    [
        (200, 200, [5.0, 2.0, 7.0, None]),  # same lap: merged
        (200, 400, [5.0, None, 7.0, None]),  # newer lap: replaced
        (400, 200, [1.0, 2.0, None, None]),  # older lap: kept
    ],
)
async def test_merge_rule(
    store: Store, old_s: int, new_s: int, expected: list[float | None]
) -> None:
    await store.write_chunks([chunk(1, 0, old_s, [1, 2, NAN, NAN])])
    await store.write_chunks([chunk(1, 0, new_s, [5, NAN, 7, NAN])])
    assert await read_one(store, 1) == [(0, max(old_s, new_s), expected)]


async def test_a_row_of_a_wrong_clock_gives_way(store: Store) -> None:
    """What a clock that was a day ahead wrote doesn't keep the present out of the ring."""
    now_s = 1_000_000
    clock.replace_source(lambda: now_s)
    try:
        for rows in ([1, 2, NAN, NAN], [1, 2, 3, 4]):
            await store.write_chunks([chunk(1, 0, now_s + 86_400, rows)])
            await store.write_chunks([chunk(1, 0, now_s, [5, NAN, 7, NAN])])
            assert await read_one(store, 1) == [(0, now_s, [5.0, None, 7.0, None])]
        # senders may be some seconds ahead
        await store.write_chunks([chunk(2, 0, now_s + 60, [1, 2, NAN, NAN])])
        await store.write_chunks([chunk(2, 0, now_s, [5, NAN, 7, NAN])])
        assert await read_one(store, 2) == [(0, now_s + 60, [1.0, 2.0, None, None])]
    finally:
        clock.replace_source(None)


async def test_a_full_chunk_replaces_all_of_its_lap(store: Store) -> None:
    await store.write_chunks([chunk(1, 0, 200, [1, 2, NAN, NAN])])
    await store.write_chunks([chunk(1, 0, 200, [5, 6, 7, 8])])
    assert await read_one(store, 1) == [(0, 200, [5.0, 6.0, 7.0, 8.0])]


async def test_special_values_are_kept(store: Store) -> None:
    values = [float("inf"), float("-inf"), 5e-324, 1.7976931348623157e308]
    await store.write_chunks([chunk(1, 0, 0, values)])
    assert await read_one(store, 1) == [(0, 0, values)]


async def test_a_key_twice_in_one_call_merges_in_order(store: Store) -> None:
    await store.write_chunks(
        [
            chunk(1, 0, 200, [1, 1, NAN, NAN]),
            chunk(2, 0, 200, [9, 9, 9, 9]),
            chunk(1, 0, 200, [NAN, 2, 2, NAN]),
            chunk(1, 0, 0, [8, 8, 8, 8]),
            chunk(1, 0, 200, [3, NAN, NAN, NAN]),
        ]
    )
    assert await read_one(store, 1) == [(0, 200, [3.0, 2.0, 2.0, None])]
    assert await read_one(store, 2) == [(0, 200, [9.0, 9.0, 9.0, 9.0])]


async def test_archives_and_widths_are_kept_apart(store: Store) -> None:
    await store.write_chunks(
        [
            chunk(1, 0, 0, [1, 1, 1, 1], archive=0),
            chunk(1, 0, 0, [2, 2, 2, 2], archive=1),
            chunk(1, 1, 40, [3, 3, 3], archive=0),
        ]
    )
    assert await read_one(store, 1, archive=0) == [(0, 0, [1.0] * 4)]
    assert await read_one(store, 1, archive=1) == [(0, 0, [2.0] * 4)]
    other = await store.read_chunks(np.array([1]), 0, 3, 0, 1_000)
    assert (other.n.tolist(), other.start_s.tolist(), other.dp.tolist()) == ([1], [40], [[3.0] * 3])


async def test_read_only_what_is_asked_for(store: Store) -> None:
    await store.write_chunks(
        [chunk(i, n, n * 40, [i, n, 0, 0]) for i in (1, 2, 3) for n in range(4)]
    )
    rows = await store.read_chunks(np.array([1, 3, 99]), 0, WIDTH, 40, 120)
    found = sorted(zip(rows.rrd_id.tolist(), rows.start_s.tolist(), strict=True))
    assert found == [(1, 40), (1, 80), (3, 40), (3, 80)]
    none = await store.read_chunks(np.array([], np.int64), 0, WIDTH, 0, 1_000)
    assert (len(none), none.dp.shape) == (0, (0, WIDTH))


async def test_the_writer_keeps_its_arrays(store: Store) -> None:
    rows = chunk(1, 0, 0, [1, 2, 3, 4])
    await store.write_chunks([rows])
    rows.dp[:] = 0
    assert await read_one(store, 1) == [(0, 0, [1.0, 2.0, 3.0, 4.0])]


slots = st.lists(st.sampled_from([NAN, 1.0, 2.5, -3.0]), min_size=WIDTH, max_size=WIDTH)
row = st.tuples(
    st.integers(0, 12),  # series
    st.integers(0, 1),  # archive
    st.integers(0, 1),  # n
    st.integers(0, 2),  # lap
    slots,
)


@FEW_EXAMPLES
@given(calls=st.lists(st.lists(row, max_size=30), max_size=4))
async def test_any_writes_equal_a_dict_of_slots(
    store: Store, calls: list[list[tuple[int, int, int, int, list[float]]]]
) -> None:
    base = next(_fresh_ids)
    expected: dict[tuple[int, int, int], tuple[int, list[float | None]]] = {}
    for call in calls:
        blocks = []
        for series, archive, n, lap, dp in call:
            blocks.append(chunk(base + series, n, lap * 200 + n * 40, dp, archive))
            key = (series, archive, n)
            old_lap, old = expected.get(key, (-1, [None] * WIDTH))
            new = known(np.array(dp))
            if lap > old_lap:
                expected[key] = (lap, new)
            elif lap == old_lap:
                expected[key] = (
                    lap,
                    [b if b is not None else a for a, b in zip(old, new, strict=True)],
                )
        await store.write_chunks(blocks)
    found = {}
    for archive in (0, 1):
        rows = await store.read_chunks(np.arange(base, base + 13), archive, WIDTH, 0, 1_000)
        for i in range(len(rows)):
            key = (int(rows.rrd_id[i]) - base, archive, int(rows.n[i]))
            found[key] = (int(rows.start_s[i]) // 200, known(rows.dp[i]))
    assert found == expected


@FEW_EXAMPLES
@given(
    latest=st.integers(5, 60),
    from_s=st.integers(0, 2_500),
    length_s=st.integers(0, 400),
)
async def test_knowing_the_ring_changes_nothing(
    store: Store, latest: int, from_s: int, length_s: int
) -> None:
    rrd_id = next(_fresh_ids)
    chunks = range(latest - RING.chunks + 1, latest + 1)
    await store.write_chunks(
        [chunk(rrd_id, c % RING.chunks, c * RING.chunk_s, [c, NAN, c, c]) for c in chunks]
    )
    window = (np.array([rrd_id]), 0, WIDTH, from_s, from_s + length_s)
    rows = await store.read_chunks(*window, ring=RING)
    plain = await store.read_chunks(*window)
    expected = [c * 40 for c in chunks if from_s <= c * 40 < from_s + length_s]
    assert sorted(rows.start_s.tolist()) == sorted(plain.start_s.tolist()) == expected


# Requests to flush


async def notify(store: Store, dsn: str | None, glob: str) -> None:
    if isinstance(store, MemoryStore):
        store.request_flush(glob)
        return
    connection = await asyncpg.connect(dsn)
    await connection.execute("SELECT pg_notify('tgres_flush', $1)", glob)
    await connection.close()


async def test_flush_requests_arrive(store: Store, store_dsn: str | None) -> None:
    requests = store.flush_requests()
    async with asyncio.timeout(10):
        first = asyncio.ensure_future(anext(requests))
        while not first.done():  # the listener may not have connected yet
            await notify(store, store_dsn, "servers.*")
            await asyncio.wait([first], timeout=0.02)
        assert first.result() == "servers.*"
        await notify(store, store_dsn, "")
        while (glob := await anext(requests)) != "":
            assert glob == "servers.*"


async def test_series_out_of_the_index_of_tags(store: Store) -> None:
    [bundle_id] = await store.ensure_bundles([BundleSpec((RING,))])
    names = ["a;t=1", "a;t=2", 'b;t="ü\\', "plain"]
    await store.create_series(names, np.full(4, bundle_id, np.int32))
    assert await store.load_untagged() == []
    await store.set_tagged(["a;t=1", names[2], "nosuch;t=1"], False)
    assert await store.load_untagged() == ["a;t=1", names[2]]
    await store.create_series(names, np.full(4, bundle_id, np.int32))
    await store.set_tagged([names[2], "a;t=2"], True)
    assert await store.load_untagged() == ["a;t=1"]
    if isinstance(store, PostgresStore):
        async with store._pool.use() as connection:
            tags = await connection.fetchval(
                "SELECT tags ->> 't' FROM rrd WHERE name = $1", names[2]
            )
        assert tags == '"ü\\'


async def test_events(store: Store) -> None:
    written = [
        Event("late", 1_700_000_100.0, ("b",)),
        Event("first ü \\", 1_700_000_000.25, ("a", "b"), '{"x": 1}'),
        Event("twin", 1_700_000_100.0, ("a", "c", "a")),
        Event("bare", 0.0),
    ]
    ids = [await store.add_event(event) for event in written]
    assert len(set(ids)) == 4
    late, first, twin, bare = (
        event._replace(id=id_) for event, id_ in zip(written, ids, strict=True)
    )

    async def found(from_s: float, until_s: float, *args: object) -> list[Event]:
        return await store.find_events(EventQuery(from_s, until_s, *args))  # type: ignore[arg-type]  # the values fit the fields, one by one

    assert await found(-1e12, 1e12) == [bare, first, late, twin]
    assert await found(1_700_000_000.25, 1_700_000_100) == [first, late, twin]
    assert await found(1_700_000_000.3, 1_700_000_099) == []
    assert await found(0, 2e9, ("a",)) == [first, twin]
    assert await found(0, 2e9, ("a", "b")) == [first]
    assert await found(0, 2e9, ("b", "c"), False) == [first, late, twin]
    assert await found(0, 2e9, ("nosuch",), False) == []
    assert await found(0, 2e9, None, True, 2) == [bare, first]
    # "bare" has 4 bytes; "first" 10, its data 8, its tags 1 + 64 each; "late" 4 and 65
    for bytes_max, expected in ((3, 1), (4, 2), (151, 2), (152, 3), (220, 3), (221, 4)):
        assert len(await found(0, 2e9, None, True, 10, bytes_max)) == expected
    times = EventQuery(0, 2e9, ("b", "c"), match_all=False, limit=2, times_only=True)
    assert await store.find_events(times) == [Event("", first.at_s), Event("", late.at_s)]
    assert await store.get_event(ids[1]) == first
    assert await store.get_event(0) is None
    assert await store.get_event(10**17) is None
