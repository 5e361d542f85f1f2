"""What stands between a socket and aiohttp: how many may connect, and how slowly they may ask.

Each connection's protocol is a ``Gate`` that hands everything on to aiohttp's own. One connection too many is closed
before a byte of it is read (one from a network that isn't allowed doesn't come here). A client has
``read_s`` to send the head of a request, from its first byte on (the first request's from the
connection on), so that many slow ones can't hold all connections (slow loris); between requests aiohttp's
``keepalive_timeout`` holds. the guard sees to bodies.

What all connections have sent and isn't answered yet is bounded, too (``bytes_max``): beyond it whoever has sent
more than HELD_ANYWAY is answered 503 and closed. Nothing is refused that is as small as dashboards' requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from aiohttp import web

from http_api.reply import RETRY_S
from tgres_py.model.networks import Networks

TIMEOUT_ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"X-Content-Type-Options: nosniff\r\nConnection: close\r\nContent-Length: 36\r\n\r\n"
    b"the request didn't come in in time.\n"
)
CROWDED = "the requests that come in are too many bytes together (memory_max)"
CROWDED_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"X-Content-Type-Options: nosniff\r\nRetry-After: %d\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b\n"
    % (RETRY_S, len(CROWDED) + 1, CROWDED.encode())
)
HELD_ANYWAY = 8_192  # bytes of one connection, whatever others have sent


@dataclass(frozen=True, slots=True)
class GateLimits:
    """The names are the settings' without ``http_``."""

    connections_max: int = 2_000
    read_timeout_s: float = 15.0
    idle_s: float = 75.0
    allowed: Networks = field(default_factory=Networks)
    bytes_max: int = 64 << 20


@dataclass(slots=True)
class GateCounts:
    """Since the start, except ``open`` and ``held``: bytes of requests that aren't answered yet."""

    open: int = 0
    held: int = 0
    accepted: int = 0
    refused: int = 0  # beyond connections_max, of those that were accepted with others at once
    timed_out: int = 0  # requests whose head or body didn't come
    malformed: int = 0  # requests whose head was no HTTP
    crowded: int = 0  # requests beyond bytes_max


class Gate(asyncio.Protocol):
    """One connection."""

    def __init__(
        self, make: Callable[[], asyncio.Protocol], limits: GateLimits, counts: GateCounts
    ) -> None:
        self.counts = counts
        self._make = make
        self._limits = limits
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._busy = 0
        self._held = 0  # bytes of what isn't answered yet
        self._ahead = 0  # of these: of requests after the one that is being answered
        self._is_read = False  # the request that is being answered has come as a whole

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        counts = self.counts
        if counts.open >= self._limits.connections_max:
            counts.refused += 1
            stream.abort()
            return
        counts.open += 1
        counts.accepted += 1
        self._transport = stream
        self._inner = self._make()
        self._inner.connection_made(stream)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._hold(-self._held)
        self._ahead = 0
        if self._inner is not None:
            self.counts.open -= 1
            self._inner.connection_lost(exc)
        self._inner = self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            if not self._busy and self._timer is None:
                self._wait()
            if self.has_room(len(data)):
                self._hold(len(data))
                self._inner.data_received(data)
            else:
                self._crowd_out()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def begin(self) -> None:
        """A request's head is complete."""
        self._busy += 1
        self._is_read = False
        self._stop_waiting()

    def has_room(self, size: int) -> bool:
        """Whether so many more bytes of a request may come."""
        held, limits = self._held + size, self._limits
        return held <= HELD_ANYWAY or self.counts.held + size <= limits.bytes_max

    def hold(self, size: int) -> None:
        """The request takes so many more bytes, until its ``end``: a body that is unpacked."""
        if self._inner is not None:
            self._hold(size)

    def read(self) -> None:
        """The request has come as a whole: what follows is another one's."""
        self._is_read = True
        self._ahead = 0

    def end(self) -> None:
        """It is answered; the next one's first byte starts the time again."""
        self._busy -= 1
        self._is_read = False
        self._held, before = self._ahead, self._held
        self.counts.held += self._held - before
        self._ahead = 0

    def _hold(self, size: int) -> None:
        self._held += size
        self.counts.held += size
        if self._is_read:
            self._ahead += size

    def _crowd_out(self) -> None:
        assert self._transport is not None
        self.counts.crowded += 1
        if self._is_read:  # an answer may have begun
            self._transport.abort()
        else:
            self._transport.write(CROWDED_ANSWER)
            self._transport.close()

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.read_timeout_s, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._transport is not None and not self._busy:
            self.counts.timed_out += 1
            self._transport.write(TIMEOUT_ANSWER)
            self._transport.close()


def gate_of(request: web.Request) -> Gate | None:
    """The gate of a request's connection; None where there is none (tests without a listener)."""
    protocol = request.transport.get_protocol() if request.transport is not None else None
    return protocol if isinstance(protocol, Gate) else None
