"""What HTTP tells of the server: whether it is ready, and its metrics."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from tgres_py import metrics
from tgres_py.errors import StoreUnavailable

if TYPE_CHECKING:
    from tgres_py.server.root import Server

READY_WAIT_S = 2.0  # while PostgreSQL is away, /readyz waits this long for an answer of it


class ServerStatus:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._export = metrics.exporter(server)

    async def ready(self) -> None:
        server = self._server
        presence = server.flusher.presence
        if not server.registry.opened:
            raise StoreUnavailable("starting: the series are not loaded yet")
        if presence.available:
            await presence.check()
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(READY_WAIT_S):
                    await presence.check()
        if not presence.available:
            raise StoreUnavailable(f"PostgreSQL is away ({presence.why})")

    def metrics(self) -> bytes:
        self._server.kernel_drops.count()
        return self._export()
