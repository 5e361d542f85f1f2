"""Outages that need a PostgreSQL of the test's own: no connections left, another server, a full disk."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import asyncpg
import pytest

from tests.acceptance.process import ServerProcess, wait_for
from tests.adversity.health_watch import HealthWatch
from tests.adversity.loop_thread import LoopThread
from tests.adversity.outage import AWAY, Traffic, check_end
from tests.adversity.proxy import Proxy
from tests.adversity.small_disk import small_disk
from tests.adversity.test_outages import name_of, script, served
from tests.adversity.test_postgres_away import real_socket
from tests.conftest import dsn_of
from tgres_py.storage.embedded import EmbeddedPostgres

CONNECTIONS = 16
SETTINGS = {
    "max_connections": str(CONNECTIONS),
    "superuser_reserved_connections": "0",
    "fsync": "off",
    "shared_buffers": "16MB",
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
}
_numbers = itertools.count(1)


class OwnPostgres:
    """A PostgreSQL on a small disk, which can be filled up."""

    def __init__(self, folder: Path, loop: LoopThread, fill: Callable[[bool], None]) -> None:
        self.fill = fill
        self._folder = folder
        self._loop = loop
        self._port = 5_432
        self.dsn = ""
        self.start()

    def start(self) -> None:
        self._postgres = EmbeddedPostgres(
            self._folder / "pg", {**SETTINGS, "port": str(self._port)}
        )
        self.dsn = self._loop.run(self._postgres.start())

    def stop(self) -> None:
        self._loop.run(self._postgres.stop())

    def fail_over(self) -> None:
        """It is killed, and what takes its place listens elsewhere."""
        assert self._postgres.pid is not None
        os.kill(self._postgres.pid, signal.SIGKILL)
        self.stop()
        self._port += 1
        self.start()

    def database(self) -> str:
        """The DSN of a new one."""
        name = f"own_{next(_numbers)}"
        script(self.dsn, f"CREATE DATABASE {name}")
        return dsn_of(self.dsn, name)


@pytest.fixture(scope="module")
def own() -> Iterator[OwnPostgres]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tgres-own-")))
        fill = stack.enter_context(small_disk(folder / "disk", 220))
        loop = stack.enter_context(LoopThread())
        postgres = OwnPostgres(folder / "disk", loop, fill)
        stack.callback(postgres.stop)
        yield postgres


class Hog:
    """Takes all connections that there are, as others may; ``give_back`` ends them."""

    def __init__(self, dsn: str, loop: LoopThread) -> None:
        self._dsn = dsn
        self._loop = loop
        self._held: list[asyncpg.Connection] = []

    def take(self, victim: str = "") -> None:
        """``victim``: a database whose connections are ended and taken, too."""
        self._loop.run(self._take(victim))

    async def _take(self, victim: str) -> None:
        admin = await asyncpg.connect(self._dsn)
        self._held.append(admin)
        async with asyncio.timeout(30):
            while len(self._held) < CONNECTIONS:
                with suppress(asyncpg.PostgresError, OSError):
                    self._held.append(await asyncpg.connect(self._dsn))
                    continue
                await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
                    victim,
                )
                await asyncio.sleep(0.02)

    def give_back(self) -> None:
        async def close() -> None:
            for connection in self._held:
                await connection.close()

        self._loop.run(close())
        self._held.clear()


@pytest.fixture
def hog(own: OwnPostgres) -> Iterator[Hog]:
    with LoopThread() as loop:
        hog = Hog(own.dsn, loop)
        yield hog
        hog.give_back()


def check_away(server: ServerProcess, traffic: Traffic, *expected: int) -> None:
    wait_for(lambda: AWAY in server.log, "the log says so", 30)
    traffic.check_memory()
    traffic.check_store_needed(*expected)
    assert server.imbalance() == 0


def test_no_connections_left(tmp_path: Path, own: OwnPostgres, hog: Hog) -> None:
    """At the start, and again in the middle."""
    dsn = own.database()
    hog.take()
    with served(tmp_path, dsn, ready=False) as (server, proxy):
        wait_for(lambda: "too many clients" in server.log, "the log says so", 20)
        before, begin = proxy.connects, time.monotonic()
        server.send(f"early.a 1 {int(time.time())}\n")
        time.sleep(3)
        assert server.log.count("points are accepted meanwhile") == 1
        assert proxy.connects - before <= 5 + 3 * (time.monotonic() - begin)
        assert server.get("/healthz")[0] == 200
        assert server.get("/render?target=early.a")[0] == 503
        hog.give_back()
        wait_for(server.is_ready, "ready", 30)
        traffic = Traffic(server)
        with HealthWatch(server) as watch:
            hog.take(name_of(dsn))
            before, begin = proxy.connects, time.monotonic()
            check_away(server, traffic, 503)
            time.sleep(3)
            assert proxy.connects - before <= 20 + 5 * (time.monotonic() - begin), (
                "a storm of tries"
            )
            hog.give_back()
            check_end(server, traffic, others=1)
        watch.check()


@pytest.mark.slow
def test_another_server_takes_over(tmp_path: Path, own: OwnPostgres) -> None:
    dsn = own.database()
    with served(tmp_path, dsn) as (server, proxy):
        traffic = Traffic(server)
        with HealthWatch(server) as watch:
            own.fail_over()
            check_away(server, traffic, 503)
            target = real_socket(own.dsn)

            def switch(proxy: Proxy) -> None:
                proxy.target = target

            proxy.do(switch)
            check_end(server, traffic)
        watch.check()


@pytest.mark.slow
def test_the_disk_of_postgresql_is_full(tmp_path: Path, own: OwnPostgres) -> None:
    with served(tmp_path, own.database()) as (server, _):
        traffic = Traffic(server)
        with HealthWatch(server) as watch:
            own.fill(True)
            try:
                check_away(server, traffic, 200, 503)
                time.sleep(3)
                traffic.check_memory()
            finally:
                own.fill(False)
            check_end(server, traffic)
        watch.check()
