"""What the server gives to queries: names and tags of the registry, as points and requests change them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.rig import Rig
from tgres_py.errors import BadRequest, LimitExceeded, StoreUnavailable
from tgres_py.ingest.flusher import Flusher, Pace
from tgres_py.ingest.intake import Intake, Limits
from tgres_py.ingest.reader import Reader
from tgres_py.ingest.registry import Registry
from tgres_py.kernels import RingStore
from tgres_py.model.event import Event, EventQuery
from tgres_py.model.retention import Archive, BundleSpec
from tgres_py.server import ServerSource
from tgres_py.storage.memory import MemoryStore

SPEC = BundleSpec((Archive(10, 360, 36),))
NOW_S = 1_700_000_000


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(MemoryStore(), tmp_path, SPEC, now_s=NOW_S)
    await rig.start()
    yield rig
    rig.store.away = False  # type: ignore[attr-defined]  # the rig's store is one in memory, which can be away
    await rig.stop()


async def source_of(rig: Rig) -> ServerSource:
    source = ServerSource(rig.registry, rig.reader, rig.flusher, rig.store)
    await source.drop_tags(await rig.store.load_untagged())
    return source


def names(source: ServerSource, *expressions: str) -> list[str]:
    return source.names(source.by_tags(expressions))


def send(rig: Rig, *series: str) -> None:
    rig.add((name, NOW_S, 1.0) for name in series)


async def test_new_series_are_found_at_once_in_the_order_of_their_names(rig: Rig) -> None:
    source = await source_of(rig)
    send(rig, "b;t=1", "plain", "a;u=2;t=1")
    assert names(source, "t=1") == ["a;t=1;u=2", "b;t=1"]
    send(rig, "a;t=1")
    assert names(source, "t=1") == ["a;t=1", "a;t=1;u=2", "b;t=1"]
    assert source.names(source.expand("plain")) == ["plain"]
    assert source.names(source.expand("b;t=1")) == ["b;t=1"]
    with pytest.raises(LimitExceeded, match="query_series_max"):
        source.by_tags(["t=1"], 2)


async def test_series_made_by_tagging_are_stored(rig: Rig) -> None:
    source = await source_of(rig)
    made = await source.tag_series(['m{y="2",x="1"}', "plain", "m;x=1"])
    assert made == ["m;x=1;y=2", "plain", "m;x=1"]
    assert names(source, "name=~.+") == ["m;x=1", "m;x=1;y=2", "plain"]
    assert source.names(source.expand("plain")) == ["plain"]
    await rig.flusher.flush_now()
    assert set((await rig.store.load_series()).names) == set(made)


async def test_a_query_finds_the_store_back_before_the_next_try(rig: Rig) -> None:
    """Late points that were queued in the outage are in the first answer after it, the flusher asleep or not."""
    source = await source_of(rig)
    send(rig, "a")
    await rig.flusher.settle_until(NOW_S + 60)
    rig.store.away = True  # type: ignore[attr-defined]  # the rig's store is one in memory, which can be away
    rig.add([("a", NOW_S, 5.0)])
    assert not await rig.flusher.presence.check()
    ids, spec, slot = source.expand("a"), SPEC, NOW_S // 10
    with pytest.raises(StoreUnavailable):
        await source.fetch(ids, spec, 0, slot, slot + 1)
    rig.store.away = False  # type: ignore[attr-defined]  # the rig's store is one in memory, which can be away
    for asker, name in ((rig.flusher, "_probed"), (rig.flusher.presence, "_asked")):
        setattr(asker, name, getattr(asker, name) - 2)  # a second later
    assert (await source.fetch(ids, spec, 0, slot, slot + 1)).tolist() == [[5.0]]
    assert rig.intake.late_points == 0


async def test_queries_ask_for_a_lost_store_once_a_second(rig: Rig) -> None:
    rig.store.away = True  # type: ignore[attr-defined]  # the rig's store is one in memory, which can be away
    assert not await rig.flusher.presence.check()
    before = rig.flusher.presence.pings
    assert not any([await rig.flusher.reachable() for _ in range(20)])
    assert rig.flusher.presence.pings <= before + 2


async def test_a_bad_name_makes_none(rig: Rig) -> None:
    source = await source_of(rig)
    with pytest.raises(BadRequest):
        await source.tag_series(["good;a=1", ";a=1"])
    assert names(source, "a=1") == []


async def test_taken_out_until_it_is_put_back(rig: Rig) -> None:
    source = await source_of(rig)
    send(rig, "a;t=1", "b;t=1")
    await rig.flusher.flush_now()
    await source.untag_series(["a;t=1", "nosuch;t=1"])
    send(rig, "a;t=1")
    assert names(source, "t=1") == ["b;t=1"]
    assert source.names(source.expand("a;t=1")) == ["a;t=1"]
    await rig.flusher.flush_now()
    await rig.kill()
    await rig.start()
    source = await source_of(rig)
    assert names(source, "t=1") == ["b;t=1"]
    await source.tag_series(["a;t=1"])
    assert names(source, "t=1") == ["a;t=1", "b;t=1"]
    await rig.kill()
    await rig.start()
    assert names(await source_of(rig), "t=1") == ["a;t=1", "b;t=1"]


async def test_nothing_is_taken_out_while_the_store_is_away(rig: Rig) -> None:
    source = await source_of(rig)
    send(rig, "a;t=1")
    rig.store.away = True  # type: ignore[attr-defined]  # the rig's store is one in memory, which can be away
    with pytest.raises(StoreUnavailable):
        await source.untag_series(["a;t=1"])
    assert names(source, "t=1") == ["a;t=1"]


async def test_a_store_that_answers_nothing_is_not_waited_for(rig: Rig) -> None:
    """Whatever it is that doesn't answer: a read, the merge before it, events."""
    source = ServerSource(rig.registry, rig.reader, rig.flusher, rig.store, read_timeout_s=0.1)
    send(rig, "a")
    await rig.flusher.settle_until(NOW_S + 60)
    ids = source.expand("a")

    async def never(*_: object, **__: object) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError

    for method in ("read_chunks", "find_events", "add_event", "get_event"):
        setattr(rig.store, method, never)
    slot = NOW_S // 10
    event = Event("deploy", NOW_S, (), "")
    for question in (
        source.fetch(ids, SPEC, 0, slot, slot + 1),
        source.find_events(EventQuery(0, NOW_S, None, True, 1)),
        source.add_event(event),
        source.get_event(1),
    ):
        with pytest.raises(StoreUnavailable, match="store_read_timeout_s"):
            await question
    # what is in memory needs no answer
    await rig.flusher.create_rows()
    rig.add([("a", NOW_S + 100, 2.0)])
    slot = (NOW_S + 100) // 10
    assert (await source.fetch(ids, SPEC, 0, slot, slot + 1)).tolist() == [[2.0]]


async def test_a_merge_in_vain_is_waited_for_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tgres_py.server.source.SETTLE_S", 0.1)
    source = await source_of(rig)
    send(rig, "a")
    ids = source.expand("a")
    tries = 0

    async def settle() -> None:
        nonlocal tries
        tries += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(rig.flusher, "settle", settle)
    for _ in range(3):
        slot = NOW_S // 10
        assert (await source.fetch(ids, SPEC, 0, slot, slot + 1)).tolist() == [[1.0]]
    assert tries == 1


async def test_nothing_is_said_of_series_that_are_not_loaded_yet() -> None:
    """No answer is better than one that lacks most of them."""
    registry = Registry(lambda names: [SPEC] * len(names), RingStore())
    intake = Intake(registry, None, Limits(1 << 20))
    store = MemoryStore()
    reader = Reader(registry, store)
    source = ServerSource(registry, reader, Flusher(intake, store, reader, None, Pace()), store)
    for ask in (
        lambda: source.find("*"),
        lambda: source.expand("*"),
        lambda: source.by_tags(["a=1"]),
    ):
        with pytest.raises(StoreUnavailable, match="not loaded yet"):
            ask()
