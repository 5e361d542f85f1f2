"""Sending a body while it is made, chunk by chunk: a large answer needs the memory of a few chunks, and its first bytes
leave early.

Once the status is sent, an error can only be shown by ending the connection in the middle: so what may
turn out too long is to be made whole before (see ``answer``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from tgres_py.errors import TgresError

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 10.0  # of one chunk: who doesn't read keeps a turn, and maybe a process, from others


async def send(
    request: web.Request,
    headers: Mapping[str, str],
    next_chunk: Callable[[], Awaitable[bytes | bytearray | None]],
) -> web.StreamResponse:
    """Sends a body of unknown length, as long as ``next_chunk`` gives any."""
    response = web.StreamResponse(headers=dict(headers))
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        while (chunk := await next_chunk()) is not None:
            if chunk:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await response.write(chunk)
        await response.write_eof()
    except (TgresError, TimeoutError) as error:
        log.warning("%s: the answer is cut: %s", request.path, error or "the client doesn't read")
        if request.transport is not None:
            request.transport.abort()
    return response
