"""Queries and bodies that were made to hurt: each costs itself a refusal."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from http_api.admission import Admission
from http_api.app import DefaultHttpSettings, make_app
from http_api.cluster import Cluster
from http_api.meters import Meters
from tests.fake_source import FakeSource, of_values
from tests.test_http_render import FakeStatus
from tgres_py.errors import Overloaded
from tgres_py.functions.patterns import NAME_CHARS_MAX
from tgres_py.model.event import Event, EventQuery

START_S = 1_700_000_040
TIMES = {"from": str(START_S), "until": str(START_S + 60), "format": "json"}
SCRIPT = "<script>alert(1)</script>"
MARKS = (SCRIPT, "%3Cscript%3E", "../../../etc/passwd", "';DROP TABLE rrd;--", "x" * 500)

Client = TestClient[Any, Any]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    source = of_values({"a.b": [1.0] * 6, "a.c": [2.0] * 6}, START_S)
    async with TestClient(TestServer(make_app(source, FakeStatus()))) as client:
        yield client


async def render(client: Client, target: str) -> tuple[int, str]:
    response = await client.post("/render", data={"target": target, **TIMES})
    return response.status, await response.text()


# -- names, nesting, patterns --------------------------------------------------------------------


async def test_a_name_that_doubles_itself_is_refused(client: Client) -> None:
    target = "a.b"
    for _ in range(60):
        target = f'aliasSub({target},"(.*)","\\1\\1")'
    status, text = await render(client, target)
    assert status == 400
    assert "characters of a substituted name" in text
    assert str(NAME_CHARS_MAX) in text


@pytest.mark.parametrize("function", ["aliasSub", "substr"])
async def test_a_replacement_as_long_as_a_body_is_refused(client: Client, function: str) -> None:
    text = r"\1" * 100_000
    call = f'aliasSub(a.b,"(.*)","{text}")' if function == "aliasSub" else f'substr(a.b,"{text}")'
    status, text = await render(client, call)
    assert status == 400
    assert len(text) < 3_000


async def test_nested_groups_are_limited(client: Client) -> None:
    for function in ("group", "alias", "sumSeries"):
        tail = ',"x")' if function == "alias" else ")"
        status, text = await render(client, f"{function}(" * 65 + "a.b" + tail * 65)
        assert (status, "setting query_nesting_max" in text) == (400, True)
    status, text = await render(client, "a.b" + "|scale(1)" * 3_000)
    assert (status, "nested more than 100 deep" in text) == (400, True)


async def test_wide_groups_share_their_series(client: Client) -> None:
    """A target grows by what is written only: nothing in it multiplies."""
    target = "group(" + ",".join(["a.*"] * 500) + ")"
    status, text = await render(client, target)
    assert status == 200
    assert len(json.loads(text)) <= 1_000


@pytest.mark.parametrize(
    "target",
    [
        'grep(a.*,"(a+)+$")',
        'exclude(a.*,"^(([a-z])+.)+[A-Z]([a-z])+$")',
        'aliasSub(a.b,"(a|a)*b","")',
        "seriesByTag('name=~(a*)*b')",
        "a.{" + ",".join(["*" * 20] * 50) + "}b",
    ],
)
async def test_patterns_that_backtrack_elsewhere_are_quick(target: str) -> None:
    name = "a." + "a" * 900
    async with TestClient(
        TestServer(make_app(of_values({name: [1.0] * 6}, START_S), FakeStatus()))
    ) as client:
        began = time.process_time()
        status, _ = await render(client, target)
        assert status in (200, 400)
        assert time.process_time() - began < 5  # with backtracking: longer than anybody waits


async def test_repetitions_of_repetitions_are_refused(client: Client) -> None:
    status, text = await render(client, 'grep(a.*,"((a{1,1000}){1,1000}){1,1000}")')
    assert status == 400
    assert "regular expression" in text


# -- bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_unpacks_to_much_is_refused(client: Client, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    headers = {"Content-Encoding": encoding, "Content-Type": "application/x-www-form-urlencoded"}
    response = await client.post("/render", data=pack(bytes(50 << 20)), headers=headers)
    assert response.status == 413
    assert "body_bytes_max" in await response.text()


async def test_a_packed_body_is_read(client: Client) -> None:
    body = gzip.compress(f"target=a.b&from={START_S}&until={START_S + 60}&format=json".encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"}
    response = await client.post("/render", data=body, headers=headers)
    assert response.status == 200
    assert json.loads(await response.text())[0]["target"] == "a.b"


async def test_a_body_that_is_not_packed_as_it_says_is_refused(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        response = await client.post(
            "/render", data=b"target=a", headers={"Content-Encoding": "gzip"}
        )
        assert response.status == 400
        assert (await response.text()).startswith("body: ")
    assert not [record for record in caplog.records if record.exc_info]


# -- queries at a time ---------------------------------------------------------------------------


async def test_queries_beyond_the_queue_are_told_to_come_again() -> None:
    began, go = asyncio.Event(), asyncio.Event()

    class Slow(FakeSource):
        async def fetch(self, *args: Any) -> Any:
            began.set()
            await go.wait()
            return await super().fetch(*args)

    source = Slow()
    source.add("a.b", [(START_S + 10, 1.0)])
    settings = DefaultHttpSettings(query_concurrent_max=1, query_queue_max=1)
    meters = Meters()
    async with TestClient(
        TestServer(make_app(source, FakeStatus(), settings, meters=meters))
    ) as client:
        asked = [asyncio.create_task(render(client, "a.b"))]
        await began.wait()
        others = [asyncio.create_task(render(client, "a.b")) for _ in range(3)]
        refused = 0
        for next_ in asyncio.as_completed(others):
            status, text = await next_
            if status == 503:
                assert "query_queue_max" in text
                refused += 1
            if refused == 2:
                break
        response = await client.post("/render", data={"target": "a.b", **TIMES})
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert meters.refused["query_queue_max"] == 3
        assert (await client.get("/healthz")).status == 200
        go.set()
        answers = await asyncio.gather(*asked, *others)
        assert sorted(status for status, _ in answers) == [200, 200, 503, 503]


async def test_turns_come_back_from_those_that_gave_up() -> None:
    admission = Admission(1, 1)
    async with admission.turn():
        waiting = asyncio.create_task(admission.turn().__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            async with admission.turn():
                pass
        waiting.cancel()
        await asyncio.wait([waiting])
        assert admission.waiting == 0
    async with admission.turn():
        pass


# -- answers -------------------------------------------------------------------------------------


def routes(app: web.Application) -> list[tuple[str, str]]:
    """(method, path) of every route, with hostile texts in the path's variables."""
    found = []
    for route in app.router.routes():
        info = route.resource.get_info() if route.resource is not None else {}
        path = info.get("path") or re.sub(r"\{[^}]*\}", SCRIPT, info["formatter"])
        found.append((route.method, path))
    return found


