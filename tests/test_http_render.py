"""/render and the server's own pages over HTTP: forms of requests, answers, refusals."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from http_api import answer, chunks
from http_api.app import DefaultHttpSettings, make_app
from http_api.formats.json import encode
from http_api.queries import Queries
from tests.fake_source import FakeSource, archives, of_values
from tgres_py.errors import LimitExceeded, StoreUnavailable
from tgres_py.functions.series import Grid, Label, SeriesBlock
from tgres_py.model.points import Ids
from tgres_py.model.retention import BundleSpec

START_S = 1_700_000_040
NOW_S = START_S + 30
TIMES = f"from={START_S - 1}&until={NOW_S}&now={NOW_S}&format=json"
A = [[1.0, START_S], [2.5, START_S + 10], [None, START_S + 20], [4.0, START_S + 30]]

Client = TestClient[Any, Any]


class FakeStatus:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def ready(self) -> None:
        if self.error:
            raise self.error

    def metrics(self) -> bytes:
        return b"tgres_series 2\n"


def make_source() -> FakeSource:
    source = of_values(
        {"a.one": [1.0, 2.5, math.nan, 4.0], "a.two": [10.0, 20.0, 30.0, math.inf]}, START_S
    )
    source.add("a.empty", [])
    source.add("ünï.cödé", [(START_S, 7.0)])
    return source


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with TestClient(TestServer(make_app(make_source(), FakeStatus()))) as client:
        yield client


async def test_json(client: Client) -> None:
    response = await client.get(f"/render?target=a.one&{TIMES}")
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "no-store" in response.headers["Cache-Control"]
    assert await response.json() == [
        {"target": "a.one", "tags": {"name": "a.one"}, "datapoints": A}
    ]
    assert all(isinstance(time, int) for _, time in (await response.json())[0]["datapoints"])


async def test_infinity_is_null_and_names_are_utf8(client: Client) -> None:
    response = await client.get(f"/render?target=a.two&target=*.c%C3%B6d%C3%A9&{TIMES}")
    two, umlauts = await response.json()
    assert two["datapoints"][-1] == [None, NOW_S]
    assert umlauts["target"] == "ünï.cödé"


FORM = f"target=a.one&{TIMES}"


@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        ("/render", FORM, "application/x-www-form-urlencoded"),
        ("/render/", FORM, "application/x-www-form-urlencoded; charset=UTF-8"),
        ("/render", FORM.replace("target=", "target[]="), "application/x-www-form-urlencoded"),
        ("/render?format=json", FORM, "text/plain"),
        (f"/render?target=a.one&{TIMES}", "", "application/x-www-form-urlencoded"),
        (
            f"/render?from=1&until={NOW_S}&now={NOW_S}&format=json",
            f"target=a.one&from={START_S - 1}",
            "application/x-www-form-urlencoded",
        ),
        (
            "/render",
            json.dumps(
                {
                    "target": ["a.one"],
                    "from": START_S - 1,
                    "until": NOW_S,
                    "now": str(NOW_S),
                    "format": "json",
                }
            ),
            "application/json",
        ),
        (
            "/render",
            json.dumps(
                {
                    "target": "a.one",
                    "from": START_S - 1,
                    "until": NOW_S,
                    "now": NOW_S,
                    "format": "json",
                }
            ),
            "application/json",
        ),
    ],
)
async def test_post(client: Client, path: str, body: str, content_type: str) -> None:
    response = await client.post(path, data=body, headers={"Content-Type": content_type})
    assert response.status == 200, await response.text()
    assert [series["datapoints"] for series in await response.json()] == [A]


@pytest.mark.parametrize(
    "path", [f"/render?{TIMES}", f"/render?target=&{TIMES}", f"/render?target=no.such&{TIMES}"]
)
async def test_nothing(client: Client, path: str) -> None:
    assert await (await client.get(path)).text() == "[]"


async def test_times_default_to_the_last_day(client: Client) -> None:
    response = await client.get(f"/render?target=a.one&now={NOW_S}&format=json")
    [series] = await response.json()
    times = [time for _, time in series["datapoints"]]
    assert (len(times), times[-1], times[1] - times[0]) == (1440, NOW_S // 60 * 60, 60)


async def test_from_and_until_are_swapped(client: Client) -> None:
    response = await client.get(
        f"/render?target=a.one&until={START_S - 1}&from={NOW_S}&now={NOW_S}&format=json"
    )
    assert [series["datapoints"] for series in await response.json()] == [A]


async def test_no_null_points_pretty_and_jsonp(client: Client) -> None:
    response = await client.get(f"/render?target=a.*&noNullPoints&pretty=1&jsonp=g.cb_1&{TIMES}")
    text = await response.text()
    assert response.headers["Content-Type"] == "text/javascript"
    assert text.startswith("g.cb_1([\n") and text.endswith("])")
    got = json.loads(text[7:-1])
    assert [(s["target"], len(s["datapoints"])) for s in got] == [("a.one", 3), ("a.two", 3)]


async def test_max_data_points(client: Client) -> None:
    response = await client.get(f"/render?target=a.one&maxDataPoints=1&{TIMES}")
    [series] = await response.json()
    assert series["datapoints"] == [[2.5, START_S]]
    response = await client.get(f"/render?target=a.one&maxDataPoints=-3&{TIMES}")
    assert (await response.json())[0]["datapoints"] == A


async def test_grafanas_wrapped_targets(client: Client) -> None:
    """Grafana 12 wraps every target, and its health check has neither from nor until."""
    form = {
        "target": 'aliasSub(constantLine(100), "(^.*$)", "\\1 A")',
        "format": "json",
        "maxDataPoints": "300",
    }
    response = await client.post("/render", data=form)
    [series] = await response.json()
    assert series["target"] == "100.0 A"
    assert [value for value, _ in series["datapoints"]] == [100.0] * 3


async def test_templates(client: Client) -> None:
    response = await client.get(f"/render?target=template(a.$x,x='two')&template[x]=one&{TIMES}")
    assert [series["target"] for series in await response.json()] == ["a.one"]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("target=a.one)", "target"),
        ("target=f(a.one)", "target"),
        ("target=sumSeries(%3Cscript%3E", "target"),
        ("target=aliasSub(a.one,'(','x')", "target"),
        ("target=aliasSub(a.one,'(?=a)','x')", "target"),
        ("target=aliasSub(a.one,'a','\\3')", "target"),
        ("target=a.one&from=rubbish", "from"),
        ("target=a.one&until=-5", "until"),
        ("target=a.one&now=x", "now"),
        ("target=a.one&from=100&until=100", "from"),
        ("target=a.one&graphType=bar", "graphType"),
        ("target=a.one&maxDataPoints=0", "maxDataPoints"),
        ("target=a.one&format=json&jsonp=a;alert(1)", "jsonp"),
        ("target=a.one&cacheTimeout=x", "cacheTimeout"),
        ("target=a.one&xFilesFactor=x", "xFilesFactor"),
        ("target=" + "{a," * 500, "target"),
        ("target=a.{" + "x," * 1000 + "y}|f()", "target"),
    ],
)
async def test_refused(client: Client, query: str, word: str) -> None:
    """One plain line that names the parameter, and nothing that a browser would run."""
    response = await client.get(f"/render?{query}")
    text = await response.text()
    assert response.status == 400, text
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert text.startswith(word + ": ") or text.startswith(word + " ")
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "content_type", "status", "word"),
    [
        (b"\xff\xfe", "application/x-www-form-urlencoded", 400, "body"),
        (b"{", "application/json", 400, "body"),
        (b"[]", "application/json", 400, "body"),
        (b'{"target": {"a": 1}}', "application/json", 400, "target"),
        (
            b"&".join(b"target=a" for _ in range(20_000)),
            "application/x-www-form-urlencoded",
            400,
            "body",
        ),
        (b"x" * 2_000_000, "application/x-www-form-urlencoded", 413, "body"),
    ],
)
async def test_bad_bodies(
    client: Client, body: bytes, content_type: str, status: int, word: str
) -> None:
    response = await client.post("/render", data=body, headers={"Content-Type": content_type})
    assert response.status == status
    assert (await response.text()).startswith(word + ": ")


async def test_large_answers_are_gzipped_when_asked(client: Client) -> None:
    url = f"/render?target=a.one&from={NOW_S - 3600}&until={NOW_S}&now={NOW_S}&format=json"
    plain = await client.get(url, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    refused = await client.get(url, headers={"Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in refused.headers
    async with TestClient(client.server, auto_decompress=False) as raw:
        packed = await raw.get(url, headers={"Accept-Encoding": "deflate, gzip"})
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(await packed.read()) == await plain.read()


class SlowSource(FakeSource):
    async def fetch(
        self, ids: Ids, bundle: BundleSpec, archive: int, from_slot: int, until_slot: int
    ) -> NDArray[np.float64]:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")


class BrokenSource(FakeSource):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def fetch(
        self, ids: Ids, bundle: BundleSpec, archive: int, from_slot: int, until_slot: int
    ) -> NDArray[np.float64]:
        raise self.error


@pytest.mark.parametrize(
    ("source", "status", "text"),
    [
        (SlowSource(), 400, "query_timeout_s"),
        (BrokenSource(StoreUnavailable("PostgreSQL is away")), 503, "PostgreSQL is away"),
        (BrokenSource(RuntimeError("secret")), 500, "internal error"),
    ],
    ids=["slow", "away", "fault"],
)
async def test_trouble_below(source: FakeSource, status: int, text: str) -> None:
    source.add("a", [(START_S, 1.0)])
    settings = DefaultHttpSettings(query_timeout_s=0.05)
    async with TestClient(TestServer(make_app(source, FakeStatus(), settings))) as client:
        response = await client.get(f"/render?target=a&{TIMES}")
        body = await response.text()
        assert response.status == status
        assert text in body and "secret" not in body and body.count("\n") == 1


async def test_answers_are_limited() -> None:
    settings = DefaultHttpSettings(response_bytes_max=200)
    async with TestClient(TestServer(make_app(make_source(), FakeStatus(), settings))) as client:
        assert (await client.get(f"/render?target=a.one&{TIMES}")).status == 200
        response = await client.get(f"/render?target=a.*&{TIMES}")
        assert response.status == 400
        assert "response_bytes_max" in await response.text()


@pytest.mark.parametrize(
    ("slots", "where"), [(100, "loop"), (30_000, "thread"), (300_000, "process")]
)
async def test_what_takes_long_is_done_elsewhere(
    monkeypatch: pytest.MonkeyPatch, slots: int, where: str
) -> None:
    threads = []

    def make(*args: Any) -> chunks.Made:
        threads.append(threading.current_thread())
        return real_make(*args)

    real_make = answer.make
    monkeypatch.setattr(answer, "make", make)
    now_s = START_S + 10 * slots
    source = of_values({"a": [1.0] * slots}, START_S, BundleSpec(archives("10s:60d")))
    queries = Queries.of(DefaultHttpSettings())
    workers = queries.workers
    async with TestClient(TestServer(make_app(source, FakeStatus(), queries=queries))) as client:
        response = await client.get(
            f"/render?target=a&from={START_S - 10}&until={now_s - 10}&now={now_s}&format=json"
        )
        assert [value for value, _ in (await response.json())[0]["datapoints"]] == [1.0] * slots
    in_threads = [thread is not threading.main_thread() for thread in threads]
    assert in_threads == {"loop": [False], "thread": [True], "process": []}[where]
    assert workers.started == (where == "process")
    assert workers.processes == []


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "%00", "x" * 5000])
async def test_unknown_zones_are_utc(client: Client, zone: str) -> None:
    response = await client.get(
        f"/render?target=a.one&from=today&now={NOW_S}&format=json&tz={zone}"
    )
    [series] = await response.json()
    assert series["datapoints"][0][1] % 86_400 == 60  # the first minute after midnight


@pytest.mark.parametrize("slash", ["", "/"])
async def test_own_pages(client: Client, slash: str) -> None:
    version = await client.get("/version" + slash)
    assert (version.status, version.content_type, await version.text()) == (
        200,
        "text/html",
        "1.1.10\n",
    )
    assert (await client.get("/healthz" + slash)).status == 200
    assert (await client.get("/readyz" + slash)).status == 200
    metrics = await client.get("/metrics" + slash)
    assert await metrics.text() == "tgres_series 2\n"
    assert metrics.headers["Content-Type"].startswith("text/plain; version=0.0.4")


async def test_not_ready() -> None:
    status = FakeStatus(StoreUnavailable("PostgreSQL is away"))
    async with TestClient(TestServer(make_app(make_source(), status))) as client:
        response = await client.get("/readyz")
        assert (response.status, await response.text()) == (503, "PostgreSQL is away\n")
        assert (await client.get("/healthz")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nosuch<b>", 404), ("DELETE", "/render", 405), ("GET", "/render/x", 404)],
)
async def test_errors_of_the_router_are_text(
    client: Client, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path)
    assert (response.status, response.content_type) == (status, "text/plain")
    assert "<" not in await response.text()


# --- the JSON writer by itself


def block(values: list[float], start_s: int, step_s: int) -> SeriesBlock:
    grid = Grid(start_s, start_s + step_s * len(values), step_s)
    return SeriesBlock.uniform([Label("a.0]", "a", {"name": 'q"]'})], grid, np.array([values]))


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20),
    st.integers(0, 253_402_300_799),
    st.integers(1, 10**6),
)
def test_json_holds_every_float_and_time(values: list[float], start_s: int, step_s: int) -> None:
    if not values:
        assert encode([block(values, start_s, step_s)]) == b"[]"
        return
    [series] = json.loads(encode([block(values, start_s, step_s)]))
    wanted = [[v if math.isfinite(v) else None, start_s + i * step_s] for i, v in enumerate(values)]
    assert series == {"target": "a.0]", "tags": {"name": 'q"]'}, "datapoints": wanted}
    assert all(isinstance(time, int) for _, time in series["datapoints"])


def test_json_shows_series_without_points_beside_others() -> None:
    got = json.loads(encode([block([], 0, 10), block([1.0], 0, 10)]))
    assert [series["datapoints"] for series in got] == [[], [[1.0, 0]]]


def test_json_stops_at_its_limit() -> None:
    with pytest.raises(LimitExceeded, match="response_bytes_max"):
        encode([block([1.0] * 100, 0, 1)], bytes_max=500)


@pytest.mark.parametrize(
    ("path", "in_thread"),
    [
        ("/render?target=a.*", True),
        ("/render?target=template(a.$x)&template[x]=*", True),
        ("/render?target=applyByNode(a.o*,0,'%25.t*')", True),
        ("/render?target=a.one&target=alias(a.two,'b')", False),
        ("/metrics/find?query=a.*", True),
        ("/metrics/find?query=a.one", False),
        ("/metrics/expand?query=a.*", True),
        ("/metrics/index.json?x=", True),
    ],
)
async def test_patterns_over_many_series_are_looked_up_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, path: str, in_thread: bool
) -> None:
    source = make_source()
    threads = set()

    def watched(name: str) -> None:
        real = getattr(source, name)

        def look_up(*args: Any) -> Any:
            threads.add(threading.current_thread() is not threading.main_thread())
            return real(*args)

        monkeypatch.setattr(source, name, look_up)

    for name in ("expand", "find"):
        watched(name)
    monkeypatch.setattr("tgres_py.query.source.INLINE_SERIES_MAX", 1)
    async with TestClient(TestServer(make_app(source, FakeStatus()))) as client:
        separator = "&" if "?" in path else "?"
        response = await client.get(f"{path}{separator}{TIMES}")
        assert response.status == 200, await response.text()
    assert threads == {in_thread}
