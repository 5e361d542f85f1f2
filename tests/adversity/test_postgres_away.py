"""PostgreSQL killed, frozen, cut off or not there yet, under load: nothing is lost, the server says so and recovers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from tests.acceptance.load import Load, Sent
from tests.acceptance.process import ServerProcess, alive, wait_for
from tests.acceptance.test_crash import HASTE, assert_holds

READY_S = 20.0  # /readyz must notice: its ping waits 2 s, the rest is for a busy machine


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, *HASTE, "--store-timeout-s=3")
    yield server
    server.close()


def first_slot() -> int:
    return int(time.time()) - 5_000


def check_memory(server: ServerProcess, load: Load) -> None:
    """What is in memory can be rendered while the store is away."""
    newest_s = load.next_s - 20
    status, _ = server.get(
        f"/render?target=load.s0&from={newest_s - 5}&until={newest_s}&format=json", timeout_s=25
    )
    assert status in (200, 503), (
        "an answer, whatever it is, long before the request's own time limit"
    )


def check_end(server: ServerProcess, load: Load, sent: Sent) -> None:
    """After the outage: ready again, everything is there, the ledger is balanced, the store gets it."""
    wait_for(server.is_ready, "ready again", 60)
    load.stop()
    assert server.imbalance() == 0
    points = sum(len(batch) for _, batch in sent.batches)
    assert server.sum_of("tgres_points_received_total") == points
    assert server.sum_of("tgres_points_dropped_total") == 0
    wait_for(lambda: server.sum_of("tgres_points_held") == 0, "late points are merged", 30)
    known = sent.known()
    assert_holds(server, known, known)
    assert "Traceback" not in server.log


def test_killed(server: ServerProcess) -> None:
    server.start()
    sent = Sent()
    load = Load(sent, server.ports["carbon"], first_slot())
    time.sleep(1)
    postgres = server.postgres_pid
    os.kill(postgres, signal.SIGKILL)
    wait_for(lambda: not server.is_ready(), "/readyz says 503", READY_S)
    wait_for(lambda: server.postgres_pid not in (0, postgres), "another one is started", 30)
    wait_for(server.is_ready, "ready again", 30)
    time.sleep(1)
    check_end(server, load, sent)
    server.kill()
    server.start()
    assert_holds(server, sent.known(), sent.known())


@pytest.mark.parametrize(
    "seconds", [4, pytest.param(20, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_frozen(server: ServerProcess, seconds: int) -> None:
    """SIGSTOP of the postmaster and all its backends: connections stay open and nothing answers."""
    server.start()
    sent = Sent()
    load = Load(sent, server.ports["carbon"], first_slot())
    time.sleep(1)
    frozen = [server.postgres_pid, *children_of(server.postgres_pid)]
    assert len(frozen) > 3
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        wait_for(lambda: not server.is_ready(), "/readyz says 503", READY_S)
        assert server.get("/healthz")[0] == 200
        check_memory(server, load)
        assert server.imbalance() == 0
        time.sleep(max(0.0, begin + seconds - time.monotonic()))
        assert alive(server.postgres_pid)
    finally:
        for pid in frozen:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue
    check_end(server, load, sent)


def children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = int(entry.parent.name), entry.read_text().rpartition(")")[2]
        except OSError:  # it has ended
            continue
        if int(rest.split()[1]) == parent:
            found.append(pid)
    return found


def test_stopped_for_a_while(tmp_path: Path, postgres_dsn: str, database: str) -> None:
    """A PostgreSQL of somebody else that takes no connections for some seconds, and cuts those it has."""
    server = ServerProcess(tmp_path, *HASTE, "--store-timeout-s=3", "--dsn", database)
    name = database.partition("?")[0].rpartition("/")[2]
    try:
        server.start()
        sent = Sent()
        load = Load(sent, server.ports["carbon"], first_slot())
        time.sleep(1)
        sql(postgres_dsn, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        sql(
            postgres_dsn,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        wait_for(lambda: not server.is_ready(), "/readyz says 503", READY_S)
        check_memory(server, load)
        time.sleep(2)
        assert not server.is_ready()
        sql(postgres_dsn, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        check_end(server, load, sent)
        assert server.terminate() == 0, server.log
        [(count,)] = sql(database, "SELECT count(*) FROM rrd")
        assert count == 20
    finally:
        server.close()


def sql(dsn: str, statement: str) -> list[asyncpg.Record]:
    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(dsn)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(statement)
            return rows
        finally:
            await connection.close()

    return asyncio.run(run())


def test_not_there_at_the_start(tmp_path: Path, database: str) -> None:
    """Points are accepted meanwhile, survive a kill, and are stored when it comes up."""
    folder = tmp_path / "socket"
    folder.mkdir()
    real = real_socket(database)
    dsn = database.replace(str(real.parent), str(folder))
    server = ServerProcess(tmp_path, *HASTE, "--dsn", dsn)
    try:
        server.launch()
        assert server.get("/readyz")[0] == 503
        sent = Sent()
        load = Load(sent, server.ports["carbon"], first_slot())
        time.sleep(1)
        load.stop()
        points = sum(len(batch) for _, batch in sent.batches)
        wait_for(lambda: server.sum_of("tgres_points_held") == points, "all are held", 10)
        assert server.imbalance() == 0
        time.sleep(1.5)
        server.kill()
        server.launch()
        assert server.get("/readyz")[0] == 503
        assert "points are accepted meanwhile" in server.log
        (folder / real.name).symlink_to(real)
        wait_for(server.is_ready, "ready", 30)
        assert_holds(server, sent.known(), sent.known())
        assert server.imbalance() == 0
        wait_for(lambda: server.sum_of("tgres_points_held") == 0, "late points are merged", 30)
        assert server.terminate() == 0, server.log
        [(count,)] = sql(database, "SELECT count(DISTINCT rrd_id) FROM ts")
        assert count == 20
    finally:
        server.close()


def real_socket(dsn: str) -> Path:
    query = parse_qs(urlsplit(dsn).query)
    path = Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
    return path


def test_sigterm_while_frozen(tmp_path: Path) -> None:
    """The server ends in its time although PostgreSQL answers nothing, and what it held is there afterwards."""
    server = ServerProcess(tmp_path, *HASTE, "--store-timeout-s=3", "--shutdown-s=14")
    server.start()
    sent = Sent()
    load = Load(sent, server.ports["carbon"], first_slot())
    time.sleep(1)
    load.stop()
    time.sleep(1)
    frozen = [server.postgres_pid, *children_of(server.postgres_pid)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    try:
        assert server.terminate(30) == 0, server.log
    finally:
        for pid in frozen:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    assert time.monotonic() - begin < 20
    server.start()
    known = sent.known()
    assert_holds(server, known, known)
    server.close()
