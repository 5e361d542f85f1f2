"""Grafana's requests, as its versions 5 to 12 and its Go back end send them, and what it must be able to read.

``f5``, ``f7``, ``f12``: the front end of these versions and those after them, through Grafana's proxy; ``go``: the back end.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from http_api.app import make_app
from tests import grafana_readers as grafana
from tests.fake_source import FakeSource
from tests.grafana_readers import Reader
from tests.test_http_render import FakeStatus
from tgres_py import clock
from tgres_py.model.event import Event

NOW_S = 1_700_000_100
FROM_S = NOW_S - 3_600
FORM = "application/x-www-form-urlencoded"
PROXIED = {
    "Accept": "application/json, text/plain, */*",
    "User-Agent": "Grafana/12.2.0",
    "X-Forwarded-For": "192.0.2.7, 127.0.0.1",
    "X-Grafana-Org-Id": "1",
    "X-Dashboard-Id": "3",
    "X-Panel-Id": "2",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}
GO = {"User-Agent": "Grafana/12.2.0", "Accept-Encoding": "gzip"}

Client = TestClient[Any, Any]


@pytest.fixture(scope="module")
def source() -> FakeSource:
    source = FakeSource()
    times = range(FROM_S, NOW_S, 10)
    for number, host in enumerate(("web01", "web02", "db01"), start=1):
        for cpu in ("user", "system"):
            name = f"R1.{host}.cpu.{cpu}"
            source.add(name, [(time, number + (time % 60) / 8) for time in times])
    source.add("R1.web01.errors", [(FROM_S, 0.0), (FROM_S + 60, 3.0), (FROM_S + 120, float("inf"))])
    source.add("R1.web01.quiet", [])
    source.add("blanks.my metric", [(FROM_S, 1.0)])
    for host, dc in (("a", "berlin"), ("b", "ams")):
        source.add(f"disk.used;dc={dc};host={host}", [(time, 5.0) for time in times])
    for event in (
        Event("release 12", FROM_S + 60.5, ("deploy", "web"), "by hand"),
        Event("reboot", FROM_S + 90.0),
    ):
        asyncio.run(source.add_event(event))
    return source


@pytest.fixture
async def client(source: FakeSource) -> AsyncIterator[Client]:
    async with TestClient(
        TestServer(make_app(source, FakeStatus())), auto_decompress=False
    ) as client:
        yield client


@pytest.fixture(autouse=True)
def fixed_clock() -> Iterator[None]:
    clock.replace_source(lambda: NOW_S)
    yield
    clock.replace_source(None)


class Ask(NamedTuple):
    """One request as it is on the wire. ``body``: None = GET."""

    path: str
    body: str | None = None
    content_type: str = FORM
    headers: dict[str, str] = PROXIED

    async def send(self, client: Client) -> tuple[int, str, bytes]:
        """Status, content type and the unpacked body."""
        url = URL(str(client.make_url("")).rstrip("/") + self.path, encoded=True)
        headers = dict(self.headers)
        method = "GET"
        if self.body is not None:
            method = "POST"
            headers["Content-Type"] = self.content_type
        async with client.session.request(
            method,
            url,
            data=None if self.body is None else self.body.encode(),
            headers=headers,
            allow_redirects=False,
        ) as response:
            body = await response.read()
            coding = response.headers.get("Content-Encoding", "identity")
            assert coding in ("gzip", "identity"), "the Go back end unpacks nothing else"
            body = gzip.decompress(body) if coding == "gzip" else body
            return response.status, response.content_type, body


def escaped(text: str) -> str:
    """As encodeURIComponent."""
    return quote(text, safe="()'*!~.-_")


def form(*pairs: tuple[str, str]) -> str:
    """A front end's body; of ``target`` several."""
    return "&".join(f"{name}={escaped(value)}" for name, value in pairs)


def go_form(**fields: str) -> str:
    """As url.Values.Encode: sorted, blanks are +."""
    return urlencode(sorted(fields.items()))


def wrapped(target: str, letter: str) -> str:
    """What Grafana 11 and 12 make of every target."""
    return f'aliasSub({target}, "(^.*$)", "\\1 {letter}")'


def panel(*targets: str, points: str = "1000", **fields: str) -> str:
    times = {"from": str(FROM_S), "until": str(NOW_S), "format": "json", **fields}
    pairs = [("target", target) for target in targets]
    return form(*pairs, *times.items(), ("maxDataPoints", points))


