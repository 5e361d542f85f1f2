"""Worker processes: the same answers byte for byte, and what becomes of queries and processes that end early."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api import render
from http_api.app import make_app
from http_api.workers.pool import Workers
from tests import graphite_cases as cases
from tests.fake_source import FakeSource, of_dataset
from tests.graphite_dataset import BASE_NOW
from tests.test_formats import pairs_of
from tests.test_http_index import EVENTS
from tests.test_http_render import FakeStatus
from tgres_py.model.event import Event

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
def workers() -> Workers:
    return Workers()


@pytest.fixture
async def client(source: FakeSource, workers: Workers) -> AsyncIterator[Client]:
    async with TestClient(TestServer(make_app(source, FakeStatus(), workers=workers))) as client:
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
