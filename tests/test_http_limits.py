"""Every limit of the HTTP API is a setting: what it refuses is a 400 that names it, and is counted under its name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api.app import DefaultHttpSettings, make_app
from http_api.meters import Meters
from tests.fake_source import FakeSource, of_values
from tests.test_http_render import FakeStatus
from tgres_py.config import Settings
from tgres_py.errors import LimitExceeded
from tgres_py.model.event import Event

START_S = 1_700_000_040
TIMES = f"from={START_S}&until={START_S + 60}&now={START_S + 60}"
SMALL = DefaultHttpSettings(
    query_targets_max=2,
    query_nesting_max=4,
    query_series_max=3,
    query_points_max=1_000,
    find_nodes_max=3,
    find_queries_max=2,
    tag_paths_max=2,
    events_max=2,
    picture_pixels_max=100_000,
    picture_series_max=2,
)

Client = TestClient[Any, Any]


@pytest.fixture
def source() -> FakeSource:
    return of_values({f"a.{letter}": [1.0] * 6 for letter in "bcde"}, START_S)


@pytest.fixture
def meters() -> Meters:
    return Meters()


@pytest.fixture
async def client(source: FakeSource, meters: Meters) -> AsyncIterator[Client]:
    app = make_app(source, FakeStatus(), SMALL, meters=meters)
    async with TestClient(TestServer(app)) as client:
        yield client


ALLOWED = [
    "/metrics/find?query=a.[bcd]",
    "/metrics/expand?query=a.b&query=a.[cd]",
    "/tags/tagMultiSeries path=m;x=1&path=m;x=2",
    "/events/get_data?until=2000000000",
    f"/render?target=a.b&target=a.c&{TIMES}&width=400&height=250",
    f"/render?target=scale(scale(scale(a.b,1),1),1)&{TIMES}&format=json",
    f"/render?target=group(a.b,a.b|scale(1)|scale(1))&{TIMES}&format=json",
    f"/render?target=x:1&target=a.b&graphType=pie&{TIMES}",
]
REFUSED = [
    ("/metrics/find?query=a.*", "find_nodes_max"),
    ("/metrics/expand?query=a.*", "find_nodes_max"),
    ("/metrics/expand?query=a.b&query=a.b&query=a.b", "find_queries_max"),
    ("/tags/tagMultiSeries path=m;x=1&path=m;x=2&path=m;x=3", "tag_paths_max"),
    ("/tags/delSeries path=m;x=1&path=m;x=2&path=m;x=3", "tag_paths_max"),
    ("/events/get_data?from=1&until=2000000000", "events_max"),
    (f"/render?target=a.b&{TIMES}&width=400&height=251", "picture_pixels_max"),
    (f"/render?target=a.[bcd]&{TIMES}", "picture_series_max"),
    (f"/render?target=x:1&target=y:2&target=a.b&graphType=pie&{TIMES}", "picture_series_max"),
    (f"/render?target=a.*&{TIMES}", "query_series_max"),
    ("/render?target=a.b&target=a.c&target=a.d", "query_targets_max"),
    ("/render?target=scale(scale(scale(scale(a.b,1),1),1),1)", "query_nesting_max"),
    ("/render?target=a.b|scale(1)|scale(1)|scale(1)|scale(1)", "query_nesting_max"),
    ("/render?target=group(a.b,scale(a.b,1)|scale(1)|scale(1))", "query_nesting_max"),
    (f"/render?target=a.b&from={START_S - 86_000}&until={START_S}&now={START_S}", "query_points_max"),
]


async def send(client: Client, line: str) -> tuple[int, str]:
    """``path`` is got; ``path form`` is posted."""
    path, _, form = line.partition(" ")
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if form:
        response = await client.post(path, data=form, headers=headers)
    else:
        response = await client.get(path)
    return response.status, (await response.read()).decode("utf-8", "replace")


@pytest.mark.parametrize("line", ALLOWED)
async def test_what_just_fits(client: Client, meters: Meters, line: str) -> None:
    status, text = await send(client, line)
    assert status == 200, text
    assert not meters.refused


@pytest.mark.parametrize(("line", "setting"), REFUSED)
async def test_refused(
    client: Client, source: FakeSource, meters: Meters, line: str, setting: str
) -> None:
    if setting == "events_max":
        for at_s in (1.0, 2.0, 3.0):
            await source.add_event(Event("x", at_s))
    status, text = await send(client, line)
    assert status == 400
    assert f"setting {setting} allows" in text
    assert dict(meters.refused) == {setting: 1}
    assert dict(meters.errors) == {LimitExceeded.counter: 1}


def test_the_defaults_are_those_of_the_settings() -> None:
    settings = Settings()
    for field in fields(DefaultHttpSettings):
        assert getattr(settings, field.name) == field.default, field.name
