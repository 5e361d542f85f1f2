"""Asks /healthz all the time, from a process of its own, so that a busy test can't make the server look slow.

``python -m tests.overload.health PORT EVERY_S`` asks until its standard input is closed, then prints what it saw.
Each question is a new connection, as a load balancer makes it: accepting belongs to the answer.
"""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from types import TracebackType

from tests.acceptance.process import ROOT, environment

EVERY_S = 0.05
ANSWER_S_MAX = 1.0  # the promise
GIVE_UP_S = 30.0
ASKED_MIN = 10


@dataclass(frozen=True, slots=True)
class Seen:
    """``failed``: questions that got no answer, or another one than 200; the rest are seconds."""

    asked: int
    failed: int
    p50_s: float
    p99_s: float
    max_s: float

    def __str__(self) -> str:
        return (
            f"/healthz: {self.asked} asked, {self.failed} failed, p50 {1e3 * self.p50_s:.1f} ms, "
            f"p99 {1e3 * self.p99_s:.1f} ms, max {1e3 * self.max_s:.1f} ms"
        )


class Health:
    """``with Health(port) as health: …``, then ``health.seen``; ``check`` holds it against the promise."""

    def __init__(self, port: int, quiet: bool = False) -> None:
        self._port = port
        self._quiet = quiet
        self.seen = Seen(0, 0, 0.0, 0.0, 0.0)

    def __enter__(self) -> Health:
        command = [sys.executable, "-m", "tests.overload.health", str(self._port), str(EVERY_S)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment()
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"asking\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        out, _ = self._process.communicate(timeout=2 * GIVE_UP_S)
        self.seen = Seen(**json.loads(out))
        if not self._quiet:
            print(self.seen)

    def check(self) -> None:
        """Every question was answered, within a second."""
        assert self.seen.asked >= ASKED_MIN
        assert self.seen.failed == 0, self.seen
        assert self.seen.max_s <= ANSWER_S_MAX, self.seen


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


def main(port: int, every_s: float) -> None:
    took: list[float] = []
    failed = 0
    ask(port)
    print("asking", flush=True)
    while len(took) < ASKED_MIN or not select.select([sys.stdin], [], [], every_s)[0]:
        seconds, good = ask(port)
        took.append(seconds)
        failed += not good
    took.sort()
    seen = {"p50_s": took[len(took) // 2], "p99_s": took[len(took) * 99 // 100], "max_s": took[-1]}
    print(json.dumps({"asked": len(took), "failed": failed, **seen}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
