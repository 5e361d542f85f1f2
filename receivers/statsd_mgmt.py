"""statsd's management port: what a connection sends at a time is a command, see tgres_py/statsd/mgmt.py.

Limits: CONNECTIONS_MAX at a time, further ones are closed; a connection that is silent, or doesn't take its answer, for
IDLE_S is closed; of a packet COMMAND_BYTES_MAX are read.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from receivers.sockets import address_of, bind_all
from tgres_py import clock
from tgres_py.model.networks import Networks, host_of
from tgres_py.statsd.mgmt import Management

CONNECTIONS_MAX = 32
IDLE_S = 300.0
COMMAND_BYTES_MAX = 65_536


class MgmtListener:
    """One listening address. ``refused`` counts connections beyond the limit since the start."""

    def __init__(self, management: Management, allowed: Networks) -> None:
        self.forbidden = 0  # by the allow-list
        self._allowed = allowed
        self.address: tuple[str, int] = ("", 0)
        self.refused = 0
        self._management = management
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, sockets: list[socket.socket]) -> None:
        self.address = address_of(sockets[0])
        for sock in sockets:
            self._servers.append(
                await asyncio.start_server(self._serve, sock=sock, limit=COMMAND_BYTES_MAX)
            )

    def close(self) -> None:
        """Stops listening."""
        for server in self._servers:
            server.close()

    async def drain(self, timeout_s: float = 2.0) -> None:
        """Ends the connections, open answers too."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if host_of(writer.get_extra_info("peername")) not in self._allowed:
            self.forbidden += 1
            writer.close()
            return
        if len(self._tasks) >= CONNECTIONS_MAX:
            self.refused += 1
            writer.close()
            return
        self._tasks.add(task)
        try:
            with suppress(OSError, TimeoutError, asyncio.CancelledError):
                await self._converse(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE_S):
                command = await reader.read(COMMAND_BYTES_MAX)
            answer = self._management.begin(command, clock.now_s()) if command else None
            if answer is None:
                return
            writer.write(await asyncio.to_thread(answer))
            async with asyncio.timeout(IDLE_S):
                await writer.drain()


async def start(
    name: str, host: str, port: int, management: Management, allowed: Networks | None = None
) -> MgmtListener:
    """Listens on ``host``:``port`` (port 0 = any free one); ConfigError when that can't be bound."""
    listener = MgmtListener(management, allowed or Networks())
    await listener.listen(bind_all(name, host, port, socket.SOCK_STREAM))
    return listener
