"""docker/grafana/: dashboards, alert rules and data source against the keys that Grafana needs, and each of their
questions put to the Graphite API.

Keys: Grafana's dashboard JSON model (schemaVersion 41) and its file provisioning of alerting (apiVersion 1).
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from http_api.app import make_app
from tests.fake_source import FakeSource, archives
from tests.test_http_render import FakeStatus
from tgres_py import clock
from tgres_py.metrics.agents import CARBON_NAMES, OWN_NAMES
from tgres_py.model.retention import BundleSpec

yaml = pytest.importorskip("yaml")

GRAFANA = Path(__file__).parent.parent / "docker" / "grafana"
PROVISIONING = GRAFANA / "provisioning"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
NOW_S = 1_700_000_000
NODE = "carbon.agents.tgres-a"
STATSD = ("stats.statsd.metrics_received", "stats.statsd.packets_received", "stats.statsd.bad_lines_seen",
          "stats.statsd.processing_time", "statsd.numStats")  # fmt: skip

each_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


@cache
def dashboard(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@cache
def datasource() -> dict[str, Any]:
    file = PROVISIONING / "datasources" / "tgres.yml"
    (one,) = yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]
    assert isinstance(one, dict)
    return one


def rules() -> list[dict[str, Any]]:
    file = PROVISIONING / "alerting" / "tgres.yml"
    groups = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def with_variables(board: dict[str, Any], text: str) -> str:
    """The text with each variable's value as it is when the dashboard is opened."""
    for variable in board["templating"]["list"]:
        text = text.replace(f"${variable['name']}", variable["current"]["value"])
    assert "$" not in text, f"a variable that isn't declared: {text}"
    return text


def targets() -> Iterator[Any]:
    for path in DASHBOARDS:
        board = dashboard(path)
        for panel in board["panels"]:
            for one in panel.get("targets", []):
                name = f"{path.stem}-{panel['id']}{one['refId']}"
                yield pytest.param(with_variables(board, one["target"]), id=name)
    for rule in rules():
        yield pytest.param(rule["data"][0]["model"]["target"], id=rule["uid"])


def test_data_source() -> None:
    one = datasource()
    assert one["type"] == "graphite" and one["access"] == "proxy" and one["isDefault"]
    assert one["jsonData"]["graphiteVersion"] == "1.1"
    assert one["uid"] == "tgres" and one["url"] == "$TGRES_URL"
    assert "password" not in json.dumps(one).lower()


def test_dashboards_are_where_they_are_looked_for() -> None:
    file = PROVISIONING / "dashboards" / "tgres.yml"
    (provider,) = yaml.safe_load(file.read_text(encoding="utf-8"))["providers"]
    assert provider["type"] == "file" and provider["options"]["path"] == "/etc/grafana/dashboards"
    assert len(DASHBOARDS) == 2
    assert len({dashboard(path)["uid"] for path in DASHBOARDS}) == len(DASHBOARDS)
    assert len({dashboard(path)["title"] for path in DASHBOARDS}) == len(DASHBOARDS)


@each_dashboard
def test_dashboard_has_what_grafana_needs(path: Path) -> None:
    board = dashboard(path)
    assert board["schemaVersion"] >= 36 and board["title"] and board["description"]
    assert re.fullmatch(r"[\w-]{1,40}", board["uid"])
    assert "id" not in board  # Grafana's own
    assert board["time"].keys() == {"from", "to"}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for variable in board["templating"]["list"]:
        assert {"name", "type", "query", "current"} <= variable.keys()
        assert variable["type"] != "query" or variable["datasource"]["uid"] == datasource()["uid"]


