"""A body in chunks: a long one is sent while it is made, so that it needs the memory of a few chunks.

Nothing here knows requests, so render workers can use it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from http_api.encoding import GZIP_LEVEL, gzip_worthwhile
from tgres_py.errors import LimitExceeded

CHUNK_BYTES = 256 << 10  # a body that is longer is sent while it is made


@dataclass(slots=True)
class Made:
    """The body in chunks, one when it ``is_whole``; the others are made when they are asked for."""

    chunks: Iterator[bytes]
    is_whole: bool
    is_gzipped: bool


def begin(pieces: Iterable[bytes], gzip: bool, whole: bool = False) -> Made:
    """Makes the first chunk, or a short body, or a ``whole`` one. ``gzip``: whether that is wanted where it is worth it."""
    chunks = chunked(pieces)
    first = next(chunks)
    if whole:
        first = b"".join((first, *chunks))
    elif len(first) >= CHUNK_BYTES:
        chunks = chain((first,), chunks)
        return Made(gzipped(chunks) if gzip else chunks, False, gzip)
    packed = gzip_worthwhile(first) if gzip else None
    return Made(iter((packed or first,)), True, packed is not None)


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
