"""The load of a soak: its values follow from series and time, so that any of them can be checked afterwards.

Each part runs in a thread of its own until it is told to end, and counts what it sent.
"""

from __future__ import annotations

import random
import signal
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field

from receivers.carbon_pickle import encode
from tests.acceptance.process import ServerProcess
from tgres_py.cli.admin_client import Target, run_verb

TOKEN = "a-token-for-the-soak"
PIECES = 10  # of the steady load, a second
LATE_S = 100  # how old late points are: their chunk is written most of the time, their archive still reaches them
DASHBOARD = (
    "sumSeries(soak.g1.*)",
    "averageSeries(soak.g2.*)",
    "movingAverage(soak.g3.s1*,10)",
    "highestMax(soak.g4.*,5)",
    "groupByNode(soak.*.s*5,1,'sum')",
    "stats_counts.*",
)


def value_of(number: int, time_s: int) -> int:
    """Of the series with this number in its group of the load, in this second."""
    return (number * 31 + time_s) % 1_009


def steady_name(number: int) -> str:
    return f"soak.g{number % 20}.s{number}"


@dataclass(slots=True)
class Load:
    """``sent``: points by receiver; ``spans``: first and last second of each kind of series, all complete;
    ``seconds``: how long things took."""

    server: ServerProcess
    series: int
    ended: threading.Event = field(default_factory=threading.Event)
    sent: dict[str, int] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(
        default_factory=lambda: {"readable": [], "render": [], "find": [], "verb": []}
    )
    errors: list[str] = field(default_factory=list)
    hits: int = 0  # of statsd's counter
    removed: int = 0

    def threads(self) -> list[threading.Thread]:
        parts = (
            self._steady,
            self._late,
            self._pickles,
            self._statsd,
            self._fresh,
            self._probe,
            self._dashboard,
            self._verbs,
            self._hangups,
        )
        return [threading.Thread(target=self._run, args=(part,), daemon=True) for part in parts]

    def _run(self, part: Callable[[], None]) -> None:
        try:
            part()
        except Exception as error:
            self.errors.append(f"{part.__name__}: {error!r}")

    def _connect(self, listener: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.ports[listener]), 60)

    def _count(self, receiver: str, points: int) -> None:
        self.sent[receiver] = self.sent.get(receiver, 0) + points

    # -- points --------------------------------------------------------------------------------

    def _seconds(self, kind: str, send: Callable[[int], None], behind_s: int = 0) -> None:
        """Calls ``send`` with each second, as it comes."""
        first = time_s = int(time.time()) - behind_s
        while not self.ended.is_set():
            send(time_s)
            self.spans[kind] = first, time_s
            time_s += 1
            self.ended.wait(time_s + behind_s - time.time())

    def _steady(self) -> None:
        heads = [steady_name(number) + " " for number in range(self.series)]
        with self._connect("carbon") as sock:

            def send(time_s: int) -> None:
                for piece in range(PIECES):
                    numbers = range(piece, self.series, PIECES)
                    lines = [f"{heads[n]}{value_of(n, time_s)} {time_s}\n" for n in numbers]
                    sock.sendall("".join(lines).encode())
                    time.sleep(max(0.0, min(0.1, time_s + (piece + 1) / PIECES - time.time())))
                self._count("steady", self.series)

            self._seconds("steady", send)

    def _late(self) -> None:
        with self._connect("carbon") as sock:

            def send(time_s: int) -> None:
                lines = [f"late.s{n} {value_of(n, time_s)} {time_s}\n" for n in range(200)]
                sock.sendall("".join(lines).encode())
                self._count("late", len(lines))

            self._seconds("late", send, LATE_S)

    def _pickles(self) -> None:
        names = [f"pickled.s{n}".encode() for n in range(500)]
        with self._connect("pickle") as sock:

            def send(time_s: int) -> None:
                values = [value_of(n, time_s) for n in range(len(names))]
                sock.sendall(encode(names, [time_s] * len(names), values))
                self._count("pickle", len(names))

            self._seconds("pickled", send)

    def _statsd(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", self.server.ports["statsd"]))
            while not self.ended.wait(0.02):
                sock.send(b"soaked:1|c\nwait:%d|ms\nlevel:7|g" % random.randrange(1_000))
                self.hits += 1

    def _fresh(self) -> None:
        """A new series twice a second."""
        with self._connect("carbon") as sock:
            number = 0
            while not self.ended.wait(0.5):
                sock.sendall(f"fresh.n{number} {number} {int(time.time())}\n".encode())
                number += 1
                self._count("fresh", 1)

    # -- questions -----------------------------------------------------------------------------

    def _probe(self) -> None:
        """How long it takes from a point's sending until it is read."""
        with self._connect("carbon") as sock:
            while not self.ended.wait(0.5):
                time_s = int(time.time())
                begin = time.monotonic()
                value = begin % 1_000
                sock.sendall(f"probe.x {value!r} {time_s}\n".encode())
                self._count("probe", 1)
                while time.monotonic() - begin < 30:
                    got = self.server.render("probe.x", time_s - 1, time_s)
                    if got.get("probe.x", {}).get(time_s) == value:
                        break
                self.seconds["readable"].append(time.monotonic() - begin)

    def _timed(self, kind: str, path: str) -> None:
        begin = time.monotonic()
        status, body = self.server.get(path)
        self.seconds[kind].append(time.monotonic() - begin)
        if status != 200:
            self.errors.append(f"{path}: {status} {body[:200]!r}")

    def _dashboard(self) -> None:
        while not self.ended.wait(1):
            for target, hours in zip(DASHBOARD, (0.02, 0.02, 0.02, 1, 1, 1), strict=True):
                asked = {"target": target, "from": f"-{int(hours * 3_600)}s", "maxDataPoints": 300}
                self._timed("render", f"/render?format=json&{urllib.parse.urlencode(asked)}")
            self._timed("find", "/metrics/find?query=soak.*")
            self._timed("find", "/metrics/expand?query=soak.g7.*")

    def _verbs(self) -> None:
        """What is new is removed, brought back and removed again."""
        target = Target(f"http://127.0.0.1:{self.server.ports['http']}", TOKEN)
        while not self.ended.wait(7):
            begin = time.monotonic()
            removed = list(run_verb(target, "series.rm", {"glob": ["fresh.*"], "yes": True}))
            self.seconds["verb"].append(time.monotonic() - begin)
            batch = next((row["batch"] for row in removed if row.get("batch")), None)
            if batch is None:
                continue
            self.removed += 1
            if self.removed % 2:
                list(run_verb(target, "series.undo", {"batch": batch, "yes": True}))

    def _hangups(self) -> None:
        assert self.server.process is not None
        while not self.ended.wait(15):
            self.server.process.send_signal(signal.SIGHUP)
