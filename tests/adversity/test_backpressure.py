"""PostgreSQL is away until memory or journal are at their limits: senders of TCP wait and lose nothing, datagrams
are refused and counted, and memory doesn't grow any more."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.load import Load, Sent
from tests.acceptance.process import ServerProcess, wait_for
from tests.acceptance.test_crash import assert_holds
from tests.adversity.health_watch import HealthWatch
from tests.adversity.test_outages import go_on, served, stop
from tests.adversity.test_postgres_away import first_slot

QUEUE_BYTES = 64 << 20  # datagrams that the server holds unread
BLOCK_POINTS = 8_000  # of one read of a connection: what may come on top of a limit


class Limit(NamedTuple):
    option: str
    most: float
    value: Callable[[ServerProcess], float]  # what is limited
    series: int


LIMITS = {
    "late points": Limit(
        "--late-points-max=2000",
        2_000 + BLOCK_POINTS,
        lambda server: server.sum_of("tgres_late_queue_points"),
        5,
    ),
    "cache": Limit(
        "--cache-bytes-max=8M",
        8 << 20,
        lambda server: server.sum_of("tgres_ring_bytes"),
        300,
    ),
    "journal": Limit(
        "--journal-bytes-max=16M",
        20 << 20,
        lambda server: server.sum_of("tgres_journal_bytes"),
        1_000,
    ),
}


def flood(server: ServerProcess, at_s: int) -> int:
    """More datagrams than are held, of long lines; how many points."""
    line = f"flood.{'x' * 990} 1 {at_s}\n".encode()
    count = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while count * len(line) < 1.2 * QUEUE_BYTES:
            sock.sendto(8 * line, ("127.0.0.1", server.ports["carbon_udp"]))
            count += 8
            if count % 1_024 == 0:
                time.sleep(0.01)
    return count


def refused(server: ServerProcess) -> float:
    """Datagrams' points that were counted as refused."""
    metrics = server.metrics()
    reasons = "overload", "udp_kernel"
    return sum(metrics.get(f'tgres_points_dropped_total{{reason="{r}"}}', 0.0) for r in reasons)


def resident_mb(server: ServerProcess) -> float:
    return server.sum_of("process_resident_memory_bytes") / 1e6


@pytest.mark.slow
@pytest.mark.parametrize("kind", LIMITS)
def test_limits_that_are_reached(tmp_path: Path, database: str, kind: str) -> None:
    limit = LIMITS[kind]
    with served(tmp_path, database, options=(limit.option,)) as (server, proxy):
        sent = Sent()
        first_s = first_slot()
        load = Load(
            sent,
            server.ports["carbon"],
            first_s,
            pause_s=0.02,
            series=limit.series,
            late_share=0.0,
        )
        wait_for(lambda: server.sum_of("tgres_flushes_total") > 0, "a chunk is stored", 30)
        if kind == "late points":
            load.next_s = first_s - 1_500  # from here on they are
        with HealthWatch(server) as watch:
            proxy.do(stop)
            load.pause_s = 0.002  # the present must not be reached
            wait_for(lambda: stands_still(server), "the sender waits", 60)
            load.pause_s = 0.05
            assert limit.value(server) <= limit.most
            before_mb = resident_mb(server)
            datagrams = flood(server, load.next_s)
            wait_for(
                lambda: refused(server) > 0,
                "datagrams are refused",
                20,
            )
            # what was written to the journal makes room for a little more, until the ring fills it
            wait_for(lambda: stands_still(server), "the sender waits on", 30)
            assert limit.value(server) <= limit.most
            assert resident_mb(server) < before_mb + QUEUE_BYTES / 1e6 + 80
            assert server.imbalance() == 0
            proxy.do(go_on)
            wait_for(lambda: not stands_still(server), "the sender goes on", 60)
            wait_for(server.is_ready, "ready", 30)
            load.stop()
        watch.check()
        points = sum(len(batch) for _, batch in sent.batches) + datagrams
        wait_for(
            lambda: server.sum_of("tgres_points_received_total") == points, "all is counted", 60
        )
        wait_for(lambda: server.sum_of("tgres_points_held") == 0, "late points are merged", 60)
        assert 0 < refused(server) < datagrams
        assert server.sum_of("tgres_points_dropped_total") == refused(server)
        assert server.imbalance() == 0
        known = sent.known()
        assert_holds(server, known, known)
        assert "Traceback" not in server.log


def stands_still(server: ServerProcess) -> bool:
    """Whether nothing is read from the sender any more."""
    name = 'tgres_points_received_total{receiver="carbon"}'
    before = server.metrics()[name]
    time.sleep(0.7)
    return server.metrics()[name] == before
