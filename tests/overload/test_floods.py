"""Floods of datagrams and of garbage: counted to the last one, and not at the cost of anybody else."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess, total, wait_for
from tests.adversity.health_watch import HealthWatch
from tests.overload.senders import Flood, Rounds, Sender, check_stored, run_all

LOG_LINES_PER_S = 5.0  # of a flood; ten for each place that warns, and one a second
# without a flood the sender needs a tenth of a second; it has half of what the loop gives to receivers
SENDER_S_MAX = 15.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, "--statsd=127.0.0.1:0", "--udp-buffer-bytes=1M")
    yield server
    server.close()


DATAGRAMS = {
    "points": b"".join(b"flood.of%d 1.5 %d\n" % (n, time.time() - 60) for n in range(50)),
    "garbage": b"x\n" * 700,
    "odd": b"a b:1|c|@0.1:x|q\xff\n" * 70,
    "bytes": os.urandom(1_400),
}


@pytest.mark.parametrize(
    "kind",
    ["garbage", *[pytest.param(k, marks=pytest.mark.slow) for k in ("points", "odd", "bytes")]],
)
def test_datagrams(server: ServerProcess, kind: str) -> None:
    """Carbon's and statsd's, each by one who never pauses, and a sender by TCP beside them."""
    server.start()
    stop = threading.Event()
    datagram = DATAGRAMS[kind]
    ports = {"carbon_udp": server.ports["carbon_udp"], "statsd": server.port_of("statsd")}
    floods = {name: Flood(port, datagram, stop) for name, port in ports.items()}
    one = Rounds(0, 1_000, 100, int(time.time()) - 200)
    sender = Sender(server.ports["carbon"], one.lines())
    begin = time.monotonic()

    def beside() -> None:
        try:
            time.sleep(0.3)
            sender.run()
            time.sleep(max(0.0, begin + 1.0 - time.monotonic()))
        finally:
            stop.set()

    with HealthWatch(server) as health:
        run_all([*[flood.run for flood in floods.values()], beside])
        sent = {name: flood.sent for name, flood in floods.items()}
        lost: Counter[str] = Counter()

        def all_are_counted() -> bool:
            metrics = server.metrics()
            for name in sent:
                read = metrics[f'tgres_receiver_datagrams_total{{receiver="{name}"}}']
                lost[name] = sent[name] - int(read)
            return (
                sum(lost.values()) == metrics['tgres_points_dropped_total{reason="udp_kernel"}']
                and metrics['tgres_receiver_queue_bytes{receiver="carbon_udp"}'] == 0
                and metrics['tgres_receiver_queue_bytes{receiver="statsd"}'] == 0
            )

        wait_for(all_are_counted, "all are read, parsed and counted", 60)
    health.check()
    seconds = time.monotonic() - begin
    print(f"{kind}: sent {sent}, lost in the kernel {dict(lost)}; sender {sender.done_s:.2f} s")
    assert sender.done_s < SENDER_S_MAX
    metrics = server.metrics()
    lines = datagram.count(b"\n") + (not datagram.endswith(b"\n"))
    received = metrics['tgres_points_received_total{receiver="carbon_udp"}']
    assert received == lines * (sent["carbon_udp"] - lost["carbon_udp"]) + lost["carbon_udp"]
    assert metrics['tgres_points_received_total{receiver="carbon"}'] == one.points
    check_stored(server, [one])
    assert server.log.count("\n") < 50 + LOG_LINES_PER_S * seconds
    assert total(metrics, "tgres_points_held") == 0


GARBAGE = {
    "short": b"x\n",
    "utf8": b"\xff 1 1\n",
    "blank": b"  \n",
    "old": b"old.point 1 1\n",
    "tags": b"a..b;x=1;c=2 1 100\n",
}


def test_garbage_by_tcp(server: ServerProcess) -> None:
    """Eight connections, of all that is refused; one good sender beside them."""
    server.start()
    one = Rounds(0, 1_000, 100, int(time.time()) - 200)
    good = Sender(server.ports["carbon"], one.lines())
    size = 1 << 18
    parts = [part * (size // len(part)) for part in GARBAGE.values()]
    bad = [Sender(server.ports["carbon"], part) for part in parts]
    bad += [Sender(server.port_of("statsd_tcp"), part) for part in parts[:3]]
    with HealthWatch(server) as health:
        run_all([sender.run for sender in (*bad, good)])
    health.check()
    print(f"good sender {good.done_s:.2f} s, others {max(b.done_s for b in bad):.2f} s")
    metrics = server.metrics()
    for reason, kind in (("malformed", "short"), ("utf8", "utf8")):
        count = size // len(GARBAGE[kind])
        assert metrics[f'tgres_points_dropped_total{{reason="{reason}"}}'] == count
    old = sum(size // len(GARBAGE[kind]) for kind in ("old", "tags"))
    assert metrics['tgres_points_dropped_total{reason="too_old"}'] == old
    check_stored(server, [one])
    assert server.log.count("\n") < 100
