"""What the real process is given: rule files, a DSN; and what SQL readers and the clients get from it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.acceptance.load import Load, Sent
from tests.acceptance.process import ROOT, ServerProcess, environment, wait_for


def sql(dsn: str, statement: str, *arguments: object) -> list[asyncpg.Record]:
    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(dsn)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(statement, *arguments)
            return rows
        finally:
            await connection.close()

    return asyncio.run(run())


def start(server: ServerProcess) -> ServerProcess:
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


# -- DSN -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "text"),
    [(None, "not understood; write postgresql://"), ("nobody_much", "can't make tables")],
    ids=["malformed", "rights"],
)
def test_a_dsn_that_cannot_work_stops_the_start(
    tmp_path: Path, empty_database: str, account: str | None, text: str
) -> None:
    dsn = "postgresql://host:port/database"
    if account is not None:
        sql(empty_database, f"CREATE ROLE {account} LOGIN")
        sql(empty_database, "REVOKE CREATE ON SCHEMA public FROM public")
        dsn = empty_database.replace("//tgres@", f"//{account}@")
        assert dsn != empty_database
    run = subprocess.run(
        [sys.executable, "-m", "tgres_py.cli.main", "serve", "--data-dir", str(tmp_path / "data"),
         "--http=off", "--carbon=off", "--pickle=off", "--statsd=off", "--statsd-mgmt=off", "--dsn", dsn],
        capture_output=True, text=True, env=environment(), timeout=30,
    )  # fmt: skip
    if account is not None:
        sql(empty_database, f"DROP ROLE {account}")
    assert run.returncode == 2, run.stderr
    lines = [line for line in run.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1 and text in lines[0], run.stderr


# -- rule files ----------------------------------------------------------------------------------

SCHEMAS = """
[fast]
pattern = ^fast\\.
retentions = 1s:5m,10s:1h

[rest]
pattern = .*
retentions = 60s:1d
"""
AGGREGATION = """
[peak]
pattern = \\.peak$
xFilesFactor = 0
aggregationMethod = max

[rest]
pattern = .*
xFilesFactor = 0
aggregationMethod = sum
"""


def test_carbons_rule_files(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, "--aggregation", str(tmp_path / "aggregation.conf"))
    (tmp_path / "schemas.conf").write_text(SCHEMAS)
    (tmp_path / "aggregation.conf").write_text(AGGREGATION)
    start(server)
    try:
        slot_s = int(time.time()) // 60 * 60 - 120
        lines = [
            f"{name} {value} {slot_s + i}\n"
            for name in ("fast.peak", "fast.count", "slow.count")
            for i, value in enumerate((1, 5, 3))
        ]
        server.send("".join(lines))
        far, until = slot_s - 600, slot_s + 60
        wait_for(lambda: server.sum_of("tgres_points_held") == 0, "all are merged")
        assert server.render("fast.peak", far, until) == {"fast.peak": {slot_s: 5.0}}
        assert server.render("fast.count", far, until) == {"fast.count": {slot_s: 9.0}}
        assert server.render("slow.count", far, until) == {"slow.count": {slot_s: 3.0}}
    finally:
        server.close()


# -- SQL -----------------------------------------------------------------------------------------


def test_sql_readers(tmp_path: Path, database: str) -> None:
    """tv shows what is older than sql_freshness_s; NOTIFY brings it within a second."""
    server = start(ServerProcess(tmp_path, "--dsn", database, "--sql-freshness-s=1"))
    try:
        now_s = int(time.time())
        server.send("".join(f"fresh.a {i}.5 {now_s - 5 + i}\n" for i in range(5)))

        def rows() -> list[tuple[int, float]]:
            found = sql(
                database,
                "SELECT extract(epoch FROM time)::bigint, value FROM tv"
                " WHERE name = $1 AND step_s = 1 AND value IS NOT NULL ORDER BY 1",
                "fresh.a",
            )
            return [tuple(row) for row in found]

        wanted = [(now_s - 5 + i, i + 0.5) for i in range(5)]
        wait_for(lambda: rows() == wanted, "tv shows the points", 15)
    finally:
        server.close()

    lazy = start(ServerProcess(tmp_path, "--dsn", database, "--sql-freshness-s=0"))
    try:
        now_s = int(time.time())
        lazy.send(f"asked.a 1.5 {now_s}\nother.a 2.5 {now_s}\n")
        wait_for(lambda: lazy.sum_of("tgres_points_received_total") == 2, "received")
        count = (
            "SELECT count(*) FROM ts JOIN rrd ON rrd.id = rrd_id WHERE name = $1 AND archive = 0"
        )
        assert sql(database, count, "asked.a")[0][0] == 0
        sql(database, "SELECT pg_notify('tgres_flush', 'asked.*')")
        took = wait_for(lambda: sql(database, count, "asked.a")[0][0] == 1, "it is there", 10)
        assert took < 2
        assert sql(database, count, "other.a")[0][0] == 0
    finally:
        lazy.close()


# -- clients -------------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path) -> Iterator[ServerProcess]:
    server = start(ServerProcess(tmp_path))
    yield server
    server.close()


def tgres(*args: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "tgres_py.cli.main", *args],
        capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=60,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_walk_through_the_clients(running: ServerProcess) -> None:
    url = f"http://127.0.0.1:{running.ports['http']}"
    sent = Sent()
    load = Load(sent, running.ports["carbon"], int(time.time()) - 100, late_share=0, series=3)
    wait_for(lambda: len(sent.batches) >= 20, "some points")
    load.stop()
    assert tgres("find", "load.*", "--url", url).split() == ["load.s0", "load.s1", "load.s2"]
    shown = tgres("render", "load.s1", "--from=-200s", "--json", "--url", url)
    assert all(str(v) in shown for v in sent.known()["load.s1"].values())
    assert "load.s1" in tgres("render", "load.s1", "--from=-200s", "--url", url)
    port = running.ports["carbon"]
    before = running.sum_of("tgres_points_received_total")
    tgres("blast", "--port", str(port), "--series=10", "--rounds=50", "--step=1")
    wait_for(
        lambda: running.sum_of("tgres_points_received_total") - before >= 500, "blast arrived", 10
    )
    running.send(f"bad\nload.s0 nan {int(time.time())}\nload.s0 1 1\nload.s0 1 -1\n")
    metrics = running.metrics()
    for reason, count in {"malformed": 1, "nan": 1, "too_old": 1, "future": 0}.items():
        assert metrics[f'tgres_points_dropped_total{{reason="{reason}"}}'] == count
    assert running.imbalance() == 0
    files = ["--schemas", str(running.folder / "schemas.conf")]
    assert "1s:2h" in tgres("schema", "match", "load.s1", *files)
    assert tgres("config", "check", *files)
    assert os.fspath(running.folder / "schemas.conf") in tgres("config", "show", *files)
