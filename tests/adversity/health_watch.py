"""Asks /healthz all the time, and measures meanwhile how late the machine is: what the server is not to blame for.

Each question is a new connection, as a load balancer makes it: accepting belongs to the answer.

``python -m tests.adversity.health_watch PORT PID EVERY_S`` runs until its standard input is closed, then prints what it
saw. It is a process of its own, as the threads of a test hold up each other. Beside each answer stands what held
it up, the larger of

- how late a thread that only sleeps was woken meanwhile (a machine that stood still, a host that took its cores), and
- how long the server's loop and who asks were ready to run and had no core (Linux counts that for each thread).
"""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from tests.acceptance.process import ROOT, ServerProcess, environment

HEALTHZ_S = 1.0  # the promise
EVERY_S = 0.1
NAP_S = 0.05
GIVE_UP_S = 30.0
ASKED_MIN = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """``at``: when it was asked, Unix seconds; ``held_s``: how long the machine held it up; ``cpu_s``: CPU time of the
    server's loop meanwhile."""

    at: float
    took_s: float
    held_s: float
    cpu_s: float
    good: bool

    @property
    def own_s(self) -> float:
        """What is the server's own."""
        return self.took_s - self.held_s


class HealthWatch:
    """``with HealthWatch(server) as watch: …``, then ``watch.check()``. ``answers``: all that were seen."""

    def __init__(self, server: ServerProcess, quiet: bool = False) -> None:
        assert server.process is not None
        self._quiet = quiet
        self._asked = server.ports["http"], server.process.pid, EVERY_S
        self.answers: list[Answer] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> HealthWatch:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *map(str, self._asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"asking\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        out, _ = self._process.communicate(timeout=90)
        self.answers = [Answer(**one) for one in json.loads(out)]
        if not self._quiet:
            print(self)

    def took_s(self, share: float) -> float:
        """How long an answer took; ``share`` of them took no longer."""
        took = sorted(one.took_s for one in self.answers)
        return took[min(len(took) - 1, int(len(took) * share))]

    def __str__(self) -> str:
        own = max(one.own_s for one in self.answers)
        held = max(one.held_s for one in self.answers)
        p50, p99, most = (1e3 * self.took_s(share) for share in (0.5, 0.99, 1.0))
        return (
            f"/healthz: {len(self.answers)} asked, p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {most:.0f} ms; "
            f"held up by the machine for {1e3 * held:.0f} ms at most, by the server for {1e3 * own:.0f} ms"
        )

    def check(self) -> None:
        """All were answered with 200, within the second that is promised and what the machine took."""
        assert len(self.answers) >= ASKED_MIN
        assert all(one.good for one in self.answers)
        assert not [one for one in self.answers if one.own_s > HEALTHZ_S]


class Naps(threading.Thread):
    """``late_s``: how much later than asked it was woken, all in all; an answer waits for the nap it ended in."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.late_s = 0.0
        self._woken = threading.Condition()

    def run(self) -> None:
        while True:
            begin = time.monotonic()
            time.sleep(NAP_S)
            with self._woken:
                self.late_s += max(0.0, time.monotonic() - begin - NAP_S)
                self._woken.notify_all()

    def end_of_nap(self) -> float:
        with self._woken:
            self._woken.wait()
            return self.late_s


def ran_and_waited_s(process: int) -> tuple[float, float]:
    """How long the first thread of a process has run, and has waited for a core; 0 where nobody counts it."""
    try:
        ran, waited, _ = Path(f"/proc/{process}/task/{process}/schedstat").read_text().split()
    except OSError:
        return 0.0, 0.0
    return int(ran) / 1e9, int(waited) / 1e9


def ask(port: int) -> tuple[float, bool]:
    """Seconds that an answer took, and whether it was 200."""
    begin = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GIVE_UP_S)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        answer.read()
        good = answer.status == 200
    except (OSError, http.client.HTTPException):
        good = False
    finally:
        connection.close()
    return time.monotonic() - begin, good


def main(port: int, server: int, every_s: float) -> None:
    naps = Naps()
    naps.start()
    answers: list[Answer] = []
    ask(port)
    print("asking", flush=True)
    while len(answers) < ASKED_MIN or not select.select([sys.stdin], [], [], every_s)[0]:
        late, (ran, waited), own = (
            naps.end_of_nap(),
            ran_and_waited_s(server),
            ran_and_waited_s(os.getpid()),
        )
        at = time.time()
        took_s, good = ask(port)
        ran_then, waited_then = ran_and_waited_s(server)
        cores_s = waited_then - waited + ran_and_waited_s(os.getpid())[1] - own[1]
        held_s = min(took_s, max(cores_s, naps.end_of_nap() - late))
        answers.append(Answer(at, took_s, held_s, ran_then - ran, good))
    print(json.dumps([asdict(one) for one in answers]))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
