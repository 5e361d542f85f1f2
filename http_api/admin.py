"""/admin: operator verbs behind a token.

    GET  /admin          the verbs, as JSON
    POST /admin/{verb}   body: a JSON object of arguments; answer: rows as application/x-ndjson

The guard lets requests with the admin token through only; without setting admin_token there is nothing here (404).
An error before the first row has its status and one plain line, as everywhere; one that comes
later is the last row, {"error": …, "status": …}. An empty line is sent while nothing else is, so that
no proxy gives up and a client that went away is noticed: its verb ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Protocol

import orjson
from aiohttp import web

from http_api.encoding import dump_json
from http_api.reply import body_of, headers_of, reply
from tgres_py.errors import BadRequest, TgresError

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
ROWS_TOGETHER = 256

Row = dict[str, Any]
Queue = asyncio.Queue[Row | Exception | None]


class Verbs(Protocol):
    """What runs the verbs."""

    def listing(self) -> list[Row]:
        """All verbs with their arguments."""

    def start(self, name: str, given: Mapping[str, Any]) -> AsyncIterator[Row]:
        """The rows of a verb. BadRequest: no such verb, or a wrong argument."""


class Admin:
    """The views; ``guard.py`` stands before them."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    async def list(self, request: web.Request) -> web.Response:
        return reply(dump_json(self._verbs.listing(), pretty=True))

    async def run(self, request: web.Request) -> web.StreamResponse:
        """POST /admin/{verb}."""
        name = request.match_info["verb"]
        given = _arguments(await body_of(request))
        rows = self._verbs.start(name, given)
        log.info("admin: %s runs %s", request.remote, name)
        return await _send(request, rows)


def _arguments(body: bytes) -> dict[str, Any]:
    try:
        given = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"body: no JSON: {error}") from None
    if not isinstance(given, dict):
        raise BadRequest("body: must be a JSON object of arguments")
    return given


async def _send(request: web.Request, rows: AsyncIterator[Row]) -> web.StreamResponse:
    """Streams the rows; what a verb raises before its first row is raised, if it comes soon."""
    queue: Queue = asyncio.Queue(ROWS_TOGETHER)
    task = asyncio.create_task(_pump(rows, queue), name="admin-verb")
    try:
        answer: web.StreamResponse | None = None
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    items = [await queue.get()]
            except TimeoutError:
                items = []
            while items and not queue.empty():
                items.append(queue.get_nowait())
            if answer is None:
                if items and isinstance(items[0], Exception):
                    raise items[0]
                answer = web.StreamResponse(headers=headers_of("application/x-ndjson"))
                await answer.prepare(request)
            await answer.write(b"".join(map(_line, items)) or b"\n")
            if items and not isinstance(items[-1], dict):
                await answer.write_eof()
                return answer
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _pump(rows: AsyncIterator[Row], queue: Queue) -> None:
    """Rows into the queue, then the error that ended them, or None.

    A full queue is what gives others their turn while rows come without waiting.
    """
    end: Exception | None = None
    try:
        async for row in rows:
            await queue.put(row)
    except Exception as error:
        end = error
    finally:
        if isinstance(rows, AsyncGenerator):
            await rows.aclose()
    await queue.put(end)


def _line(item: Row | Exception | None) -> bytes:
    if item is None:
        return b"\n"
    if isinstance(item, TgresError):
        item = {"error": str(item), "status": item.status}
    elif isinstance(item, Exception):
        log.error("admin: a verb failed", exc_info=item)
        item = {"error": "internal error; the server's log has the details", "status": 500}
    return dump_json(item) + b"\n"
