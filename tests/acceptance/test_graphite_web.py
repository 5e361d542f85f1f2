"""A real graphite-web in front of a running server (CLUSTER_SERVERS): it must answer what the server itself answers.

Needs an interpreter with graphite-web 1.1: this one, or the one that GRAPHITE_PYTHON names.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import ServerProcess, wait_for

HERE = Path(__file__).parent
STEP_S = 10
TARGETS = [
    "web.a.load",
    "web.*.load",
    "sumSeries(web.*.load)",
    "movingAverage(web.a.load, 6)",
    'alias(scale(web.{a,b}.load, 2), "x")',
    'seriesByTag("name=disk", "host=~^a")',
    'groupByTags(seriesByTag("name=disk"), "sum", "dc")',
    'timeShift(web.b.load, "10min")',
    "no.such.series",
]


@pytest.fixture(scope="module")
def python() -> str:
    """An interpreter that has graphite-web."""
    path = os.environ.get("GRAPHITE_PYTHON", sys.executable)
    command = [path, "-c", "import graphite, django, whisper"]
    if subprocess.run(command, capture_output=True, timeout=60).returncode != 0:
        pytest.skip("graphite-web isn't installed; GRAPHITE_PYTHON names an interpreter with it")
    return path


@pytest.fixture(scope="module")
def now_s() -> int:
    """The time of all questions; within the data, and the same for both servers."""
    return int(time.time()) // 60 * 60


@pytest.fixture(scope="module")
def server(
    python: str, tmp_path_factory: pytest.TempPathFactory, now_s: int
) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("server"), retentions="10s:6h,1m:7d")
    try:
        process.start()
        process.send("".join(lines(now_s)))
        yield process
    finally:
        process.close()


def lines(now_s: int) -> Iterator[str]:
    names = ["web.a.load", "web.b.load", "web.b.cpu.user", "disk;dc=x;host=a1", "disk;dc=y;host=b2"]
    for number, name in enumerate(names):
        for place, time_s in enumerate(range(now_s - 3_600, now_s + 1, STEP_S)):
            if place % 7 != number:  # gaps
                yield f"{name} {round(math.sin(place / 9) * 40 + number, 2)} {time_s}\n"


@pytest.fixture(scope="module", params=["pickle", "msgpack"])
def front(
    request: pytest.FixtureRequest,
    python: str,
    server: ServerProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The address of a graphite-web whose only server is ours."""
    folder = tmp_path_factory.mktemp("front")
    peer = f"127.0.0.1:{server.ports['http']}?format={request.param}"
    log = folder / "log"
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [python, str(HERE / "graphite_front.py"), str(folder), peer],
            stdout=subprocess.PIPE,
            stderr=stderr,
            # its settings' compiled module would be one of the nodes
            env={**clean, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    try:
        assert process.stdout is not None
        word, _, port = process.stdout.readline().decode().partition(" ")
        assert word == "port", log.read_text()
        yield f"127.0.0.1:{int(port)}"
    finally:
        process.terminate()
        process.wait(20)


def ask(address: str, path: str, *pairs: tuple[str, str | int]) -> Any:
    url = f"http://{address}{path}?{urllib.parse.urlencode(pairs)}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.loads(answer.read())


def both(front: str, server: ServerProcess, path: str, *pairs: tuple[str, str | int]) -> Any:
    """The answer, which must be the same from both (numbers to 12 digits)."""
    expected = ask(f"127.0.0.1:{server.ports['http']}", path, *pairs)
    assert rounded(ask(front, path, *pairs)) == rounded(expected)
    return expected


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("from_s", [-1_200, -30_000])
def test_render(front: str, server: ServerProcess, now_s: int, target: str, from_s: int) -> None:
    found = both(
        front,
        server,
        "/render",
        ("target", target),
        ("from", now_s + from_s),
        ("until", now_s),
        ("now", now_s),
        ("format", "json"),
    )
    assert (found == []) == (target == "no.such.series")
    assert all(any(v is not None for v, _ in s["datapoints"]) for s in found)


def test_many_targets_in_one_request(front: str, server: ServerProcess, now_s: int) -> None:
    targets = [("target", target) for target in TARGETS]
    times = (("from", now_s - 600), ("until", now_s), ("now", now_s), ("format", "json"))
    assert len(both(front, server, "/render", *targets, *times)) > len(TARGETS)


@pytest.mark.parametrize(
    "query", ["*", "web.*", "web.b.*", "web.{a,b}.load", "w?b.[ab].l*", "none.*"]
)
def test_find_and_expand(front: str, server: ServerProcess, query: str) -> None:
    found = both(front, server, "/metrics/find", ("query", query))
    assert (found == []) == (query == "none.*")
    both(front, server, "/metrics/expand", ("query", query), ("leavesOnly", 1))


def test_index(front: str, server: ServerProcess) -> None:
    assert "web.b.cpu.user" in both(front, server, "/metrics/index.json")


def test_completion_of_tags(front: str, server: ServerProcess) -> None:
    complete = "/tags/autoComplete"
    assert both(front, server, f"{complete}/tags") == ["dc", "host", "name"]
    assert both(front, server, f"{complete}/tags", ("expr", "dc=x")) == ["host", "name"]
    assert both(front, server, f"{complete}/values", ("tag", "host")) == ["a1", "b2"]
    both(
        front,
        server,
        f"{complete}/values",
        ("tag", "host"),
        ("expr", "name=disk"),
        ("valuePrefix", "b"),
    )


def test_points_seen_at_once(front: str, server: ServerProcess, now_s: int) -> None:
    server.send(f"fresh.load 7 {now_s - 20}\n")
    pairs = (("target", "fresh.load"), ("from", now_s - 60), ("until", now_s), ("now", now_s))

    def seen() -> bool:
        found = ask(front, "/render", *pairs, ("format", "json"))
        return bool(found) and [7.0, now_s - 20] in found[0]["datapoints"]

    wait_for(seen, "the point is seen through graphite-web", 5)
