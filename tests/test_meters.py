"""What the HTTP API counts of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api.app import DefaultHttpSettings, make_app
from http_api.meters import Meters
from tests.test_http_render import NOW_S, TIMES, FakeStatus, make_source

Client = TestClient[Any, Any]


@pytest.fixture
def meters() -> Meters:
    return Meters()


@pytest.fixture
async def client(meters: Meters) -> AsyncIterator[Client]:
    settings = DefaultHttpSettings(query_targets_max=2)
    app = make_app(make_source(), FakeStatus(), settings, meters=meters)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_renders_are_counted_by_format_and_stage(client: Client, meters: Meters) -> None:
    for format_ in ("json", "json", "csv"):
        answer = await client.get(f"/render?target=a.*&{TIMES}&format={format_}")
        assert answer.status == 200
        await answer.read()
    assert meters.requests["/render", 200] == 3
    assert {name: one.count for name, one in meters.render_seconds.items()} == {"json": 2, "csv": 1}
    assert meters.seconds["/render"].count == 3
    assert set(meters.stage_seconds) == {"plan", "fetch", "functions"}
    assert meters.series_read == 9 and meters.points_read >= 3 * 9
    assert meters.response_bytes > 100 and meters.in_flight == 0


async def test_refusals_are_counted_by_setting(client: Client, meters: Meters) -> None:
    answer = await client.get(f"/render?target=a&target=b&target=c&{TIMES}")
    assert answer.status == 400
    assert (await client.get("/render?target=sum(")).status == 400
    assert meters.requests["/render", 400] == 2
    assert meters.refused == {"query_targets_max": 1}
    assert meters.errors["limit"] == 1 and sum(meters.errors.values()) == 2
    assert not meters.render_seconds, "what was refused took no time to render"


async def test_labels_are_routes_whatever_is_asked_for(client: Client, meters: Meters) -> None:
    for number in range(5):
        await client.get(f"/no/such/page{number}")
        await client.get(f"/functions/name{number}")
        await client.get(f"/metrics/find/?query=a{number}.*")
    await client.post("/version")
    assert {route for route, _ in meters.requests} == {
        "other",
        "/functions/{name}",
        "/metrics/find",
    }
    assert meters.requests["other", 404] == 5 and meters.requests["other", 405] == 1


async def test_long_answers_are_counted_whole(client: Client, meters: Meters) -> None:
    answer = await client.get(
        f"/render?target=constantLine(1)&from={NOW_S - 4_000_000}&until={NOW_S}&format=json"
        "&target=randomWalk('x')",
        headers={"Accept-Encoding": "identity"},
    )
    body = await answer.read()
    assert answer.status == 200 and len(body) > 300_000
    assert meters.response_bytes == pytest.approx(len(body), rel=0.01)


async def test_refusals_that_are_json_are_counted_too(client: Client, meters: Meters) -> None:
    answer = await client.get("/tags/findSeries")
    assert answer.status == 400 and "error" in await answer.json()
    assert meters.requests["/tags/findSeries", 400] == 1
    assert meters.errors == {"bad_request": 1}
