"""Where an import writes to and an export reads from: a PostgreSQL by its DSN, or the one under a data directory."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tgres_py.config import Settings
from tgres_py.errors import ConfigError
from tgres_py.storage.embedded import EmbeddedPostgres, running_dsn
from tgres_py.storage.importing import ImportStore

log = logging.getLogger(__name__)


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


@asynccontextmanager
async def settled(store: ImportStore, now_s: int) -> AsyncIterator[None]:
    """Around an import of slots up to that of ``now_s``, beside running servers or not.

    Before it they put what they hold of this time into the store: only there it can be told what is known. After it
    once more, for series that they made meanwhile: what was imported for these would stay hidden behind their rings.
    """
    for_all_steps_s = now_s + 1
    if not await store.settle(for_all_steps_s):
        log.warning(
            "a running server gave no answer: coarse slots around its first points may lack a part"
        )
    yield
    if not await store.settle(for_all_steps_s):
        log.warning(
            "a running server gave no answer: it shows what was imported after its next flush"
        )
