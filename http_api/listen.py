"""Runs the HTTP application on an address."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial

from aiohttp import web

from http_api.gate import Gate, GateCounts, GateLimits
from tgres_py.errors import ConfigError
from tgres_py.tls import HANDSHAKE_S

SHUTDOWN_S = 3.0  # running requests get this long when the server stops
LINE_BYTES_MAX = 65_536  # of a request line: long targets come by GET, too
HEADERS_MAX = 128
LINGER_S = 1.0  # what a refused request still sends is thrown away for this long
HEADER_BYTES_MAX = 8_190
BACKLOG = 1_024


class HttpListener:
    """One listening address. ``address``: (host, port) that it got; ``tls``: None = plain."""

    def __init__(
        self,
        app: web.Application,
        limits: GateLimits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits or GateLimits()
        self.counts = GateCounts()
        self._tls = tls
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=SHUTDOWN_S,
            keepalive_timeout=self.limits.idle_s,
            lingering_time=LINGER_S,
            max_line_size=LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            max_field_size=HEADER_BYTES_MAX,
        )
        self.address = ("", 0)

    async def start(self, host: str, port: int) -> None:
        """ConfigError when the address can't be had."""
        await self._runner.setup()
        try:
            await _GatedSite(self._runner, host, port, self).start()
        except OSError as error:
            await self.close()
            raise ConfigError(f"http: can't listen on {host}:{port}: {error.strerror}") from None
        host, port = self._runner.addresses[0][:2]
        self.address = (host, port)

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """The server whose connections all go through a gate. OSError."""
        assert self._runner.server is not None, "setup() comes first"
        make = partial(Gate, self._runner.server, self.limits, self.counts)
        handshake_s = HANDSHAKE_S if self._tls else None
        return await asyncio.get_running_loop().create_server(
            make, host, port, ssl=self._tls, backlog=BACKLOG, ssl_handshake_timeout=handshake_s
        )

    async def close(self) -> None:
        """Stops listening; running requests are given a moment to end."""
        await self._runner.cleanup()


class _GatedSite(web.BaseSite):
    def __init__(self, runner: web.AppRunner, host: str, port: int, listener: HttpListener) -> None:
        super().__init__(runner)
        self._address = host, port
        self._listener = listener

    @property
    def name(self) -> str:
        return f"http://{self._address[0]}:{self._address[1]}"

    async def start(self) -> None:
        await super().start()
        self._server = await self._listener.listen(*self._address)