CPU = "R1.web*.cpu.user"
F7_PANEL = panel(CPU, "sumSeries(R1.*.cpu.system)", **{"from": "-1h", "until": "now"})
F12_PANEL = panel(wrapped(CPU, "A"), wrapped("alias(sumSeries(R1.*.cpu.system),'all of it')", "B"))
GO_PANEL = go_form(
    format="json", maxDataPoints="43200", target=CPU, until=str(NOW_S), **{"from": str(FROM_S)}
)
RANGE = f"from={FROM_S}&until={NOW_S}"
LEAVES = ["R1.web01.cpu.user", "R1.web02.cpu.user"]
CONSTANT = "constantLine(100)"


def names(series: list[dict[str, Any]]) -> list[str]:
    return [one["target"] for one in series]


def ids(nodes: list[dict[str, Any]]) -> list[str]:
    return [node["id"] for node in nodes]


def whats(events: list[dict[str, Any]]) -> list[str]:
    return [event["what"] for event in events]


def same(value: Any) -> Any:
    return value


# what is sent, how it is read, what is looked at, and what must be seen
TABLE: dict[str, tuple[Ask, Reader, Any, Any]] = {
    "1 health f5": (Ask("/metrics/find?query=*"), grafana.go_find, ids, ["R1", "blanks"]),
    "2 health f7": (
        Ask("/render", panel(CONSTANT, points="300", **{"from": "-1h", "until": "now"})),
        grafana.js_render,
        names,
        ["100.0"],
    ),
    "3 health f12, without a range": (
        Ask(
            "/render",
            form(("target", wrapped(CONSTANT, "A")), ("format", "json"), ("maxDataPoints", "300")),
        ),
        grafana.js_render,
        names,
        ["100.0 A"],
    ),
    "4 health go": (
        Ask(
            "/render",
            go_form(
                format="json",
                maxDataPoints="100",
                target=CONSTANT,
                until=str(NOW_S),
                **{"from": str(FROM_S)},
            ),
            headers=GO,
        ),
        grafana.go_render,
        names,
        ["100.0"],
    ),
    "5 panel f7": (
        Ask("/render", F7_PANEL),
        grafana.js_render,
        names,
        [*LEAVES, "sumSeries(R1.*.cpu.system)"],
    ),
    "5 panel f7 with cacheTimeout": (
        Ask("/render", F7_PANEL + "&cacheTimeout=60"),
        grafana.js_render,
        len,
        3,
    ),
    "6 panel f12": (
        Ask("/render", F12_PANEL),
        grafana.js_render,
        names,
        ["R1.web01.cpu.user A", "R1.web02.cpu.user A", "all of it B"],
    ),
    "6 panel f12, a letter with a blank": (
        Ask("/render", panel(wrapped("alias(R1.db01.cpu.user,'a b')", "My_query"))),
        grafana.js_render,
        lambda series: [one["target"].split(" ")[-1] for one in series],
        ["My_query"],
    ),
    "6 panel f12, nothing found": (
        Ask("/render", panel(wrapped("no.such", "A"))),
        grafana.js_render,
        same,
        [],
    ),
    "7 panel go": (Ask("/render", GO_PANEL, headers=GO), grafana.go_render, names, LEAVES),
    "7 alert go, no data": (
        Ask("/render", GO_PANEL.replace("cpu.user", "no.such"), headers=GO),
        grafana.go_render,
        same,
        [],
    ),
    "8 metrictank f": (Ask("/render", F7_PANEL + "&meta=true"), grafana.js_render, len, 3),
    "8 metrictank go": (
        Ask("/render?meta=true", GO_PANEL, headers=GO),
        grafana.go_render,
        lambda series: [one["meta"][0]["archive-interval"] for one in series],
        [10, 10],
    ),
    "9 variable by value": (
        Ask(
            "/render",
            form(
                ("target", wrapped(CPU, "A")),
                ("from", str(NOW_S - 21_600)),
                ("until", str(NOW_S)),
                ("format", "json"),
            ),
        ),
        grafana.js_render,
        len,
        2,
    ),
    "10 annotation by metric": (
        Ask("/render", panel("R1.web01.errors", points="100")),
        grafana.js_render,
        lambda series: [value for value, _ in series[0]["datapoints"] if value],
        [3.0],
    ),
    "11 annotation by events": (
        Ask("/events/get_data?from=-1h&until=now&tags=deploy%20web"),
        grafana.go_events,
        whats,
        ["release 12"],
    ),
    "11 annotation by events, no tags": (
        Ask("/events/get_data?from=-1h&until=now"),
        grafana.go_events,
        lambda events: sorted(whats(events)),
        ["reboot", "release 12"],
    ),
    "11 annotation by events, go": (
        Ask(f"/events/get_data?from={FROM_S}&tags=deploy+web&until={NOW_S}", headers=GO),
        grafana.go_events,
        lambda events: [(event["when"], event["tags"]) for event in events],
        [(FROM_S + 60, ["deploy", "web"])],
    ),
    "12 find f5": (
        Ask(f"/metrics/find?query=R1.*&{RANGE}"),
        grafana.go_find,
        ids,
        ["R1.db01", "R1.web01", "R1.web02"],
    ),
    "13 find f7, a body that isn't encoded": (
        Ask(f"/metrics/find?{RANGE}", "query=R1.web{01,02}.cpu.*"),
        grafana.go_find,
        lambda nodes: [node["text"] for node in nodes],
        ["system", "user"],
    ),
    "13 find f7, typed text": (
        Ask("/metrics/find", "query=R1.*web*"),
        grafana.go_find,
        ids,
        ["R1.web01", "R1.web02"],
    ),
    "14 find go": (
        Ask(f"/metrics/find?{RANGE}", go_form(query="R1.web{01,02}"), headers=GO),
        grafana.go_find,
        lambda nodes: [(node["leaf"], node["expandable"], node["allowChildren"]) for node in nodes],
        [(0, 1, 1), (0, 1, 1)],
    ),
    "14 find go, a leaf": (
        Ask("/metrics/find", go_form(query="R1.web01.errors"), headers=GO),
        grafana.go_find,
        lambda nodes: [(node["leaf"], node["expandable"], node["allowChildren"]) for node in nodes],
        [(1, 0, 0)],
    ),
    "15 expand": (
        Ask(f"/metrics/expand?query=R1.*.cpu.user&{RANGE}"),
        grafana.expanded,
        same,
        ["R1.db01.cpu.user", *LEAVES],
    ),
    "16 tags": (
        Ask(
            "/tags/autoComplete/tags?expr=name%3Ddisk.used&expr=dc%3Dberlin&tagPrefix=ho&limit=10000"
        ),
        grafana.texts,
        same,
        ["host"],
    ),
    "16 tags, nothing chosen": (
        Ask("/tags/autoComplete/tags"),
        grafana.texts,
        same,
        ["dc", "host", "name"],
    ),
    "17 values": (
        Ask(
            f"/tags/autoComplete/values?expr=name%3Ddisk.used&tag=dc&valuePrefix=b&limit=10000&{RANGE}"
        ),
        grafana.texts,
        same,
        ["berlin"],
    ),
    "16 tags go, nothing set": (
        Ask("/tags/autoComplete/tags?from=&limit=0&tagPrefix=&until=", headers=GO),
        grafana.texts,
        same,
        ["dc", "host", "name"],
    ),
    "17 values go": (
        Ask(
            "/tags/autoComplete/values?expr=name%3Ddisk.used&from=1&limit=0&tag=dc&until=2&valuePrefix=",
            headers=GO,
        ),
        grafana.texts,
        same,
        ["ams", "berlin"],
    ),
    "18 list of tags": (
        Ask("/tags"),
        grafana.tags,
        lambda tags: sorted(tags),
        ["dc", "host", "name"],
    ),
    "18 values of a tag": (Ask("/tags/host"), grafana.tag_values, same, ["a", "b"]),
    "19 functions": (
        Ask("/functions"),
        grafana.functions,
        lambda found: found["movingAverage"]["params"][0]["type"],
        "seriesList",
    ),
    "20 version": (Ask("/version"), grafana.version, lambda number: number >= (1, 1, 0), True),
}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("name", TABLE)
async def test_request(client: Client, name: str, slash: str) -> None:
    ask, read, see, wanted = TABLE[name]
    path, mark, query = ask.path.partition("?")
    status, _, body = await ask._replace(path=path + slash + mark + query).send(client)
    assert status == 200, body
    assert see(read(body)) == wanted