@each_dashboard
def test_panels_have_what_grafana_needs(path: Path) -> None:
    for panel in dashboard(path)["panels"]:
        if panel["type"] == "row":
            assert panel["title"] and panel["collapsed"] is False and panel["panels"] == []
            continue
        assert panel["type"] in ("stat", "timeseries") and panel["title"]
        assert panel["datasource"] == {"type": "graphite", "uid": datasource()["uid"]}
        assert panel["fieldConfig"]["defaults"]["unit"] and panel["fieldConfig"]["overrides"] == []
        assert panel["options"]
        references = [one["refId"] for one in panel["targets"]]
        assert references and len(set(references)) == len(references)


@each_dashboard
def test_panels_lie_beside_each_other(path: Path) -> None:
    places = [panel["gridPos"] for panel in dashboard(path)["panels"]]
    for place in places:
        assert place["x"] + place["w"] <= 24 and min(place["w"], place["h"]) > 0
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (a, b)


def test_alert_rules_have_what_grafana_needs() -> None:
    assert len({rule["uid"] for rule in rules()}) == len(rules()) > 5
    assert len({rule["title"] for rule in rules()}) == len(rules())
    boards = {dashboard(path)["uid"] for path in DASHBOARDS}
    for rule in rules():
        question, *expressions = rule["data"]
        assert re.fullmatch(r"[\w-]{1,40}", rule["uid"])
        assert question["datasourceUid"] == datasource()["uid"]
        assert question["relativeTimeRange"]["from"] > question["relativeTimeRange"]["to"]
        before = {question["refId"]}
        for one in expressions:
            assert one["datasourceUid"] == "__expr__" and one["model"]["refId"] == one["refId"]
            assert one["model"]["expression"] in before and one["model"]["type"] in (
                "reduce",
                "threshold",
            )
            before.add(one["refId"])
        assert rule["condition"] == expressions[-1]["refId"]
        assert expressions[-1]["model"]["type"] == "threshold"
        assert rule["noDataState"] in ("OK", "Alerting") and rule["execErrState"] in ("OK", "Error")
        assert re.fullmatch(r"\d+[sm]", rule["for"]) and rule["labels"]["severity"]
        assert rule["annotations"]["summary"] and rule["annotations"]["__dashboardUid__"] in boards


def test_silence_of_the_server_is_an_alert() -> None:
    (rule,) = [rule for rule in rules() if rule["uid"] == "tgres-no-points"]
    assert rule["noDataState"] == "Alerting" and rule["execErrState"] == "Error"


@cache
def source() -> FakeSource:
    """Two days of every series that the server stores about itself, one value a minute."""
    source = FakeSource()
    minute = BundleSpec(archives("1m:7d"))
    points = [(time_s, 1.0) for time_s in range(NOW_S - 2 * 86_400, NOW_S, 60)]
    for name in (*CARBON_NAMES, *OWN_NAMES):
        source.add(f"{NODE}.{name}", points, minute)
    for name in STATSD:
        source.add(name, points, minute)
    return source


@pytest.fixture
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    clock.replace_source(lambda: NOW_S)
    async with TestClient(TestServer(make_app(source(), FakeStatus()))) as client:
        yield client
    clock.replace_source(None)


@pytest.mark.parametrize("target", list(targets()))
async def test_every_question_has_an_answer(client: TestClient[Any, Any], target: str) -> None:
    """A wrong name or argument would give no series or status 400."""
    form = {"target": target, "from": NOW_S - 3_600, "until": NOW_S, "format": "json", "maxDataPoints": 500}  # fmt: skip
    response = await client.post("/render", data=form)
    assert response.status == 200, await response.text()
    series = await response.json()
    assert series
    for one in series:
        assert any(value is not None for value, _ in one["datapoints"]), one["target"]


async def test_variables_offer_their_defaults(client: TestClient[Any, Any]) -> None:
    for path in DASHBOARDS:
        for variable in dashboard(path)["templating"]["list"]:
            if variable["type"] == "query":
                nodes = await (
                    await client.get("/metrics/find", params={"query": variable["query"]})
                ).json()
                assert variable["current"]["value"] in [node["text"] for node in nodes]
