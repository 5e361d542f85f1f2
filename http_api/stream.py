"""Sending a body while it is made, chunk by chunk: a large answer needs the memory of a few chunks, and its first bytes
leave early.

Once the status is sent, an error can only be shown by ending the connection in the middle: so what may
turn out too long is to be made whole before (see ``answer``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tgres_py.errors import TgresError

log = logging.getLogger(__name__)

BYTES_S_MIN = 256 << 10  # in the long run
LOOK_EVERY_S = 0.25

# the time of a request, which ends when sending begins; aiohttp before 3.14 knows texts only
LIMIT: Any = getattr(web, "RequestKey", lambda name, kind: name)("tgres.time_limit", object)


@dataclass(frozen=True, slots=True)
class Patience:
    """With one who doesn't read, or reads slowly: it keeps a turn, and maybe a process, from others."""

    still_s: float  # without a byte taken
    slow_s: float  # of waiting for it that isn't made up for by what it took, at BYTES_S_MIN


PATIENCE = Patience(10.0, 60.0)
PATIENCE_WHEN_WANTED = Patience(2.0, 10.0)  # others wait for the turn


async def send(
    request: web.Request,
    headers: Mapping[str, str],
    next_chunk: Callable[[], Awaitable[bytes | bytearray | None]],
) -> web.StreamResponse:
    """Sends a body of unknown length, as long as ``next_chunk`` gives any."""
    if (limit := request.get(LIMIT)) is not None:
        limit.sending()
    response = web.StreamResponse(headers=dict(headers))
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    client = _Client(response, request, lambda: limit is not None and limit.others_wait)
    try:
        while (chunk := await next_chunk()) is not None:
            if chunk:
                await client.write(chunk)
        await response.write_eof()
    except (TgresError, TimeoutError) as error:
        reason = str(error) or "the client reads too slowly"
        log.warning("%s: the answer is cut: %s", request.path, reason)
        if request.transport is not None:
            request.transport.abort()
    return response


class _Client:
    """Who reads the answer. ``is_wanted``: whether others wait for the turn that it has."""

    def __init__(
        self, response: web.StreamResponse, request: web.Request, is_wanted: Callable[[], bool]
    ) -> None:
        self._response = response
        self._request = request
        self._is_wanted = is_wanted
        self._loop = asyncio.get_running_loop()
        self._taken = 0
        self._waited_s = 0.0

    async def write(self, chunk: bytes | bytearray) -> None:
        """TimeoutError: it takes too long to take it."""
        begin_s = still_since_s = self._loop.time()
        left = -1
        next_look: asyncio.TimerHandle

        def end_s() -> float:
            patience = PATIENCE_WHEN_WANTED if self._is_wanted() else PATIENCE
            slow_s = patience.slow_s + self._taken / BYTES_S_MIN - self._waited_s
            return min(still_since_s + patience.still_s, begin_s + slow_s)

        def look() -> None:
            nonlocal left, still_since_s, next_look
            now_left = self._left()
            if now_left != left:
                left, still_since_s = now_left, self._loop.time()
            if not timeout.expired():
                timeout.reschedule(end_s())
            next_look = self._loop.call_later(LOOK_EVERY_S, look)

        next_look = self._loop.call_later(LOOK_EVERY_S, look)
        try:
            async with asyncio.timeout_at(end_s()) as timeout:
                await self._response.write(chunk)
        finally:
            next_look.cancel()
        self._taken += len(chunk)
        self._waited_s += self._loop.time() - begin_s

    def _left(self) -> int:
        """Bytes that wait in this process."""
        transport = self._request.transport
        return transport.get_write_buffer_size() if transport else 0
