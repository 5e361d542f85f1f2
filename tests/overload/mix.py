"""``python -m tests.overload.mix 320M 1G``: all that takes memory at the same time, for each of these bounds.

New series until they are refused and beyond, eight senders at full speed, scattered late points, heavy queries of fifty clients,
PostgreSQL frozen in the middle; with ``--more`` also statsd at full speed, bodies and lines without an end, events, tags, small
pictures. Prints the peak of what the server and its render workers take, its parts, and what was answered.
"""

from __future__ import annotations

import argparse
import http.client
import random
import secrets
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import orjson

from tests.acceptance.process import ServerProcess
from tests.adversity.test_memory_bound import frozen_postgres
from tests.overload.footprint import MIB, Footprint
from tests.overload.senders import Rounds
from tgres_py.cli.blast_payload import LinePayload

RETENTIONS = "1s:6h,1m:7d"
SENDERS = 8
SERIES = 1_000  # of each sender
STORM_LINES = 2_000
GIVE_UP_S = 90.0
LATE_PAUSE_S = 0.02
PAUSED_S = 0.5  # a sender that isn't read looks this often whether it is to end
# of some sizes: what is refused takes nothing
SOME = ("host000000.metric0*", "host00000[0-1].*", "host00000[0-4].*", "*.*")
LONG_S = (100, 300, 1_000, 3_000)
RENDERS = (
    "target=load.from0.{some}&format=json",
    "target=sortByName(movingAverage(load.from[12].{some},5))&format=csv",
    "target=load.from3.{some}&format=png&width=1200&height=800",
    "target=sumSeries(load.*.{some})&target=sortByMaxima(load.from4.{some})&format=json",
    "target=load.from5.{some}&format=svg",
    "target=load.from6.{some}&format=raw",
)
FINDS = (
    "/metrics/find?query=*.*.*.*&format=json",
    "/metrics/index.json",
    "/metrics/expand?query=*.*.*.*&format=json",
)
STATSD = "t.{some}:{number}.5|ms\n", "s.{some}:{number:x}|s\n", "new.{chance}:1|c\n"
MORE_ASKED = (
    "/render?target=load.from0.host000000.*&format=png&width=600&height=300&from=-300s",
    "/events/get_data?from=-1d",
    "/tags/autoComplete/values?tag=name&limit=100000",
)
UNFINISHED = (
    (
        "http",
        b"POST /render HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 999_999,
    ),
    ("carbon", b"a" * 16_000),
    ("pickle", b"\x00\x0d\xbb\xa0" + b"x" * 890_000),
)
UNFINISHED_EACH = 50


