"""Runs the HTTP application on an address."""

from __future__ import annotations

import logging
import socket

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from http_api.gate import Gate, GateCounts, GateLimits
from tgres_py.accept import Acceptor, TlsShare
from tgres_py.sockets import bind_all

log = logging.getLogger("tgres")

SHUTDOWN_S = 3.0  # running requests get this long when the server stops
LINE_BYTES_MAX = 65_536  # of a request line: long targets come by GET, too
HEADERS_MAX = 128
LINGER_S = 1.0  # what a refused request still sends is thrown away for this long
HEADER_BYTES_MAX = 8_190


class HttpListener:
    """One listening address; ``tls``: None = plain."""

    def __init__(
        self,
        app: web.Application,
        limits: GateLimits | None = None,
        tls: TlsShare | None = None,
    ) -> None:
        self.limits = limits or GateLimits()
        self.counts = GateCounts()
        self.acceptor = Acceptor(
            "http",
            self._gate,
            self.limits.allowed,
            tls,
            lambda: self.limits.connections_max - self.counts.open,
            handshake_s=self.limits.read_timeout_s,
        )
        logger = logging.Logger("tgres.http", logging.DEBUG)
        logger.parent = log
        logger.addFilter(self._is_no_bad_request)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=logger,
            shutdown_timeout=SHUTDOWN_S,
            keepalive_timeout=self.limits.idle_s,
            lingering_time=LINGER_S,
            max_line_size=LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            max_field_size=HEADER_BYTES_MAX,
            auto_decompress=False,  # it would unpack 100 kB of each before anybody is asked
        )

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) that it listens on."""
        return self.acceptor.address

    @property
    def refused(self) -> int:
        """Connections beyond the limit, since the start."""
        return self.acceptor.refused + self.counts.refused

    async def start(self, host: str, port: int) -> None:
        """ConfigError when the address can't be had."""
        sockets = bind_all("http", host, port, socket.SOCK_STREAM)
        await self._runner.setup()
        self.acceptor.listen(sockets)

    def _gate(self) -> Gate:
        assert self._runner.server is not None, "setup() comes first"
        return Gate(self._runner.server, self.limits, self.counts)

    def _is_no_bad_request(self, record: logging.LogRecord) -> bool:
        """Counts heads that aren't HTTP, for which aiohttp would log a traceback each that quotes what was sent."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return log.isEnabledFor(record.levelno)
        self.counts.malformed += 1
        return False

    async def close(self) -> None:
        """Stops listening; running requests are given a moment to end."""
        self.acceptor.close()
        self.acceptor.abort()
        await self._runner.cleanup()
