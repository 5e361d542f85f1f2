"""explain=1, explain=plan and meta=true: what a request says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api.app import make_app
from tests.fake_source import FakeSource, archives
from tests.test_http_render import FakeStatus
from tgres_py.model.retention import BundleSpec, Cf

NOW_S = 1_700_006_400
FINE = BundleSpec(archives("10s:1h,1m:2d"))
MINUTES = BundleSpec(archives("1m:1d"), Cf("max"))
Client = TestClient[Any, Any]


@pytest.fixture
def source() -> FakeSource:
    made = FakeSource()
    points = [(NOW_S - 7_200 + 10 * i, float(i)) for i in range(720)]
    for name in ("a.x", "a.y"):
        made.add(name, points, FINE)
    made.add("b.m", points, MINUTES)
    return made


@pytest.fixture
async def client(source: FakeSource) -> AsyncIterator[Client]:
    async with TestClient(TestServer(make_app(source, FakeStatus()))) as client:
        yield client


async def ask(client: Client, query: str) -> Any:
    response = await client.get(f"/render?now={NOW_S}&until={NOW_S}&{query}")
    assert (response.status, response.content_type) == (200, "application/json")
    return await response.json()


async def test_the_plan_reads_nothing(client: Client, source: FakeSource) -> None:
    query = "target=scale(a.*,2)&target=%20&target=b.m&from=-10min&explain=plan"
    got = await ask(client, query)
    assert source.fetched == []
    assert [target["target"] for target in got["targets"]] == ["scale(a.*,2)", "b.m"]
    scale = got["targets"][0]["plan"]
    assert scale["function"] == "scale" and scale["range"] == [NOW_S - 600, NOW_S]
    assert scale["arguments"] == [{"path": "a.*", "found": 2, "reads": [0]}, 2.0]
    assert "ms" not in scale and "series" not in scale
    fine, minutes = got["reads"]
    assert fine == {
        "retention": "10s:1h,1m:2d",
        "archive": 0,
        "interval": 10,
        "consolidation": "average",
        "xFilesFactor": 0.5,
        "from": NOW_S - 590,
        "until": NOW_S + 10,
        "series": 2,
        "points": 120,
        "bytes": 960,
    }
    assert (minutes["interval"], minutes["consolidation"], minutes["points"]) == (60, "max", 10)
    assert got["total"] == {"series": 3, "points": 130, "bytes": 1_040}


async def test_explain_tells_results_and_times(client: Client, source: FakeSource) -> None:
    query = "target=sumSeries(movingAverage(a.*,6))&from=-10min&explain=1&format=png"
    got = await ask(client, query)
    assert len(source.fetched) == 1
    total = got["targets"][0]["plan"]
    assert (total["function"], total["series"], total["points"]) == ("sumSeries", 1, 60)
    [moving] = total["arguments"]
    assert moving["series"] == 2 and moving["windows"] == [[NOW_S - 660, NOW_S]]
    assert moving["arguments"][0]["points"] == 132
    assert all(one["ms"] >= 0 for one in (total, moving, moving["arguments"][0]))
    assert set(got["ms"]) == {"plan", "fetch", "functions"}


async def test_further_targets_are_shown(client: Client) -> None:
    got = await ask(client, "target=applyByNode(a.*,1,'b.m')&from=-10min&explain=1")
    plan = got["targets"][0]["plan"]
    assert plan["function"] == "applyByNode"
    assert [one["path"] for one in plan["further"]] == ["b.m", "b.m"]


async def test_errors_of_the_plan_stay_errors(client: Client) -> None:
    response = await client.get("/render?target=nosuch(a.*)&explain=plan")
    assert response.status == 400 and "nosuch" in await response.text()


async def test_meta_of_a_rolled_up_series(client: Client) -> None:
    """As Grafana reads it: archive-read > 0 names its place in schema-retentions."""
    query = "target=a.x&from=-2h&format=json&meta=true&maxDataPoints=30"
    got = await ask(client, query)
    assert set(got) == {"version", "meta", "series"}
    [series] = got["series"]
    assert series["target"] == "a.x" and len(series["datapoints"]) <= 30
    [meta] = series["meta"]
    assert meta["schema-retentions"].split(",")[meta["archive-read"]] == "1m:2d"
    assert meta["archive-interval"] == 60
    assert meta["consolidator-normfetch"] == "AverageConsolidator"
    assert (meta["aggnum-rc"], meta["consolidator-rc"]) == (4, "AverageConsolidator")
    stats = got["meta"]["stats"]
    assert stats["executeplan.series-fetch"] == 1 and stats["executeplan.points-fetch"] == 120


async def test_meta_of_functions(client: Client) -> None:
    """A renamed series keeps its own archive; a sum shows all that were read."""
    query = "target=alias(b.m,'x')&target=sumSeries(a.*,b.m)&from=-10min&format=json&meta=1"
    alias, total = (await ask(client, query))["series"]
    assert [meta["archive-interval"] for meta in alias["meta"]] == [60]
    assert alias["meta"][0]["consolidator-normfetch"] == "MaximumConsolidator"
    assert (alias["meta"][0]["aggnum-rc"], alias["meta"][0]["consolidator-rc"]) == (0, "")
    assert sorted((meta["archive-interval"], meta["count"]) for meta in total["meta"]) == [
        (10, 2),
        (60, 1),
    ]


async def test_meta_with_other_parameters(client: Client) -> None:
    none = await ask(client, "target=no.such&from=-1h&format=json&meta=true")
    assert none["series"] == []
    few = await ask(
        client, "target=a.*&target=no&from=-1h&format=json&meta=true&noNullPoints=1&pretty=1"
    )
    assert [series["target"] for series in few["series"]] == ["a.x", "a.y"]
    assert all(series["meta"] for series in few["series"])
    response = await client.get(f"/render?target=a.*&now={NOW_S}&format=json&meta=true&pretty=1")
    body = await response.read()
    assert body == orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2)
    for off in ("&meta=false", "&meta=0", "&meta="):
        assert isinstance(await ask(client, f"target=a.x&from=-1h&format=json{off}"), list)
    response = await client.get(f"/render?target=a.x&now={NOW_S}&format=json&meta=true&jsonp=f")
    assert (await response.text()).startswith('f({"version":')
