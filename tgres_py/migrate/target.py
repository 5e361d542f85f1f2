"""Where an import writes to and an export reads from: a PostgreSQL by its DSN, or the one under a data directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tgres_py.config import Settings
from tgres_py.errors import ConfigError
from tgres_py.storage.embedded import EmbeddedPostgres, running_dsn
from tgres_py.storage.importing import ImportStore


@asynccontextmanager
async def open_target(
    settings: Settings, *, create: bool = True
) -> AsyncIterator[tuple[str, ImportStore]]:
    """DSN and store, its schema up to date.

    Without a DSN: the embedded PostgreSQL that a server runs on the data directory; when none does, it is started for
    as long as this lasts, and made before when ``create`` is set. ConfigError, StoreUnavailable.
    """
    embedded: EmbeddedPostgres | None = None
    data = settings.data_dir / "pg"
    dsn = settings.dsn or running_dsn(data)
    if dsn is None:
        if not create and not (data / "PG_VERSION").exists():
            raise ConfigError(
                f"{settings.data_dir} is no data directory of tgres: give --data-dir or --dsn"
            )
        embedded = EmbeddedPostgres(data)
        dsn = await embedded.start()
    store = ImportStore(dsn, command_timeout_s=settings.store_timeout_s)
    try:
        await store.open()
        yield dsn, store
    finally:
        await store.close()
        if embedded is not None:
            await embedded.stop()
