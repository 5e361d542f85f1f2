"""What a server and its render workers take, looked at all the time by a process of its own.

``python -m tests.overload.footprint PID EVERY_S`` looks until its standard input is closed, then prints what it saw. PostgreSQL
doesn't count. Memory is proportional (Pss: shared pages are divided); files in memory (memfd) are counted once each,
whether a process has them mapped or not.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.acceptance.process import ROOT, environment

EVERY_S = 0.05
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Look:
    """Bytes: ``server`` and ``workers`` without shared memory, ``files`` in memory."""

    at_s: float = 0.0
    server: int = 0
    workers: tuple[int, ...] = ()
    files: int = 0

    @property
    def total(self) -> int:
        return self.server + sum(self.workers) + self.files

    def __str__(self) -> str:
        workers = " + ".join(f"{size >> 20}" for size in self.workers)
        return (
            f"{self.total / MIB:.0f} MB: server {self.server >> 20}, "
            f"workers {workers or 0}, files {self.files >> 20}"
        )


@dataclass(slots=True)
class Footprint:
    """``with Footprint(pid) as footprint: …``, then ``footprint.highest``."""

    pid: int
    every_s: float = EVERY_S
    highest: Look = field(default_factory=Look)
    looks: int = 0

    def __enter__(self) -> Footprint:
        command = [sys.executable, "-m", __name__, str(self.pid), str(self.every_s)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment()
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"looking\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        out, _ = self._process.communicate(timeout=60)
        seen = json.loads(out)
        at_s, server, workers, files = seen["highest"]
        self.highest, self.looks = Look(at_s, server, tuple(workers), files), seen["looks"]

    _process: subprocess.Popen[bytes] = field(init=False, repr=False)


def look(server: int) -> Look:
    """One look at the processes as they are now."""
    files: dict[int, int] = {}
    pids = _workers(server)
    own, *workers = [_private(pid) for pid in (server, *pids)]
    for pid in (server, *pids):
        files.update(_memory_files(pid))
    return Look(time.time(), own, tuple(workers), sum(files.values()))


def _workers(pid: int) -> list[int]:
    children: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children.update(map(int, _text(task).split()))
    return [child for child in children if "http_api.workers" in _text(f"/proc/{child}/cmdline")]


def _private(pid: int) -> int:
    lines = [line.split() for line in _text(f"/proc/{pid}/smaps_rollup").splitlines()[1:]]
    of = {line[0]: int(line[1]) * 1024 for line in lines if len(line) == 3}
    return of.get("Pss:", 0) - of.get("Pss_Shmem:", 0)


def _memory_files(pid: int) -> dict[int, int]:
    """Size on the machine by inode."""
    found = {}
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            if os.readlink(entry.path).startswith("/memfd:"):
                about = os.stat(entry.path)
                found[about.st_ino] = about.st_blocks * 512
        for entry in os.scandir(f"/proc/{pid}/map_files"):
            if os.readlink(entry.path).startswith("/memfd:"):
                about = os.stat(entry.path)
                found[about.st_ino] = about.st_blocks * 512
    except OSError:  # it has ended, or we may not look
        pass
    return found


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def main(pid: int, every_s: float) -> None:
    highest = look(pid)
    looks = 1
    print("looking", flush=True)
    while not select.select([sys.stdin], [], [], every_s)[0]:
        now = look(pid)
        looks += 1
        if now.total > highest.total:
            highest = now
    seen = (highest.at_s, highest.server, highest.workers, highest.files)
    print(json.dumps({"looks": looks, "highest": seen}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
