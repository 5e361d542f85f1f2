"""What a soak looks at: memory, file descriptors, journal, tables, processor time, how long things take."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.acceptance.process import ServerProcess, total
from tests.adversity.test_postgres_away import children_of
from tests.soak.load import Load
from tgres_py.storage.embedded import running_dsn

MB = 1 << 20
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
TABLES = """SELECT coalesce(sum(n_live_tup), 0)::float8, coalesce(sum(n_dead_tup), 0)::float8,
    (SELECT sum(pg_total_relation_size(c.oid))::float8 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
     WHERE relkind = 'r' AND nspname = 'public')
    FROM pg_stat_user_tables"""


@dataclass(slots=True)
class Sample:
    """One look. Memory is proportional (shared pages are divided), of the server and its workers."""

    at_s: float
    memory_mb: float
    fds: int
    cpu_s: float
    postgres_cpu_s: float
    points: float
    journal_mb: float
    tables_mb: float
    rows: float
    dead_rows: float
    series: float


def tree(pid: int) -> list[int]:
    """A process and all that came from it."""
    return [pid, *(below for child in children_of(pid) for below in tree(child))]


def told(pid: int, file: str) -> str:
    """A file of /proc; nothing when the process has ended."""
    try:
        return Path(f"/proc/{pid}/{file}").read_text()
    except OSError:
        return ""


def memory_mb(pids: Iterable[int]) -> float:
    lines = [line for pid in pids for line in told(pid, "smaps_rollup").splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def fds(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def cpu_s(pids: Iterable[int]) -> float:
    """Of processes and their children that have ended."""
    ticks = 0
    for pid in pids:
        fields = told(pid, "stat").rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks * TICK_S


class Watch:
    def __init__(self, server: ServerProcess, load: Load) -> None:
        self._server = server
        self._load = load
        self._seen = dict.fromkeys(load.seconds, 0)
        self.samples: list[Sample] = []

    def look(self) -> str:
        """Takes a sample; a line about it and what went on since the last one."""
        sample = self._sample()
        before = self.samples[-1] if self.samples else sample
        self.samples.append(sample)
        seconds = {}
        for kind, all_of in self._load.seconds.items():
            seconds[kind] = all_of[self._seen[kind] :]
            self._seen[kind] += len(seconds[kind])
        return (
            f"{sample.at_s - self.samples[0].at_s:5.0f} s {self._rates(before, sample)}"
            f" | memory {sample.memory_mb:.0f} MB, {sample.fds} fds, {sample.series:.0f} series"
            f" | journal {sample.journal_mb:.0f} MB | tables {sample.tables_mb:.0f} MB,"
            f" {sample.dead_rows:.0f} of {sample.rows + sample.dead_rows:.0f} rows dead"
            f" | {times(seconds)}"
        )

    @staticmethod
    def _rates(before: Sample, after: Sample) -> str:
        span_s, points = after.at_s - before.at_s, after.points - before.points
        if not points:
            return ""
        server, postgres = (
            (a - b) / points * 1e6
            for a, b in (
                (after.cpu_s, before.cpu_s),
                (after.postgres_cpu_s, before.postgres_cpu_s),
            )
        )
        return (
            f"{points / span_s / 1e3:.1f} k points/s, {server:.1f} + {postgres:.1f} CPU-s/M points"
        )

    def _sample(self) -> Sample:
        server = self._server
        assert server.process is not None
        postgres = tree(server.postgres_pid)
        pids = [pid for pid in tree(server.process.pid) if pid not in postgres]
        metrics = server.metrics()
        rows, dead, size = asyncio.run(self._tables())
        return Sample(
            time.monotonic(),
            memory_mb(pids),
            sum(map(fds, pids)),
            cpu_s(pids),
            cpu_s(postgres),
            total(metrics, "tgres_points_received_total"),
            metrics["tgres_journal_bytes"] / MB,
            size / MB,
            rows,
            dead,
            metrics["tgres_series"],
        )

    async def _tables(self) -> tuple[float, float, float]:
        dsn = running_dsn(self._server.data / "pg")
        assert dsn is not None
        connection = await asyncpg.connect(dsn)
        try:
            row = await connection.fetchrow(TABLES)
            return row[0], row[1], row[2]
        finally:
            await connection.close()

    # -- the end -------------------------------------------------------------------------------

    def warm(self, share: float = 0.5) -> list[Sample]:
        """The samples of the last part of the run."""
        return self.samples[int(len(self.samples) * (1 - share)) :]

    def slope_mb_h(self) -> float:
        """Of memory, after the warm-up: least squares."""
        samples = self.warm()
        mean_s = sum(s.at_s for s in samples) / len(samples)
        mean_mb = sum(s.memory_mb for s in samples) / len(samples)
        over = sum((s.at_s - mean_s) * (s.memory_mb - mean_mb) for s in samples)
        under = sum((s.at_s - mean_s) ** 2 for s in samples)
        return 3_600 * over / under if under else 0.0

    def fds_grown(self) -> int:
        """After the warm-up: the least of the last quarter above the least of the one before."""
        samples = self.warm()
        middle = len(samples) // 2
        return min(s.fds for s in samples[middle:]) - min(s.fds for s in samples[: middle or 1])

    def summary(self) -> str:
        first, last = self.samples[0], self.samples[-1]
        return (
            f"{last.at_s - first.at_s:.0f} s, {last.points / 1e6:.2f} M points, {self._rates(first, last)}\n"
            f"memory {first.memory_mb:.0f} -> {last.memory_mb:.0f} MB, {self.slope_mb_h():+.0f} MB/h in the second half;"
            f" most {max(s.memory_mb for s in self.samples):.0f} MB\n"
            f"file descriptors {first.fds} -> {last.fds}, {self.fds_grown():+d} in the second half\n"
            f"journal {last.journal_mb:.0f} MB, most {max(s.journal_mb for s in self.samples):.0f} MB\n"
            f"tables {last.tables_mb:.0f} MB, {last.dead_rows:.0f} of {last.rows + last.dead_rows:.0f} rows dead\n"
            f"{times(self._load.seconds)}"
        )


def times(seconds: dict[str, list[float]]) -> str:
    """p50, p99 and the longest of each kind."""
    words = []
    for kind, unsorted in seconds.items():
        if found := sorted(unsorted):
            p50, p99 = (found[int(len(found) * share)] for share in (0.5, 0.99))
            words.append(
                f"{kind} {p50 * 1e3:.0f}/{p99 * 1e3:.0f}/{found[-1] * 1e3:.0f} ms ({len(found)})"
            )
    return ", ".join(words) + " (p50/p99/most)"
