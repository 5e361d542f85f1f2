"""/openapi.json says what the router has and what the views read: no more, no less."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api.admin import Admin
from http_api.app import make_app
from http_api.openapi import OPERATIONS, PICTURE_PARAMS, RENDER_PARAMS, describe
from http_api.pictures.options import Picture, canvas_of, line_options_of, pie_options_of
from http_api.reply import Params
from http_api.tags import wrong_method
from tests.fake_source import FakeSource, of_dataset
from tests.test_http_render import FakeStatus

PATHS = {operation.path: operation for operation in OPERATIONS}
# requests that together come past every parameter of the path
REQUESTS = {
    "/render": ["target=a&format=json", "target=a", "target=a&format=json&cacheTimeout=1"],
    "/metrics/find": [f"query=*&format={name}" for name in ("treejson", "nodelist")],
    "/metrics/expand": ["query=*"],
    "/metrics/index.json": [""],
    "/tags": ["limit=1"],
    "/tags/findSeries": ["expr=name=~."],
    "/tags/autoComplete/tags": ["limit=1"],
    "/tags/autoComplete/values": ["tag=name"],
    "/functions": [""],
    "/functions/{name}": [""],
    "/events/get_data": [""],
    "/events": [""],
    "/dashboard/find": [""],
}


@cache
def source() -> FakeSource:
    return of_dataset()


class Verbs:
    def listing(self) -> list[dict[str, Any]]:
        return []

    def start(self, name: str, given: Any) -> Any:
        raise AssertionError


def test_every_route_is_described_and_nothing_else() -> None:
    routes = defaultdict(set)
    app = make_app(source(), FakeStatus(), admin=Admin(Verbs()))
    for route in app.router.routes():
        assert route.resource is not None
        path = re.sub(r"\{(\w+):.*?\}", r"{\1}", route.resource.canonical).rstrip("/") or "/"
        if route.method != "HEAD" and route.handler is not wrong_method:
            routes[path].add(route.method.lower())
    described = {path: set(methods) for path, methods in describe()["paths"].items()}
    assert described == routes


@pytest.mark.parametrize("path", REQUESTS)
async def test_parameters_are_those_that_are_read(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = set()

    def recording(original: Any) -> Any:
        def method(self: Params, name: str, *rest: Any) -> Any:
            read.add(name.removesuffix("[]"))
            return original(self, name, *rest)

        return method

    for name in ("get", "all", "__contains__"):
        monkeypatch.setattr(Params, name, recording(getattr(Params, name)))
    async with TestClient(TestServer(make_app(source(), FakeStatus()))) as client:
        for query in REQUESTS[path]:
            answer = await client.get(path.replace("{name}", "sum") + "?" + query)
            assert answer.status == 200, await answer.text()
    params = RENDER_PARAMS if path == "/render" else PATHS[path].params
    described = {param.name for param in params}
    # only the nodes of a cluster ask whether others may be asked
    assert read <= described and described - read <= {"local"}


def test_parameters_of_pictures_are_those_that_are_read() -> None:
    read = set()

    class Values(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            read.add(name)
            return default

        def __contains__(self, name: object) -> bool:
            read.add(str(name))
            return False

    picture = Picture({})
    picture._values = Values()
    canvas_of(picture, 10**9), line_options_of(picture), pie_options_of(picture)
    # asked for only where they are given
    read |= {"yMin", "yMax", "leftColor", "rightColor"}
    assert {param.name for param in PICTURE_PARAMS} == read


def test_the_document_is_well_formed() -> None:
    document = describe()
    methods = [one for path in document["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in methods}) == len(methods)
    for one in methods:
        names = [(given["in"], given["name"]) for given in one.get("parameters", ())]
        assert len(set(names)) == len(names), one["operationId"]
        assert one["summary"] and one["responses"]


async def test_it_is_served() -> None:
    async with TestClient(TestServer(make_app(source(), FakeStatus()))) as client:
        answer = await client.get("/openapi.json")
        assert answer.content_type == "application/json"
        assert await answer.json() == describe()
