"""A server with little memory: a storm of new series, an outage of PostgreSQL under load, heavy queries.

What it takes, with its render workers, stays below memory_max; what it refuses is counted; afterwards all goes on.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess, wait_for

MIB = 1 << 20
FLEET = 20_000  # series that are there before the storm
PER_SEGMENT = 4_096
REFUSED_OR_NOT = (200, 400, 503)  # 400: more than the queries' share could ever hold
PAGE = os.sysconf("SC_PAGE_SIZE")


class Footprint:
    """The highest resident memory of a server and its workers, looked at every hundredth of a second."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.highest = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.01):
            self.highest = max(self.highest, self._now())

    def _now(self) -> int:
        pages = _statm(self.pid)[0]
        for task in Path(f"/proc/{self.pid}/task").glob("*/children"):
            for child in map(int, task.read_text().split()):
                if b"http_api.workers" in _read(f"/proc/{child}/cmdline"):
                    resident, shared = _statm(child)
                    pages += resident - shared
        return pages * PAGE

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _statm(pid: int) -> tuple[int, int]:
    _, resident, shared = (*map(int, _read(f"/proc/{pid}/statm").split()[:3]), 0, 0, 0)[:3]
    return resident, shared


@contextmanager
def frozen_postgres(server: ServerProcess) -> Iterator[None]:
    """PostgreSQL and all its processes stand still."""
    postmaster = server.postgres_pid
    children = _read(f"/proc/{postmaster}/task/{postmaster}/children").split()
    pids = [postmaster, *map(int, children)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def fleet(time_s: int, every: int = 1) -> str:
    return "".join(f"fleet.h{i:05d}.load {i} {time_s}\n" for i in range(0, FLEET, every))


def storm(count: int) -> str:
    now_s = int(time.time())
    return "".join(f"storm.id.{secrets.token_hex(12)}.count 1 {now_s}\n" for _ in range(count))


def pours(server: ServerProcess, lines: str) -> bool:
    """Sends lines; whether the server read them, or lets the sender wait."""
    with socket.create_connection(("127.0.0.1", server.ports["carbon"]), timeout=3) as sock:
        try:
            sock.sendall(lines.encode())
            sock.shutdown(socket.SHUT_WR)
            return sock.recv(1) == b""
        except TimeoutError:
            return False


def render(server: ServerProcess, target: str, form: str) -> int:
    query = urllib.parse.urlencode({"target": target, "from": "-1h", "format": form})
    return server.get(f"/render?{query}", timeout_s=60)[0]


@pytest.mark.parametrize(
    ("memory_mb", "storm_series", "queries"),
    [(320, 150_000, 4), pytest.param(400, 600_000, 40, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc tells the memory")
def test_memory_stays_below_its_bound(
    tmp_path: Path, memory_mb: int, storm_series: int, queries: int
) -> None:
    options = [f"--memory-max={memory_mb}M", "--render-workers=1", "--store-timeout-s=3"]
    server = ServerProcess(tmp_path, *options, retentions="10s:6h,1m:7d")
    server.start()
    assert server.process is not None
    footprint = Footprint(server.process.pid)
    try:
        begin_s = int(time.time()) // 10 * 10 - 7_200
        server.send(fleet(begin_s))
        sent = FLEET

        # more series than the index has room for: the known ones go on
        for _ in range(0, storm_series, 10_000):
            server.send(storm(10_000) + fleet(begin_s + 10, 100))
            sent += 10_000 + FLEET // 100
        metrics = server.metrics()
        refused = metrics['tgres_points_dropped_total{reason="memory"}']
        assert 0 < refused < storm_series
        assert metrics["tgres_series"] == FLEET + storm_series - refused
        assert metrics['tgres_series_refused_total{reason="memory"}'] == refused
        told = "points of new series are refused: memory_max"
        wait_for(lambda: told in server.log, "it is told", 10)
        assert server.log.count(told) == 1

        # PostgreSQL away: the ring fills until senders wait, and what is in memory is answered or refused
        rounds = 0
        with frozen_postgres(server):
            for first in range(2, 700, 10):
                lines = (
                    fleet(begin_s + 10 * r, PER_SEGMENT // 2) for r in range(first, first + 10)
                )
                if not pours(server, "".join(lines)):
                    break
                rounds += 10
            assert 0 < rounds < 690
            wait_for(lambda: server.metrics()["tgres_paused"] == 1, "senders wait", 10)
            for number in range(queries):
                form = ("json", "png")[number % 2]
                assert render(server, f"fleet.h0{number % 2}*.load", form) in REFUSED_OR_NOT
            assert server.get("/healthz")[0] == 200

        # it is back: what waits is taken, and new points are, too
        wait_for(lambda: server.metrics()["tgres_paused"] == 0, "senders go on", 60)
        for number in range(queries):
            assert render(server, f"fleet.h0{number % 2}*.load", "json") in REFUSED_OR_NOT
        assert render(server, "fleet.h0000*.load", "json") == 200
        server.send(fleet(int(time.time())))
        wait_for(lambda: server.sum_of("tgres_points_held") == 0, "late points are merged", 60)
        assert server.imbalance() == 0
        assert server.sum_of("tgres_points_dropped_total") == refused

        # a start with less memory than the store's series want: said so, and known ones go on
        series = server.metrics()["tgres_series"]
        server.terminate()
        server.options = ("--memory-max=256M",)
        server.start()
        told = "memory_max has too little for the store's series"
        wait_for(lambda: told in server.log, "it is told", 10)
        assert server.log.count(told) == 1
        server.send(fleet(int(time.time())) + storm(10))
        metrics = server.metrics()
        assert metrics["tgres_series"] == series
        assert metrics['tgres_points_dropped_total{reason="memory"}'] == 10
        assert server.sum_of("tgres_points_received_total") == FLEET + 10
        assert server.imbalance() == 0
    finally:
        footprint.close()
        server.close()
    assert footprint.highest < memory_mb * MIB, f"{footprint.highest / MIB:.0f} MB"
    print(f"{footprint.highest / MIB:.0f} of {memory_mb} MB")
