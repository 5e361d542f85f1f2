"""Real senders against a real server: what they sent is what /render gives back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import senders
from tests.acceptance.senders import NotInstalled, Sent, free_port, wait_until

ROOT = Path(__file__).parents[2]
STEP_S = 10
START_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Server:
    http: int
    carbon: int
    pickle: int

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.http}{path}", timeout=30
            ) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def known(self, target: str, from_s: int, until_s: int) -> dict[str, dict[int, float]]:
        """Points that /render gives for a target, by series and slot."""
        query = urllib.parse.urlencode(
            {"target": target, "from": from_s, "until": until_s, "format": "json"}
        )
        status, body = self.get(f"/render?{query}")
        assert status == 200, body
        series: list[dict[str, Any]] = json.loads(body)
        return {s["target"]: {t: v for v, t in s["datapoints"] if v is not None} for s in series}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as a user starts it, with an embedded PostgreSQL, retention by default."""
    folder = tmp_path_factory.mktemp("server")
    ports = Server(free_port(), free_port(), free_port())
    command = [sys.executable, "-m", "tgres_py.cli.main", "serve", "--data-dir", str(folder / "data"),
               "--http", f"127.0.0.1:{ports.http}", "--carbon", f"127.0.0.1:{ports.carbon}",
               "--pickle", f"127.0.0.1:{ports.pickle}", "--statsd=off", "--statsd-mgmt=off"]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TGRES_")}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**environment, "PYTHONPATH": str(ROOT)},
        )
    try:
        wait_until(
            lambda: process.poll() is not None or ports.get("/readyz")[0] == 200,
            "the server isn't ready",
            START_TIMEOUT_S,
        )
        assert process.poll() is None, (folder / "log").read_text()
        yield ports
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (folder / "log").read_text()


def slots_of(points: list[Sent]) -> dict[str, dict[int, float]]:
    """What the finest archive holds of the points: the last one of each slot."""
    series: dict[str, dict[int, float]] = {}
    for point in points:
        series.setdefault(canonical(point.name), {})[point.time_s - point.time_s % STEP_S] = (
            point.value
        )
    return series


def canonical(name: str) -> str:
    path, *tags = name.split(";")
    return ";".join([path, *sorted(tags)])


def assert_stored(server: Server, points: list[Sent]) -> None:
    """Waits until all points can be read, and compares every one."""
    assert points
    expected = slots_of(points)
    from_s = min(p.time_s for p in points) - STEP_S
    until_s = max(p.time_s for p in points) + STEP_S

    def read() -> dict[str, dict[int, float]]:
        return {
            name: values
            for target in sorted(expected)
            for name, values in server.known(target, from_s, until_s).items()
        }

    deadline = time.monotonic() + 20
    while (got := read()) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    assert got == expected


def recent(prefix: str, series: int, rounds: int) -> list[Sent]:
    """Points of the last minutes, one each slot."""
    now_s = int(time.time())
    end_s = now_s - now_s % STEP_S
    return [
        Sent(f"{prefix}.web{i}.load", end_s - r * STEP_S, 1000 * i + r + 0.25)
        for r in reversed(range(rounds))
        for i in range(series)
    ]


def sent_by(sender: Callable[..., list[Sent]], *arguments: Any, **options: Any) -> list[Sent]:
    try:
        return sender(*arguments, **options)
    except NotInstalled as reason:
        pytest.skip(str(reason))


def test_carbon_relay(server: Server, tmp_path: Path) -> None:
    points = recent("relay", 50, 30)
    assert_stored(
        server, sent_by(senders.carbon_relay, "127.0.0.1", server.pickle, tmp_path, points)
    )


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_graphyte(server: Server, protocol: str) -> None:
    points = recent(f"graphyte.{protocol}", 3, 5)
    tagged = [
        Sent(f"{p.name};host=b;dc=a", p.time_s, p.value) for p in recent(f"tagged.{protocol}", 2, 3)
    ]
    sent = sent_by(senders.graphyte, "127.0.0.1", server.carbon, points + tagged, protocol)
    assert_stored(server, sent)


@pytest.mark.parametrize("tags", [False, True], ids=["plain", "tags"])
def test_collectd(server: Server, tmp_path: Path, tags: bool) -> None:
    sent = sent_by(senders.collectd, "127.0.0.1", server.carbon, tmp_path, tags=tags)
    assert len({point.name for point in sent}) > 5
    assert_stored(server, sent)
    status, metrics = server.get("/metrics")
    assert status == 200
    malformed = [line for line in metrics.splitlines() if b'reason="malformed"' in line]
    assert all(line.endswith((b" 0", b" 0.0")) for line in malformed)
