"""Runs the HTTP application on an address."""

from __future__ import annotations

from aiohttp import web

from tgres_py.errors import ConfigError

SHUTDOWN_S = 3.0  # running requests get this long when the server stops
LINE_BYTES_MAX = 65_536  # of a request line: long targets come by GET, too


class HttpListener:
    """One listening address. ``address``: (host, port) that it got."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=SHUTDOWN_S, max_line_size=LINE_BYTES_MAX
        )
        self.address = ("", 0)

    async def start(self, host: str, port: int) -> None:
        """ConfigError when the address can't be had."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.close()
            raise ConfigError(f"http: can't listen on {host}:{port}: {error.strerror}") from None
        host, port = self._runner.addresses[0][:2]
        self.address = (host, port)

    async def close(self) -> None:
        """Stops listening; running requests are given a moment to end."""
        await self._runner.cleanup()
