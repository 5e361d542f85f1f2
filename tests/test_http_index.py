"""/tags, /events, the formats of /metrics/find: recorded answers of graphite-web, and what they don't show."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api.app import make_app
from http_api.events import iso_time
from tests import graphite_cases as cases
from tests.fake_source import FakeSource, of_dataset, of_values
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


@pytest.mark.parametrize("path", ["/", "/composer", "/browser/", "/dashboard", "/dashboard/"])
async def test_pages_are_one_static_page(client: Client, path: str) -> None:
    response = await client.get(path + "?target=<b>")
    assert (response.status, response.content_type) == (200, "text/html")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "<b>" not in await response.text()


async def test_parts_of_the_page(client: Client) -> None:
    page = await (await client.get("/browser")).text()
    parts = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(parts) == 2
    for part in parts:
        assert part.startswith("/ui/") and (await client.get(part)).status == 200
    script = await (await client.get("/ui/browser.js")).text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)
    assert (await client.get("/ui/nosuch.js")).status == 404
    assert (await client.get("/ui/..%2Fpages.py")).status == 404


async def test_dashboards_are_not_saved(client: Client) -> None:
    for path in ("save/a", "save_template/a/b", "create-temporary"):
        response = await client.post(f"/dashboard/{path}", data={"state": "{}"})
        assert (response.status, response.content_type) == (400, "text/plain")
        assert (await response.text()).count("\n") == 1


async def test_a_path_that_ends_in_a_dot_is_the_branch_before_it(client: Client) -> None:
    async def found(path: str, **params: str) -> Any:
        return await (await client.get(f"/metrics/{path}", params=params)).json()

    tree = {"text": "", "id": "servers.", "leaf": 0, "expandable": 1, "allowChildren": 1}
    assert await found("find", query="servers.") == [tree]
    rows = await found("find", query="servers.web0*.", format="json")
    assert [row["path"] for row in rows] == [f"servers.web0{n}." for n in (1, 2, 3)]
    assert await found("expand", query="servers.") == {"results": ["servers."]}
    for nothing in ("shapes.saw.", "no.such.", "servers..", "."):
        assert await found("expand", query=nothing) == {"results": []}


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/dashboard/find?query=", {"dashboards": []}),
        ("/dashboard/find_template?query=a", {"templates": []}),
        ("/dashboard/load/<b>", {"error": "Dashboard '<b>' does not exist. "}),
        ("/dashboard/delete/x", {"error": "Dashboard 'x' does not exist. "}),
        ("/dashboard/load_template/a/b", {"error": "Template 'a' does not exist. "}),
    ],
)
async def test_no_dashboards(client: Client, path: str, answer: dict[str, Any]) -> None:
    response = await client.get(path)
    assert (response.status, response.content_type) == (200, "application/json")
    assert await response.json() == answer


async def test_metrics_with_a_query_is_find(client: Client) -> None:
    wanted = await (await client.get("/metrics/find?query=both.*")).json()
    assert await (await client.get("/metrics/?query=both.*")).json() == wanted
    assert await (await client.post("/metrics", data={"query": "both.*"})).json() == wanted
    assert (await client.get("/metrics")).content_type == "text/plain"


async def test_a_path_of_tags_that_only_writes(client: Client) -> None:
    for path in ("tagSeries", "tagMultiSeries", "delSeries"):
        assert (await client.get(f"/tags/{path}?path=a;b=1")).status == 405
        assert (await client.post(f"/tags/{path}/")).status == 400


async def test_limits_of_lists(client: Client) -> None:
    async def listed(query: str) -> list[Any]:
        found: list[Any] = await (await client.get(f"/tags{query}")).json()
        return found

    every = [row["tag"] for row in await listed("")]
    assert len(every) > 3 and every == sorted(every)
    assert await listed("?limit=0") == []
    assert len(await listed("?limit=-1")) == len(await listed("?limit=")) == len(every)
    assert await listed("/autoComplete/tags?limit=0") == []
    assert await listed("/autoComplete/tags?limit=-2") == every[:-2]
    assert await listed("/autoComplete/tags?limit=-2&expr=name=disk.used") == []
    assert await listed("/autoComplete/tags?limit=0&expr=name=disk.used") == []
    assert await listed("/autoComplete/values?tag=server&expr=name=disk.used&limit=2") == [
        "web01",
        "web02",
    ]
    # alone the expression would be refused, but the tag asked for is a condition, too
    assert await listed("/autoComplete/values?tag=rack&expr=name=~.*") == ["a1", "b2"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/tags/findSeries", "no tag expressions specified"),
        ("/tags/findSeries?expr=x=~[", "regular expression '['"),
        ("/tags?filter=(", "regular expression '('"),
        ("/tags?limit=x", "limit"),
        ("/tags/autoComplete/tags?limit=", "limit"),
        ("/tags/autoComplete/values?tag=", "no tag specified"),
        ("/tags/autoComplete/values?tag=a!b&expr=name=x", "Invalid tagspec a!b!="),
        ("/events/get_data?from=rubbish", "from"),
        ("/events/get_data?jsonp=alert(1)", "jsonp"),
    ],
)
async def test_refused(client: Client, path: str, message: str) -> None:
    response = await client.get(path)
    assert (response.status, response.content_type) == (400, "application/json")
    assert message in (await response.json())["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("xx", "no JSON"),
        ("[]", "JSON object"),
        ('{"tags":["a"]}', "what"),
        ('{"what":"x","tags":5}', '"tags" must be an array or space-separated string'),
        ('{"what":"x","tags":[5]}', '"tags" must be an array or space-separated string'),
        ('{"what":"x","when":"abc"}', "when"),
        ('{"what":"x","when":true}', "when"),
        ('{"what":"x","when":1e300}', "when"),
        ('{"what":"a\\u0000"}', "what: holds a NUL"),
        ('{"what":"x","tags":"a\\u0000"}', "tags: hold a NUL"),
    ],
)
async def test_events_refused(client: Client, body: str, message: str) -> None:
    response = await client.post("/events/", data=body)
    assert response.status == 400
    assert message in (await response.json())["error"]


async def test_events_have_whole_times_and_lists_of_tags(client: Client) -> None:
    """Grafana's Go side refuses anything else."""
    for body in (
        {"what": "w", "tags": "b  c", "when": 1_700_000_000.7},
        {"what": 5, "data": {"a": 1}, "tags": ["x y", "x"], "when": 1_700_000_000},
        {"what": "none", "when": 1_700_000_001},
    ):
        assert (await client.post("/events", json=body)).status == 200
    query = "/events/get_data/?from=1699999999&until=1700000002"
    rows = await (await client.get(query)).json()
    assert [[row["when"], row["what"], row["data"], row["tags"]] for row in rows] == [
        [1_700_000_000, "5", '{"a":1}', ["x", "y", "x"]],
        [1_700_000_000, "w", "", ["b", "c"]],
        [1_700_000_001, "none", "", []],
    ]
    assert all(isinstance(row["when"], int) for row in rows)
    assert [r["what"] for r in await (await client.get(query + "&tags=x y")).json()] == ["5"]
    assert await (await client.get(query + "&tags=x c")).json() == []
    found = await (await client.get(query + "&tags=x c&set=union")).json()
    assert [r["what"] for r in found] == ["5", "w"]
    assert await (await client.get(query + "&tags=")).json() == []
    one = await (await client.get(f"/events/{rows[1]['id']}/")).json()
    assert one == {
        "id": rows[1]["id"],
        "when": "2023-11-14T22:13:20.700Z",
        "what": "w",
        "data": "",
        "tags": ["b", "c"],
    }
    assert (await client.get("/events/x")).status == 404


