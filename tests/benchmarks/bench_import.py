"""tgres import whisper: known slots/s of full files, files/s of mostly empty ones, both over all of it as a user
runs it, start of the processes included. ``pytest -m benchmark tests/benchmarks/bench_import.py -s``
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest

from tgres_py.migrate.whisper_file import encode_file
from tgres_py.model.retention import BundleSpec, make_bundle

pytestmark = pytest.mark.benchmark

FULL = make_bundle([(10, 2_160), (60, 10_080), (600, 52_560)])


PROGRAM = (sys.executable, "-m", "tgres_py.cli.main")


def write_files(root: Path, spec: BundleSpec, files: int, part: float) -> int:
    """Files whose archives know the newest ``part`` of their slots; how many slots that is."""
    now_s, total = int(time.time()), 0
    random = np.random.default_rng(1)
    kinds = []
    for _ in range(8):
        archives = []
        for archive in spec.archives:
            newest = now_s // archive.step_s
            slots = np.arange(newest - int(archive.size * part) + 1, newest + 1)
            archives.append((slots, np.round(random.normal(50, 9, len(slots)), 2)))
        kinds.append(encode_file(spec, archives))
    for i in range(files):
        path = root / f"servers/web{i % 100}/metric{i}.wsp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kinds[i % 8])
        total += sum(int(archive.size * part) for archive in spec.archives)
    return total


def stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


async def cpu_s(connection: asyncpg.Connection) -> float:
    """CPU seconds so far of ended children (the command and its workers) and of PostgreSQL's sessions that ended."""
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    backend = await connection.fetchval("SELECT pg_backend_pid()")
    postmaster = int(stat(backend)[1])
    ended = sum(map(int, stat(postmaster)[13:15]))
    return own.ru_utime + own.ru_stime + ended / os.sysconf("SC_CLK_TCK")


def run_import(root: Path, dsn: str) -> tuple[dict[str, Any], float]:
    begin = time.monotonic()
    done = subprocess.run(
        [*PROGRAM, "import", "whisper", str(root), "--dsn", dsn, "--json"],
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout), time.monotonic() - begin


@pytest.mark.parametrize(("files", "part"), [(300, 1.0), (3_000, 0.002)])
async def test_import(tmp_path: Path, database: str, files: int, part: float) -> None:
    slots = write_files(tmp_path, FULL, files, part)
    connection = await asyncpg.connect(database)
    before = await cpu_s(connection)
    data, seconds = await asyncio.to_thread(run_import, tmp_path, database)
    cpu = await cpu_s(connection) - before
    await connection.close()
    assert data["imported"] == files and slots - 3 * files <= data["slots"] <= slots
    print(
        f"\n{files:,} files, {slots:,} known slots, {data['read_bytes'] / 1e6:,.0f} MB: {seconds:.1f} s,"
        f" {files / seconds:,.0f} files/s, {slots / seconds / 1e6:.2f} M slots/s;"
        f" {cpu:.1f} s of CPU: on two idle cores {2 * files / cpu:,.0f} files/s,"
        f" {2 * slots / cpu / 1e6:.2f} M slots/s"
    )
