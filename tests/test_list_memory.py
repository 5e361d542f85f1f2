"""Lists of names, tags and events take the queries' memory while they are made, and only their own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api.app import DefaultHttpSettings, make_app
from http_api.queries import Queries
from tests.fake_source import FakeSource
from tests.test_http_render import FakeStatus
from tgres_py.model.event import Event, EventQuery
from tgres_py.query import evaluate

SERIES = 3_000
TAGGED = [f"disk;host=h{i:05d}" for i in range(SERIES)]
PLAIN = [f"plain.n{i:05d}" for i in range(SERIES)]
EVENTS = 5_000
MIB = 1 << 20
LISTS = [
    "/metrics/index.json",
    "/tags/findSeries?expr=name%3Ddisk",
    "/tags/host",
    "/tags/autoComplete/values?tag=host&limit=10",
    "/tags/autoComplete/values?tag=host&expr=name%3Ddisk&limit=10",
    "/events/get_data?from=0&until=2000000000",
]
Start = Callable[[int], Any]


def source() -> FakeSource:
    made = FakeSource()
    for id_, name in enumerate(TAGGED + PLAIN):
        made.tree.add_many([name], id_)
        made.by_id.append((name, None, None))  # type: ignore[arg-type]  # nobody reads their points
    made.tag_index.add_lines("".join(f"{name}\n" for name in TAGGED).encode(), 0)
    for i in range(EVENTS):
        made.store._events.append(Event(f"e{i}", float(i), ("a",), "d" * 100, i + 1))
    return made


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """An application whose queries have so many bytes together."""
    async with AsyncExitStack() as stack:

        async def run(memory_bytes: int) -> tuple[TestClient[Any, Any], Queries, FakeSource]:
            made, limits = source(), DefaultHttpSettings()
            queries = Queries.of(limits, memory_bytes)
            app = make_app(made, FakeStatus(), limits, queries=queries)
            client = await stack.enter_async_context(TestClient(TestServer(app)))
            return client, queries, made

        yield run


@pytest.mark.parametrize("path", LISTS)
async def test_lists_take_memory_and_give_it_back(start: Start, path: str) -> None:
    client, queries, _ = await start(64 * MIB)
    answer = await client.get(path)
    assert answer.status == 200
    await answer.read()
    assert queries.room.taken == 0


@pytest.mark.parametrize("path", LISTS)
async def test_lists_that_can_t_have_the_memory_are_refused(start: Start, path: str) -> None:
    client, queries, _ = await start(256 << 10)
    answer = await client.get(path)
    assert answer.status == 400
    assert "memory_max" in await answer.text()
    assert queries.room.taken == 0


async def test_the_whole_list_comes(start: Start) -> None:
    client, _, _ = await start(64 * MIB)
    for pretty in ("", "?pretty=1"):
        assert await (await client.get(f"/metrics/index.json{pretty}")).json() == PLAIN
    assert await (await client.get("/tags/findSeries?expr=name%3Ddisk")).json() == TAGGED
    listed = await (await client.get("/tags/host?limit=2000&filter=h0[12]")).json()
    values = [{"id": i + 1, "value": f"h{i:05d}", "count": 1} for i in range(1_000, 3_000)]
    assert listed == {"id": 2, "tag": "host", "values": values}
    answer = await client.get("/tags/autoComplete/values?tag=host&valuePrefix=h0002&limit=5")
    assert await answer.json() == [f"h{i:05d}" for i in range(20, 25)]


async def test_a_function_reads_no_more_events_than_it_may(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _, _ = await start(64 * MIB)
    monkeypatch.setattr(evaluate, "EVENTS_MAX", 100)
    path = "/render?target=events(%22*%22)&format=json&from=0&until="
    assert (await client.get(f"{path}99")).status == 200
    answer = await client.get(f"{path}400")
    assert answer.status == 400
    assert "100" in await answer.text()


async def test_events_are_read_as_far_as_there_is_memory(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _, made = await start(64 * MIB)
    asked: list[EventQuery] = []
    find_events = made.store.find_events

    async def counting(wanted: EventQuery) -> list[Event]:
        asked.append(wanted)
        return await find_events(wanted)

    monkeypatch.setattr(made.store, "find_events", counting)
    found = json.loads(await (await client.get("/events/get_data?from=0&until=2000000000")).read())
    assert [event["when"] for event in found] == list(range(EVENTS))
    assert asked[0].limit == 1_000
    assert [a.limit * 1_000 + a.bytes_max < 40 * MIB for a in asked] == [True] * len(asked)
    assert len(asked) < 7
    few = json.loads(await (await client.get("/events/get_data?from=0&until=50")).read())
    assert len(few) == 51
