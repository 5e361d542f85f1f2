"""statsd in a server: its events go to the store, the archives of what it flushes are looked at."""

from __future__ import annotations

import asyncio
import logging

import numpy as np

from receivers.statsd_service import StatsdService
from tgres_py.config import Settings
from tgres_py.errors import StoreUnavailable, TgresError
from tgres_py.ingest.intake import Intake
from tgres_py.ingest.registry import Registry
from tgres_py.model.points import Ids
from tgres_py.statsd.steps import StepCheck
from tgres_py.storage.port import Store

log = logging.getLogger("tgres")

EVENTS_EVERY_S = 0.5


class ServerStatsd:
    """``service``, and what it needs of the server around it."""

    def __init__(
        self,
        settings: Settings,
        intake: Intake,
        registry: Registry,
        store: Store,
        bytes_max: int,
    ) -> None:
        table = settings.statsd_table
        self.service = StatsdService(
            table, settings.statsd_given_table, intake, self._check_steps, bytes_max
        )
        self._registry = registry
        self._store = store
        self._steps = StepCheck(table.interval_s)
        self._unchecked: list[Ids] = []

    def _check_steps(self, ids: Ids) -> None:
        """Looks at the archives of series that statsd flushes for the first time."""
        registry = self._registry
        self._unchecked.append(ids)
        if not registry.opened:
            return  # they have no archives yet
        for ids in self._unchecked:
            bundles, first = np.unique(registry.bundle_of[ids], return_index=True)
            for bundle, place in zip(bundles.tolist(), first.tolist(), strict=True):
                name = registry.names(ids[place : place + 1])[0]
                self._steps.check(registry.bundle_specs[bundle], name)
        self._unchecked = []

    async def watch_events(self) -> None:
        while True:
            await asyncio.sleep(EVENTS_EVERY_S)
            await self.store_events()

    async def store_events(self) -> None:
        """Puts statsd's events into the store, in order; with the store away they wait."""
        waiting = self.service.aggregator.inbox.events
        while waiting and self._registry.opened:
            try:
                await self._store.add_event(waiting[0])
            except StoreUnavailable:
                return
            except TgresError as e:
                log.warning("statsd: event %r is not stored: %s", waiting[0].what, e)
            del waiting[0]
