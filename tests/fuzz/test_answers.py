"""Well-typed targets over HTTP: most render, and all answers to one of them say the same.

The same question twice, in pieces from a thread, by a worker process, in every format: the values are equal. What is refused is
refused in one line, with the same status whatever the format.
"""

from __future__ import annotations

import asyncio
import csv
import json
import math
from collections import Counter
from datetime import UTC, datetime
from typing import Any, NoReturn
from unittest.mock import patch
from urllib.parse import urlencode

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from http_api import chunks, render, stream
from http_api.app import make_app
from http_api.formats import FORMATS
from tests.fake_source import FakeSource, archives, of_values
from tests.fuzz import well_typed
from tests.fuzz.effort import corpus, fuzz
from tests.test_formats import READERS
from tests.test_http_render import FakeStatus
from tgres_py.model.event import Event
from tgres_py.model.retention import BundleSpec

START_S = 1_700_000_040
UNTIL_S = START_S + 300
EXAMPLES = 100
RENDERED_PART_MIN = 0.6  # of the targets; what isn't rendered is mostly another number of series
CHUNK_BYTES = 100

Series = dict[str, Any]


def make_source() -> FakeSource:
    """Gaps, steps that differ, infinities and numbers near the ends of float64, tags, nothing at all."""
    nan, inf = math.nan, math.inf
    source = of_values({f"a.{x}": [1.0, 2.0, nan, -3.0] * 8 for x in "bc"}, START_S)
    source.add("a.d", [(START_S + 10 * i, math.sin(i) * 10 ** (i % 6)) for i in range(30)])
    slow = BundleSpec(archives("20s:1h,1m:7d"))
    source.add("m.fast", [(START_S + 10 * i, float(i)) for i in range(0, 30, 3)])
    source.add("m.slow", [(START_S + 20 * i, -float(i)) for i in range(15)], slow)
    odd = [inf, -inf, 1e308, -1e308, 5e-324, 0.1 + 0.2, -0.0, nan, 1e16, 1e-5]
    source.add("odd.x", [(START_S + 10 * i, value) for i, value in enumerate(odd)])
    source.add("odd.é", [(START_S + 10 * i, value) for i, value in enumerate(odd[::-1])])
    source.add("t;host=h1", [(START_S + 10 * i, 5.0) for i in range(9)])
    source.add("t;host=h2", [(START_S + 10 * i, 7.0) for i in range(9)])
    source.add("empty.x", [])
    return source


def no_constant(text: str) -> NoReturn:
    raise AssertionError(f"{text} in JSON")


def in_json(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class Api:
    """The app and a client of it, for as long as ``with`` lasts."""

    def __enter__(self) -> Api:
        self.statuses: Counter[int] = Counter()
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._start())
        return self

    async def _start(self) -> TestClient[Any, Any]:
        source = make_source()
        await source.add_event(Event("x", START_S + 20.0, ("deploy",)))
        client = TestClient(TestServer(make_app(source, FakeStatus())))
        await client.start_server()
        return client

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def get(self, target: str, **more: str) -> tuple[int, bytes]:
        times = {"from": str(START_S - 1), "until": str(UNTIL_S), "now": str(UNTIL_S)}
        url = "/render?" + urlencode({"target": target, **times, "format": "json", **more})

        async def ask() -> tuple[int, bytes]:
            async with asyncio.timeout(30), self._client.get(url) as response:
                return response.status, await response.read()

        return self._runner.run(ask())

    def holds(self, target: str, points_max: int) -> None:
        status, body = self.get(target)
        self.statuses[status] += 1
        if any(f"{name}(" in target for name in well_typed.CHANGING):
            assert status in (200, 400)
            return
        assert self.get(target) == (status, body)
        with patch.object(render, "INLINE_S", -1), in_small_chunks():
            assert self.get(target) == (status, body)
        with patch.object(render, "THREAD_S", -1):
            assert self.get(target) == (status, body)
        for more in ({"meta": "1"}, {"explain": "1"}):
            assert self.get(target, **more)[0] == status, more
        if status != 200:
            check_refusal(status, body)
            return
        parsed = json.loads(body, parse_constant=no_constant)
        few = json.loads(self.get(target, maxDataPoints=str(points_max))[1])
        assert [one["target"] for one in few] == [one["target"] for one in parsed]
        # the range's steps are what is counted (as graphite-web); a few functions give one value more
        assert all(len(one["datapoints"]) <= points_max + 1 for one in few)
        self.check_formats(target, READERS["json"](body))

    def check_formats(self, target: str, as_json: list[Series]) -> None:
        read: dict[str, list[Series]] = {}
        for format_ in ("raw", "pickle", "msgpack", "rickshaw"):
            status, body = self.get(target, format=format_)
            assert status == 200, format_
            read[format_] = READERS[format_](body)
        raw = read["raw"]
        for format_ in ("pickle", "msgpack"):
            shown = [{key: one[key] for key in ("n", "se", "v")} for one in read[format_]]
            assert repr(shown) == repr(raw), format_
        status, body = self.get(target, format="csv")
        assert status == 200
        assert rows_of(body.decode()) == [row for one in raw for row in points_of(one)]
        status, _ = self.get(target, format="dygraph")
        assert status in (200, 400)
        check_json(as_json, raw)
        check_json(read["rickshaw"], raw, last=False)


