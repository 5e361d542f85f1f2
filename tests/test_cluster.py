"""A front over HTTP: the data set spread over three nodes must give graphite-web's answers; nodes that fail."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import cache
from typing import Any

import msgpack
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from http_api import cluster as cluster_module
from http_api.app import DefaultHttpSettings, make_app
from http_api.cluster import FAILED_HEADER, Cluster, _target
from http_api.room import Room
from tests import graphite_cases as cases
from tests.fake_source import FakeSource, of_dataset, of_values
from tests.graphite_dataset import BASE_NOW
from tests.test_http_render import FakeStatus
from tgres_py import clock
from tgres_py.query.remote import RemoteKey

NODES = 3
Client = TestClient[Any, Any]

# every sixth case of ordinary use, so that each kind of plan is among them
CASES = [
    case
    for name in ("graphite_render.jsonl", "graphite_lookup.jsonl", "graphite_transform.jsonl")
    for case in cases.load(name)
    if case["cls"] == "core" and case["expected"]["status"] == 200
    if ["local", "1"] not in case.get("params", [])
    if not any("events(" in target for target in case["targets"])
][::6]
MOVING = [
    "movingAverage(servers.web*.cpu.user,5)",
    'movingMedian(movingAverage(servers.web*.cpu.user,"1min"),3)',
    'applyByNode(servers.web*.cpu.user,1,"sumSeries(%.cpu.*)")',
    'applyByNode(servers.web*.cpu.user,1,"movingAverage(%.cpu.user,4)")',
    'seriesByTag("name=disk.used")',
]


@cache
def whole() -> FakeSource:
    return of_dataset()


@cache
def piece(number: int) -> FakeSource:
    """A node's part of the data set; every fourth series is on all nodes."""
    out = FakeSource()
    for place, (name, bundle, rings) in enumerate(whole().by_id):
        if place % NODES == number or place % 4 == 0:
            out.tree.add_many([name], len(out.by_id))
            out.tag_index.add_lines(f"{name}\n".encode(), len(out.by_id))
            out.by_id.append((name, bundle, rings))
    return out


def settings(**changes: Any) -> DefaultHttpSettings:
    return DefaultHttpSettings(**changes)


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    """Starts applications; the last one may be a front: ``await start(source, urls)``."""
    async with AsyncExitStack() as stack:

        async def run(
            source: FakeSource,
            peers: list[str] | None = None,
            room: Room | None = None,
            **changes: Any,
        ) -> Client:
            limits = settings(**changes)
            front = Cluster(peers, 2.0, limits.response_bytes_max, room) if peers else None
            app = make_app(source, FakeStatus(), limits, front)
            return await stack.enter_async_context(TestClient(TestServer(app)))

        yield run


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """Starts a node that answers by a handler; its address."""
    async with AsyncExitStack() as stack:

        async def run(handler: Callable[[web.Request], Any]) -> str:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            return address(await stack.enter_async_context(TestServer(app)))

        yield run


@pytest.fixture(autouse=True)
def at_base_time() -> Any:
    clock.replace_source(lambda: BASE_NOW)
    yield
    clock.replace_source(None)


def address(server: Any) -> str:
    return str(server.make_url("")).rstrip("/")


async def spread(start: Callable[..., Any]) -> Client:
    """A front over three nodes, its own part among them."""
    others = [address((await start(piece(number))).server) for number in (1, 2)]
    front: Client = await start(piece(0), others)
    return front


async def ask(client: Client, path: str, pairs: list[tuple[str, str]]) -> Any:
    response = await client.post(path, data=pairs)
    text = await response.text()
    assert response.status == 200, text
    assert FAILED_HEADER not in response.headers
    return json.loads(text)


async def test_answers_as_graphite_web(start: Callable[..., Any]) -> None:
    front = await spread(start)
    assert len(CASES) > 50
    for case in CASES:
        got = await ask(front, "/render", cases.pairs_of(case, BASE_NOW))
        options = case.get("opt") or {}
        message = cases.difference(case["expected"]["data"], got, BASE_NOW, options)
        if message and "alternative" in case:
            message = cases.difference(case["alternative"]["data"], got, BASE_NOW, options)
        assert message is None, f"{case['id']}: {message}"


async def test_answers_as_one_node_with_all(start: Callable[..., Any]) -> None:
    front, single = await spread(start), await start(whole())
    times = [("from", str(BASE_NOW - 900)), ("until", str(BASE_NOW)), ("now", str(BASE_NOW))]
    for target in MOVING:
        pairs = [("target", target), *times, ("format", "json")]
        expected = await ask(single, "/render", pairs)
        assert await ask(front, "/render", pairs) == expected != []
    questions: list[tuple[str, list[tuple[str, str]]]] = [
        ("/metrics/find", [("query", query), ("format", form)])
        for query in ("*", "servers.*", "servers.w*.cpu.*", "both.*", "no.*")
        for form in ("treejson", "completer", "json", "nodelist")
    ]
    questions += [
        ("/metrics/expand", [("query", "servers.*"), ("query", "net.*"), ("groupByExpr", "1")]),
        ("/metrics/index.json", []),
        ("/tags/findSeries", [("expr", "name=disk.used")]),
        ("/tags/autoComplete/tags", [("limit", "3")]),
        ("/tags/autoComplete/tags", [("expr", "name=disk.used"), ("tagPrefix", "s")]),
        ("/tags/autoComplete/values", [("tag", "server"), ("valuePrefix", "web")]),
    ]
    for path, pairs in questions:
        assert await ask(front, path, pairs) == await ask(single, path, pairs), (path, pairs)


