"""Names over HTTP: find, expand, index.json, functions, version; recorded answers of graphite-web among them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api import gently
from http_api.app import make_app
from http_api.encoding import dump_json
from http_api.functions import _spell_infinity
from tests import graphite_cases as cases
from tests.fake_source import FakeSource, of_dataset, of_values
from tests.graphite_dataset import BASE_NOW, build
from tests.test_http_render import FakeStatus

CASES = cases.load("graphite_http.jsonl")
TREE_KEYS = ("text", "id", "leaf", "expandable", "allowChildren")
# tagged names are paths of the whisper store there, and shown in find; ours are found by tags and exact name
TAGGED_ROOTS = ("_tagged", "cpu", "disk", "temp", "req")


@cache
def dataset_source() -> FakeSource:
    return of_dataset()


Client = TestClient[Any, Any]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with TestClient(TestServer(make_app(dataset_source(), FakeStatus()))) as client:
        yield client


async def send(client: Client, case: cases.Case) -> tuple[int, str, str]:
    pairs = [(key, cases.place(value, BASE_NOW)) for key, value in case["query"]]
    if case["method"] == "POST":
        response = await client.post(case["path"], data=pairs)
    else:
        response = await client.get(case["path"], params=pairs)
    return response.status, response.content_type, await response.text()


def comparable(case: cases.Case, text: str) -> Any:
    kind = case["cmp"]
    if kind.endswith("_jsonp"):
        callback = dict(case["query"])["jsonp"]
        assert text.startswith(callback + "(") and text.endswith(")")
        text, kind = text[len(callback) + 1 : -1], kind.removesuffix("_jsonp")
    if kind == "version":
        return text.strip() == "1.1.10"
    decoded = json.loads(text)
    if kind == "find_tree":
        return [[node[key] for key in TREE_KEYS] for node in decoded]
    if kind == "find_completer":
        rows = [[m.get("name"), m.get("path"), m.get("is_leaf")] for m in decoded["metrics"]]
        names = [row[0] for row in rows if row[1] is not None]
        order = sorted(rows, key=lambda r: (r[1] is None, str(r[0]), str(r[1]), str(r[2])))
        return {"rows": order, "sorted": names == sorted(names)}
    if kind == "function":
        return described(decoded)
    if kind == "functions":
        return {name: described(function) for name, function in decoded.items()}
    return decoded


def described(function: dict[str, Any]) -> dict[str, Any]:
    params = [
        {k: sorted(map(str, v)) if k in ("options", "suggestions") else v for k, v in param.items()}
        for param in function["params"]
    ]
    return {
        "name": function["name"],
        "group": function["group"],
        "params": params,
        "described": bool(function["description"] and function["function"]),
    }


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
async def test_answers_as_graphite_web(client: Client, case: cases.Case) -> None:
    expected = case["expected"]
    status, content_type, text = await send(client, case)
    if expected["status"] >= 500:
        assert status == 400
        return
    assert status == expected["status"], text
    if status == 200:
        assert content_type == expected["ct"]
        got = comparable(case, text)
        if case["cmp"] == "index":
            got = [name for name in got if not name.startswith(TAGGED_ROOTS)]
        assert got == expected["data"]


async def test_index_holds_every_untagged_name(client: Client) -> None:
    response = await client.get("/metrics/index.json")
    names = [series.name for series in build() if ";" not in series.name]
    assert await response.json() == sorted(names)


async def test_grafana_posts_a_form_that_is_not_encoded(client: Client) -> None:
    """Grafana 7 and later: the body has {, } and , as they are; some proxies lose its content type."""
    for headers in (
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
    ):
        response = await client.post(
            "/metrics/find?from=1700000000&until=1700003600",
            data=b"query=servers.web{01,02}.cpu.*\n",
            headers=headers,
        )
        assert response.status == 200
        assert [node["text"] for node in await response.json()] == ["idle", "system", "user"]


async def test_a_body_in_json(client: Client) -> None:
    response = await client.post("/metrics/find", json={"query": "both.*"})
    assert [node["id"] for node in await response.json()] == ["both.node"]


async def test_completer_shows_leaf_and_branch() -> None:
    source = of_values({"a.b": [1.0], "a.b.c": [1.0], "a.plus+plus": [1.0]}, 1_700_000_000)
    async with TestClient(TestServer(make_app(source, FakeStatus()))) as client:
        response = await client.get("/metrics/find?query=a.&format=completer&wildcards=1")
        assert (await response.json())["metrics"] == [
            {"path": "a.b.", "name": "b", "is_leaf": "0"},
            {"path": "a.b", "name": "b", "is_leaf": "1"},
            {"path": "a.plus+plus", "name": "plus+plus", "is_leaf": "1"},
            {"name": "*"},
        ]
        response = await client.get("/metrics/find?query=a.*")
        assert [(n["text"], n["leaf"]) for n in await response.json()] == [
            ("b", 0),
            ("plus plus", 1),
        ]


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/metrics/find", "query"),
        ("/metrics/find?query=a&format=protobuf", "format"),
        ("/metrics/find?query=a&wildcards=x", "wildcards"),
        ("/metrics/find?query=a&from=undefined", "from"),
        ("/metrics/find?query=a&from=20&until=10", "from"),
        ("/metrics/find?query=a&jsonp=alert(1)", "jsonp"),
        ("/metrics/expand?query=a&leavesOnly=x", "leavesOnly"),
        ("/functions?jsonp=a-b", "jsonp"),
    ],
)
async def test_refused(client: Client, path: str, word: str) -> None:
    response = await client.get(path)
    text = await response.text()
    assert (response.status, response.content_type) == (400, "text/plain")
    assert text.startswith(word + ": ") and text.count("\n") == 1


async def test_functions_grouped(client: Client) -> None:
    groups = await (await client.get("/functions?grouped=1&group=Alias")).json()
    assert list(groups) == ["Alias"]
    assert {"alias", "aliasByNode", "aliasSub"} <= set(groups["Alias"])


async def test_unknown_function(client: Client) -> None:
    response = await client.get("/functions/<b>x")
    assert (response.status, response.content_type) == (404, "application/json")
    assert await response.json() == {"error": "Function not found: <b>x"}


async def test_functions_of_pies(client: Client) -> None:
    assert list(await (await client.get("/functions?type=pie")).json()) == [
        "average",
        "maximum",
        "minimum",
    ]
    response = await client.get("/functions/maximum?type=pie")
    assert (await response.json())["params"] == [
        {"name": "series", "type": "series", "required": True}
    ]
    assert (await client.get("/functions/maximum")).status == 404


def test_infinity_is_spelled_as_a_number() -> None:
    encoded = dump_json(_spell_infinity({"default": float("inf"), "x": ["1e9999", 1.0]}))
    assert encoded == b'{"default":1e9999,"x":["1e9999",1.0]}'


@pytest.mark.parametrize("pretty", [False, True])
def test_json_in_pieces_is_that_of_the_whole(pretty: bool) -> None:
    rows = [{"a": number, "b": ["x\n", {}]} for number in range(3)]

    def values() -> list[tuple[Any, Any]]:
        """What is given, and what it stands for."""
        return [
            (iter(rows), rows),
            (rows, rows),
            (iter(()), []),
            ({"m": iter(rows)}, {"m": rows}),
            ({"m": {"a": iter(rows), "b": iter(()), "c": 1}}, {"m": {"a": rows, "b": [], "c": 1}}),
            ({"m": {}}, {"m": {}}),
            ({"m": {"a": rows}, "n": iter("ab")}, {"m": {"a": rows}, "n": ["a", "b"]}),
        ]

    for at_once in (1, 2, 10_000):
        with patch.object(gently, "AT_ONCE", at_once):
            for given, meant in values():
                assert b"".join(gently.dump(given, pretty)) == dump_json(meant, pretty)
