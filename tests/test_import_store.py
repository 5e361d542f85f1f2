"""The store as an import uses it, beside servers that don't answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tgres_py.errors import StoreUnavailable
from tgres_py.storage import importing
from tgres_py.storage.importing import ImportStore
from tgres_py.storage.postgres import SERVER_LOCK


@pytest.fixture
async def silent_server(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A server that listens, as far as others can see, and says nothing."""
    connection = await asyncpg.connect(database)
    await connection.execute("SELECT pg_advisory_lock_shared($1)", SERVER_LOCK)
    yield connection
    await connection.close()


@pytest.fixture
async def store(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ImportStore]:
    monkeypatch.setattr(importing, "SETTLE_LOOK_S", 0.05)
    store = ImportStore(database)
    await store.open()
    yield store
    await store.close()


async def test_without_servers_there_is_nothing_to_wait_for(store: ImportStore) -> None:
    assert await store.settle(1_700_000_000)


async def test_a_server_that_ends_is_not_waited_for(
    store: ImportStore, silent_server: asyncpg.Connection
) -> None:
    waiting = asyncio.create_task(store.settle(1_700_000_000))
    await asyncio.wait([waiting], timeout=0.3)
    assert not waiting.done()
    await silent_server.close()
    async with asyncio.timeout(20):
        assert not await waiting


async def test_a_postgresql_that_ends_is_not_waited_for(
    store: ImportStore, silent_server: asyncpg.Connection
) -> None:
    waiting = asyncio.create_task(store.settle(1_700_000_000))
    await asyncio.wait([waiting], timeout=0.3)
    await silent_server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(20):
        with pytest.raises(StoreUnavailable):
            await waiting
