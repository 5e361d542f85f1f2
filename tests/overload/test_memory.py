"""All that takes memory at the same time, with as many render workers as there are by default: the bound holds."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess
from tests.overload.footprint import MIB, Footprint
from tests.overload.mix import RETENTIONS, Mix

BOUND_MB = 320
BODIES = 300  # of almost a megabyte: more than the bound
BODY_BYTES = 1_000_000

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="/proc tells the memory"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, f"--memory-max={BOUND_MB}M", retentions=RETENTIONS)
    yield server
    server.close(at_once=True)  # an orderly end would write all that was sent


@pytest.mark.slow  # see tests/adversity/test_memory_bound.py for a quicker one
def test_all_at_once(server: ServerProcess) -> None:
    server.start()
    assert server.process is not None
    mix = Mix(server, clients=20, late_lines=20)
    with Footprint(server.process.pid) as footprint:
        mix.run(seconds=9, freeze_s=6)
    print(footprint.highest)
    assert not mix.errors
    assert sum(n for kind, n in mix.answers.items() if kind.endswith(" 200")) > 0
    assert footprint.looks > 20
    assert footprint.highest.total < BOUND_MB * MIB, footprint.highest
    assert server.imbalance() == 0


def test_bodies_without_an_end(server: ServerProcess) -> None:
    """Most are refused, and a dashboard's request is answered beside them."""
    server.start()
    assert server.process is not None
    head = b"POST /render HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES
    with Footprint(server.process.pid) as footprint, ExitStack() as opened:
        for _ in range(BODIES):
            sock = socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=30)
            opened.enter_context(sock)
            with suppress(ConnectionError):
                sock.sendall(head + (BODY_BYTES - 1) * b"x")
        assert server.get("/render?target=a.b&format=json")[0] == 200
        time.sleep(0.2)
    print(footprint.highest)
    crowded = server.metrics()['tgres_http_connections_refused_total{reason="crowded"}']
    assert crowded > BODIES / 2
    assert footprint.highest.total < BOUND_MB * MIB, footprint.highest
