"""Grafana's dashboards against a real server: its own points come under the names that the dashboards ask for."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess, wait_for

yaml = pytest.importorskip("yaml")

GRAFANA = Path(__file__).parents[2] / "docker" / "grafana"
# Only after a flush or a merge, which a server of a few seconds has not had yet.
LATER = ("avgUpdateTime",)


def questions(node: str) -> list[str]:
    board = json.loads((GRAFANA / "dashboards" / "tgres-health.json").read_text(encoding="utf-8"))
    found = [t["target"] for panel in board["panels"] for t in panel.get("targets", [])]
    rules = (GRAFANA / "provisioning" / "alerting" / "tgres.yml").read_text(encoding="utf-8")
    for group in yaml.safe_load(rules)["groups"]:
        found += [rule["data"][0]["model"]["target"] for rule in group["rules"]]
    return [target.replace("$node", node) for target in found]


def test_the_server_answers_its_dashboard(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, "--self-metrics-s=1")
    try:
        server.start()

        def answer(path: str, **query: str) -> list[dict[str, object]]:
            status, body = server.get(f"{path}?{urllib.parse.urlencode(query)}")
            assert status == 200, (query, body)
            found: list[dict[str, object]] = json.loads(body)
            return found

        wait_for(lambda: bool(answer("/metrics/find", query="carbon.agents.*")), "own points")
        (node,) = [str(n["text"]) for n in answer("/metrics/find", query="carbon.agents.*")]
        for target in questions(node):
            if not any(name in target for name in LATER):
                form = {"target": target, "from": "-1min", "format": "json"}
                wait_for(lambda form=form: bool(answer("/render", **form)), target)  # type: ignore[misc]  # mypy infers no types of a lambda's defaults
    finally:
        server.close()
