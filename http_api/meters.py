"""What the HTTP API counts: requests by route and status, their durations, what limits refused.

Labels come from the application's routes, formats and settings, never from a request's text, so
their number is bounded.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tgres_py import clock
from tgres_py.errors import LimitExceeded, Overloaded, TgresError
from tgres_py.measure import Histogram

NO_ROUTE = "other"
CLIENT_GONE = 499  # as nginx logs a client that didn't wait

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Meters:
    """Counters since the start; they belong to the event loop."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by route and status
        self.seconds: dict[str, Histogram] = {}  # by route
        self.render_seconds: dict[str, Histogram] = {}  # by format
        self.stage_seconds: Counter[str] = Counter()  # of /render, float
        self.refused: Counter[str] = Counter()  # by setting
        self.errors: Counter[str] = Counter()  # by the error's counter name
        self.points_read = 0
        self.series_read = 0
        self.in_flight = 0
        self.response_bytes = 0

    def rendered(self, format_: str, seconds: float, laps: dict[str, float]) -> None:
        """Counts a /render that was answered; ``laps``: seconds of its stages."""
        self.render_seconds.setdefault(format_, Histogram()).observe(seconds)
        for stage, took in laps.items():
            self.stage_seconds[stage] += took  # type: ignore[assignment]  # a Counter of floats, which typeshed doesn't know

    def failed(self, error: TgresError) -> None:
        self.errors[error.counter] += 1
        if isinstance(error, LimitExceeded | Overloaded):
            self.refused[error.setting] += 1

    def done(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        self.seconds.setdefault(route, Histogram()).observe(seconds)


def route_of(request: web.Request) -> str:
    """The route's pattern, without its trailing slash."""
    resource = request.match_info.route.resource
    return (resource.canonical.rstrip("/") or "/") if resource is not None else NO_ROUTE


def metering(meters: Meters) -> Any:
    """A middleware that counts; it stands inside of what makes texts of errors."""

    @web.middleware
    async def metered(request: web.Request, handler: Handler) -> web.StreamResponse:
        begin = clock.monotonic()
        status = 500
        meters.in_flight += 1
        try:
            response = await handler(request)
            status = response.status
            meters.response_bytes += _length(response)
            return response
        except TgresError as error:
            status = error.status
            meters.failed(error)
            raise
        except web.HTTPException as error:
            status = error.status
            raise
        except (asyncio.CancelledError, ConnectionResetError):
            status = CLIENT_GONE
            raise
        finally:
            meters.in_flight -= 1
            meters.done(route_of(request), status, clock.monotonic() - begin)

    return metered


def _length(response: web.StreamResponse) -> int:
    """Bytes of a body: what was sent of a stream, headers included, else what will be."""
    if response.prepared:
        return response.body_length
    body = response.body if isinstance(response, web.Response) else None
    return len(body) if isinstance(body, bytes) else 0
