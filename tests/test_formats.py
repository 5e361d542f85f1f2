"""Formats of /render over HTTP: recorded answers of graphite-web, and what no recorded case shows."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import math
import pickle
import re
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import msgpack
import numpy as np
import orjson
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from http_api import chunks, stream
from http_api.answer import PRETTY_POINT_BYTES
from http_api.app import DefaultHttpSettings, make_app
from http_api.formats import FORMATS
from http_api.formats.look import Look
from http_api.formats.points import python_numbers
from http_api.formats.text import local_times
from http_api.queries import Queries
from tests import graphite_cases as cases
from tests.fake_source import FakeSource, archives, of_dataset, of_values
from tests.graphite_dataset import BASE_NOW
from tests.test_http_render import FakeStatus
from tgres_py.functions.series import Grid, Label, SeriesBlock
from tgres_py.model.retention import BundleSpec

CASES = cases.load("graphite_formats.jsonl")
START_S = 1_700_000_040
Client = TestClient[Any, Any]


@cache
def dataset() -> FakeSource:
    return of_dataset()


# One app for all of them, and one worker process for their pictures.
of_one_app = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[Client]:
    async with TestClient(TestServer(make_app(dataset(), FakeStatus()))) as client:
        yield client


def some_blocks(series: int, slots: int) -> list[SeriesBlock]:
    grid = Grid(START_S, START_S + 60 * slots, 60)
    values = np.arange(slots) + 0.5
    values[::3] = np.nan
    rows = [(Label(f"a.b{i}", "a.*", {"name": f"a.b{i}"}), grid, values) for i in range(series)]
    return [SeriesBlock.of_rows(rows[:1]), SeriesBlock.of_rows(rows[1:])]


# --- pretty


@pytest.mark.parametrize("kind", ["json", "rickshaw"])
@pytest.mark.parametrize("series", [0, 1, 3])
@pytest.mark.parametrize("known", [False, True])
def test_pretty_is_that_of_the_whole(kind: str, series: int, known: bool) -> None:
    blocks = some_blocks(series, 5)
    plain = b"".join(FORMATS[kind].write(blocks, Look(no_null_points=known)))
    pretty = b"".join(FORMATS[kind].write(blocks, Look(pretty=True, no_null_points=known)))
    assert pretty == orjson.dumps(orjson.loads(plain), option=orjson.OPT_INDENT_2)


def test_pretty_takes_the_memory_of_one_series() -> None:
    blocks = some_blocks(40, 1_000)
    tracemalloc.start()
    try:
        size = sum(map(len, FORMATS["json"].write(blocks, Look(pretty=True))))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 2_000_000
    assert peak < 1_000 * PRETTY_POINT_BYTES + 200_000


# --- recorded cases


def pairs_of(case: cases.Case) -> list[tuple[str, str]]:
    """The request as it was recorded, with the format that it asks for, if any."""
    pairs = [pair for pair in cases.pairs_of(case, BASE_NOW) if pair[0] != "format"]
    given = dict(case.get("params", ())).get("format")
    if given is None and not (case.get("opt") or {}).get("no_format"):
        given = "json"
    return pairs if given is None else [*pairs, ("format", given)]


def read_json(body: bytes) -> list[cases.Case]:
    return [
        {"n": s["target"], "g": s["tags"], **_points(s["datapoints"])} for s in json.loads(body)
    ]


def _points(points: list[list[Any]]) -> cases.Case:
    return {"v": [value for value, _ in points], "at": [time for _, time in points]}


def read_raw(body: bytes) -> list[cases.Case]:
    out = []
    for line in body.decode().splitlines():
        head, _, values = line.rpartition("|")
        name, *ends = head.rsplit(",", 3)
        numbers = [None if v == "None" else float(v) for v in values.split(",")] if values else []
        out.append({"n": name, "se": [int(end) for end in ends], "v": numbers})
    return out


def read_csv(body: bytes) -> list[cases.Case]:
    out: list[cases.Case] = []
    for name, at, value in csv.reader(io.StringIO(body.decode(), newline="")):
        if not out or out[-1]["n"] != name:
            out.append({"n": name, "v": [], "at": []})
        out[-1]["v"].append(float(value) if value else None)
        moment = datetime.strptime(at, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        out[-1]["at"].append(int(moment.timestamp()))
    return out


def read_info(decoded: list[cases.Case]) -> list[cases.Case]:
    kept = ("valuesPerPoint", "consolidationFunc", "xFilesFactor")
    return [
        {
            "n": s["name"],
            "p": s["pathExpression"],
            "se": [s["start"], s["end"], s["step"]],
            "v": s["values"],
            **{key: s[key] for key in kept},
        }
        for s in decoded
    ]


def read_rickshaw(body: bytes) -> list[cases.Case]:
    return [
        {"n": s["target"], **_points([[p["y"], p["x"]] for p in s["datapoints"]])}
        for s in json.loads(body)
    ]


READERS: dict[str, Callable[[bytes], list[cases.Case]]] = {
    "json": read_json,
    "raw": read_raw,
    "csv": read_csv,
    "pickle": lambda body: read_info(pickle.loads(body)),
    "msgpack": lambda body: read_info(msgpack.unpackb(body)),
    "rickshaw": read_rickshaw,
}


def same(got: list[float | None], wanted: list[Any]) -> bool:
    expected = unsqueezed(wanted)
    return len(got) == len(expected) and all(
        a is b if a is None or b is None else math.isclose(a, b, rel_tol=1e-9)
        for a, b in zip(got, expected, strict=True)
    )


def unsqueezed(values: list[Any]) -> list[Any]:
    out: list[Any] = []
    for value in values:
        out += [None] * int(value[1:]) if isinstance(value, str) else [value]
    return out


def check_series(wanted: cases.Case, got: cases.Case) -> None:
    assert got["n"] == wanted["n"]
    assert same(got["v"], wanted["v"])
    if "t" in wanted:
        times = wanted["t"]
        if isinstance(times, list):
            start, step, count = times
            times = {"list": [start + i * step for i in range(count)]}
        assert [time - BASE_NOW for time in got["at"]] == times["list"]
    if "se" in wanted:
        start, end, step = wanted["se"]
        assert got["se"] == [start + BASE_NOW, end + BASE_NOW, step]
    for key in wanted.keys() - {"n", "v", "t", "se"}:
        assert got[key] == wanted[key]


def check_dygraph(wanted: cases.Case, body: bytes) -> None:
    got = json.loads(body)
    assert got["labels"] == wanted["labels"]
    start, step, count = wanted["t"]
    times = [row[0] for row in got["data"]]
    assert times == [(BASE_NOW + start + i * step) * 1000 for i in range(count)]
    columns = [list(column) for column in zip(*got["data"], strict=True)][1:]
    for column, expected in zip(columns, wanted["cols"], strict=True):
        assert same(column, expected)


def size_of_png(body: bytes) -> list[int]:
    assert body[:8] == b"\x89PNG\r\n\x1a\n"
    return list(struct.unpack(">II", body[16:24]))


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
@of_one_app
async def test_answers_as_graphite_web(case: cases.Case, client: Client) -> None:
    expected = case["expected"]
    pairs = pairs_of(case)
    if (case.get("opt") or {}).get("method") == "POST":
        response = await client.post("/render", data=urlencode(pairs))
    else:
        response = await client.get("/render", params=pairs)
    body = await response.read()
    if expected["status"] != 200:
        assert response.status == 400, body
        return
    assert response.status == 200, body
    assert response.content_type == expected["ct"]
    if expected["ct"] == "image/png":
        assert size_of_png(body) == expected["data"]
    elif expected["ct"] == "image/svg+xml":
        sizes = [
            re.search(rf'<svg[^>]*\s{side}="([\d.]+)'.encode(), body)
            for side in ("width", "height")
        ]
        assert [float(size.group(1)) for size in sizes if size] == expected["data"]
    elif expected["ct"] == "application/x-pdf":
        assert body.startswith(b"%PDF-")
    elif dict(pairs).get("format") == "dygraph":
        check_dygraph(expected["data"], body)
    else:
        given = dict(pairs)
        kind = given.get("format") or ("raw" if "rawData" in given else "pickle")
        got = READERS[kind](body)
        assert len(got) == len(expected["data"])
        for wanted, series in zip(expected["data"], got, strict=True):
            check_series(wanted, series)


# --- what the cases don't show


def block(values: list[float], name: str = "a", start_s: int = START_S) -> SeriesBlock:
    grid = Grid(start_s, start_s + 10 * len(values), 10)
    label = Label(name, name, {"name": name})
    return SeriesBlock.uniform([label], grid, np.array([values], float))


def written(form: str, blocks: list[SeriesBlock], look: Look | None = None) -> bytes:
    return b"".join(FORMATS[form].write(blocks, look or Look()))


ODD = [1.5, math.nan, math.inf, -math.inf, 1e17, -0.0]


def test_raw_is_as_python_writes_numbers() -> None:
    assert written("raw", [block(ODD, "x|y,z")]) == (
        f"x|y,z,{START_S},{START_S + 60},10|1.5,None,inf,-inf,1e+17,-0.0\n".encode()
    )


@given(st.lists(st.floats(), min_size=1, max_size=8))
def test_numbers_of_text_formats_are_pythons(values: list[float]) -> None:
    wanted = ",".join("None" if math.isnan(value) else repr(value) for value in values)
    assert python_numbers(np.array(values), b"None") == wanted.encode()


@pytest.mark.parametrize("slots", [1, 2_047, 2_048, 2_049, 5_000])
@pytest.mark.parametrize("form", ["json", "csv", "rickshaw"])
def test_templates_of_long_series(form: str, slots: int) -> None:
    """Two series that share times, one with a name full of what templates are made of."""
    values = [float(i) for i in range(slots)]
    body = written(form, [block(values, "%b\0%%d"), block(values[::-1], "x")])
    first, second = READERS[form](body)
    assert (first["n"], first["v"], second["v"]) == ("%b\0%%d", values, values[::-1])
    assert first["at"] == second["at"] == [START_S + 10 * i for i in range(slots)]


def test_csv_quotes_names_and_knows_zones() -> None:
    zone = ZoneInfo("Asia/Kolkata")
    lines = written("csv", [block([1.0, math.nan], 'a "b", c')], Look(zone=zone)).split(b"\r\n")
    assert lines == [
        b'"a ""b"", c",2023-11-15 03:44:00,1.0',
        b'"a ""b"", c",2023-11-15 03:44:10,',
        b"",
    ]


@pytest.mark.parametrize(
    "name", ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "UTC"]
)
def test_local_times_are_those_of_datetime(name: str) -> None:
    """Through both changes of the clocks of 2026."""
    zone = ZoneInfo(name)
    seconds = np.arange(1_767_225_600, 1_798_761_600, 5_000)
    wanted = [
        datetime.fromtimestamp(s, zone).strftime("%Y-%m-%d %H:%M:%S") for s in seconds.tolist()
    ]
    assert local_times(seconds, zone) == wanted


@pytest.mark.parametrize("form", ["json", "dygraph", "rickshaw"])
def test_infinity_and_nan_are_null_in_json(form: str) -> None:
    body = written(form, [block(ODD)])
    assert len(re.findall(rb"\bnull\b", body)) == 3
    assert not re.search(rb"inf|nan", body, re.IGNORECASE)
    json.loads(body)


@pytest.mark.parametrize("form", ["pickle", "msgpack"])
def test_infinity_stays_and_nan_is_none_in_binary(form: str) -> None:
    load = pickle.loads if form == "pickle" else msgpack.unpackb
    [series] = load(written(form, [block(ODD)]))
    assert series["values"] == [1.5, None, math.inf, -math.inf, 1e17, 0.0]


EMPTY = {
    "json": b"[]",
    "rickshaw": b"[]",
    "dygraph": b"{}",
    "csv": b"",
    "raw": b"",
    "pickle": pickle.dumps([], 2),
    "msgpack": b"\x90",
}


@pytest.mark.parametrize("form", EMPTY)
def test_no_series(form: str) -> None:
    body = written(form, [])
    assert pickle.loads(body) == [] if form == "pickle" else body == EMPTY[form]


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_names_with_anything_in_them(form: str) -> None:
    """Line breaks, quotes, characters beyond 16 bits, half a pair of surrogates."""
    for name in ('a"\\b\n\r', "ünï🎉", "\ud800x", "</script>"):
        body = written(form, [block([1.0], name)])
        assert b"1.0" in body or form in ("pickle", "msgpack")
        if form in ("json", "dygraph", "rickshaw"):
            json.loads(body)


@of_one_app
async def test_dygraph_wants_equal_lengths(client: Client) -> None:
    query = f"target=mixed.s10&target=mixed.s60&format=dygraph&from=-600s&now={BASE_NOW}"
    response = await client.get(f"/render?{query}")
    assert response.status == 400
    assert (await response.text()).startswith("format: dygraph needs series of equal length")


@of_one_app
async def test_jsonp_only_beside_format(client: Client) -> None:
    query = f"target=shapes.saw&from=-60s&now={BASE_NOW}&jsonp=cb"
    for form in ("json", "dygraph", "rickshaw"):
        response = await client.get(f"/render?{query}&format={form}")
        body = await response.read()
        assert response.content_type == "text/javascript"
        assert body.startswith(b"cb(") and body.endswith(b")")
    for form in ("csv", "raw", "pickle", "msgpack"):
        assert not (await (await client.get(f"/render?{query}&format={form}")).read()).startswith(
            b"cb("
        )
    assert (await client.get(f"/render?{query}")).content_type == "image/png"
    assert (await client.get(f"/render?{query}&format=svg")).status == 400


@pytest.mark.parametrize(
    ("query", "content_type"),
    [
        ("rawData=1", "text/plain"),
        ("rawData", "text/plain"),
        ("pickle=1", "application/pickle"),
        ("pickle=1&rawData=1", "text/plain"),
        ("rawData=1&format=csv", "text/csv"),
        ("format=JSON", "image/png"),
        ("format=", "image/png"),
        ("", "image/png"),
        ("graphType=pie&format=json", "image/png"),
    ],
)
@of_one_app
async def test_which_format(client: Client, query: str, content_type: str) -> None:
    url = f"/render?target=shapes.saw&from=-60s&now={BASE_NOW}&{query}"
    assert (await client.get(url)).content_type == content_type


@of_one_app
async def test_max_data_points_is_of_json_only(client: Client) -> None:
    url = f"/render?target=shapes.saw&from=-600s&now={BASE_NOW}&maxDataPoints=5&noNullPoints=1"
    [series] = await (await client.get(url + "&format=json")).json()
    assert len(series["datapoints"]) < 6
    for form in ("raw", "csv", "pickle", "msgpack", "rickshaw"):
        [one] = READERS[form](await (await client.get(f"{url}&format={form}")).read())
        assert len(one["v"]) == 60


@pytest.mark.parametrize(
    ("query", "cache_control"),
    [
        ("", "max-age=0, no-cache, no-store, must-revalidate, private"),
        ("&cacheTimeout=0", "max-age=0, no-cache, no-store, must-revalidate, private"),
        ("&cacheTimeout=60", "max-age=60"),
        ("&cacheTimeout=60&noCache=1", "max-age=0, no-cache, no-store, must-revalidate, private"),
    ],
)
@of_one_app
async def test_cache_headers(client: Client, query: str, cache_control: str) -> None:
    response = await client.get(f"/render?target=shapes.saw&from=-60s&format=json{query}")
    assert response.headers["Cache-Control"] == cache_control
    assert response.headers["Expires"].endswith(" GMT")
    assert ("Pragma" in response.headers) == ("no-cache" in cache_control)


# --- long answers


def long_source(slots: int) -> FakeSource:
    values = [float(i % 7) if i % 11 else math.nan for i in range(slots)]
    return of_values(
        {"a": values, "b": values, "c": values}, START_S, BundleSpec(archives("10s:30d"))
    )


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("form", ["json", "csv", "pickle", "msgpack", "raw", "rickshaw", "dygraph"])
async def test_long_answers_are_sent_in_chunks(form: str, coding: str) -> None:
    slots = 40_000
    until = START_S + 10 * slots - 10
    url = f"/render?target=*&from={START_S - 1}&until={until}&now={until}&format={form}"
    app = make_app(long_source(slots), FakeStatus())
    async with (
        TestClient(TestServer(app)) as client,
        TestClient(client.server, auto_decompress=False) as raw,
    ):
        response = await raw.get(url, headers={"Accept-Encoding": coding})
        body = await response.read()
        assert response.status == 200
        assert response.headers["Transfer-Encoding"] == "chunked"
        if coding == "gzip":
            assert response.headers["Content-Encoding"] == "gzip"
            body = gzip.decompress(body)
        if form == "dygraph":
            assert len(json.loads(body)["data"]) == slots
        else:
            assert [len(series["v"]) for series in READERS[form](body)] == [slots] * 3
        head = await raw.head(url)
        assert (head.status, await head.read()) == (200, b"")


async def test_long_answers_over_the_limit_are_refused_whole() -> None:
    settings = DefaultHttpSettings(response_bytes_max=1_000_000)
    until = START_S + 200_000
    url = f"/render?target=*&from={START_S}&until={until}&now={until}&format=json"
    app = make_app(long_source(20_000), FakeStatus(), settings)
    async with TestClient(TestServer(app)) as client:
        response = await client.get(url)
        assert response.status == 400
        assert "response_bytes_max" in await response.text()


@asynccontextmanager
async def deaf_client(
    queries: Queries | None = None, copies: int = 40
) -> AsyncIterator[asyncio.StreamReader]:
    """One that has asked for more than sockets hold, and reads when the test does."""
    slots = 150_000
    source = of_values({"a": [1.5] * slots}, START_S, BundleSpec(archives("10s:30d")))
    until = START_S + 10 * slots
    async with TestServer(make_app(source, FakeStatus(), queries=queries)) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port, limit=1_024)
        head = f"/render?from={START_S}&until={until}&now={until}&format=json{'&target=a' * copies}"
        writer.write(f"GET {head} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        yield reader
        writer.close()


async def size_of_rest(reader: asyncio.StreamReader) -> int:
    """Bytes until the connection is cut; AssertionError: the answer came to its end."""
    size = 0
    end = b""
    with suppress(ConnectionResetError):
        while data := await reader.read(1 << 20):
            size += len(data)
            end = (end + data)[-5:]
            assert end != b"0\r\n\r\n"
    return size


@pytest.mark.parametrize("is_wanted", [False, True])
async def test_a_client_that_reads_nothing_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_wanted: bool
) -> None:
    """Soon, when others wait for its turn."""
    monkeypatch.setattr(stream, "PATIENCE", stream.Patience(1_000.0, 1_000.0))
    short = stream.Patience(0.3, 1_000.0)
    monkeypatch.setattr(stream, "PATIENCE_WHEN_WANTED" if is_wanted else "PATIENCE", short)
    queries = Queries.of(DefaultHttpSettings(render_workers=1))
    async with deaf_client(queries) as reader, AsyncExitStack() as stack:
        await asyncio.wait_for(reader.readexactly(100), 60)
        if is_wanted:
            waiting = asyncio.create_task(stack.enter_async_context(queries.lanes.heavy.turn()))
            await asyncio.wait_for(waiting, 60)
        begin = time.monotonic()
        while "the client reads too slowly" not in caplog.text:
            assert time.monotonic() - begin < 60
            await asyncio.sleep(0.02)
        await size_of_rest(reader)


async def test_a_client_that_reads_slowly_is_dropped_when_others_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes some all the time, but little."""
    monkeypatch.setattr(stream, "PATIENCE_WHEN_WANTED", stream.Patience(60.0, 0.5))
    monkeypatch.setattr(stream, "BYTES_S_MIN", 1 << 30)
    queries = Queries.of(DefaultHttpSettings(render_workers=1))
    async with deaf_client(queries) as reader, AsyncExitStack() as stack:
        await asyncio.wait_for(reader.readexactly(100), 60)
        waiting = asyncio.create_task(stack.enter_async_context(queries.lanes.heavy.turn()))
        begin = time.monotonic()
        while not waiting.done():
            assert time.monotonic() - begin < 30
            with suppress(ConnectionResetError):
                await reader.read(1_000)
            await asyncio.sleep(0.05)
        await size_of_rest(reader)


async def test_a_client_that_reads_has_the_time_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It pauses for less than is allowed each time, for much more all in all, while others wait."""
    monkeypatch.setattr(stream, "PATIENCE_WHEN_WANTED", stream.Patience(3.0, 60.0))
    queries = Queries.of(DefaultHttpSettings(render_workers=1))
    async with deaf_client(queries, copies=6) as reader, AsyncExitStack() as stack:
        await asyncio.wait_for(reader.readexactly(100), 60)
        waiting = asyncio.create_task(stack.enter_async_context(queries.lanes.heavy.turn()))
        for _ in range(7):
            await reader.readexactly(1 << 20)
            await asyncio.sleep(0.5)
        with pytest.raises(AssertionError):  # the end has come
            await size_of_rest(reader)
        await waiting


def test_chunks_hold_every_piece_in_order() -> None:
    pieces = [b"x" * n for n in (3, 0, 5, 1, 9, 2)]
    made = list(chunks.chunked(pieces, 6))
    assert [len(chunk) for chunk in made] == [8, 10, 2]
    assert list(chunks.chunked([], 6)) == [b""]
