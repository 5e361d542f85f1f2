"""Sending a body while it is made, chunk by chunk: a large answer needs the memory of a few chunks, and its first bytes
leave early.

Once the status is sent, an error can only be shown by ending the connection in the middle: so what may
turn out too long is to be made whole before (see ``answer``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from tgres_py import clock
from tgres_py.errors import TgresError

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S = (
    10.0  # of one chunk: who doesn't read keeps a turn, and maybe a process, from others
)
BYTES_S_MIN = 256 << 10  # in the long run
SLOW_S = 60.0

# the time of a request, which ends when sending begins; aiohttp before 3.14 knows texts only
LIMIT: Any = getattr(web, "RequestKey", lambda name, kind: name)("tgres.time_limit", object)


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
    try:
        begin_s, sent = clock.monotonic(), 0
        while (chunk := await next_chunk()) is not None:
            if chunk:
                left_s = begin_s + SLOW_S + sent / BYTES_S_MIN - clock.monotonic()
                async with asyncio.timeout(min(WRITE_TIMEOUT_S, left_s)):
                    await response.write(chunk)
                sent += len(chunk)
        await response.write_eof()
    except (TgresError, TimeoutError) as error:
        log.warning(
            "%s: the answer is cut: %s", request.path, error or "the client reads too slowly"
        )
        if request.transport is not None:
            request.transport.abort()
    return response
