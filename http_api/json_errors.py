"""Errors of /tags, /events and /functions: ``{"error": "…"}``, as clients of graphite-web expect them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps

from aiohttp import web

from http_api.encoding import dump_json
from http_api.reply import ERROR_REPLY

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MESSAGE_CHARS_MAX = 2_000


def reply_json_error(status: int, message: str) -> web.Response:
    body = dump_json({"error": message[:MESSAGE_CHARS_MAX]}) + b"\n"
    return web.Response(status=status, body=body, content_type="application/json")


def errors_as_json(handler: Handler) -> Handler:
    """What the project's errors become in the views that it wraps (see ``errors_as_text``)."""

    @wraps(handler)
    async def wrapped(request: web.Request) -> web.StreamResponse:
        request[ERROR_REPLY] = reply_json_error
        return await handler(request)

    return wrapped
