"""Requests and answers of all HTTP views: parameters, JSON, errors.

Parameters come from the query string and from a form or JSON body, merged; of a single one the
body's goes before (as graphite-web). A form body is read whatever its Content-Type says, unless
that is JSON. Every error is one line of text/plain; nothing that a client sent comes back as HTML.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from email.utils import formatdate
from itertools import chain
from typing import Any
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from http_api import chunks, gently, stream
from http_api.chunks import Made, limited
from http_api.encoding import gzip_worthwhile
from http_api.meters import CLIENT_GONE
from tgres_py import clock
from tgres_py.errors import BadRequest, TgresError

log = logging.getLogger(__name__)

FIELDS_MAX = 10_000
INLINE_ENTRIES_MAX = 1_000  # sorting, writing and packing more goes to a worker thread
JSONP_CHARS_MAX = 128
BROKEN_BODY = "body: it is broken, or not in its Content-Encoding"
RETRY_S = 5  # after an answer 503

_JSONP = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*(\.[A-Za-z_$][A-Za-z0-9_$]*)*")
_NO_CACHE = {
    "Cache-Control": "max-age=0, no-cache, no-store, must-revalidate, private",
    "Pragma": "no-cache",
}
# who writes the errors of a request, when it isn't reply_error; aiohttp before 3.14 knows texts only
ERROR_REPLY: Any = getattr(web, "RequestKey", lambda name, kind: name)(
    "tgres.error_reply", Callable
)
# the Content-Encoding of a body that aiohttp has left as it came
PACKED: Any = getattr(web, "RequestKey", lambda name, kind: name)("tgres.packed", str)

ErrorReply = Callable[[int, str], web.Response]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Params:
    """Parameters of a request: name to values, in order of appearance, the body's last."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def get(self, name: str, default: str | None = None) -> str | None:
        """The last value given."""
        values = self._values.get(name)
        return values[-1] if values else default

    def number(self, name: str, default: int = 0) -> int:
        """A whole number; BadRequest when it is something else."""
        value = self.get(name)
        if value is None:
            return default
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", value.strip()):
            raise BadRequest(f"{name}: {value!r} is no whole number")
        return int(value)

    def names(self) -> list[str]:
        return list(self._values)


async def read_params(request: web.Request) -> Params:
    """The parameters of a request. BadRequest: a body that is neither form nor JSON object;
    LimitExceeded by aiohttp.
    """
    pairs = list(request.query.items())
    if request.method == "POST":
        pairs += _body_pairs(await _read_body(request), request.content_type)
    if len(pairs) > FIELDS_MAX:
        raise BadRequest(f"{len(pairs)} parameters are more than {FIELDS_MAX}")
    return Params(pairs)


async def _read_body(request: web.Request) -> bytes:
    if request.content_type != "multipart/form-data":
        return await body_of(request)
    raise BadRequest("body: multipart/form-data isn't read; send application/x-www-form-urlencoded")


async def body_of(request: web.Request) -> bytes:
    """The body, unpacked. BadRequest: it isn't what its Content-Encoding says; HTTPRequestEntityTooLarge."""
    body = await request.read()
    packing = request.get(PACKED, "identity")
    if packing == "identity" or not body:
        return body
    # a few kB may become a body of the largest size
    return await asyncio.to_thread(_unpacked, body, packing, request.client_max_size)


def _unpacked(body: bytes, packing: str, most: int) -> bytes:
    unpack = zlib.decompressobj(_wbits(packing, body[0]))
    try:
        unpacked = unpack.decompress(body, most + 1)
    except zlib.error:
        raise BadRequest(BROKEN_BODY) from None
    if len(unpacked) > most:
        raise web.HTTPRequestEntityTooLarge(most)
    if not unpack.eof:
        raise BadRequest(BROKEN_BODY)
    return unpacked


def _wbits(packing: str, first: int) -> int:
    """zlib's number for a Content-Encoding. Some send deflate without the head that it should have."""
    if packing in ("gzip", "x-gzip"):
        return 16 + zlib.MAX_WBITS
    if packing == "deflate":
        return zlib.MAX_WBITS if first & 0xF == 8 else -zlib.MAX_WBITS
    raise BadRequest("Content-Encoding: gzip and deflate are read")


def _body_pairs(body: bytes, content_type: str) -> list[tuple[str, str]]:
    if content_type == "application/json":
        return _json_pairs(body)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("body: not UTF-8") from None
    try:
        return parse_qsl(text.strip(), keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        raise BadRequest(f"body: more than {FIELDS_MAX} parameters") from None


def _json_pairs(body: bytes) -> list[tuple[str, str]]:
    """{"target": ["a", "b"], "from": "-1h", "maxDataPoints": 100, "noNullPoints": true}: values as
    in a form.
    """
    try:
        fields = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"body: no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadRequest("body: must be a JSON object")
    pairs = []
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict | list):
                raise BadRequest(f"{name}: must be a text, number or list of these")
            if one is not None and one is not False:
                pairs.append((name, one if isinstance(one, str) else orjson.dumps(one).decode()))
    return pairs


