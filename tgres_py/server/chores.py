"""What runs as long as the server does: each a coroutine that ends when it is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from receivers import udp
from tgres_py import clock
from tgres_py.admin.frame import Admin
from tgres_py.admin.housekeeping import keep_house
from tgres_py.errors import StoreUnavailable, TgresError
from tgres_py.ingest.flusher import Flusher
from tgres_py.ingest.intake import Intake
from tgres_py.model.points import Reason
from tgres_py.model.rules import RuleSet
from tgres_py.server.doors import Listener
from tgres_py.server.source import ServerSource
from tgres_py.storage.postgres import PostgresStore

log = logging.getLogger("tgres")

Rows = NDArray[np.int64]  # of table rrd
Changes = AsyncIterator[Rows | None]  # None: of any

INDEX_EVERY_S, INDEX_LOOK_S = 1.0, 0.1
INDEX_WAITING = 5_000  # names that go to the index at once: what it takes for them isn't known before
ROOM_EVERY_S = 0.1
CLOCKS_APART_S = 60  # of servers and imports, at most
DROPS_EVERY_S = 5.0
FIRST_HOUSEKEEPING_S = 300.0  # the start is over, and senders had their time
HOUSEKEEPING_S = 3_600.0
FOLLOW_AGAIN_S = 10.0  # with the store away


async def keep_index(source: ServerSource) -> None:
    """Keeps the index of names up to date, so that the first query after many new names is quick."""
    done = clock.monotonic()
    while True:
        await asyncio.sleep(INDEX_LOOK_S)
        if source.waiting >= INDEX_WAITING or clock.monotonic() - done >= INDEX_EVERY_S:
            await asyncio.to_thread(source.sync_index)
            done = clock.monotonic()


async def watch_room(intake: Intake) -> None:
    """Lets waiting senders go on when the journal's disk has caught up."""
    while True:
        await asyncio.sleep(ROOM_EVERY_S)
        intake.room()


async def serve_flush_requests(
    store: PostgresStore, source: ServerSource, flusher: Flusher
) -> None:
    """NOTIFY tgres_flush, 'glob': SQL readers ask for what is in memory."""
    async for glob in store.flush_requests():
        try:
            ids = await asyncio.to_thread(source.expand, glob) if glob else None
            await flusher.flush_now(ids)
        except TgresError as e:
            log.warning("flush of %r: %s", glob, e)


async def serve_settle_requests(store: PostgresStore, flusher: Flusher) -> None:
    """NOTIFY tgres_settle: an import wants all that came before it in the store."""
    async for request in store.settle_requests():
        try:
            # a time ahead would make late points of all that comes until then
            until_s = min(request.time_s, clock.now_s() + CLOCKS_APART_S)
            await flusher.settle_until(until_s)
            await store.answer_settle(request)
        except StoreUnavailable as e:
            log.warning("an import waits for what is in memory: %s", e)


async def keep_house_hourly(admin: Admin, rules: Callable[[], RuleSet]) -> None:
    """Series expire and old trash is purged, every hour."""
    pause = FIRST_HOUSEKEEPING_S
    while True:
        await asyncio.sleep(pause)
        pause = HOUSEKEEPING_S
        try:
            await keep_house(admin, rules())
        except TgresError as e:
            log.warning("housekeeping: %s; once more in an hour", e)


async def follow_changes(
    changes: Changes, follow: Callable[[Rows | None], Awaitable[None]]
) -> None:
    """What others do to rows of rrd: new, renamed and removed series are noticed at once."""
    async for rrd_ids in changes:
        told = False
        while True:
            try:
                await follow(rrd_ids)
                break
            except StoreUnavailable as e:
                if not told:
                    told = True
                    log.warning("changes of series: %s; looking at all of them when it is back", e)
                rrd_ids = None
                await asyncio.sleep(FOLLOW_AGAIN_S)


class KernelDrops:
    """Counts the datagrams that the kernel dropped, as its sockets' buffers were full."""

    def __init__(self, listeners: Mapping[str, Listener], intake: Intake) -> None:
        self._listeners = listeners
        self._intake = intake
        self._counted: dict[str, int] = {}

    def count(self) -> None:
        """Counts those since the last call."""
        for name, listener in self._listeners.items():
            if isinstance(listener, udp.UdpListener):
                drops = listener.kernel_drops()
                fresh = drops - self._counted.get(name, 0)
                if fresh > 0:
                    self._counted[name] = drops
                    self._intake.refuse(name, Reason.UDP_KERNEL, fresh)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(DROPS_EVERY_S)
            before = sum(self._counted.values())
            self.count()
            lost = sum(self._counted.values()) - before
            if lost:
                log.warning("the kernel dropped %d datagrams: the socket's buffer was full", lost)