async def test_no_answer_of_any_route_is_html_or_left_to_a_guess(client: Client) -> None:
    """Except the own page, which shows texts of the server in text nodes only."""
    app = client.app
    assert app is not None
    paths = sorted({path for _, path in routes(app)})
    assert len(paths) > 50
    for path in paths:
        for mark in MARKS:
            for method in ("GET", "POST", "PUT", "DELETE"):
                query = {"target": mark, "query": mark, "format": mark, "jsonp": mark, "name": mark}
                async with client.request(
                    method, path, params=query, allow_redirects=False
                ) as response:
                    where = method, path, mark[:40], response.status
                    kind = response.content_type
                    assert response.status != 500, where
                    assert response.headers["X-Content-Type-Options"] == "nosniff", where
                    body = await response.text(errors="replace")
                    if kind == "text/html":
                        assert "alert(1)" not in body, where
                        assert response.status == 200
                        own = path.rstrip("/") in ("", "/composer", "/browser", "/dashboard")
                        assert own or path.rstrip("/") == "/version", where
                    elif response.status >= 400:
                        assert kind in ("text/plain", "application/json"), where


@pytest.mark.parametrize("callback", ["alert(1)//", "a;b", "<b>", "a b", "1a", "a..b", "x" * 200])
async def test_a_callback_that_is_no_identifier_is_refused(client: Client, callback: str) -> None:
    for path in ("/render", "/metrics/find", "/metrics/index.json", "/tags"):
        params = {"target": "a.b", "query": "a.*", "jsonp": callback, **TIMES}
        response = await client.get(path, params=params)
        assert response.status == 400, path
        assert response.content_type in ("text/plain", "application/json")


async def test_the_page_runs_own_scripts_only(client: Client) -> None:
    response = await client.get("/")
    policy = response.headers["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert set(rules.values()) == {"'none'", "'self'"}
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=", await response.text())


# -- no request to elsewhere ---------------------------------------------------------------------


async def test_peers_cannot_send_us_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer's redirect isn't followed, and proxies of the environment aren't used."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path.startswith("/elsewhere"):
            return web.Response(body=b"[]")
        raise web.HTTPFound("/elsewhere")

    async def answer_as_proxy(request: web.Request) -> web.Response:
        asked.append("the proxy")
        return web.Response(body=b"[]")

    apps = web.Application(), web.Application()
    for app, handler in zip(apps, (answer, answer_as_proxy), strict=True):
        app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(apps[0]) as peer, TestServer(apps[1]) as proxy:
        monkeypatch.setenv("http_proxy", str(proxy.make_url("/")))
        cluster = Cluster([str(peer.make_url("")).rstrip("/")], 5, 1 << 20)
        await cluster.start()
        try:
            _, failed = await cluster.texts("metrics/index.json", [])
        finally:
            await cluster.close()
    assert asked == ["/metrics/index.json"]
    assert len(failed) == 1


async def test_no_view_sends_mail_or_asks_an_address(client: Client) -> None:
    """CVE-2017-18638: graphite-web's send_email asked any address that a request named."""
    for path in ("/composer/send_email", "/composer/send_email/"):
        response = await client.get(path, params={"url": "http://192.0.2.1/x", "to": "a@b.c"})
        assert response.status == 404


async def test_events_that_hold_much_are_not_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand events of a megabyte each would fill the memory before the answer's limit is seen."""
    source = FakeSource()
    read: list[int] = []
    find_events = source.store.find_events

    async def counting(wanted: EventQuery) -> list[Event]:
        found = await find_events(wanted)
        read.append(len(found))
        return found

    monkeypatch.setattr(source.store, "find_events", counting)
    settings = DefaultHttpSettings(response_bytes_max=100_000)
    async with TestClient(TestServer(make_app(source, FakeStatus(), settings))) as client:
        for _ in range(20):
            event = json.dumps({"what": "w", "data": "d" * 40_000, "when": 1_000})
            assert (await client.post("/events", data=event)).status == 200
        answer = await client.get("/events/get_data?from=0&until=2000")
        assert answer.status == 400
        assert "response_bytes_max" in await answer.text()
    assert read == [2, 3]  # 64 kB at first
