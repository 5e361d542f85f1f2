"""statsd's management port: what a connection sends at a time is a command, see tgres_py/statsd/mgmt.py.

Limits: CONNECTIONS_MAX at a time (TLS handshakes included), further ones are closed; a connection that is silent, or doesn't take its answer, for
IDLE_S is closed; of a packet COMMAND_BYTES_MAX are read.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from tgres_py import clock
from tgres_py.accept import Acceptor, TlsShare
from tgres_py.model.networks import Networks
from tgres_py.sockets import bind_all
from tgres_py.statsd.mgmt import Management

CONNECTIONS_MAX = 32
IDLE_S = 300.0
COMMAND_BYTES_MAX = 65_536


class MgmtListener:
    """One listening address."""

    def __init__(
        self,
        name: str,
        management: Management,
        allowed: Networks,
        tls: TlsShare | None = None,
    ) -> None:
        self._management = management
        self._tasks: set[asyncio.Task[None]] = set()
        self.acceptor = Acceptor(
            name, self._connection, allowed, tls, lambda: CONNECTIONS_MAX - len(self._tasks)
        )

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) that it listens on."""
        return self.acceptor.address

    @property
    def refused(self) -> int:
        """Connections beyond the limit, since the start."""
        return self.acceptor.refused

    def listen(self, sockets: list[socket.socket]) -> None:
        """Takes the bound sockets over and accepts connections on them."""
        self.acceptor.listen(sockets)

    def close(self) -> None:
        """Stops listening."""
        self.acceptor.close()

    def _connection(self) -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(COMMAND_BYTES_MAX)
        return asyncio.StreamReaderProtocol(reader, self._serve)

    async def drain(self, timeout_s: float = 2.0) -> None:
        """Ends the connections, open answers too."""
        self.acceptor.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= CONNECTIONS_MAX:
            self.acceptor.refused += 1
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
    name: str,
    host: str,
    port: int,
    management: Management,
    allowed: Networks | None = None,
    tls: TlsShare | None = None,
) -> MgmtListener:
    """Listens on ``host``:``port`` (port 0 = any free one); ConfigError when that can't be bound."""
    listener = MgmtListener(name, management, allowed or Networks(), tls)
    listener.listen(bind_all(name, host, port, socket.SOCK_STREAM))
    return listener
