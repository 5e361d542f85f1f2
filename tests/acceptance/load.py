"""Paced load over one TCP connection, in a thread, that remembers when each point left."""

from __future__ import annotations

import random
import socket
import threading
import time
from dataclasses import dataclass, field

from tests.acceptance.process import Known

Point = tuple[str, int, float]


@dataclass(slots=True)
class Sent:
    """Points by the moment they were handed to the kernel, in order."""

    batches: list[tuple[float, list[Point]]] = field(default_factory=list)

    def known(self, before: float = float("inf")) -> Known:
        """All points that were sent before a moment of the monotonic clock."""
        out: Known = {}
        for moment, points in self.batches:
            if moment < before:
                for name, time_s, value in points:
                    out.setdefault(name, {})[time_s] = value
        return out


class Load:
    """Sends one slot of ``series`` series every ``pause_s``, slots of one second in ascending order.

    Each slot gets one point, all values differ. Of each series some slots are left out and sent
    ``late_slots`` later. Goes on until ``stop``, or until the connection breaks.
    """

    def __init__(
        self,
        sent: Sent,
        port: int,
        first_s: int,
        *,
        series: int = 20,
        pause_s: float = 0.004,
        late_share: float = 0.05,
        late_slots: int = 300,
        prefix: str = "load",
    ) -> None:
        self.sent = sent
        self.next_s = first_s
        self.broken = False
        self._series = [f"{prefix}.s{i}" for i in range(series)]
        self.pause_s = pause_s
        self._late_share = late_share
        self._late_slots = late_slots
        self._random = random.Random(first_s)
        self._late: dict[int, list[Point]] = {}
        self._stopping = threading.Event()
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _batch(self) -> list[Point]:
        time_s = self.next_s
        self.next_s += 1
        points = self._late.pop(time_s - self._late_slots, [])
        for i, name in enumerate(self._series):
            point = name, time_s, time_s % 100_000 + i / 100
            if self._random.random() < self._late_share:
                self._late.setdefault(time_s, []).append(point)
            else:
                points.append(point)
        return points

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._send(self._batch())
                time.sleep(self.pause_s)
            self._send([point for late in self._late.values() for point in late])
        except OSError:
            self.broken = True

    def _send(self, points: list[Point]) -> None:
        # noted first: a point that may have left has been sent
        moment = time.monotonic()
        self.sent.batches.append((moment, points))
        self._socket.sendall("".join(f"{n} {v!r} {t}\n" for n, t, v in points).encode())
        self.sent.batches[-1] = (time.monotonic(), points)

    def stop(self, timeout_s: float = 60.0) -> None:
        """Sends the late points that are left, and waits until the server has read everything."""
        self._stopping.set()
        self._thread.join(timeout_s)
        assert not self._thread.is_alive()
        if not self.broken:
            self._socket.shutdown(socket.SHUT_WR)
            assert self._socket.recv(1) == b""
        self._socket.close()

    def abandon(self) -> None:
        """After the server was killed: ends the thread."""
        self._stopping.set()
        self._thread.join(60)
        self._socket.close()
