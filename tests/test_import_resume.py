"""The command, killed at random points and run again: the same rows in the end as without a kill."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest

from tests.acceptance.process import ROOT, environment
from tgres_py.migrate.whisper_file import encode_file
from tgres_py.model.retention import make_bundle

FILES = 160


def command(folder: Path, dsn: str, *more: str) -> list[str]:
    words = [sys.executable, "-m", "tgres_py.cli.main", "import", "whisper", str(folder)]
    return [*words, "--dsn", dsn, "--jobs", "2", "--json", *more]


def run(folder: Path, dsn: str, *more: str, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        command(folder, dsn, *more), capture_output=True, env=environment(), cwd=ROOT, timeout=120
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def start(folder: Path, dsn: str, *more: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    words = command(folder, dsn, *more)
    return subprocess.Popen(words, stdout=quiet, stderr=quiet, env=environment(), cwd=ROOT)


def write_files(folder: Path, files: int) -> None:
    spec = make_bundle([(10, 360), (60, 600)])
    now_s = int(time.time())
    for i in range(files):
        pick = np.random.default_rng(i)
        archives = []
        for archive in spec.archives:
            newest = now_s // archive.step_s
            slots = np.sort(pick.choice(np.arange(newest - 300, newest), 200, replace=False))
            archives.append((slots, pick.normal(size=200)))
        path = folder / f"web{i % 7}/metric{i}.wsp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_file(spec, archives))


async def contents(dsn: str, prefix: str) -> list[tuple[Any, ...]]:
    """All chunks by name, but for their ids; the arrays as text, since NaN isn't equal to itself."""
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(
        "SELECT substr(name, length($1) + 1), bundle_id, archive, n, start_s, dp::text FROM ts"
        " JOIN rrd ON rrd_id = id WHERE starts_with(name, $1) ORDER BY 1, 3, 4",
        prefix,
    )
    await connection.close()
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("seed", [1])
async def test_killed_and_run_again(database: str, tmp_path: Path, seed: int) -> None:
    write_files(tmp_path, FILES)
    whole = run(tmp_path, database, "--prefix", "whole", "--verify")
    assert whole["imported"] == FILES and whole["left_out"] == []
    verified = whole["verified"]
    assert verified["slots"] == whole["slots"] and verified["files"] == FILES
    assert verified["missing"] == verified["different"] == 0

    pick = random.Random(seed)
    connection = await asyncpg.connect(database)
    count = "SELECT count(*) FROM import_file WHERE starts_with(name, 'parts.')"
    killed_at = []
    for end in sorted(pick.sample(range(1, FILES - 20), 3)):
        process = start(tmp_path, database, "--prefix", "parts")
        while process.poll() is None and await connection.fetchval(count) < end:
            pass
        process.kill()
        process.wait()
        killed_at.append(await connection.fetchval(count))
    await connection.close()
    assert killed_at[0] < FILES, "the first run ended before it was killed"
    last = run(tmp_path, database, "--prefix", "parts")
    assert last["imported"] + last["imported_before"] == FILES and last["imported_before"] > 0
    assert await contents(database, "parts.") == await contents(database, "whole.")
    # a file that changed is read again
    path = tmp_path / "web0/metric0.wsp"
    data = bytearray(path.read_bytes())
    path.write_bytes(data)
    assert run(tmp_path, database, "--prefix", "parts")["imported"] == 1


async def test_verify_tells_what_differs(database: str, tmp_path: Path) -> None:
    write_files(tmp_path, 3)
    (tmp_path / "empty.wsp").touch()
    run(tmp_path, database, code=4)
    connection = await asyncpg.connect(database)
    [name] = await connection.fetchrow("SELECT min(name) FROM rrd")
    await connection.execute(
        "DELETE FROM ts USING rrd WHERE rrd_id = id AND name = $1 AND archive = 1", name
    )
    await connection.execute(
        "UPDATE ts SET dp = array_replace(dp, dp[array_position(dp, (SELECT max(v) FROM unnest(dp) v"
        " WHERE v <> 'NaN'))], 77) FROM rrd WHERE rrd_id = id AND name = $1",
        name,
    )
    await connection.close()
    verified = run(tmp_path, database, "--verify", code=4)["verified"]
    assert verified["files"] == 3 and verified["missing"] == 200 and verified["different"] >= 1
