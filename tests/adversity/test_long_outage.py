"""A PostgreSQL that is frozen for long under mixed load: all values exactly afterwards, the ledger closed.

A minute; ``TGRES_OUTAGE_S=600 pytest -n0 -s -m slow tests/adversity/test_long_outage.py`` takes ten, and prints what it saw.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.process import Known, ServerProcess, wait_for
from tests.acceptance.test_crash import HASTE
from tests.adversity.health_watch import HealthWatch
from tests.adversity.outage import AWAY, BACK, ask
from tests.adversity.test_postgres_away import children_of

OUTAGE_S = float(os.environ.get("TGRES_OUTAGE_S", "60"))
TCP_SERIES, UDP_SERIES, OLD_SERIES = 1_100, 700, 20
OLD_SLOTS = 600  # of which the outage fills what the store lacks
DATAGRAM_LINES = 20
WINDOW_S = 100  # of one question at the end


class Mixed:
    """Each second a slot of many series by TCP and of others by UDP, and ten late points for each of some old series.

    Late ones fill odd slots of which the store has the even ones, and replace one of these now and then.
    """

    def __init__(self, server: ServerProcess) -> None:
        self.known: Known = {}
        self.points = 0
        self._ended = threading.Event()
        port = server.ports["carbon"]
        self._lines = socket.create_connection(("127.0.0.1", port), 60)
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.connect(("127.0.0.1", server.ports["carbon_udp"]))
        self.old_s = int(time.time()) - 5_000
        flushed = server.sum_of("tgres_flushes_total")
        for slot in range(0, OLD_SLOTS, 2):
            self._by_tcp("old", OLD_SERIES, self.old_s + slot)
        # a slot that is so much newer: the chunks before it are whole
        self._by_tcp("old", OLD_SERIES, self.old_s + OLD_SLOTS + 1_000)
        wait_for(lambda: server.sum_of("tgres_flushes_total") > flushed, "old chunks are stored")
        wait_for(lambda: _late_way(server, self), "what is old is late", 60)
        self.first_s = self.next_s = int(time.time())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def point(self, name: str, time_s: int, value: float) -> str:
        self.known.setdefault(name, {})[time_s] = value
        self.points += 1
        return f"{name} {value!r} {time_s}\n"

    def _slot(self, kind: str, series: int, time_s: int, salt: float = 0.0) -> list[str]:
        first = time_s % 100_000 + salt
        return [self.point(f"{kind}.s{i}", time_s, first + i / 8192) for i in range(series)]

    def _by_tcp(self, kind: str, series: int, time_s: int, salt: float = 0.0) -> None:
        self._lines.sendall("".join(self._slot(kind, series, time_s, salt)).encode())

    def late(self, slot: int, salt: float = 0.0) -> None:
        self._by_tcp("old", OLD_SERIES, self.old_s + slot, salt)

    def _run(self) -> None:
        begin = time.monotonic()
        late = 1
        while not self._ended.wait(max(0.0, begin + self.next_s - self.first_s - time.monotonic())):
            self._by_tcp("tcp", TCP_SERIES, self.next_s)
            for _ in range(10):
                self.late(late % OLD_SLOTS, late)
                late += 2 if late % 10 else 7
            lines = self._slot("udp", UDP_SERIES, self.next_s)
            for at in range(0, len(lines), DATAGRAM_LINES):
                self._datagrams.send("".join(lines[at : at + DATAGRAM_LINES]).encode())
                time.sleep(0.005)
            self.next_s += 1

    def stop(self) -> None:
        """Returns when the server has read all lines."""
        self._ended.set()
        self._thread.join(60)
        self._lines.shutdown(socket.SHUT_WR)
        assert self._lines.recv(1) == b""
        self._lines.close()
        self._datagrams.close()


def _late_way(server: ServerProcess, load: Mixed) -> bool:
    """Whether a point of an old slot takes the way of a merge, so that the rest of them will."""
    before = server.sum_of("tgres_points_late_total")
    load.late(1)
    time.sleep(0.2)
    return server.sum_of("tgres_points_late_total") > before


@contextmanager
def frozen(server: ServerProcess) -> Iterator[Callable[[], None]]:
    """SIGSTOP of the whole PostgreSQL; the end, or what it gives, wakes it up."""
    pids = [server.postgres_pid, *children_of(server.postgres_pid)]
    assert len(pids) > 3
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def wake() -> None:
        while pids:
            try:
                os.kill(pids.pop(), signal.SIGCONT)
            except ProcessLookupError:
                continue

    try:
        yield wake
    finally:
        wake()


def timed(seen: list[float], server: ServerProcess, path: str) -> int:
    begin = time.monotonic()
    status = ask(server, path)
    seen.append(time.monotonic() - begin)
    return status


def compare(server: ServerProcess, load: Mixed) -> int:
    """How many values were read back, all of them those that were sent last; complaints end the test.

    Of datagrams those may lack that the kernel counted as dropped.
    """
    spans = [("tcp.*", load.first_s, load.next_s), ("udp.*", load.first_s, load.next_s)]
    spans += [("old.*", load.old_s, load.old_s + OLD_SLOTS + 1_001)]
    compared, missing = 0, Counter[str]()
    for pattern, first_s, end_s in spans:
        for from_s in range(first_s, end_s, WINDOW_S):
            until_s = min(end_s, from_s + WINDOW_S)
            got = server.render(pattern, from_s - 1, until_s - 1)
            for name in {*got, *(n for n in load.known if n[:3] == pattern[:3])}:
                sent = {t: v for t, v in load.known[name].items() if from_s <= t < until_s}
                read = got.get(name, {})
                wrong = {t: (v, sent.get(t)) for t, v in read.items() if sent.get(t) != v}
                assert not wrong, (name, wrong)
                missing[pattern] += len(sent) - len(read)
                compared += len(read)
    drops = server.metrics().get('tgres_points_dropped_total{reason="udp_kernel"}', 0)
    assert missing["udp.*"] <= drops * DATAGRAM_LINES, (missing, drops)
    assert missing["tcp.*"] == missing["old.*"] == 0, missing
    return compared


@pytest.mark.slow
def test_a_long_outage(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, *HASTE)
    server.module = "tests.adversity.serve_watched"
    server.start()
    try:
        load = Mixed(server)
        time.sleep(2)
        memory: list[float] = []
        stored: list[float] = []
        with HealthWatch(server) as watch:
            with frozen(server) as wake:
                begin = time.monotonic()
                wait_for(lambda: AWAY in server.log, "the log says so", 30)
                told_s = time.monotonic() - begin
                before = server.metrics()
                while time.monotonic() < begin + OUTAGE_S:
                    now_s = load.next_s - 2
                    path = f"/render?target=tcp.s1*&from={now_s - 20}&until={now_s}&format=json"
                    assert timed(memory, server, path) == 200
                    old = f"/render?target=old.s1&from={load.old_s}&until={load.old_s + 50}"
                    assert timed(stored, server, f"{old}&format=json") == 503
                    assert server.imbalance() == 0
                    assert not server.sum_of("tgres_store_available")
                    time.sleep(1)
                held = server.metrics()
                wake()
            woken = time.monotonic()
            wait_for(server.is_ready, "ready again", 60)
            ready_s = time.monotonic() - woken
            wait_for(lambda: BACK in server.log, "the log says so", 60)
            back_s = time.monotonic() - woken
            time.sleep(3)
            load.stop()
            wait_for(lambda: server.sum_of("tgres_points_held") == 0, "late points merged", 120)
            merged_s = time.monotonic() - woken
        assert server.imbalance() == 0
        m = server.metrics()
        drops = m.get('tgres_points_dropped_total{reason="udp_kernel"}', 0)
        assert server.sum_of("tgres_points_dropped_total") == drops
        received = server.sum_of("tgres_points_received_total")
        assert load.points - drops * DATAGRAM_LINES <= received - drops <= load.points
        compared = compare(server, load)
        rate = load.points / (load.next_s - load.first_s)
        print(
            f"\n{OUTAGE_S:g} s frozen, {rate:.0f} points/s: {load.points} points sent, {drops:g} datagrams dropped by the kernel, "
            f"{compared} values compared; told after {told_s:.1f} s, ready {ready_s:.1f} s and back {back_s:.1f} s after its end, merged after {merged_s:.1f} s"
        )
        for name in (
            "tgres_points_late_total",
            "tgres_late_queue_points",
            "tgres_journal_bytes",
            "process_resident_memory_bytes",
            "tgres_postgres_failures_total",
            "tgres_flush_failures_total",
            "process_open_fds",
        ):
            values = (
                sum(v for k, v in x.items() if k.partition("{")[0] == name)
                for x in (before, held, m)
            )
            print(f"{name}: " + ", ".join(f"{v:g}" for v in values))
        print(
            f"memory renders {len(memory)}, max {max(memory):.2f} s; 503s {len(stored)}, max {max(stored):.2f} s"
        )
        print(f"log lines {len(server.log.splitlines())}")
        print("".join(line + "\n" for line in server.log.splitlines()[-40:]))
        stalls = [json.loads(line) for line in (tmp_path / "stalls").read_text().splitlines()]
        print(f"stalls > 0.1 s: {len(stalls)}")
        for one in sorted(stalls, key=lambda x: -x["late_s"])[:10]:
            print(one)
        assert (server.log.count(AWAY), server.log.count(BACK)) == (1, 1)
        assert "Traceback" not in server.log
        watch.check()
    finally:
        server.close()