def test_times_of_one_event() -> None:
    assert iso_time(1_778_594_240) == "2026-05-12T13:57:20Z"
    assert iso_time(0.001) == "1970-01-01T00:00:00.001Z"


async def test_find_for_programs() -> None:
    source = of_values({"a.b": [1.0], "a.b.c": [1.0], "a.a": [1.0]}, 1_700_000_000)
    async with TestClient(TestServer(make_app(source, FakeStatus()))) as client:
        url = "/metrics/find?query=a.*&now=1700000000&format="
        span = [1_700_000_000 - 5 * 365 * 86_400, 1_700_000_000]
        rows = await (await client.get(url + "json")).json()
        assert rows == [
            {"path": "a.a", "is_leaf": True, "intervals": [{"start": span[0], "end": span[1]}]},
            {"path": "a.b", "is_leaf": False},
            {"path": "a.b", "is_leaf": True, "intervals": [{"start": span[0], "end": span[1]}]},
        ]
        packed = [
            {"path": "a.a", "is_leaf": True, "isLeaf": True, "intervals": [span]},
            {"path": "a.b", "is_leaf": False, "isLeaf": False},
            {"path": "a.b", "is_leaf": True, "isLeaf": True, "intervals": [span]},
        ]
        response = await client.get(url + "msgpack")
        assert response.content_type == "application/x-msgpack"
        assert msgpack.unpackb(await response.read()) == packed
        response = await client.get(url + "pickle")
        assert response.content_type == "application/pickle"
        loaded = pickle.loads(await response.read())
        assert [{**row, **intervals_as_lists(row)} for row in loaded] == packed
        leaves = await (await client.get(url + "completer&leavesOnly=1")).json()
        assert [m["path"] for m in leaves["metrics"]] == ["a.a", "a.b"]
        tree = await (await client.get(url + "treejson&wildcards=1")).json()
        assert [(n["text"], n["leaf"]) for n in tree] == [("*", 0), ("b", 0), ("a", 1)]
        assert await (await client.get(url + "nodelist&position=0")).json() == {"nodes": ["a"]}
        assert (await client.get(url + "nodelist&position=2")).status == 400


def intervals_as_lists(row: dict[str, Any]) -> dict[str, Any]:
    return {key: [list(pair) for pair in row[key]] for key in row if key == "intervals"}


async def test_wildcard_of_one_name_that_is_branch_and_leaf() -> None:
    """graphite-web counts it as two nodes."""
    source = of_values({"a.b": [1.0], "a.b.c": [1.0]}, 1_700_000_000)
    async with TestClient(TestServer(make_app(source, FakeStatus()))) as client:
        tree = await (await client.get("/metrics/find?query=a.*&wildcards=1")).json()
        assert [n["text"] for n in tree] == ["*", "b"]