@dataclass(slots=True)
class Mix:
    """Threads that ask and send until ``stop``; ``more``: see above; ``answers``: how often which status, 0 for a connection that broke."""

    server: ServerProcess
    clients: int = 50
    late_lines: int = STORM_LINES  # at a time; each takes PostgreSQL some work
    more: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    answers: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    parts: dict[float, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def threads(self) -> list[threading.Thread]:
        jobs: list[Callable[[], None]] = [self._storm, self._late]
        jobs += [partial(self._points, n) for n in range(SENDERS)]
        jobs += [partial(self._ask, n) for n in range(self.clients)]
        if self.more:
            jobs += [partial(self._statsd, form) for form in STATSD]
            jobs += [partial(self._leave_unfinished, *of) for of in UNFINISHED]
            jobs += [partial(self._ask_again, path) for path in MORE_ASKED]
            jobs.append(self._post_events)
        jobs.append(self._tell)
        return [threading.Thread(target=self._run, args=(job,), daemon=True) for job in jobs]

    def run(self, seconds: float, freeze_s: float) -> None:
        """A third before PostgreSQL stands still, the rest after that."""
        threads = self.threads()
        for thread in threads:
            thread.start()
        self.stop.wait(seconds / 3)
        with frozen_postgres(self.server):
            self.stop.wait(freeze_s)
        self.stop.wait(seconds * 2 / 3)
        self.stop.set()
        for thread in threads:
            thread.join(GIVE_UP_S)

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            self.errors.append(repr(error))

    # -- points --------------------------------------------------------------------------------

    def _send(self, kind: str, made: Callable[[], bytes], listener: str = "carbon") -> None:
        """Sends what is made, as fast as it is taken, over one connection."""
        port = self.server.port_of(listener)
        while not self.stop.is_set():
            with (
                suppress(ConnectionError),
                socket.create_connection(("127.0.0.1", port)) as sock,
            ):
                sock.settimeout(PAUSED_S)
                while not self.stop.is_set():
                    data = memoryview(made())
                    done = 0
                    while done < len(data) and not self.stop.is_set():
                        with suppress(TimeoutError):
                            done += sock.send(data[done:])
                    self.sent[kind] += done

    def _points(self, sender: int) -> None:
        now_s = int(time.time())
        one = Rounds(sender, SERIES, 0, now_s - 3_600)
        payload = LinePayload(0, [one.name(i).encode() for i in range(SERIES)])
        number = 0

        def made() -> bytes:
            nonlocal number
            number += 1
            payload.render(number, one.first_s + number % 3_600)
            return bytes(payload.data)

        self._send("points", made)

    def _storm(self) -> None:
        def made() -> bytes:
            now_s = int(time.time())
            names = (f"storm.id.{secrets.token_hex(16)}.count" for _ in range(STORM_LINES))
            return "".join(f"{name} 1 {now_s}\n" for name in names).encode()

        self._send("storm", made)

    def _late(self) -> None:
        """Points of the last days, each somewhere else."""

        def made() -> bytes:
            now_s = int(time.time())
            lines = []
            for _ in range(self.late_lines):
                name = f"load.from{random.randrange(SENDERS)}.host{random.randrange(10):06d}.metric{random.randrange(100):02d}"
                lines.append(f"{name} 1 {now_s - random.randrange(10_000, 500_000)}\n")
            self.stop.wait(LATE_PAUSE_S)
            return "".join(lines).encode()

        self._send("late", made)

    # -- more --------------------------------------------------------------------------------

    def _statsd(self, form: str) -> None:
        number = 0

        def made() -> bytes:
            nonlocal number
            number += STORM_LINES
            lines = (
                form.format(some=n % 500, number=n, chance=random.getrandbits(60))
                for n in range(number, number + STORM_LINES)
            )
            return "".join(lines).encode()

        self._send("statsd", made, "statsd_tcp")

    def _leave_unfinished(self, listener: str, data: bytes) -> None:
        """Connections that send almost all of something, again and again."""
        while not self.stop.is_set():
            with ExitStack() as opened:
                for _ in range(UNFINISHED_EACH):
                    address = "127.0.0.1", self.server.port_of(listener)
                    with suppress(OSError):
                        sock = opened.enter_context(socket.create_connection(address, timeout=5))
                        sock.sendall(data)
                self.stop.wait(1)

    def _post_events(self) -> None:
        body = orjson.dumps({"what": "much", "tags": "a", "data": "\U0001f600" * 100_000})
        while not self.stop.is_set():
            self._answered("event", "POST", "/events/", body)

    def _ask_again(self, path: str) -> None:
        while not self.stop.is_set():
            self._answered(path.partition("?")[0] + " again", "GET", path)
            self.stop.wait(0.2)

    # -- questions -----------------------------------------------------------------------------

    def _ask(self, number: int) -> None:
        """Reads its answers, and asks again soon, whatever it is told."""
        chance = random.Random(number)
        while not self.stop.is_set():
            kind, path = _query(chance)
            self._answered(kind, "GET", path)
            self.stop.wait(0.2)

    def _answered(self, kind: str, method: str, path: str, body: bytes | None = None) -> None:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.server.ports["http"], timeout=GIVE_UP_S
        )
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            while answer.read(1 << 20):
                pass
            self.answers[f"{kind} {answer.status}"] += 1
        except (OSError, http.client.HTTPException):
            self.answers[f"{kind} 0"] += 1
        finally:
            connection.close()

    def _tell(self) -> None:
        """What the server says that its parts take, each half second."""
        while not self.stop.is_set():
            with suppress(Exception):
                metrics = self.server.metrics()
                wanted = {
                    name.removeprefix("tgres_memory_").removeprefix("bytes"): value
                    for name, value in metrics.items()
                    if name.startswith(
                        ("tgres_memory_bytes", "tgres_memory_resident", "tgres_memory_quer")
                    )
                    or name in ("tgres_paused", "tgres_series")
                }
                self.parts[time.time()] = ", ".join(
                    f"{name} {value / MIB:.1f}" if value > 1e5 else f"{name} {value:.0f}"
                    for name, value in wanted.items()
                    if value
                )
            self.stop.wait(0.5)


def _query(chance: random.Random) -> tuple[str, str]:
    """What kind it is, and its path."""
    if chance.random() < 0.2:
        path = chance.choice(FINDS)
        return path.partition("?")[0], path
    wanted = chance.choice(RENDERS)
    kind = wanted.partition("format=")[2].partition("&")[0]
    path = wanted.format(some=chance.choice(SOME))
    return kind, f"/render?{path}&from=-{chance.choice(LONG_S)}s"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("bounds", nargs="+")
    options.add_argument("--render-workers", type=int, default=0)
    options.add_argument("--seconds", type=float, default=30, help="besides those frozen")
    options.add_argument("--frozen-s", type=float, default=30)
    options.add_argument("--clients", type=int, default=50)
    options.add_argument("--option", action="append", default=[], help="of the server")
    options.add_argument("--more", action="store_true", help="statsd, bodies, events, pictures too")
    given = options.parse_args()
    for bound in given.bounds:
        with tempfile.TemporaryDirectory(prefix="tgres-mix-") as folder:
            # the embedded PostgreSQL drops root's rights and must still reach its files
            Path(folder).chmod(0o755)
            server = ServerProcess(
                Path(folder),
                f"--memory-max={bound}",
                f"--render-workers={given.render_workers}",
                *(["--statsd=127.0.0.1:0"] if given.more else []),
                *given.option,
                retentions=RETENTIONS,
            )
            try:
                server.start()
                assert server.process is not None
                begin = time.time()
                mix = Mix(server, given.clients, more=given.more)
                with Footprint(server.process.pid) as footprint:
                    mix.run(given.seconds, given.frozen_s)
                highest = footprint.highest
                near = min(mix.parts, key=lambda at: abs(at - highest.at_s), default=None)
                print(
                    f"{bound}, {given.render_workers} workers: at {highest.at_s - begin:.1f} s {highest}; {footprint.looks} looks"
                )
                if near is not None:
                    print(f"   said {near - highest.at_s:+.1f} s: {mix.parts[near]}")
                print("   sent", {k: f"{v / MIB:.0f} MB" for k, v in mix.sent.items()})
                print("   answers", dict(sorted(mix.answers.items())), *mix.errors[:3], flush=True)
                for line in server.log.splitlines():
                    if "refused (" not in line:
                        print("   log", line[:200], flush=True)
            finally:
                server.close()


if __name__ == "__main__":
    main()
