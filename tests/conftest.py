"""Fixtures: one PostgreSQL for each process of the run, started as a user's would be, and a fresh database for each test.

The whole suite is spread over some processes; a run of chosen files or tests stays in one.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from tgres_py.storage.embedded import EmbeddedPostgres
from tgres_py.storage.migrate import migrate
from tgres_py.storage.postgres import PostgresStore

TEMPLATE = "tgres_template"

# These look at files of the checkout, which aren't there where an installed wheel is tested.
if not (Path(__file__).parent.parent / "setup.py").exists():
    collect_ignore = [
        "acceptance/test_dashboards.py",
        "test_conformance_page.py",
        "test_docker.py",
        "test_docs.py",
        "test_grafana.py",
        "test_layers.py",
        "test_metrics.py",
        "test_packaging.py",
    ]

# Nothing of a test run has to survive a power cut.
_QUICK = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}

PROCESSES_MAX = 4

# How long an example takes is up to the machine and what else runs there.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")

_numbers = itertools.count(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes for ``-n auto``, our default: 0 (no further ones) unless the whole suite runs."""
    if config.args != config.getini("testpaths") or config.option.keyword:
        return 0
    config.option.dist = "worksteal"
    # one more than cores: a third of what the dear tests take is waiting
    return min((os.cpu_count() or 1) + 1, PROCESSES_MAX)


def dsn_of(server_dsn: str, database: str) -> str:
    """The DSN of another database of the same server."""
    return server_dsn.replace("/postgres?", f"/{database}?")


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A running PostgreSQL: the DSN of its database ``postgres``."""
    folder = Path(tempfile.mkdtemp(prefix="tgres-test-"))
    server = EmbeddedPostgres(folder / "pg", _QUICK)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="postgres-of-the-tests", daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(server.start(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template_database(postgres_dsn: str) -> str:
    """The name of a migrated database without data, made once per run."""

    async def make() -> None:
        admin = await asyncpg.connect(postgres_dsn)
        await admin.execute(f"CREATE DATABASE {TEMPLATE}")
        await admin.close()
        connection = await asyncpg.connect(dsn_of(postgres_dsn, TEMPLATE))
        await migrate(connection)
        await connection.close()

    # in a thread: a session fixture may first be asked for inside a running loop
    with ThreadPoolExecutor(1) as worker:
        worker.submit(asyncio.run, make()).result()
    return TEMPLATE


async def _fresh(postgres_dsn: str, template: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    admin = await asyncpg.connect(postgres_dsn)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield dsn_of(postgres_dsn, name)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


@pytest.fixture
async def database(postgres_dsn: str, template_database: str) -> AsyncIterator[str]:
    """The DSN of a migrated database of this test's own."""
    async for dsn in _fresh(postgres_dsn, template_database):
        yield dsn


@pytest.fixture
async def empty_database(postgres_dsn: str) -> AsyncIterator[str]:
    """The DSN of a database of this test's own, without the schema."""
    async for dsn in _fresh(postgres_dsn, "template0"):
        yield dsn


@pytest.fixture
async def postgres_store(database: str) -> AsyncIterator[PostgresStore]:
    """An open store in a fresh database."""
    store = PostgresStore(database)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives numbers of TCP ports that nobody listens on at the moment."""

    def pick() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return pick
