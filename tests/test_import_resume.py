"""The command, killed at random points and run again: the same rows in the end as without a kill."""

from __future__ import annotations

import json
import os
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
from tgres_py.migrate.crew import Crew
from tgres_py.migrate.files import list_files
from tgres_py.migrate.load import Loader, Options
from tgres_py.migrate.verify import Verifier
from tgres_py.migrate.whisper_file import encode_file
from tgres_py.migrate.whisper_import import import_folder, not_done
from tgres_py.model.retention import make_bundle
from tgres_py.storage.importing import ImportStore

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
    store = ImportStore(database)
    options = Options(str(tmp_path), int(time.time()))
    whole = await Loader(store, options).load(list_files(tmp_path, "whole").files)
    assert whole.files == FILES and whole.left_out == []

    pick = random.Random(seed)
    connection = await asyncpg.connect(database)
    count = "SELECT count(*) FROM import_file WHERE starts_with(name, 'parts.')"
    killed_at = []
    for end in sorted(pick.sample(range(1, FILES - 20), 2)):
        process = start(tmp_path, database, "--prefix", "parts")
        while process.poll() is None and await connection.fetchval(count) < end:
            pass
        process.kill()
        process.wait()
        killed_at.append(await connection.fetchval(count))
    await connection.close()
    assert killed_at[0] < FILES, "the first run ended before it was killed"
    listing = list_files(tmp_path, "parts")
    crew = Crew(database, 30.0, jobs=1)
    last = await import_folder(crew, store, listing, options)
    assert last.report.files + last.unchanged == FILES and last.unchanged > 0
    assert await contents(database, "parts.") == await contents(database, "whole.")
    os.utime(tmp_path / "web0/metric0.wsp")  # a file that changed is read again
    parts = [part async for part in not_done(store, list_files(tmp_path, "parts").files, 0)]
    assert [[file.name for file in left] for left, _ in parts] == [["parts.web0.metric0"]]
    await store.close()


async def test_verify_tells_what_differs(database: str, tmp_path: Path) -> None:
    write_files(tmp_path, 3)
    (tmp_path / "empty.wsp").touch()
    store = ImportStore(database)
    options = Options(str(tmp_path), int(time.time()))
    loaded = await Loader(store, options).load(list_files(tmp_path).files)
    verified = await Verifier(store, options).load(list_files(tmp_path).files)
    assert verified.slots == loaded.slots > 1_000 and verified.files == 3
    assert verified.missing == verified.different == 0
    await store.close()
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
    data = run(tmp_path, database, "--verify", code=4)
    assert data["imported_before"] == 3 and [one["path"] for one in data["left_out"]] == [
        "empty.wsp"
    ]
    assert data["verified"]["missing"] == 200 and data["verified"]["different"] >= 1