def check_jsonp(params: Params) -> str | None:
    """The name of the callback; BadRequest unless it is an identifier (dots allowed)."""
    name = params.get("jsonp")
    if not name:
        return None
    if len(name) > JSONP_CHARS_MAX or not _JSONP.fullmatch(name):
        raise BadRequest("jsonp: must be the name of a JavaScript function")
    return name


def accepts_gzip(request: web.Request) -> bool:
    accepted = request.headers.get("Accept-Encoding", "")
    return bool(re.search(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))", accepted))


def compress_for(request: web.Request, body: bytes) -> tuple[bytes, dict[str, str]]:
    """The body, gzipped when the client takes that and it is worth it, and its headers."""
    if not accepts_gzip(request):
        return body, {"Vary": "Accept-Encoding"}
    packed = gzip_worthwhile(body)
    return packed or body, encoded_headers(packed is not None)


def encoded_headers(is_gzipped: bool) -> dict[str, str]:
    encoding = {"Content-Encoding": "gzip"} if is_gzipped else {}
    return {"Vary": "Accept-Encoding", **encoding}


def headers_of(
    content_type: str, headers: Mapping[str, str] | None = None, cache_s: int = 0
) -> dict[str, str]:
    """The headers of every good answer. ``cache_s``: how long caches may keep it, 0 = not at all."""
    caching = {"Cache-Control": f"max-age={cache_s}"} if cache_s else _NO_CACHE
    expires = {"Expires": formatdate(clock.now() + cache_s, usegmt=True)}
    return {**caching, **expires, **(headers or {}), "Content-Type": content_type}


def reply(
    body: bytes,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
    cache_s: int = 0,
) -> web.Response:
    return web.Response(body=body, headers=headers_of(content_type, headers, cache_s))


async def reply_json(
    make: Callable[[], Any],
    params: Params,
    request: web.Request,
    entries: int = 0,
    bytes_max: int = sys.maxsize,
    at_most: float = math.inf,
    threads: Executor | None = None,
) -> web.StreamResponse:
    """JSON of ``make()`` (see gently.dump), wrapped for ``jsonp``, indented for ``pretty``, compressed when asked.

    ``entries``: how many things it lists; many are written by ``threads``, None = any. LimitExceeded: longer than ``bytes_max``;
    where it can't be, since it has so many bytes ``at_most``, it is sent while it is made.
    """
    callback = check_jsonp(params)

    def write() -> Iterator[bytes]:
        body = limited(gently.dump(make(), bool(params.get("pretty"))), bytes_max)
        return chain((callback.encode() + b"(",), body, (b")",)) if callback else body

    content_type = "text/javascript" if callback else "application/json"
    return await reply_pieces(write, request, content_type, entries, at_most > bytes_max, threads)


async def reply_pieces(
    write: Callable[[], Iterator[bytes]],
    request: web.Request,
    content_type: str,
    entries: int,
    collect: bool,
    threads: Executor | None = None,
) -> web.StreamResponse:
    """The pieces that ``write()`` gives, compressed when asked. ``collect``: all of them come before the first is sent, since there may
    be an error in between.
    """
    gzip = accepts_gzip(request)
    loop = asyncio.get_running_loop()

    def begin() -> Made:
        pieces = write()
        return chunks.begin(iter(list(chunks.chunked(pieces))) if collect else pieces, gzip)

    async def next_chunk() -> bytes | None:
        return await loop.run_in_executor(threads, next, made.chunks, None)

    is_short = entries <= INLINE_ENTRIES_MAX
    made = begin() if is_short else await loop.run_in_executor(threads, begin)
    headers = encoded_headers(made.is_gzipped)
    if made.is_whole:
        return reply(b"".join(made.chunks), content_type, headers)
    return await stream.send(request, headers_of(content_type, headers), next_chunk)


def reply_error(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """One plain line."""
    line = " ".join(message.split())[:2_000] + "\n"
    return web.Response(
        status=status,
        body=line.encode("utf-8", "replace"),
        headers={**(headers or {}), "Content-Type": "text/plain; charset=utf-8"},
    )


@web.middleware
async def errors_as_text(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error becomes one line of plain text with its status."""
    try:
        return await handler(request)
    except TgresError as error:
        write: ErrorReply = request.get(ERROR_REPLY, reply_error)
        response = write(error.status, str(error))
        if error.status == 503:
            response.headers["Retry-After"] = str(RETRY_S)
        return response
    except web.HTTPRequestEntityTooLarge:
        return reply_error(413, "body: larger than setting body_bytes_max allows")
    except web.HTTPException as error:
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return reply_error(error.status, error.reason, allow)
    except asyncio.CancelledError:
        raise
    except ConnectionResetError:
        # the client hung up while a stream was written: nobody reads an answer
        log.debug("%s hung up in %s %s", request.remote, request.method, request.path)
        return reply_error(CLIENT_GONE, "the client hung up")
    except Exception:
        log.exception("unexpected error in %s %s", request.method, request.path)
        return reply_error(500, "internal error; the log has the details")
