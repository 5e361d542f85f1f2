"""/tags, /events, the formats of /metrics/find: recorded answers of graphite-web, and what they don't show."""

from __future__ import annotations

import json
import pickle
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api.app import make_app
from tests import graphite_cases as cases
from tests.fake_source import FakeSource, of_dataset
from tests.graphite_dataset import BASE_NOW
from tests.test_http_render import FakeStatus
from tgres_py import clock
from tgres_py.model.event import Event

CASES = cases.load("graphite_index.jsonl")
# offset to now, what, tags, data
EVENTS = [
    (-5400, "deploy shop 1", "deploy shop", "v1.0"),
    (-3000, "deploy blog 1", "deploy blog", "v2.0"),
    (-1500, "outage", "incident", "db-a lost"),
    (-900, "deploy shop 2", "deploy shop prod", "v1.1"),
    (-300, "rollback", "rollback shop", ""),
    (-300, "note", "incident shop", "twice in one second"),
    (-120, "untagged", "", "nothing"),
]

Client = TestClient[Any, Any]


@pytest.fixture(scope="module")
def dataset_source() -> FakeSource:
    return of_dataset()


@pytest.fixture
async def client(dataset_source: FakeSource) -> AsyncIterator[Client]:
    dataset_source.store = type(dataset_source.store)()
    for offset, what, tags, data in EVENTS:
        await dataset_source.add_event(Event(what, BASE_NOW + offset, tuple(tags.split()), data))
    clock.replace_source(lambda: BASE_NOW)
    async with TestClient(TestServer(make_app(dataset_source, FakeStatus()))) as client:
        yield client
    clock.replace_source(None)


async def send(client: Client, step: dict[str, Any]) -> tuple[int, str, bytes]:
    pairs = [(key, cases.place(value, BASE_NOW)) for key, value in step["query"]]
    headers = step.get("headers") or {}
    if step.get("body") is not None:
        body = cases.place(step["body"], BASE_NOW).encode()
        response = await client.request(step["method"], step["path"], data=body, headers=headers)
    elif step["method"] == "POST":
        response = await client.post(step["path"], data=pairs, headers=headers)
    else:
        response = await client.get(step["path"], params=pairs, headers=headers)
    return response.status, response.content_type, await response.read()


def comparable(step: dict[str, Any], body: bytes) -> Any:
    kind = step["cmp"]
    if kind.endswith("_jsonp"):
        callback = dict(step["query"])["jsonp"].encode()
        assert body.startswith(callback + b"(") and body.endswith(b")")
        body, kind = body[len(callback) + 1 : -1], kind.removesuffix("_jsonp")
    match kind:
        case "find_nodes":
            return nodes(json.loads(body))
        case "find_pickle":
            return nodes(pickle.loads(body))
        case "find_msgpack":
            return nodes(msgpack.unpackb(body))
        case "events" | "events_uniq":
            rows = [
                [e["when"] - BASE_NOW, e["what"], e["data"], sorted(e["tags"])]
                for e in json.loads(body)
            ]
            return sorted(rows, key=json.dumps)
        case "tags":
            return without_ids(json.loads(body))
    return json.loads(body)


def nodes(found: list[dict[str, Any]]) -> list[list[Any]]:
    out = []
    for node in found:
        pairs = [
            (i["start"], i["end"]) if isinstance(i, dict) else tuple(i)
            for i in node.get("intervals", ())
        ]
        known = bool(pairs) and all(start < end for start, end in pairs)
        out.append([node["path"], node["is_leaf"], known if node["is_leaf"] else None])
    return sorted(out, key=lambda row: row[:2])


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key != "id"}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
async def test_answers_as_graphite_web(client: Client, case: dict[str, Any]) -> None:
    for step in case["steps"]:
        expected = step["expected"]
        status, content_type, body = await send(client, step)
        if expected["status"] >= 500:
            assert status == 400
            continue
        assert status == expected["status"], body
        if status == 200 and step["cmp"] != "status":
            assert content_type == expected["ct"]
            assert comparable(step, body) == expected["data"]
