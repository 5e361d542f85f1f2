"""Parameters that are huge, negative, empty or name files: each is refused with a sentence, or means nothing."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api.app import make_app
from http_api.render_params import zone_of
from http_api.reply import Params
from tests.fake_source import of_values
from tests.security.test_doors import http, raw
from tests.test_http_render import FakeStatus

START_S = 1_700_000_040
Client = TestClient[Any, Any]
LONG = "9" * 400


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    source = of_values({"a.b": [1.0] * 6, "a.c": [2.0] * 6}, START_S)
    async with TestClient(TestServer(make_app(source, FakeStatus()))) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("until", "1e308"),
        ("until", LONG),
        ("until", "-99999999999999y"),
        ("from", f"-{LONG}min"),
        ("from", "00:00_99999999"),
        ("from", "-\u0669d"),
        ("now", "nan"),
        ("now", "99999999999999999"),
        ("maxDataPoints", "0"),
        ("xFilesFactor", "nan"),
        ("jsonp", "a\r\nX: y"),
        ("jsonp", "a" * 129),
    ],
)
async def test_wrong_values_are_named(client: Client, name: str, value: str) -> None:
    answer = await client.post("/render", data={"target": "a.b", "format": "json", name: value})
    text = await answer.text()
    assert answer.status == 400
    assert text.startswith(f"{name}: ") and text.count("\n") == 1 and len(text) < 1_000


@pytest.mark.parametrize("value", ["-1", "1e18", "9" * 18, "abc", "", "0x10"])
async def test_more_points_than_there_are_is_all_of_them(client: Client, value: str) -> None:
    form = {"target": "a.b", "format": "json", "from": str(START_S - 60), "maxDataPoints": value}
    answer = await client.post("/render", data={**form, "until": str(START_S + 60)})
    assert answer.status == 200
    assert len((await answer.json())[0]["datapoints"]) <= 20


async def test_a_range_that_ends_before_it_begins_is_empty(client: Client) -> None:
    answer = await client.get("/render?target=a.b&format=json&from=2000&until=1000")
    assert (answer.status, await answer.text()) == (200, "[]")


@pytest.mark.parametrize(
    "zone",
    ["../../../../etc/passwd", "/etc/passwd", "..", ".", "Europe", "zone.tab", "\0", "a" * 10_000],
)
def test_a_zone_is_no_path(zone: str) -> None:
    assert zone_of(Params([("tz", zone)])) is UTC


PICTURES = [
    ("width", "1000000000", 400),
    ("width", "-1", 400),
    ("width", "1e9", 400),
    ("height", LONG, 400),
    ("fontSize", "999999999", 400),
    ("fontName", "../../../../etc/passwd", 200),
    ("template", "../../../../etc/passwd", 200),
    ("bgcolor", "../../etc/passwd", 400),
    ("colorList", "url(http://evil.example/)", 400),
    ("margin", "99999999", 400),
    ("lineWidth", "1e308", 400),
    ("yMin", "inf", 400),
    ("yStep", "1e-300", 400),
    ("yStep", "0.0000001", 400),
    ("yDivisors", "0", 400),
    ("yLimit", "999999999", 200),
    ("minorY", "99999999", 400),
    ("logBase", "1", 200),
    ("title", r"$\input{/etc/passwd}$ \x1b[2J", 200),
    ("vtitle", "x" * 30_000, 200),
    ("xFormat", "%c" * 1_000, 200),
    ("graphType", "../..", 400),
]


async def test_pictures(client: Client) -> None:
    pytest.importorskip("matplotlib")
    began = time.process_time()
    for name, value, status in PICTURES:  # one application: its worker takes a second to start
        form = {"target": "a.b", "format": "png", "width": "200", "height": "100", name: value}
        answer = await client.post("/render", data=form)
        body = await answer.read()
        assert answer.status == status, (name, value, body[:200])
        assert body.startswith(b"\x89PNG" if status == 200 else name.encode()), body[:200]
    assert time.process_time() - began < 10


@pytest.mark.parametrize("path", ["/render", "/events", "/tags/tagSeries"])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"target": ' + b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"target": "a.b", "maxDataPoints": 1e400}',
        b'{"target": "\\ud800"}',
        b'{"what": "x", "when": NaN}',
    ],
)
async def test_json_that_is_deep_or_holds_impossible_things(
    client: Client, path: str, body: bytes
) -> None:
    answer = await client.post(path, data=body, headers={"Content-Type": "application/json"})
    text = await answer.text()
    assert answer.status == 400
    assert text.count("\n") <= 1 and len(text) < 300


@pytest.mark.parametrize("fields", ['"when": 1e308', '"when": -1', '"data": "\\u0000"'])
async def test_events_that_no_store_can_hold(client: Client, fields: str) -> None:
    answer = await client.post("/events", data=f'{{"what": "x", {fields}}}')
    assert answer.status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/ui/..%2f..%2fpages.py",
        "/ui/%2e%2e/pages.py",
        "/ui/..%5cpages.py",
        "/ui/%00",
        "//etc/passwd",
        "/browser/../../etc/passwd",
        "/events/99999999999999999999",
    ],
)
async def test_paths_lead_to_no_files(path: str) -> None:
    async with http() as listener:
        # clients would take ".." out of the path
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert (await raw(listener, head.encode())).startswith(b"HTTP/1.1 404 ")


async def test_answers_hold_nothing_of_the_host_that_was_asked_for(client: Client) -> None:
    """A cache that keeps answers by path would give them to others (poisoning)."""
    forged = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "host=evil.example",
    }
    for path in (
        "/",
        "/S/1",
        "/s/render",
        "/render?target=a.b&format=json",
        "/nosuch",
        "/openapi.json",
    ):
        answer = await client.get(path, headers=forged, allow_redirects=False)
        assert "evil.example" not in str(answer.headers) + await answer.text()
