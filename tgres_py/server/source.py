"""What queries see of a server: its names, tags, points and events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np

from tgres_py import clock
from tgres_py.errors import BadRequest, LimitExceeded, StoreUnavailable
from tgres_py.ingest.flusher import Flusher
from tgres_py.ingest.reader import Floats, Reader
from tgres_py.ingest.registry import Registry
from tgres_py.model.event import Event, EventQuery
from tgres_py.model.nodes import NodeTable
from tgres_py.model.points import Ids
from tgres_py.model.retention import BundleSpec
from tgres_py.model.tagindex import TagIndex
from tgres_py.storage.port import Store

SETTLE_S = 2.0  # a query waits this long for late points to be merged
SETTLE_AGAIN_S = 5.0  # after a wait in vain the next queries don't wait at all
READ_TIMEOUT_S = 4.0


class ServerSource:
    """What queries see: names and tags from the registry, points from the reader, events from the store.

    StoreUnavailable while the series aren't loaded yet, and when the store is needed and doesn't answer
    within ``read_timeout_s``.
    """

    def __init__(
        self,
        registry: Registry,
        reader: Reader,
        flusher: Flusher,
        store: Store,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._flusher = flusher
        self._store = store
        self._read_timeout_s = read_timeout_s
        self._settle_from = float("-inf")
        self._index_lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Names that aren't in the index yet."""
        return self._registry.waiting

    def sync_index(self) -> None:
        """Brings the index of names up to date; in any thread."""
        with self._index_lock:
            self._registry.sync_index()

    def _sync_loaded(self) -> None:
        """Brings the index up to date for a question, which no half of the series must answer."""
        if not self._registry.opened:
            raise StoreUnavailable("starting: the series are not loaded yet")
        self.sync_index()

    def count(self) -> int:
        return len(self._registry)

    def expand(self, pattern: str, limit: int | None = None) -> Ids:
        self._sync_loaded()
        return self._registry.tree.expand(pattern, limit, "query_series_max")

    def find(self, pattern: str) -> NodeTable:
        self._sync_loaded()
        return self._registry.tree.find(pattern)

    def by_tags(self, expressions: Sequence[str], limit: int | None = None) -> Ids:
        ids = self.tags().find(expressions)
        if limit is not None and len(ids) > limit:
            raise LimitExceeded(
                "series that fulfil the tag expressions", len(ids), limit, "query_series_max"
            )
        names = self.names(ids)
        order = sorted(range(len(names)), key=names.__getitem__)
        return ids[order]

    def tags(self) -> TagIndex:
        self._sync_loaded()
        return self._registry.tags

    async def tag_series(self, names: Sequence[str]) -> list[str]:
        registry = self._registry
        wanted = [registry.canonical(name) for name in names]
        ids, refused = registry.resolve([name.encode() for name in wanted])
        for position, reason in refused.items():
            raise BadRequest(f"{wanted[position]}: this series can't be made: {reason.value}")
        with self._index_lock:
            registry.sync_index()
            missing = np.flatnonzero(~registry.tags.holds(ids)).tolist()
            registry.tags.add([wanted[place] for place in missing], ids[missing])
        # those that were taken out once; new ones come into the store with their tags
        if back := [wanted[place] for place in missing if ";" in wanted[place]]:
            async with self._answer_in_time():
                await self._store.set_tagged(back, True)
        return wanted

    async def untag_series(self, names: Sequence[str]) -> None:
        known = [self._registry.canonical(name) for name in names]
        async with self._answer_in_time():
            await self._store.set_tagged(known, False)
        await self.drop_tags(known)

    async def drop_tags(self, names: Sequence[str]) -> None:
        """Takes series out of the index in memory."""
        if not names:
            return
        ids = np.array([self._registry.table.get(name.encode()) for name in names], np.int32)

        def drop() -> None:
            with self._index_lock:
                self._registry.sync_index()
                self._registry.tags.discard(ids)

        await asyncio.to_thread(drop)

    def names(self, ids: Ids) -> list[str]:
        return self._registry.names(ids)

    def bundles(self, ids: Ids) -> list[BundleSpec]:
        return self._registry.specs(ids)

    async def fetch(
        self, ids: Ids, bundle: BundleSpec, archive: int, from_slot: int, until_slot: int
    ) -> Floats:
        async with self._answer_in_time():
            await self._settle()
            return await self._reader.fetch(ids, archive, from_slot, until_slot, bundle)

    async def _settle(self) -> None:
        """Merges queued late points first, unless the store is away: what is in memory can be read on."""
        if clock.monotonic() < self._settle_from or not await self._flusher.reachable():
            return
        try:
            async with asyncio.timeout(SETTLE_S):
                await self._flusher.settle()
        except StoreUnavailable:
            pass
        except TimeoutError:
            self._flusher.presence.doubt()
            self._settle_from = clock.monotonic() + SETTLE_AGAIN_S

    # -- events ------------------------------------------------------------------------------

    async def add_event(self, event: Event) -> int:
        async with self._answer_in_time():
            return await self._store.add_event(event)

    async def find_events(self, wanted: EventQuery) -> list[Event]:
        async with self._answer_in_time():
            return await self._store.find_events(wanted)

    async def get_event(self, id_: int) -> Event | None:
        async with self._answer_in_time():
            return await self._store.get_event(id_)

    @asynccontextmanager
    async def _answer_in_time(self) -> AsyncIterator[None]:
        """Whoever asks hears soon that the store doesn't answer, whatever keeps it."""
        try:
            async with asyncio.timeout(self._read_timeout_s):
                yield
        except TimeoutError:
            self._flusher.presence.doubt()
            raise StoreUnavailable(
                f"PostgreSQL didn't answer within {self._read_timeout_s:g} s (store_read_timeout_s)"
            ) from None
