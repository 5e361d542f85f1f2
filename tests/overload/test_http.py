"""More questions than can be answered: some wait, some are told to come again, and senders notice nothing."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess, wait_for
from tests.adversity.health_watch import HealthWatch
from tests.overload.senders import Rounds, Sender, check_stored, run_all

GIVE_UP_S = 90.0  # a query that waits for its turn is answered after query_timeout_s, 60 s
MEMORY_LEFT = 200e6  # bytes that may stay: caches of plans and names, what the allocator keeps
HEAVY = (
    "/render?target=load.*.*.*&from=-10min&format=json",
    "/render?target=sortByName(aliasByNode(movingAverage(load.*.*.*,5),1,2))&from=-10min&format=csv",
    "/render?target=sumSeries(load.*.*.*)&target=averageSeriesWithWildcards(load.*.*.*,1)&from=-10min&format=json",
    "/metrics/find?query=*.*.*.*",
    "/metrics/index.json",
    "/metrics/expand?query=load.*.*.*",
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path)
    yield server
    server.close()


class Clients:
    """Ask until ``stop``; ``answers``: how often which status; 0 stands for a connection that ended without one."""

    def __init__(self, port: int) -> None:
        self.stop = threading.Event()
        self.answers: Counter[int] = Counter()
        self._port = port
        self._lock = threading.Lock()

    def patient(self, number: int) -> None:
        """Reads its answers, and waits as long as it is told to."""
        while not self.stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=GIVE_UP_S)
            try:
                connection.request("GET", HEAVY[number % len(HEAVY)])
                answer = connection.getresponse()
                body = answer.read()
                status, wait_s = answer.status, answer.getheader("Retry-After")
                assert status != 503 or wait_s
                # it waited for its turn until its time was over
                assert status != 400 or b"query_timeout_s" in body, body
            except (OSError, http.client.HTTPException):
                status, wait_s = 0, None
            finally:
                connection.close()
            with self._lock:
                self.answers[status] += 1
            number += 1
            self.stop.wait(float(wait_s or 0.05))

    def gone(self, number: int) -> None:
        """Asks and hangs up, soon or in the middle of the answer."""
        while not self.stop.is_set():
            with self._asking(number) as sock:
                if number % 2:
                    sock.settimeout(2.0)
                    with suppress(TimeoutError):  # it is still waiting for its turn
                        sock.recv(1_000)
                self.stop.wait(0.2)
            number += 1

    def deaf(self, number: int) -> None:
        """Asks and never reads."""
        with self._asking(number):
            self.stop.wait()

    def _asking(self, number: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.settimeout(GIVE_UP_S)
        sock.connect(("127.0.0.1", self._port))
        sock.sendall(f"GET {HEAVY[number % 3]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return sock


def resident(server: ServerProcess) -> float:
    return server.metrics()["process_resident_memory_bytes"]


@pytest.mark.parametrize(
    ("clients", "seconds"), [(30, 1.0), pytest.param(200, 10.0, marks=pytest.mark.slow)]
)
def test_queries(server: ServerProcess, clients: int, seconds: float) -> None:
    """Heavy ones from all; a third of the clients hangs up, and some never read."""
    server.start()
    stored = Rounds(0, 500, 300, int(time.time()) - 400)
    Sender(server.ports["carbon"], stored.lines()).run()
    assert server.get("/render?target=load.*.*.*&from=-10min&format=json", GIVE_UP_S)[0] == 200
    before = resident(server)
    asking = Clients(server.ports["http"])
    steps = 10
    beside = [Rounds(n, 200, 100, int(time.time()) - 500) for n in range(1, steps + 1)]
    slowest = 0.0

    def sending() -> None:
        nonlocal slowest
        try:
            for one in beside:
                sender = Sender(server.ports["carbon"], one.lines())
                sender.run()
                slowest = max(slowest, sender.done_s)
                time.sleep(seconds / steps)
        finally:
            asking.stop.set()

    jobs = [lambda n=n: asking.patient(n) for n in range(clients)]
    jobs += [lambda n=n: asking.gone(n) for n in range(clients // 3)]
    jobs += [lambda n=n: asking.deaf(n) for n in range(clients // 10)]
    with HealthWatch(server) as health:
        run_all([*jobs, sending])
    health.check()
    print(f"{clients} clients: {dict(asking.answers)}; 20,000 points took {slowest:.2f} s at most")
    assert asking.answers.keys() <= {200, 400, 503}
    assert asking.answers[200] > 0
    check_stored(server, [stored, *beside])
    assert server.sum_of("tgres_points_stored_total") == sum(r.points for r in (stored, *beside))
    wait_for(lambda: resident(server) < before + MEMORY_LEFT, "memory is given back", 60)
    assert "Traceback" not in server.log
    assert server.log.count("\n") < 100