async def test_local_questions_stay_here(start: Callable[..., Any]) -> None:
    front = await spread(start)
    requests = [
        ("/render", [("target", "*.*"), ("format", "json"), ("local", "1")]),
        ("/metrics/find", [("query", "*"), ("local", "1")]),
        ("/metrics/expand", [("query", "*"), ("local", "1")]),
        ("/metrics/index.json", [("local", "1")]),
        ("/tags/autoComplete/tags", [("local", "1")]),
    ]
    alone = await start(piece(0))
    for path, pairs in requests:
        assert await ask(front, path, pairs) == await ask(alone, path, pairs)


async def test_nodes_may_name_each_other(
    start: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    """What a front asks carries local=1, which ends there: no loop."""
    asked: list[dict[str, str]] = []

    async def node(request: web.Request) -> web.Response:
        pairs = dict(request.query)
        asked.append({"path": request.path, **pairs})
        if "json" in request.path or "tags" in request.path:
            return web.json_response([])
        return web.Response(body=msgpack.packb([]))

    front = await start(piece(0), [await serve(node) + "/prefix"])
    for path in ("/render", "/metrics/find", "/metrics/index.json", "/tags/autoComplete/tags"):
        await ask(front, path, [("target", "a"), ("query", "a"), ("format", "json")])
    assert [one["path"] for one in asked] == [
        "/prefix/render/",
        "/prefix/metrics/find/",
        "/prefix/metrics/index.json",
        "/prefix/tags/autoComplete/tags",
    ]
    assert {one["local"] for one in asked} == {"1"}


def failing(kind: str) -> Callable[[web.Request], Any]:
    async def node(request: web.Request) -> web.Response:
        if kind == "status":
            return web.Response(status=503, text="starting")
        if kind == "nonsense":
            return web.Response(body=b"<html>")
        if kind == "moved":
            return web.Response(status=302, headers={"Location": "/elsewhere"})
        if kind == "packed":
            return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return node


@pytest.mark.parametrize("kind", ["status", "nonsense", "moved", "packed", "cut", "refused"])
async def test_a_node_that_fails_makes_the_answer_partial(
    start: Callable[..., Any],
    serve: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    source = of_values({"a.b": [1, 2, 3]}, BASE_NOW - 30, whole().by_id[0][1])
    bad = "http://127.0.0.1:9" if kind == "refused" else await serve(failing(kind))
    good = address((await start(piece(1))).server)
    front = await start(source, [bad, good])
    with caplog.at_level(logging.WARNING, "tgres.cluster"):
        for path in ("/render", "/metrics/find", "/metrics/index.json", "/tags/autoComplete/tags"):
            pairs = {"target": "*.*", "query": "*", "format": "json", "cacheTimeout": "60"}
            response = await front.get(path, params=pairs)
            assert response.status == 200
            assert response.headers[FAILED_HEADER] == bad.removeprefix("http://")
            assert response.headers["Cache-Control"] == "no-store"
            assert len(await response.json()) > 1
    assert [record.message.count("answers go on without it") for record in caplog.records] == [1]


async def test_a_node_that_failed_is_left_alone_and_comes_back(
    start: Callable[..., Any],
    serve: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, status, seconds = [], 500, 0.0
    monkeypatch.setattr(cluster_module.clock, "monotonic", lambda: seconds)

    async def node(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, body=msgpack.packb([]))

    front = await start(piece(0), [await serve(node)])

    async def find() -> bool:
        response = await front.get("/metrics/find", params={"query": "*"})
        return FAILED_HEADER not in response.headers

    with caplog.at_level(logging.WARNING, "tgres.cluster"):
        assert [await find(), await find()] == [False, False]
        assert len(asked) == 1
        seconds, status = cluster_module.REST_S + 1, 200
        assert await find()
    assert len(caplog.records) == 2
    assert "go on without it" in caplog.records[0].message
    assert "answers again" in caplog.records[1].message


async def test_a_refusal_is_no_failure_of_the_node(
    start: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    status = 400

    async def node(request: web.Request) -> web.Response:
        return web.Response(status=status, body=msgpack.packb([]))

    front = await start(piece(0), [await serve(node)])
    assert FAILED_HEADER in (await front.get("/metrics/find?query=*")).headers
    status = 200
    assert FAILED_HEADER not in (await front.get("/metrics/find?query=*")).headers


async def test_limits(start: Callable[..., Any]) -> None:
    other = address((await start(whole())).server)
    pairs = {"target": "servers.*.*.*", "from": str(BASE_NOW - 3600), "format": "json"}
    for changes, setting in (
        ({"query_points_max": 1_000}, "query_points_max"),
        ({"query_series_max": 3}, "query_series_max"),
        ({"response_bytes_max": 70_000}, "response_bytes_max"),
    ):
        front = await start(FakeSource(), [other], **changes)
        response = await front.get("/render", params=pairs)
        assert response.status == 400
        assert setting in await response.text()


@pytest.mark.parametrize(
    "path", ["/render?target=a.b&format=json", "/metrics/find?query=*", "/metrics/index.json"]
)
async def test_an_endless_answer_ends_at_the_memory_of_queries(
    start: Callable[..., Any], serve: Callable[..., Any], path: str
) -> None:
    sent = 0

    async def node(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"\xc0" * 65_536)
            sent += 65_536

    room = Room(4 << 20)
    front = await start(piece(0), [await serve(node)], room)
    answer = await front.get(path)
    assert answer.status == 400
    assert "memory_max" in await answer.text()
    assert sent < 16 << 20  # what lies in sockets comes on top
    assert room.taken == 0


async def test_answers_that_have_no_memory_are_asked_for_later(
    start: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    names = [f"a.b{i}" for i in range(20_000)]

    async def node(request: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(names))

    room = Room(16 << 20)
    front = await start(FakeSource(), [await serve(node)], room)
    with room.share() as others:
        others.take(15 << 20)
        assert (await front.get("/metrics/index.json")).status == 503
    answer = await front.get("/metrics/index.json")
    assert (answer.status, await answer.json()) == (200, sorted(names))
    assert FAILED_HEADER not in answer.headers
    assert room.taken == 0


async def test_long_requests_are_sent_as_forms(start: Callable[..., Any]) -> None:
    front, single = await spread(start), await start(whole())
    names = [name for name, _, _ in whole().by_id if ";" not in name]
    pairs = [("target", name) for name in names[:90]]
    pairs += [("from", str(BASE_NOW - 60)), ("until", str(BASE_NOW)), ("format", "json")]
    assert await ask(front, "/render", pairs) == await ask(single, "/render", pairs)


def test_special_characters_are_escaped_for_others() -> None:
    assert _target(RemoteKey("odd.a(b)'c\"d|e", 0, 1)) == "odd.a\\(b\\)\\'c\\\"d\\|e"
    assert _target(RemoteKey("a.{b,c}.[de]*?", 0, 1)) == "a.{b,c}.[de]*?"
    tagged = 'seriesByTag("name=a", "b=~(c|d)")'
    assert _target(RemoteKey(tagged, 0, 1, by_tags=True)) == tagged


async def test_explain_and_meta_tell_what_others_gave(
    start: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    good = address((await start(piece(1))).server)
    bad = await serve(failing("status"))
    alone = await start(piece(0))
    front = await start(piece(0), [good, bad])
    names = [url.removeprefix("http://") for url in (good, bad)]
    query = f"/render?target=servers.*.cpu.*&from={BASE_NOW - 600}&until={BASE_NOW}&now={BASE_NOW}"

    planned = await (await front.get(f"{query}&explain=plan")).json()
    asked = {"path": "servers.*.cpu.*", "from": BASE_NOW - 600, "until": BASE_NOW}
    assert planned["elsewhere"] == {"peers": {name: {} for name in names}, "reads": [asked]}

    response = await front.get(f"{query}&explain=1")
    assert response.headers[FAILED_HEADER] == names[1]
    told = await response.json()
    given = told["elsewhere"]["peers"][names[0]]
    assert given["series"] > 0 and given["points"] == 60 * given["series"]
    assert told["elsewhere"]["peers"][names[1]] == {"failed": True}
    assert told["elsewhere"]["reads"] == [{**asked, **given, "intervals": [10]}]
    assert told["targets"][0]["plan"]["elsewhere"] == given["series"]
    own = (await (await alone.get(f"{query}&explain=1")).json())["total"]
    assert told["total"]["series"] == own["series"] + given["series"]
    assert told["total"]["points"] == own["points"] + given["points"]

    answer = await (await front.get(f"{query}&meta=true&format=json")).json()
    assert answer["meta"]["peers-failed"] == [names[1]]
    assert answer["meta"]["stats"]["executeplan.series-fetch"] == told["total"]["series"]
    entries = [entry for series in answer["series"] for entry in series["meta"]]
    assert {entry["archive-interval"] for entry in entries} == {10}
    assert sum(entry["schema-retentions"] == "" for entry in entries) == given["series"]


async def test_find_asks_others_with_its_range(
    start: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    asked: list[dict[str, str]] = []

    async def node(request: web.Request) -> web.Response:
        asked.append(
            {name: value for name, value in request.query.items() if name in ("from", "until")}
        )
        return web.Response(body=msgpack.packb([]))

    front = await start(piece(0), [await serve(node)])
    for times in ("&from=-1h&until=now", "&until=-1min", "&from=-1", ""):
        await front.get(f"/metrics/find?query=*&now={BASE_NOW}{times}")
    await front.get("/metrics/expand?query=*&from=undefined")
    assert asked == [
        {"from": str(BASE_NOW - 3_600), "until": str(BASE_NOW)},
        {"until": str(BASE_NOW - 60)},
        {},
        {},
        {},
    ]
