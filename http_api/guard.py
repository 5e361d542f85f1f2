"""Who may ask, and which web pages may read the answers.

With a token, every request but those of OPEN needs it: ``Authorization: Bearer TOKEN``, or basic auth with
any user and the token as password (what Grafana's data source, curl's -u and browsers send). /admin has
a token of its own, which opens the rest, too; without that token there is no /admin.

CORS is off without origins: no header is sent, and browsers keep answers from other pages. They would still send what
changes something, with the password that they remember: that is refused unless the page is ours or one of the origins'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import hdrs, web

from http_api.gate import CROWDED, Gate, gate_of
from http_api.reply import BROKEN_BODY, PACKED, RETRY_S, reply_error
from http_api.tokens import TokenCheck

# Load balancers and supervisors ask these; they say nothing but "ok" or why not.
OPEN = frozenset(("/healthz", "/readyz"))
# What changes something and asks for no token of /admin, which no browser sends by itself.
WRITING = frozenset(("/events", "/tags/tagSeries", "/tags/tagMultiSeries", "/tags/delSeries"))
CORS_METHODS = "GET, POST, HEAD"
CORS_HEADERS_MAX = 500  # characters of the list of headers that a page may ask for
CORS_AGE_S = 600

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Access:
    """``token``: empty = nobody is asked; ``admin_token`` is taken as well. ``cors_origins``: ``*`` = all.

    ``body_s``: time for a request's body.
    """

    token: str = ""
    admin_token: str = ""
    cors_origins: tuple[str, ...] = ()
    body_s: float = 15.0


def guarding(access: Callable[[], Access], tokens: TokenCheck) -> Any:
    """A middleware that stands outside of all others; ``access`` is asked at each request."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        rules = access()
        gate = gate_of(request)
        if gate is not None:
            gate.begin()
        try:
            if (preflight := _preflight(request, rules)) is not None:
                return preflight
            if (refusal := _refusal(request, rules, tokens)) is not None:
                return refusal
            if _of_another_page(request, rules):
                return reply_error(
                    403, "pages of other hosts may not write here (setting cors_origins)"
                )
            if gate is not None and not _has_room(request, gate):
                gate.counts.crowded += 1
                headers = {"Connection": "close", "Retry-After": str(RETRY_S)}
                return reply_error(503, CROWDED, headers)
            if request.can_read_body and not await _body_came(request, rules.body_s):
                if gate is not None:
                    gate.counts.timed_out += 1
                return reply_error(408, "body: it didn't come in in time", {"Connection": "close"})
            if gate is not None:
                gate.read()
            return await handler(request)
        except web.RequestPayloadError:
            # aiohttp would read on, and log a traceback for it
            request.content.feed_eof()
            return reply_error(400, BROKEN_BODY, {"Connection": "close"})
        finally:
            if gate is not None:
                gate.end()

    return guarded


def _has_room(request: web.Request, gate: Gate) -> bool:
    """Whether the body may come; what a packed one may become is held from now on."""
    if not request.can_read_body:
        return True
    if hdrs.CONTENT_ENCODING in request.headers:
        if not gate.has_room(request.client_max_size):
            return False
        gate.hold(request.client_max_size)
        request[PACKED] = request.headers[hdrs.CONTENT_ENCODING].strip().lower()
        return True
    wanted = min(request.content_length or 0, request.client_max_size)
    return gate.has_room(max(0, wanted - request.content.total_bytes))


async def _body_came(request: web.Request, seconds: float) -> bool:
    """Reads the body, which the request keeps; False: not within the time."""
    try:
        async with asyncio.timeout(seconds):
            await request.read()
    except TimeoutError:
        return False
    except Exception as error:
        # The body keeps it, and it would keep the frames that hold what had come: until a garbage collection, far from here.
        raise error.with_traceback(None) from None
    return True


def _refusal(request: web.Request, rules: Access, tokens: TokenCheck) -> web.Response | None:
    """The answer to a request that may not be answered otherwise."""
    if request.path in OPEN:
        return None
    if request.path == "/admin" or request.path.startswith("/admin/"):
        if not rules.admin_token:
            return reply_error(404, "Not Found")
        return tokens.operator(request, rules.admin_token)
    return tokens.reader(request, rules.token, rules.admin_token) if rules.token else None


def _of_another_page(request: web.Request, rules: Access) -> bool:
    """Whether a browser sends this for a page of another host (all browsers name the page then)."""
    origin = request.headers.get("Origin")
    if origin is None or request.method != "POST" or request.path.rstrip("/") not in WRITING:
        return False
    return origin.partition("://")[2] != request.host and not _origin_allowed(request, rules)


def _preflight(request: web.Request, rules: Access) -> web.Response | None:
    """The answer to a browser that asks whether a page may ask; it sends no token with that."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return None
    if not _origin_allowed(request, rules):
        return None
    headers = {
        "Access-Control-Allow-Methods": CORS_METHODS,
        "Access-Control-Max-Age": str(CORS_AGE_S),
    }
    if asked := request.headers.get("Access-Control-Request-Headers", ""):
        headers["Access-Control-Allow-Headers"] = asked[:CORS_HEADERS_MAX]
    return web.Response(status=204, headers=headers)


def _origin_allowed(request: web.Request, rules: Access) -> bool:
    origin = request.headers.get("Origin")
    return origin is not None and ("*" in rules.cors_origins or origin in rules.cors_origins)


def sharing(access: Callable[[], Access]) -> Callable[[web.Request, web.StreamResponse], Any]:
    """A signal handler: names the page's origin in the answer when that page may read it, and has
    browsers believe the type of every answer.
    """

    async def share(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Content-Type-Options"] = "nosniff"
        rules = access()
        if not rules.cors_origins:
            return
        vary = response.headers.get("Vary")
        response.headers["Vary"] = f"{vary}, Origin" if vary else "Origin"
        if _origin_allowed(request, rules):
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]

    return share
