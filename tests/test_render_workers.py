"""Worker processes: the same answers byte for byte, and what becomes of queries and processes that end early."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import cache
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api import render
from http_api.app import DefaultHttpSettings, make_app
from http_api.meters import CLIENT_GONE, Meters
from http_api.queries import Queries
from http_api.workers.pool import Workers
from tests import graphite_cases as cases
from tests.acceptance.process import alive
from tests.fake_source import FakeSource, archives, of_dataset, of_values
from tests.graphite_dataset import BASE_NOW
from tests.test_formats import pairs_of
from tests.test_http_index import EVENTS
from tests.test_http_render import START_S, FakeStatus
from tgres_py.model.event import Event
from tgres_py.model.retention import BundleSpec

Client = TestClient[Any, Any]
Pairs = list[tuple[str, str]]

CORPORA = ("render", "combine", "transform", "lookup", "further", "formats")


@cache
def dataset() -> FakeSource:
    return of_dataset()


@pytest.fixture
async def source() -> FakeSource:
    made = dataset()
    made.store = type(made.store)()
    for offset, what, tags, data in EVENTS:
        await made.add_event(Event(what, BASE_NOW + offset, tuple(tags.split()), data))
    return made


@pytest.fixture
def queries() -> Queries:
    return Queries.of(DefaultHttpSettings())


@pytest.fixture
def workers(queries: Queries) -> Workers:
    return queries.workers


@pytest.fixture
async def client(source: FakeSource, queries: Queries) -> AsyncIterator[Client]:
    async with TestClient(TestServer(make_app(source, FakeStatus(), queries=queries))) as client:
        yield client


@contextmanager
def all_in_workers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "THREAD_S", -1.0)
        yield


async def answered(client: Client, pairs: Pairs) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, without what each answer has of its own."""
    async with client.get("/render", params=pairs) as response:
        headers = {k: v for k, v in response.headers.items() if k not in ("Date", "Expires")}
        body = await response.read()
        # how long something took
        body = re.sub(rb'("(?:[a-z.]*ms|plan|fetch|functions)"): *[-+.0-9e]+', rb"\1:0", body)
        return response.status, headers | {"Content-Length": ""}, body


async def compare(client: Client, asked: list[Pairs]) -> None:
    for pairs in asked:
        here = await answered(client, pairs)
        with all_in_workers():
            elsewhere = await answered(client, pairs)
        assert elsewhere == here, pairs


@pytest.mark.parametrize("corpus", CORPORA)
async def test_the_corpora_are_answered_alike(
    client: Client, workers: Workers, corpus: str
) -> None:
    recorded = [pairs_of(case) for case in cases.load(f"graphite_{corpus}.jsonl")]
    left_out = ("randomWalk", "holtWinters")  # by chance; some seconds each
    await compare(client, [p for p in recorded if not any(name in str(p) for name in left_out)])
    assert workers.started == 1 and not workers.died and not workers.stopped


TARGETS = ["group(servers.*.cpu.*)", "sumSeries(movingAverage(servers.*.cpu.*,5))", "no.such"]
FORMS = [
    [("format", "json"), ("meta", "true")],
    [("format", "json"), ("jsonp", "f"), ("maxDataPoints", "7")],
    [("format", "json"), ("pretty", "1"), ("noNullPoints", "1"), ("cacheTimeout", "60")],
    [("format", "json"), ("explain", "1")],
    [("format", "csv"), ("tz", "Europe/Berlin")],
    [("format", "json"), ("template[x]", "servers")],
    [("format", "svg"), ("width", "400"), ("title", "ü\ud800")],
    [("graphType", "pie"), ("target", "x:3")],
]


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_the_forms_are_answered_alike(client: Client, form: Pairs) -> None:
    times = [("from", str(BASE_NOW - 3_600)), ("until", str(BASE_NOW)), ("now", str(BASE_NOW))]
    await compare(client, [[("target", target), *times, *form] for target in TARGETS])


