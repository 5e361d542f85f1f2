"""Senders at full speed: ready bytes over TCP and UDP, from threads (sending lets other threads run)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tgres_py.cli.blast_payload import LinePayload, name_of, value_of

SEND_BYTES = 1 << 20
SENT_WITHIN_S = 120.0


@dataclass(slots=True)
class Rounds:
    """What one sender sends: ``count`` rounds, one second apart from ``first_s``, one point of each series."""

    sender: int
    series: int
    count: int
    first_s: int

    @property
    def points(self) -> int:
        return self.series * self.count

    @property
    def prefix(self) -> str:
        return f"load.from{self.sender}"

    def name(self, series: int) -> str:
        return name_of(series, self.prefix)

    def lines(self) -> bytes:
        names = [self.name(i).encode() for i in range(self.series)]
        payload = LinePayload(0, names)
        parts = []
        for number in range(self.count):
            payload.render(number, self.first_s + number)
            parts.append(bytes(payload.data))
        return b"".join(parts)

    def known(self, series: int) -> dict[int, float]:
        """All that was sent of a series: time to value."""
        return {self.first_s + n: value_of(series, n) for n in range(self.count)}


@dataclass(slots=True)
class Sender:
    """One TCP connection that sends ``data``; ``done_s``: seconds until the server had read all of it."""

    port: int
    data: bytes
    pause_s: float = 0.0
    piece_bytes: int = SEND_BYTES
    done_s: float = 0.0
    progress: list[tuple[float, int]] = field(default_factory=list)
    error: OSError | None = None

    def run(self) -> None:
        begin = time.monotonic()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=SENT_WITHIN_S) as sock:
                view = memoryview(self.data)
                for at in range(0, len(view), self.piece_bytes):
                    sock.sendall(view[at : at + self.piece_bytes])
                    self.progress.append((time.monotonic() - begin, at))
                    if self.pause_s:
                        time.sleep(self.pause_s)
                sock.shutdown(socket.SHUT_WR)
                assert sock.recv(1) == b""
        except OSError as error:
            self.error = error
        self.done_s = time.monotonic() - begin


def run_all(jobs: Sequence[Callable[[], None]], timeout_s: float = SENT_WITHIN_S) -> float:
    """Runs all at the same time, each in a thread; the seconds until the last has ended."""
    begin = time.monotonic()
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, begin + timeout_s - time.monotonic()))
        assert not thread.is_alive(), f"not within {timeout_s:g} s"
    return time.monotonic() - begin
