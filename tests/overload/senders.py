"""Senders at full speed: ready bytes over TCP and UDP, from threads (sending lets other threads run)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.acceptance.process import ServerProcess
from tgres_py.cli.blast_payload import LinePayload, PicklePayload, name_of, value_of

SENT_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Rounds:
    """What one sender sends: ``count`` rounds, ``step_s`` apart from ``first_s``, one point of each series."""

    sender: int
    series: int
    count: int
    first_s: int
    step_s: int = 1

    @property
    def points(self) -> int:
        return self.series * self.count

    def name(self, series: int) -> str:
        return name_of(series, f"load.from{self.sender}")

    def lines(self) -> bytes:
        return self._rendered(LinePayload)

    def frames(self) -> bytes:
        """As carbon's pickle format."""
        return self._rendered(PicklePayload)

    def _rendered(self, kind: type[LinePayload] | type[PicklePayload]) -> bytes:
        payload = kind(0, [self.name(i).encode() for i in range(self.series)])
        parts = []
        for number in range(self.count):
            payload.render(number, self.first_s + number * self.step_s)
            parts.append(bytes(payload.data))
        return b"".join(parts)

    def known(self, series: int) -> dict[int, float]:
        """All that is sent of a series: time to value."""
        times = range(self.first_s, self.first_s + self.count * self.step_s, self.step_s)
        return {time_s: value_of(series, number) for number, time_s in enumerate(times)}


@dataclass(slots=True)
class Sender:
    """One TCP connection that sends ``data`` as fast as it is taken; ``done_s``: seconds until the server had read all."""

    port: int
    data: bytes
    done_s: float = 0.0

    def run(self) -> None:
        begin = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.port), timeout=SENT_WITHIN_S) as sock:
            sock.sendall(self.data)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        self.done_s = time.monotonic() - begin


@dataclass(slots=True)
class Flood:
    """Sends ``datagram`` over UDP as fast as it can until ``stop``; ``sent``: how many left."""

    port: int
    datagram: bytes
    stop: threading.Event
    sent: int = 0

    def run(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", self.port))
            while not self.stop.is_set():
                sock.send(self.datagram)
                self.sent += 1


def check_stored(server: ServerProcess, rounds: Sequence[Rounds]) -> None:
    """A sample of series, value by value, and the ledger."""
    for one in rounds:
        for series in (0, one.series // 2, one.series - 1):
            name, known = one.name(series), one.known(series)
            assert server.render(name, min(known) - 1, max(known)) == {name: known}
    assert server.imbalance() == 0


def run_all(jobs: Sequence[Callable[[], None]], timeout_s: float = SENT_WITHIN_S) -> float:
    """Runs all at the same time, each in a thread; the seconds until the last has ended. A failure of one is raised."""
    begin = time.monotonic()
    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result(timeout_s)
    return time.monotonic() - begin
