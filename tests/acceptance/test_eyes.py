"""top, tail, doctor, stats, completion and the server's own points, by the command line against one real server."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner, Result

from tests.acceptance.process import ServerProcess, wait_for
from tgres_py.cli.main import main

TOKEN = "a-token-for-the-tests"


class Server(ServerProcess):
    def tgres(self, *args: str) -> Result:
        environment = {"TGRES_URL": self.url, "TGRES_TOKEN": TOKEN}
        return CliRunner(env=environment).invoke(main, args)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    def send_from(self, host: str, lines: str) -> None:
        """Sends lines from another loopback address."""
        address = ("127.0.0.1", self.ports["carbon"])
        with socket.create_connection(address, 30, source_address=(host, 0)) as sock:
            sock.sendall(lines.encode())
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(
        tmp_path_factory.mktemp("eyes"),
        f"--admin-token={TOKEN}",
        "--self-metrics-s=1",
        "--sql-freshness-s=1",
        "--self-metrics-prefix=carbon.agents.me-a",
        retentions="1s:2h,10s:1d",
    )
    try:
        running.start()
        yield running
    finally:
        running.close()


def while_running(pool: ThreadPoolExecutor, server: Server, *args: str) -> Future[Result]:
    return pool.submit(server.tgres, *args)


def send_until_done(server: Server, future: Future[Result], lines: str) -> Result:
    """Sends the same lines again and again while a verb looks."""
    deadline = time.monotonic() + 60
    while not future.done() and time.monotonic() < deadline:
        server.send(lines)
        time.sleep(0.05)
    return future.result(1)


def test_top(server: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = while_running(pool, server, "top", "--once", "--json", "-i", "1", "--rows=50")
        result = send_until_done(server, future, "app.web.hits 1 -1\nno line\n")
    assert result.exit_code == 0, result.output
    frame = json.loads(result.stdout)
    assert frame["points_per_s"] > 0
    assert "app.web.*" in {one["prefix"] for one in frame["prefixes"]}
    assert ("127.0.0.1", "carbon") in {(s["sender"], s["receiver"]) for s in frame["senders"]}
    refused = {one["reason"]: one for one in frame["refused"]}
    assert refused["malformed"]["sample"] == "no line" and refused["malformed"]["total"] > 0
    shown = server.tgres("top", "--once", "-i", "0.2").stdout
    assert "series" in shown and "malformed" in shown and "no line" in shown


def test_tail(server: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = while_running(pool, server, "tail", "tail.*", "--count", "2", "--json")
        result = send_until_done(server, future, "tail.a 7.5 -1\nother.a 1 -1\n")
    assert result.exit_code == 0, result.output
    points = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(points) == 2
    assert {(p["name"], p["value"], p["sender"]) for p in points} == {("tail.a", 7.5, "127.0.0.1")}


def test_doctor(server: Server) -> None:
    """What is wrong here: a slow sender, two senders of one series, a name in two cases, a bad line."""
    now_s = int(time.time())
    slow = [f"slow.s{i} 1 {now_s - 50 + k * 5}" for i in range(3) for k in range(10)]
    server.send("\n".join([*slow, "case.CPU 1 -1", "case.cpu 1 -1", "no line", ""]))
    with ThreadPoolExecutor(1) as pool:
        future = while_running(pool, server, "doctor", "--watch", "2", "--json")
        while not future.done():
            for host in ("127.0.0.2", "127.0.0.3"):
                server.send_from(host, f"twice.a 1 {int(time.time())}\n")
            time.sleep(0.05)
        result = future.result()
    rows = json.loads(result.stdout)
    slow_ones = [one for one in rows if one["check"] == "interval" and "every 5 s" in one["what"]]
    assert slow_ones[0]["examples"] == ["slow.s0", "slow.s1", "slow.s2"]
    found = {one["check"]: one for one in rows}
    assert found["two_senders"]["examples"] == ["twice.a from 127.0.0.2 and 127.0.0.3"] or found[
        "two_senders"
    ]["examples"] == ["twice.a from 127.0.0.3 and 127.0.0.2"]
    assert found["case"]["examples"] == ["case.CPU, case.cpu"]
    assert found["refused.malformed"]["severity"] == "warning"
    assert "refused.udp_kernel" not in found and "store" not in found
    errors = [one for one in found.values() if one["severity"] == "error"]
    assert result.exit_code == (11 if errors else 10)
    shown = server.tgres("doctor", "--watch", "0").stdout
    assert "mend: " in shown and "slow.s0" in shown


def test_doctor_of_the_store_alone(server: Server, database: str) -> None:
    result = server.tgres("doctor", "--dsn", database, "--json")
    found = {one["check"] for one in json.loads(result.stdout)}
    assert "postgres.fsync" in found, "the tests' PostgreSQL runs without it"
    assert result.exit_code == 11


def test_stats_storage(server: Server) -> None:
    server.send("stored.a 1 -1\n")
    wait_for(lambda: server.tgres("stats", "storage").exit_code == 0, "a partial chunk is written")
    result = server.tgres("stats", "storage", "--json")
    archives = {one["archive"]: one for one in json.loads(result.stdout)}
    assert archives["1s:2h"]["stored_bytes"] > 0 and archives["1s:2h"]["series"] >= 1
    tables = json.loads(server.tgres("stats", "storage", "--tables", "--json").stdout)
    assert {"ts", "rrd"} <= {one["table"] for one in tables}
    assert "compression" in server.tgres("stats", "storage").stdout


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (["ser"], {"serve", "series"}),
        (["find", "complete."], {"complete.a.", "complete.b"}),
        (["render", "sumSeries(complete.a"], {"sumSeries(complete.a."}),
        (["tail", "complete.b"], {"complete.b"}),
        (["series", "ls", "--tag", "shelf"], {"shelf="}),
        (["series", "ls", "--tag", "shelf="], {"shelf=1", "shelf=2"}),
    ],
    ids=["verbs", "names", "targets", "tail", "tags", "values"],
)
def test_completion(
    server: Server, monkeypatch: pytest.MonkeyPatch, line: list[str], wanted: set[str]
) -> None:
    server.send("complete.a.x 1 -1\ncomplete.b 1 -1\nbooks;shelf=1 1 -1\nbooks;shelf=2 1 -1\n")
    monkeypatch.setenv("TGRES_URL", server.url)
    kind = get_completion_class("bash")
    assert kind is not None
    shell = kind(main, {}, "tgres", "_TGRES_COMPLETE")
    assert {one.value for one in shell.get_completions(line[:-1], line[-1])} == wanted


def test_completion_of_no_server_is_nothing(
    monkeypatch: pytest.MonkeyPatch, free_port: object
) -> None:
    assert callable(free_port)
    monkeypatch.setenv("TGRES_URL", f"http://127.0.0.1:{free_port()}")
    kind = get_completion_class("bash")
    assert kind is not None
    assert kind(main, {}, "tgres", "_TGRES_COMPLETE").get_completions(["find"], "a") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, tmp_path: Path) -> None:
    script = CliRunner().invoke(main, ["completion", shell]).stdout
    assert f"_TGRES_COMPLETE={shell}_complete" in script
    if shell == "bash":
        (tmp_path / "script").write_text(script)
        assert os.system(f"bash -n {tmp_path / 'script'}") == 0
        assert "nospace" in script


def test_own_points(server: Server) -> None:
    """As carbon's, from the grid's first second on."""
    begin_s = int(time.time()) - 60

    def received() -> list[float]:
        name = "carbon.agents.me-a.metricsReceived"
        return list(server.render(name, begin_s, int(time.time()) + 2).get(name, {}).values())

    server.send("own.a 1 -1\nown.b 1 -1\n")
    wait_for(lambda: sum(received()) >= 2, "own points")
    metrics = server.metrics()
    assert metrics['tgres_points_received_total{receiver="self"}'] > 0
    assert metrics['tgres_http_requests_total{code="200",route="/render"}'] > 0
    assert metrics['tgres_receiver_connections_accepted_total{receiver="carbon"}'] > 0
    assert metrics["tgres_loop_lag_seconds_count"] > 0
    assert metrics['tgres_postgres_duration_seconds_count{pool="shared"}'] > 0
    assert server.imbalance() == 0
    assert "Traceback" not in server.log
