"""What HTTP tells of the server: whether it is ready, and its metrics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tgres_py import metrics
from tgres_py.errors import StoreUnavailable

if TYPE_CHECKING:
    from tgres_py.server.root import Server

PING_TIMEOUT_S = 2.0


class ServerStatus:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._export = metrics.exporter(server)

    async def ready(self) -> None:
        server = self._server
        if not server.registry.opened:
            raise StoreUnavailable("starting: the series are not loaded yet")
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await server.store.ping()
        except TimeoutError:
            raise StoreUnavailable(
                f"PostgreSQL doesn't answer within {PING_TIMEOUT_S:g} s"
            ) from None

    def metrics(self) -> bytes:
        self._server.kernel_drops.count()
        return self._export()
