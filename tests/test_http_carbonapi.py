"""tgres as a backend of carbonapi (protocol msgpack): its requests, and what its strict reader takes from the answers.

Source: what carbonapi's client of graphite backends sends and decodes (fields, Go types, wire types).
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api.app import make_app
from tests.fake_source import FakeSource, archives
from tests.test_http_render import FakeStatus
from tgres_py.model.retention import BundleSpec, Cf

START_S = 1_700_000_040
KEPT = BundleSpec(archives("10s:6h,1m:7d"), Cf("max"), 0.25)
HEADERS = {"Accept": "application/x-carbonapi-v2-pb", "User-Agent": "carbonapi"}

Client = TestClient[Any, Any]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    source = FakeSource()
    points = [(START_S, 1.0), (START_S + 10, 2.0), (START_S + 30, 4.0)]
    source.add("a.one", points, KEPT)
    source.add("a.b.two", points, KEPT)
    source.add("disk;host=x", points, KEPT)
    async with TestClient(TestServer(make_app(source, FakeStatus())), headers=HEADERS) as client:
        yield client


async def ask(client: Client, path: str) -> bytes:
    response = await client.get(path)
    body = await response.read()
    assert response.status == 200, body
    return body


async def test_render(client: Client) -> None:
    """Whole numbers of 32 bits for times, float64 and nothing else for values: an int would be NaN there."""
    url = f"/render/?format=msgpack&from={START_S - 1}&target=a.%2A&target=disk%3Bhost%3Dx"
    rows = msgpack.unpackb(await ask(client, f"{url}&until={START_S + 30}&now={START_S + 30}"))
    assert [row["name"] for row in rows] == ["a.one", "disk;host=x"]
    for row in rows:
        assert all(
            type(row[key]) is int and 0 <= row[key] < 2**32 for key in ("start", "end", "step")
        )
        assert type(row["pathExpression"]) is str
        assert row["values"] == [1.0, 2.0, None, 4.0]
        assert {type(value) for value in row["values"]} == {float, type(None)}
        assert (row["end"] - row["start"]) // row["step"] == len(row["values"])


async def test_find_and_probe(client: Client) -> None:
    rows = msgpack.unpackb(await ask(client, "/metrics/find/?format=msgpack&query=a.%2A"))
    found = [(row["path"], row["isLeaf"]) for row in rows]
    assert sorted(found) == [("a.b", False), ("a.one", True)]
    assert all(type(is_leaf) is bool for _, is_leaf in found)
    top = msgpack.unpackb(await ask(client, "/metrics/find/?format=msgpack&query=%2A"))
    assert [row["path"] for row in top] == ["a"]
    assert msgpack.unpackb(await ask(client, "/metrics/find/?format=msgpack&query=no.%2A")) == []


async def test_lists(client: Client) -> None:
    assert await ask(client, "/metrics/expand/?query=a.%2A") == b'{"results":["a.b","a.one"]}'
    assert await ask(client, "/tags/autoComplete/tags?limit=10") == b'["host","name"]'
    values = await ask(client, "/tags/autoComplete/values?tag=host&limit=10")
    assert values == b'["x"]'


def decoded(body: bytes) -> list[tuple[int, Any]]:
    """The fields of a message of protocol buffers, each with its number."""
    out: list[tuple[int, Any]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = body[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(body):
        key = varint()
        if key & 7 == 0:
            out.append((key >> 3, varint()))
        elif key & 7 == 2:
            length = varint()
            out.append((key >> 3, body[at : at + length]))
            at += length
        else:
            assert key & 7 == 5
            out.append((key >> 3, struct.unpack("<f", body[at : at + 4])[0]))
            at += 4
    return out


@pytest.mark.parametrize("form", ["msgpack", "protobuf"])
async def test_info(client: Client, form: str) -> None:
    fields = decoded(await ask(client, f"/info/?target=a.one&format={form}"))
    assert fields[:4] == [(1, b"a.one"), (2, b"max"), (3, 7 * 86_400), (4, 0.25)]
    assert [(number, decoded(value)) for number, value in fields[4:]] == [
        (5, [(1, 10), (2, 2_160)]),
        (5, [(1, 60), (2, 10_080)]),
    ]


async def test_info_for_people(client: Client) -> None:
    response = await client.post("/info", data={"target": "disk;host=x"})
    assert await response.json() == {
        "name": "disk;host=x",
        "aggregationMethod": "max",
        "maxRetention": 604_800,
        "xFilesFactor": 0.25,
        "retentions": [
            {"secondsPerPoint": 10, "numberOfPoints": 2_160},
            {"secondsPerPoint": 60, "numberOfPoints": 10_080},
        ],
    }


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("target=no.such", 404, "no.such"),
        ("target=a.b", 404, "a.b"),
        ("target=a.*", 400, "pattern"),
        ("target=", 400, "target"),
        ("", 400, "target"),
        ("target=a.one&format=xml", 400, "format"),
    ],
)
async def test_info_refused(client: Client, query: str, status: int, word: str) -> None:
    response = await client.get(f"/info/?{query}")
    text = await response.text()
    assert (response.status, text.count("\n")) == (status, 1)
    assert word in text