# -- what ends early


def heavy_source(slots: int = 300_000) -> FakeSource:
    values = [float(place % 97) for place in range(slots)]
    bundle = BundleSpec(archives("10s:60d"))
    return of_values({f"a.{letter}": values for letter in "bc"}, START_S, bundle)


HEAVY = f"from={START_S}&until={START_S + 2_990_000}&now={START_S + 2_990_000}&format=json"
QUICK = "/render?target=a.b&" + HEAVY
LONG = "/render?target=movingMedian(a.*,2000)&" + HEAVY  # ten seconds in numpy


@asynccontextmanager
async def serving(
    source: FakeSource,
    meters: Meters | None = None,
    memory_bytes: int = 1 << 30,
    is_short: Callable[[], bool] = lambda: False,
    **changed: Any,
) -> AsyncIterator[tuple[Client, Queries]]:
    settings = DefaultHttpSettings(**changed)
    queries = Queries.of(settings, memory_bytes, is_short)
    app = make_app(source, FakeStatus(), settings, meters=meters, queries=queries)
    async with TestClient(TestServer(app)) as client:
        yield client, queries


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def answered_at_last(client: Client) -> None:
    """A slow machine may start no worker within the time of a query."""
    until_s = time.monotonic() + 90
    while time.monotonic() < until_s:
        async with client.get(QUICK) as response:
            if response.status == 200:
                await response.read()
                return
        await asyncio.sleep(0.1)
    raise AssertionError("no heavy query is answered")


@pytest.mark.parametrize("how", ["working", "deaf"])
async def test_a_query_ends_with_its_time_and_gives_its_memory_back(how: str) -> None:
    async with serving(heavy_source(), query_timeout_s=2) as (client, queries):
        await answered_at_last(client)
        await until(lambda: queries.workers.busy == 0 and queries.room.taken == 0)
        stopped = queries.workers.stopped
        begin = time.monotonic()
        asking = asyncio.create_task(client.get(LONG))
        await until(lambda: queries.workers.busy == 1 and queries.room.shared_bytes > 0)
        [pid] = queries.workers.processes
        if how == "deaf":  # as in a call that comes to no end
            os.kill(pid, signal.SIGSTOP)
        response = await asking
        assert (response.status, "query_timeout_s" in await response.text()) == (400, True)
        assert time.monotonic() - begin < 3
        if how == "deaf":
            await until(lambda: not alive(pid))
            assert queries.workers.stopped == stopped + 1
        assert (queries.room.taken, queries.room.shared_bytes) == (0, 0)
        assert set(queries.lanes.waiting().values()) == {0}
        await answered_at_last(client)


async def test_a_client_that_hangs_up_ends_its_query() -> None:
    meters = Meters()
    async with serving(heavy_source(), meters) as (client, queries):
        asking = asyncio.create_task(client.get(LONG))
        await until(lambda: queries.workers.busy == 1 and queries.room.shared_bytes > 0)
        [pid] = queries.workers.processes
        asking.cancel()
        await until(lambda: not alive(pid), 5)
        await until(lambda: meters.requests["/render", CLIENT_GONE] == 1, 5)
        assert (queries.room.taken, queries.room.shared_bytes) == (0, 0)


async def test_a_client_that_hangs_up_while_it_reads_ends_its_query() -> None:
    async with serving(heavy_source()) as (client, queries):
        response = await client.get("/render?target=a.*&target=a.*&" + HEAVY)
        assert len(await response.content.readexactly(1_000)) == 1_000
        [pid] = queries.workers.processes
        response.close()
        await until(lambda: not alive(pid), 5)
        await until(lambda: not queries.room.taken, 5)


