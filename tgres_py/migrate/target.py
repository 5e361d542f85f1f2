"""Where an import writes to and an export reads from: a PostgreSQL by its DSN, or the one under a data directory."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tgres_py.config import Settings
from tgres_py.errors import BadRequest, ConfigError
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
    lock = await store.live_lock(shared=True)
    if lock is None:
        raise BadRequest(
            "somebody changes archives in this store without a server: wait until that is done"
        )
    try:
        if busy := len(await store.busy_series()):
            raise BadRequest(
                f"a retention job is moving {busy:,} series: import when it is done (tgres retention status)"
            )
        await _settle(store, now_s + 1, "coarse slots around its first points may lack a part")
        yield
        await _settle(store, now_s + 1, "it shows what was imported after its next flush")
    finally:
        lock.release()


async def _settle(store: ImportStore, time_s: int, otherwise: str) -> None:
    if not await store.settle(time_s):
        log.warning("a running server gave no answer: %s", otherwise)
