"""Any target, time or HTTP request: an answer below 500 (or 501: an optional package is missing), never an exception."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from http_api.app import DefaultHttpSettings, make_app
from tests.fake_source import FakeSource, of_values
from tests.fuzz.effort import corpus, fuzz
from tests.test_http_render import FakeStatus
from tgres_py.errors import BadRequest, TargetSyntaxError
from tgres_py.functions.registry import functions
from tgres_py.target.attime import parse_at_time
from tgres_py.target.parser import parse_target

START_S = 1_700_000_040
NOW_S = START_S + 600

_odd_numbers = st.sampled_from(["0", "-1", "1", "1e999", "nan", "inf", "-inf", "99999999999999999999", "1e-300", "0x1", ""])
_paths = st.sampled_from(["a.b", "a.*", "*", "**", "a.{b,c}", "a.[", "a.{", "", "no.such", "a.b;x=1", "é", "a.[z-a]"])
_literals = st.one_of(
    st.sampled_from(
        ["'1min'", "'-1h'", "''", "'sum'", "'('", "'a.*'", "True", "None", "'0s'", "'99999999y'", "'a=b'", "'a!=~('"]
    ),
    _odd_numbers.filter(bool),
    st.integers(-5, 100).map(str),
)
_functions = st.sampled_from(sorted(functions()))
targets = st.recursive(
    st.one_of(_paths, _literals),
    lambda inner: st.one_of(
        st.tuples(_functions, st.lists(inner, max_size=4)).map(lambda c: f"{c[0]}({','.join(c[1])})"),
        st.tuples(_functions, st.lists(_literals, max_size=3)).map(
            lambda c: f"{c[0]}({','.join(['a.*', *c[1]])})"
        ),
    ),
    max_leaves=5,
)
garbage = st.text("ab.,()|{}[]'\"\\ =$*1-e;#!~\n\0é", max_size=30)
times = st.one_of(
    _odd_numbers,
    st.text("0123456789+-:/ _,adhimnoprstuwyé", max_size=20),
    st.sampled_from(
        ["now", "-1h", "midnight", "00:00_00000000", "99991231", "00010101", "-99999999999y", "now+999999999y", "-1000years"]
    ),
)


def time_holds(text: str, zone: str) -> None:
    with contextlib.suppress(BadRequest):
        assert isinstance(parse_at_time(text, NOW_S, ZoneInfo(zone)), int)


def target_holds(text: str) -> None:
    try:
        parse_target(text)
    except TargetSyntaxError as error:
        assert 0 <= error.position <= len(text)


def test_times() -> None:
    def run(chosen: settings) -> None:
        chosen(given(times, st.sampled_from(["UTC", "Europe/Berlin", "Asia/Tokyo"]))(time_holds))()

    fuzz(run, examples=100)


def test_targets() -> None:
    def run(chosen: settings) -> None:
        chosen(given(st.one_of(targets, garbage))(target_holds))()

    fuzz(run, examples=100)


# --- the HTTP API

_PATHS = {
    "/render": ["target", "from", "until", "now", "tz", "format", "maxDataPoints", "noNullPoints", "jsonp", "width", "noCache"],
    "/metrics/find": ["query", "format", "from", "until", "wildcards", "jsonp"],
    "/metrics/expand": ["query", "groupByExpr", "leavesOnly", "jsonp"],
    "/metrics/index.json": ["jsonp", "cluster"],
    "/info": ["target", "format"],
    "/functions": ["pretty", "grouped", "group"],
    "/functions/sumSeries": ["pretty"],
    "/tags": ["filter", "limit", "pretty"],
    "/tags/x": ["filter", "limit"],
    "/tags/findSeries": ["expr", "limit"],
    "/tags/autoComplete/tags": ["expr", "tagPrefix", "limit"],
    "/tags/autoComplete/values": ["expr", "tag", "valuePrefix", "limit"],
    "/events/get_data": ["tags", "set", "from", "until", "jsonp"],
}  # fmt: skip
_VALUES = {
    "target": st.one_of(targets, targets, garbage),
    "query": st.one_of(_paths, garbage),
    "from": times,
    "until": times,
    "now": times,
    "tz": st.sampled_from(["UTC", "Europe/Berlin", "no/such", "../etc", "\0", ""]),
    "format": st.sampled_from(["json", "csv", "raw", "pickle", "msgpack", "dygraph", "rickshaw", "treejson", "no", ""]),
    "expr": st.one_of(st.sampled_from(["x=1", "x=~(", "x!=", "=", "name=~.*"]), garbage),
}  # fmt: skip
_any_value = st.one_of(_odd_numbers, garbage, st.sampled_from(["json", "true", "cb", "a.b"]))


@st.composite
def requests(draw: st.DrawFn) -> str:
    """Path and query of a GET."""
    path = draw(st.sampled_from(["/render", *_PATHS]))
    known = st.sampled_from(_PATHS[path])
    names = draw(st.lists(known, max_size=5)) + (["target"] if path == "/render" else [])
    parts = [f"{name}={quote(draw(_VALUES.get(name, _any_value)))}" for name in names]
    if path == "/render" and "format" not in names:
        parts.append("format=json")  # pictures take a while, and have tests of their own
    return f"{path}?{'&'.join(parts)}"


def make_source() -> FakeSource:
    return of_values({f"a.{x}": [1.0, 2.0, float("nan"), -3.0] * 15 for x in "bcd"}, START_S)


async def status_of(client: TestClient[Any, Any], url: str) -> int:
    async with asyncio.timeout(30), client.get(url, allow_redirects=False) as response:
        await response.read()
        return response.status


class Api:
    """The app and a client of it, for as long as ``with`` lasts; plain calls from outside its loop."""

    def __enter__(self) -> Api:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._start())
        return self

    async def _start(self) -> TestClient[Any, Any]:
        client = TestClient(TestServer(make_app(make_source(), FakeStatus(), DefaultHttpSettings())))
        await client.start_server()
        return client

    def holds(self, url: str) -> None:
        status = self._runner.run(status_of(self._client, url))
        assert status < 500 or status == 501, f"{status} for {url}"

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


def test_http() -> None:
    def run(chosen: settings) -> None:
        chosen(given(requests())(api.holds))()

    with Api() as api:
        fuzz(run, examples=300)


def test_requests_of_the_corpus() -> None:
    with Api() as api:
        for url in corpus("http"):
            api.holds(url.decode())


@pytest.mark.parametrize("text", corpus("times"))
def test_times_of_the_corpus(text: bytes) -> None:
    time_holds(text.decode(), "Europe/Berlin")
