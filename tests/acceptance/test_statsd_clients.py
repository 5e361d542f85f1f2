"""statsd's real clients against a real server: what they sent is what /render gives back after a flush."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import ServerProcess, wait_for

CONFIG = """\
[statsd]
flushInterval = 1000
dialect = "dogstatsd"
socket = "{folder}/statsd.sock"
keyFlush = {{ interval = 500, log = "{folder}/keys.log" }}
"""


class Server(ServerProcess):
    """A server whose statsd flushes every second."""

    def __init__(self, folder: Path) -> None:
        config = folder / "tgres.toml"
        config.write_text(CONFIG.format(folder=folder))
        listen = [f"--{name}=127.0.0.1:0" for name in ("statsd", "statsd-mgmt")]
        super().__init__(folder, f"--config={config}", *listen)
        self.begin_s = int(time.time()) - 60

    def known(self, name: str) -> list[float]:
        """The values that were flushed under a name, by time."""
        found = self.render(name, self.begin_s, int(time.time()) + 5)
        return [value for points in found.values() for _, value in sorted(points.items())]

    def wait_sum(self, name: str, total: float) -> None:
        try:
            wait_for(lambda: sum(self.known(name)) == pytest.approx(total), name, 15)
        except AssertionError:
            raise AssertionError(f"{name}: {self.known(name)}, not {total}\n{self.log}") from None

    def wait_last(self, name: str, value: float) -> None:
        try:
            wait_for(lambda: self.known(name)[-1:] == [pytest.approx(value)], name, 15)
        except AssertionError:
            raise AssertionError(f"{name}: {self.known(name)}, not {value}\n{self.log}") from None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("statsd"))
    try:
        running.start()
        wait_for(lambda: "statsd_mgmt listens" in running.log, "all ports are open")
        running._listens()
        yield running
    finally:
        running.close()


def test_the_client_statsd_over_udp(server: Server) -> None:
    statsd = pytest.importorskip("statsd")
    client = statsd.StatsClient("127.0.0.1", server.ports["statsd"], prefix="py")
    for _ in range(5):
        client.incr("hits")
    client.decr("hits", 2)
    client.incr("sampled", 3, rate=1)
    client.gauge("level", 7)
    client.gauge("level", -3, delta=True)
    client.gauge("below", -5)
    client.timing("wait", 320)
    client.set("users", "ann")
    client.set("users", "bob")
    with client.pipeline() as pipe:
        for number in range(100):
            pipe.incr("piped")
            pipe.timing("many", number + 1)
    server.wait_sum("stats_counts.py.hits", 3)
    server.wait_sum("stats_counts.py.sampled", 3)
    server.wait_sum("stats_counts.py.piped", 100)
    server.wait_last("stats.gauges.py.level", 4)
    server.wait_last("stats.gauges.py.below", -5)
    server.wait_sum("stats.timers.py.wait.upper", 320)
    server.wait_sum("stats.timers.py.many.sum", 5050)
    server.wait_sum("stats.timers.py.many.count", 100)
    assert 1 <= max(server.known("stats.sets.py.users.count")) <= 2


def test_the_client_statsd_over_tcp(server: Server) -> None:
    statsd = pytest.importorskip("statsd")
    client = statsd.TCPStatsClient("127.0.0.1", server.ports["statsd_tcp"], prefix="tcp")
    for _ in range(10):
        client.incr("hits")
    client.close()
    server.wait_sum("stats_counts.tcp.hits", 10)


def test_the_client_datadog(server: Server) -> None:
    base = pytest.importorskip("datadog.dogstatsd.base")
    client = base.DogStatsd("127.0.0.1", server.ports["statsd"], disable_telemetry=True)
    client.increment("dd.hits", 4, tags=["env:prod"])
    client.gauge("dd.level", 2.5)
    client.histogram("dd.size", 10)
    client.distribution("dd.spread", 12)
    client.timing("dd.wait", 8)
    client.set("dd.users", "ann")
    client.event("release 7", "line 1\nline 2", tags=["app:web"], alert_type="info")
    client.service_check("db.up", 0)
    client.flush()
    client.close_socket()
    server.wait_sum("seriesByTag('name=stats_counts.dd.hits','env=prod')", 4)
    server.wait_last("stats.gauges.dd.level", 2.5)
    for name, value in (("size", 10), ("spread", 12), ("wait", 8)):
        server.wait_sum(f"stats.timers.dd.{name}.sum", value)
    wait_for(lambda: bool(events(server)), "the event is stored")
    (event,) = events(server)
    assert event["what"] == "release 7" and event["data"] == "line 1\nline 2"
    assert {"app:web", "alert_type:info"} <= set(event["tags"])
    metrics = server.metrics()
    assert metrics["tgres_statsd_service_checks_total"] == 1
    assert metrics['tgres_memory_bytes{part="statsd"}'] > 10_000


def events(server: Server) -> list[dict[str, Any]]:
    query = urllib.parse.urlencode({"from": server.begin_s, "until": int(time.time()) + 5})
    status, body = server.get(f"/events/get_data?{query}")
    assert status == 200, body
    found: list[dict[str, Any]] = json.loads(body)
    return found


HOT_SHOTS = """
const StatsD = require('hot-shots');
const c = new StatsD({host: '127.0.0.1', port: +process.argv[1], maxBufferSize: 1000});
for (let i = 0; i < 50; i++) c.increment('hs.hits');
c.gauge('hs.level', 9); c.timing('hs.wait', 42);
c.close(() => process.exit(0));
"""


def test_the_client_hot_shots(server: Server, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", "require.resolve('hot-shots')"]).returncode:
        pytest.skip("node with hot-shots (NODE_PATH) is not here")
    run = [node, "-e", HOT_SHOTS, str(server.ports["statsd"])]
    subprocess.run(run, check=True, timeout=30)
    server.wait_sum("stats_counts.hs.hits", 50)
    server.wait_last("stats.gauges.hs.level", 9)
    server.wait_sum("stats.timers.hs.wait.upper", 42)


def test_datagrams_of_a_unix_socket(server: Server) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"unix.hits:3|c\nbad line\nunix.hits:4|c", str(server.folder / "statsd.sock"))
    server.wait_sum("stats_counts.unix.hits", 7)


def test_the_management_port(server: Server) -> None:
    def ask(command: bytes, end: bytes) -> str:
        with socket.create_connection(("127.0.0.1", server.ports["statsd_mgmt"]), 10) as sock:
            sock.sendall(command)
            answer = b""
            while not answer.endswith(end) and (part := sock.recv(65_536)):
                answer += part
            return answer.decode()

    assert ask(b"health\n", b"\n") == "health: up\n"
    assert "'statsd.packets_received':" in ask(b"counters", b"END\n\n")
    assert ask(b"delcounters x\n", b"\n") == "ERROR\n"
    assert ask(b"quit", b"never") == ""


def test_the_most_frequent_keys_are_reported(server: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        address = ("127.0.0.1", server.ports["statsd"])
        sock.sendto(b"few:1|c\noften:1|c\noften:1|ms", address)
    log = server.folder / "keys.log"
    wait_for(lambda: log.exists() and "key=few" in log.read_text(), "the report is written")
    assert " count=2 key=often\n" in log.read_text()


def test_the_ledger_counts_what_was_flushed(server: Server) -> None:
    wait_for(
        lambda: server.metrics().get('tgres_points_received_total{receiver="statsd"}', 0) > 0,
        "a flush is counted",
    )
    assert server.imbalance() == 0