async def test_a_worker_that_is_killed_costs_its_query(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(heavy_source()) as (client, queries):
        asking = asyncio.create_task(client.get(LONG))
        await until(lambda: queries.workers.busy == 1 and queries.room.shared_bytes > 0)
        os.kill(queries.workers.processes[0], signal.SIGKILL)
        response = await asking
        assert (response.status, (await response.text()).count("\n")) == (500, 1)
        assert (queries.workers.died, queries.workers.stopped) == (1, 0)
        assert (await client.get(QUICK)).status == 200
        assert queries.workers.started == 2
        [idle] = queries.workers.processes
        os.kill(idle, signal.SIGKILL)
        assert (await client.get(QUICK)).status == 200
    assert sum("ended by itself" in line for line in caplog.messages) == 2


async def test_no_worker_can_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    python = sys.executable
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr("http_api.workers.pool.REST_S", 0.2)
    async with serving(heavy_source()) as (client, queries):
        for _ in range(5):
            assert (await client.get(QUICK)).status == 500
        assert queries.workers.started < 5
        monkeypatch.setattr(sys, "executable", python)
        await asyncio.sleep(0.3)
        assert (await client.get(QUICK)).status == 200
    told = [line for line in caplog.messages if "started" in line]
    assert len(told) == 2, told


# -- memory


async def test_a_query_that_can_never_fit_is_refused_before_anything_is_read() -> None:
    source, meters = heavy_source(), Meters()
    async with serving(source, meters, memory_bytes=32 << 20) as (client, queries):
        response = await client.get("/render?target=scale(a.*,2)&" + HEAVY)
        text = await response.text()
        assert (response.status, "setting memory_max allows" in text) == (400, True)
        assert (source.fetched, meters.refused["memory_max"], queries.room.taken) == ([], 1, 0)
        assert (await client.get("/render?target=a.b&from=-60s&format=json")).status == 200


async def test_queries_wait_for_memory_that_others_have() -> None:
    async with serving(heavy_source(), memory_bytes=64 << 20, render_workers=4) as (
        client,
        queries,
    ):
        taken = []
        grow = queries.room.__class__.wait

        async def wait(*args: Any) -> None:
            taken.append(queries.room.taken)
            await grow(queries.room, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(queries.room, "wait", wait)
            responses = await asyncio.gather(*(client.get(QUICK) for _ in range(6)))
            assert [response.status for response in responses] == [200] * 6
            for response in responses:
                await response.read()
        assert taken and max(taken) <= queries.room.total
        assert queries.room.taken == queries.room.waiting == 0


async def test_waiting_in_vain_is_told_to_come_again() -> None:
    async with serving(heavy_source(), memory_bytes=64 << 20, query_timeout_s=0.5) as (
        client,
        queries,
    ):
        with queries.room.share() as share:
            await share.grow(queries.room.total - (8 << 20))
            response = await client.get(QUICK)
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
            assert "memory_max" in await response.text()
            assert queries.room.waiting == 0
        async with queries.lanes.find.turn(), AsyncExitStack() as stack:
            for _ in range(7):
                await stack.enter_async_context(queries.lanes.find.turn())
            for path in ("/metrics/find?query=*", "/tags", "/metrics/index.json"):
                response = await client.get(path)
                assert (response.status, response.headers["Retry-After"]) == (503, "5"), path


async def test_a_worker_takes_no_more_memory_than_was_set_aside() -> None:
    async with serving(heavy_source()) as (client, queries):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(render.Render, "working_bytes", lambda *args: 1 << 20)
            response = await client.get("/render?target=stdev(group(a.*,a.*,a.*,a.*),30)&" + HEAVY)
            text = await response.text()
            assert (response.status, "setting memory_max allows" in text) == (400, True)
        response = await client.get("/render?target=stdev(group(a.*,a.*,a.*,a.*),30)&" + HEAVY)
        assert response.status == 200
        assert (queries.workers.started, queries.workers.died) == (1, 0)


async def test_what_pictures_need_is_loaded_beside_the_query_s_memory() -> None:
    """72 MB of queries: what a server of 512 MB has."""
    pytest.importorskip("matplotlib")
    async with serving(heavy_source(), memory_bytes=72 << 20, render_workers=1) as (
        client,
        queries,
    ):
        assert (await client.get(QUICK)).status == 200
        response = await client.get("/render?target=a.b&from=-60s&format=png&width=600&height=300")
        assert (response.status, queries.workers.started, queries.workers.died) == (200, 1, 0)


async def test_a_server_that_is_short_of_memory_takes_no_queries() -> None:
    is_short = True
    async with serving(heavy_source(), is_short=lambda: is_short) as (client, _):
        for path in (QUICK, "/render?target=a.b&from=-60s&format=json"):
            response = await client.get(path)
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
        is_short = False
        assert (await client.get(QUICK)).status == 200


# -- turns


async def test_light_queries_pass_heavy_ones() -> None:
    async with serving(heavy_source(), render_workers=1) as (client, queries):
        heavy = [asyncio.create_task(client.get(LONG)) for _ in range(3)]
        await until(lambda: queries.lanes.heavy.waiting == 2)
        light = f"from={START_S}&until={START_S + 600}&now={START_S + 600}&format="
        for form in ("json", "png"):
            assert (await client.get(f"/render?target=a.*&{light}{form}")).status == 200
        assert (await client.get("/metrics/find?query=*")).status == 200
        assert queries.lanes.heavy.waiting == 2
        for task in heavy:
            task.cancel()
        await until(lambda: not queries.workers.processes or queries.lanes.heavy.waiting == 0, 10)


async def test_the_queue_of_heavy_queries_has_an_end() -> None:
    async with serving(heavy_source(), render_workers=1, query_queue_max=1) as (client, queries):
        heavy = [asyncio.create_task(client.get(LONG)) for _ in range(2)]
        await until(lambda: queries.lanes.heavy.waiting == 1)
        response = await client.get(QUICK)
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert "query_queue_max" in await response.text(), "at once, not when its time was over"
        for task in heavy:
            task.cancel()


SOON = f"from={START_S}&until={START_S + 600}&now={START_S + 600}"


@pytest.mark.parametrize(
    ("lane", "path"),
    [
        ("light", f"/render?target=a.b&format=json&{SOON}"),
        ("pictures", f"/render?target=a.b&format=svg&{SOON}"),
        ("find", "/metrics/find?query=*"),
        ("find", "/tags"),
    ],
)
async def test_the_queue_of_each_lane_has_an_end(lane: str, path: str) -> None:
    async with serving(heavy_source(100), query_queue_max=1) as (client, queries):
        of = getattr(queries.lanes, lane)
        async with AsyncExitStack() as held:
            while not of.is_full:
                await held.enter_async_context(of.turn())
            waiting = asyncio.create_task(client.get(path))
            await until(lambda: of.waiting == 1)
            refused = asyncio.create_task(client.get(path))
            await until(refused.done)
            response = await refused
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
            assert "query_queue_max" in await response.text()
            assert not waiting.done()
        assert (await waiting).status == 200


# -- where it is done


@pytest.mark.parametrize(
    ("target", "span_s", "processes"),
    [
        ("timeFunction('x',1)", 2_000, 0),
        ("timeFunction('x',1)", 400_000, 1),  # nothing is read, much is made
        ("movingMedian(timeFunction('x',1),4000)", 8_000, 1),  # takes longer than it looks
        ("constantLine(1)", 100_000_000, 0),
        ("holtWintersForecast(a.b,'1d')", 600, 1),  # a loop over all slots
        ("summarize(timeFunction('x',60),'1s')", 100_000, 0),
        (f"group({','.join(['scale(a.b,2)'] * 2_000)})", 600, 1),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_little_can_take(target: str, span_s: int, processes: int) -> None:
    async with serving(heavy_source(100_000)) as (client, queries):
        until_s = START_S + 900_000
        form = {"target": target, "from": until_s - span_s, "until": until_s, "now": until_s}
        response = await client.post("/render", data={**form, "format": "json"})
        assert response.status == 200
        assert queries.workers.started == processes
