"""Worker processes of a real server: ingestion goes on beside a heavy query, and no process is left when the server ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess, alive, wait_for

NOW_S = 1_700_000_000
# half a minute of numpy, of a series that needs no points
LONG = (
    f"/render?target=movingMedian(timeFunction('x',1),5000)&format=json&from={NOW_S - 300_000}"
    f"&until={NOW_S}&now={NOW_S}"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def workers_of(server: ServerProcess) -> list[int]:
    """The worker processes that a server has."""
    assert server.process is not None
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == server.process.pid and b"http_api.workers.worker" in command:
                found.append(int(entry.name))
    return found


def busy(server: ServerProcess, clients: ThreadPoolExecutor) -> int:
    """A worker that has begun on a long query."""
    clients.submit(server.get, LONG, 60.0)
    wait_for(lambda: server.sum_of("tgres_queries_reserved_bytes") > 0, "the query is begun")
    wait_for(lambda: bool(workers_of(server)), "a worker")
    [worker] = workers_of(server)
    wait_for(lambda: cpu_ticks(worker) > 100, "it works")
    return worker


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_points_are_read_beside_a_heavy_query(
    server: ServerProcess, clients: ThreadPoolExecutor
) -> None:
    worker = busy(server, clients)
    # nicer than the server, and the first to go when memory is out
    assert os.getpriority(os.PRIO_PROCESS, worker) > os.getpriority(os.PRIO_PROCESS, 0)
    assert int(Path(f"/proc/{worker}/oom_score_adj").read_text()) > 0
    for number in range(5):
        now_s = int(time.time())
        server.send(f"beside.x {number} {now_s}\n")
        body = server.get("/render?target=beside.x&from=-10s&format=raw", 5.0)[1].decode()
        assert f"{number}.0" in body
        assert server.get("/healthz", 1.0)[0] == 200
    assert alive(worker)


def test_workers_end_with_a_killed_server(
    server: ServerProcess, clients: ThreadPoolExecutor
) -> None:
    [worker] = workers_of(server) or [busy(server, clients)]
    server.kill()
    wait_for(lambda: not alive(worker), "the worker is gone", 5.0)


def test_workers_end_with_a_stopped_server(
    server: ServerProcess, clients: ThreadPoolExecutor
) -> None:
    server.start()
    worker = busy(server, clients)
    assert server.process is not None
    os.kill(worker, signal.SIGTERM)  # as from a service manager, which tells all processes
    os.kill(worker, signal.SIGINT)  # and a terminal
    time.sleep(0.1)
    assert alive(worker)
    assert server.terminate(30) == 0
    assert not alive(worker)