REFUSED: dict[str, tuple[Ask, str]] = {
    "a target that doesn't parse": (Ask("/render", panel("sumSeries(R1.*")), "target"),
    "a function that isn't there": (Ask("/render", panel("nosuch(R1.*)")), "nosuch"),
    "a wrapped one": (Ask("/render", panel(wrapped("nosuch(R1.*)", "A"))), "nosuch"),
    "go": (
        Ask("/render", GO_PANEL.replace("target=", "target=nosuch%28%29&x="), headers=GO),
        "nosuch",
    ),
    "a range in words": (Ask("/metrics/find?from=undefined&until=undefined", "query=R1.*"), "from"),
    "no query": (Ask("/metrics/find", "query="), "query"),
    "an expression that is none": (Ask("/tags/autoComplete/tags?expr=dc"), "dc"),
    "a range that ends at its start": (
        Ask("/render", panel(CPU, **{"from": str(NOW_S), "until": str(NOW_S)})),
        "from",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refusals_read_well(client: Client, name: str) -> None:
    """Grafana shows the body: one short line, no page."""
    ask, word = REFUSED[name]
    status, content_type, body = await ask.send(client)
    text = body.decode()
    assert status == 400
    assert word in text and len(text) < 300 and text.count("\n") <= 1 and "<" not in text
    assert content_type in ("text/plain", "application/json")
    if content_type == "application/json":
        assert list(json.loads(text)) == ["error"]


@pytest.mark.parametrize("headers", [PROXIED, GO])
async def test_infinity_is_null(client: Client, headers: dict[str, str]) -> None:
    """graphite-web writes 1e9999, with which Go refuses the whole answer."""
    target = "R1.web01.errors"
    body = go_form(
        format="json", target=target, until=str(FROM_S + 130), **{"from": str(FROM_S - 10)}
    )
    status, _, answer = await Ask("/render", body, headers=headers).send(client)
    assert status == 200
    [series] = grafana.go_render(answer)
    values = {time: value for value, time in series["datapoints"] if value is not None}
    assert values == {FROM_S: 0.0, FROM_S + 60: 3.0}
    assert [None, FROM_S + 120] in series["datapoints"]


async def test_every_function_keeps_the_letter(client: Client) -> None:
    """What renames series inside of aliasSub doesn't lose the panel's query."""
    inner = (
        "aliasByNode(R1.*.cpu.user,1)",
        "seriesByTag('name=disk.used')",
        "legendValue(R1.web01.cpu.user,'max')",
        "cactiStyle(R1.web01.cpu.user)",
        "dashed(R1.web01.cpu.user)",
        "blanks.*",
    )
    targets = [wrapped(target, f"Q{number}") for number, target in enumerate(inner)]
    status, _, body = await Ask("/render", panel(*targets)).send(client)
    assert status == 200
    letters = [one["target"].split(" ")[-1] for one in grafana.js_render(body)]
    assert sorted(set(letters)) == [f"Q{number}" for number in range(len(inner))]
    assert letters == sorted(letters)


async def test_functions_carry_what_the_editor_shows(client: Client) -> None:
    _, _, body = await Ask("/functions").send(client)
    found = grafana.functions(body)
    kinds = {param["type"] for function in found.values() for param in function["params"]}
    assert {
        "seriesList",
        "seriesLists",
        "integer",
        "float",
        "boolean",
        "node",
        "nodeOrTag",
        "intOrInterval",
    } <= kinds
    assert found["alias"]["group"] == "Alias" and len(found) > 100


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (grafana.strict_json, "[NaN]"),
        (grafana.strict_json, "[1e9999]"),
        (grafana.go_render, '[{"target": "a", "tags": [], "datapoints": []}]'),
        (grafana.go_render, '[{"target": "a", "tags": {}, "datapoints": [["1", 2]]}]'),
        (grafana.go_render, '[{"target": "a", "tags": {}, "datapoints": [[1, null]]}]'),
        (grafana.js_render, '{"error": "x"}'),
        (
            grafana.go_find,
            '[{"text": "a", "id": "a", "allowChildren": true, "expandable": 1, "leaf": 0}]',
        ),
        (
            grafana.go_find,
            '[{"text": "a", "id": "a", "allowChildren": 1.0, "expandable": 1, "leaf": 0}]',
        ),
        (grafana.go_events, '[{"when": 12.0, "what": "", "data": "", "tags": []}]'),
        (grafana.go_events, '[{"when": 12, "what": "", "data": "", "tags": "a b"}]'),
        (grafana.texts, "[1]"),
    ],
)
def test_the_readers_refuse_what_grafana_does(read: Reader, body: str) -> None:
    with pytest.raises(grafana.Refused):
        read(body.encode())
