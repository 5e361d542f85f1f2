"""From a store that may be away to a server that has its series: the first thing that runs beside the listeners."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from tgres_py.errors import ConfigError, StoreUnavailable
from tgres_py.ingest.footprint import index_bytes
from tgres_py.ingest.intake import Intake
from tgres_py.ingest.journal import Journal
from tgres_py.ingest.recover import Recovered, recover
from tgres_py.ingest.registry import Registry
from tgres_py.memory import MIB
from tgres_py.server.chores import Changes
from tgres_py.storage.postgres import PostgresStore
from tgres_py.storage.retention_jobs import LiveLock

log = logging.getLogger("tgres")

RETRY_S = (0.5, 10.0)
LIVE_LOCK_EVERY_S = 2.0


class LiveLockKeeper:
    """Says that this server has the store's series in memory, as long as it has."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._lock: LiveLock | None = None

    async def take(self) -> None:
        """StoreUnavailable: somebody changes the series."""
        if self._lock is not None and self._lock.held:
            return
        self._lock = await self._store.live_lock(shared=True)
        if self._lock is None:
            raise StoreUnavailable("a command changes the retention of series in this database")

    async def keep(self) -> None:
        while True:
            await asyncio.sleep(LIVE_LOCK_EVERY_S)
            try:
                await self.take()
            except StoreUnavailable as e:
                log.debug("live lock: %s", e)

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()


class Opened(NamedTuple):
    recovered: Recovered
    untagged: list[str]  # names that are to be taken out of the index of tags


async def open_store(
    store: PostgresStore,
    lock: LiveLockKeeper,
    changes: Changes,
    intake: Intake,
    journal: Journal,
) -> Opened:
    """Loads the store's series and replays the journal; tries until the store is there.

    ConfigError: at the first try the database can't be used as it is; nobody relies on this server yet.
    """
    pause = RETRY_S[0]
    told = ""
    while True:
        try:
            await store.open()
            await lock.take()
            await anext(changes)  # it listens: no change after the series are loaded is missed
            untagged = await store.load_untagged()
            return Opened(await recover(intake, journal, store), untagged)
        except (StoreUnavailable, ConfigError) as e:
            if isinstance(e, ConfigError) and pause == RETRY_S[0]:
                raise
            if str(e) != told:
                told = str(e)
                log.error("%s; points are accepted meanwhile, trying again", e)
            await asyncio.sleep(pause)
            pause = min(RETRY_S[1], pause * 2)


def tell(r: Recovered, registry: Registry, index_bytes_max: int) -> None:
    """What was found, and what is wrong with it."""
    log.info(
        "ready: %d series, %d points and %d late points from the journal in %.1f s",
        r.series,
        r.points,
        r.late,
        r.seconds,
    )
    if (used := index_bytes(registry)) > index_bytes_max:
        log.error(
            "memory_max has too little for the store's series: they take %d MB, their share is %d MB; there are "
            "no new series until memory_max is raised",
            used // MIB,
            index_bytes_max // MIB,
        )
    if r.damage.records:
        log.error("journal: %d damaged places, %d bytes skipped", r.damage.records, r.damage.bytes)
