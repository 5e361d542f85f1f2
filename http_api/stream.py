"""Sending a body while it is made: pieces to chunks, chunks gzipped when asked, in worker threads.

A body of one chunk becomes an ordinary response with its length; a longer one is sent chunk by
chunk, so that a large answer needs the memory of one chunk and its first bytes leave early. Once
the status is sent, an error can only be shown by ending the connection in the middle: so what may
turn out too long is to be made whole before (see ``render``).
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from aiohttp import web

from http_api.reply import GZIP_LEVEL
from tgres_py.errors import LimitExceeded, TgresError

log = logging.getLogger(__name__)

CHUNK_BYTES = 256 << 10
WRITE_TIMEOUT_S = 60.0

Run = Callable[[Callable[[], bytes | None]], Awaitable[bytes | None]]


def limited(pieces: Iterable[bytes], bytes_max: int) -> Iterator[bytes]:
    """The same pieces; LimitExceeded once they are longer together than ``bytes_max``."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > bytes_max:
            raise LimitExceeded("bytes of the response", size, bytes_max, "response_bytes_max")
        yield piece


def chunked(pieces: Iterable[bytes], chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The same bytes in chunks of ``chunk_bytes`` or more; only the last one is shorter."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= chunk_bytes:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(GZIP_LEVEL, wbits=31)
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()


async def send(
    request: web.Request,
    chunks: Iterator[bytes],
    headers: Mapping[str, str],
    run: Run,
) -> web.StreamResponse:
    """Sends a body of unknown length; ``run`` makes the next chunk in a worker thread."""
    response = web.StreamResponse(headers=dict(headers))
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        while (chunk := await run(lambda: next(chunks, None))) is not None:
            if chunk:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await response.write(chunk)
        await response.write_eof()
    except (TgresError, TimeoutError) as error:
        log.warning("%s: the answer is cut: %s", request.path, error or "the client doesn't read")
        if request.transport is not None:
            request.transport.abort()
    return response
