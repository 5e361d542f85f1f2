"""What the tests of outages share: questions by what they need, the end of an outage."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from tests.acceptance.load import Load, Sent
from tests.acceptance.process import Known, ServerProcess, wait_for
from tests.acceptance.test_crash import assert_holds

ANSWER_S = 5.0  # the promise: an answer or 503
AWAY, BACK = "PostgreSQL is away", "PostgreSQL is back"


def ask(server: ServerProcess, path: str) -> int:
    """The status of an answer that came in time."""
    begin = time.monotonic()
    status, _ = server.get(path)
    seconds = time.monotonic() - begin
    assert seconds < ANSWER_S, (path, seconds, server.log)
    return status


class Traffic:
    """Points of now, which are in memory, and old ones, whose first are in the store when it begins.

    The old ones go on: they are late, or in memory until their chunk is written.
    """

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.sent = Sent()
        self.old_s = int(time.time()) - 5_000
        old = Sent()
        port = server.ports["carbon"]
        begun = server.sum_of("tgres_flushes_total")
        self.old = Load(old, port, self.old_s, prefix="load2", pause_s=0.01, series=5)
        wait_for(lambda: server.sum_of("tgres_flushes_total") > begun, "a chunk is stored", 30)
        self.now_s = int(time.time())
        self.live = Load(
            self.sent, port, self.now_s, pause_s=1.0, series=100, late_slots=5, prefix="load"
        )
        self._others = old
        wait_for(lambda: self.live.next_s > self.now_s + 1, "points of now are sent")

    def stop(self) -> None:
        self.live.stop()
        self.old.stop()
        self.sent.batches += self._others.batches

    def abandon(self, before: float) -> tuple[Known, Known]:
        """After a kill: what was sent before that moment, and all that was sent."""
        self.live.abandon()
        self.old.abandon()
        self.sent.batches += self._others.batches
        return self.sent.known(before), self.sent.known()

    @property
    def points(self) -> int:
        """How many were sent; after ``stop``."""
        return sum(len(batch) for _, batch in self.sent.batches)

    def check_memory(self) -> None:
        """What is in memory is rendered, and what needs no store answered, whatever that does."""
        server, last_s = self._server, self.live.next_s - 1
        first_s = max(self.now_s, last_s - 5)
        path = f"/render?target=load.s0&from={first_s - 1}&until={last_s}&format=json"
        assert ask(server, path) == 200, server.get(path)
        got = server.render("load.s0", first_s - 1, last_s)["load.s0"]
        known = self.sent.known()["load.s0"]
        assert got and all(known[time_s] == value for time_s, value in got.items())
        for path in ("/metrics/find?query=load.*", "/tags", "/metrics/index.json", "/metrics"):
            assert ask(server, path) == 200

    def check_store_needed(self, *expected: int) -> None:
        """What only the store has, and events: an answer or 503, soon."""
        end_s = self.old_s + 10
        path = f"/render?target=load2.s0&from={self.old_s - 1}&until={end_s}&format=json"
        paths = path, "/events/get_data?from=-1h"
        with ThreadPoolExecutor(len(paths)) as askers:
            for path, status in zip(paths, askers.map(self._ask, paths), strict=True):
                assert status in expected, (path, status)

    def _ask(self, path: str) -> int:
        return ask(self._server, path)


def check_end(server: ServerProcess, traffic: Traffic, others: int = 0) -> None:
    """After an outage: ready, all points exactly, the ledger balanced, a line for each change.

    ``others``: points that were sent besides.
    """
    wait_for(server.is_ready, "ready again", 60)
    traffic.stop()
    assert server.imbalance() == 0
    assert server.sum_of("tgres_points_received_total") == traffic.points + others
    assert server.sum_of("tgres_points_dropped_total") == 0
    wait_for(lambda: server.sum_of("tgres_points_held") == 0, "late points are merged", 60)
    wait_for(lambda: server.sum_of("tgres_store_available") == 1, "writing goes on", 60)
    known = traffic.sent.known()
    assert_holds(server, known, known)
    assert "Traceback" not in server.log
    assert server.log.count(AWAY) == server.log.count(BACK)