def check_refusal(status: int, body: bytes) -> None:
    text = body.decode()
    assert status == 400, text
    assert text.count("\n") == 1 and text.endswith("\n") and len(text) <= 2_001
    for sign in ("Traceback", "Exception", "Error:", "object at 0x", "numpy", "tgres_py"):
        assert sign not in text


def check_json(shown: list[Series], raw: list[Series], last: bool = True) -> None:
    """``last``: a point at the end of the range itself is shown (JSON, not rickshaw)."""
    if not any(one["v"] for one in raw):
        assert not any(one["v"] for one in shown)
        return
    assert len(shown) == len(raw)
    for one, wanted in zip(shown, raw, strict=True):
        end_s = wanted["se"][1] + last
        points = [(at, in_json(value)) for at, value in times_of(wanted) if at < end_s]
        assert list(zip(one["at"], one["v"], strict=True)) == points
        assert one["n"] in (wanted["n"], None)


def times_of(raw: Series) -> list[tuple[int, float | None]]:
    start_s, _, step_s = raw["se"]
    return [(start_s + step_s * place, value) for place, value in enumerate(raw["v"])]


def points_of(raw: Series) -> list[tuple[str, int, float | None]]:
    return [(raw["n"], at, value) for at, value in times_of(raw)]


def rows_of(text: str) -> list[tuple[str, int, float | None]]:
    out = []
    for name, time, value in csv.reader(text.splitlines(keepends=True)):
        moment = datetime.strptime(time, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        out.append((name, int(moment.timestamp()), float(value) if value else None))
    return out


def in_small_chunks() -> Any:
    """A context in which answers of more than CHUNK_BYTES are sent in pieces."""
    chunked = chunks.chunked
    return patch.multiple(
        chunks, CHUNK_BYTES=CHUNK_BYTES, chunked=lambda pieces: chunked(pieces, CHUNK_BYTES)
    )


def test_well_typed_targets() -> None:
    def run(chosen: settings) -> None:
        chosen(given(well_typed.targets(), st.integers(1, 40))(api.holds))()

    with Api() as api:
        fuzz(run, examples=EXAMPLES)
        rendered = api.statuses[200] / api.statuses.total()
        print(f"{rendered:.0%} of {api.statuses.total()} targets rendered")
    assert rendered > RENDERED_PART_MIN


def test_targets_of_the_corpus() -> None:
    with Api() as api:
        for target in corpus("targets"):
            api.holds(target.decode(), 3)


def test_the_other_ways_are_other_ways() -> None:
    with Api() as api:
        with in_small_chunks(), patch.object(stream, "send", side_effect=stream.send) as send:
            api.get("a.*")
        assert send.called
        elsewhere = patch.object(render, "Session", side_effect=render.Session)
        with patch.object(render, "THREAD_S", -1), elsewhere as session:
            api.get("a.*")
        assert session.called


@pytest.mark.parametrize("format_", sorted(FORMATS))
def test_every_format_is_compared(format_: str) -> None:
    assert format_ in {*READERS, "dygraph"}
