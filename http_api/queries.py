"""What all queries share: turns in lanes of their own, memory, worker processes.

A lane answers some at a time; further ones wait in a queue with an end. So finds of a dashboard don't wait behind renders, nor
light renders behind heavy ones, and small pictures behind neither.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from http_api.admission import Admission
from http_api.room import Room, Share
from http_api.stream import LIMIT
from http_api.workers.pool import Workers, room_bytes, worker_count
from tgres_py.errors import LimitExceeded, Overloaded
from tgres_py.query.pace import Pace

FINDS_AT_ONCE = 8  # names are looked up in threads, of which more would only wait for each other
MEMORY_BYTES = 1 << 30  # of queries, where nobody says how much there is

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class QueriesSettings(Protocol):
    @property
    def query_concurrent_max(self) -> int: ...
    @property
    def query_queue_max(self) -> int: ...
    @property
    def render_workers(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Lanes:
    """``light``: renders of this process, and the plans of all; ``heavy``: those of worker processes; ``pictures``: small ones;
    ``find``: look-ups of names and tags.
    """

    light: Admission
    heavy: Admission
    pictures: Admission
    find: Admission

    def waiting(self) -> dict[str, int]:
        """Queries that wait for their turn, by lane."""
        return {name: getattr(self, name).waiting for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Queries:
    lanes: Lanes
    workers: Workers
    room: Room
    pace: Pace = field(default_factory=Pace)

    @classmethod
    def of(
        cls,
        settings: QueriesSettings,
        memory_bytes: int = MEMORY_BYTES,
        is_short: Callable[[], bool] = lambda: False,
    ) -> Queries:
        """``memory_bytes``: of all queries with their processes; ``is_short``: whether there is no memory for
        further ones."""
        queue_max = settings.query_queue_max
        most = worker_count(settings.render_workers, memory_bytes)
        return cls(
            Lanes(
                Admission(settings.query_concurrent_max, queue_max, is_short),
                Admission(most, queue_max),
                Admission(1, queue_max),
                Admission(FINDS_AT_ONCE, queue_max),
            ),
            Workers(),
            Room(room_bytes(memory_bytes, most)),
        )

    def child_bytes(self) -> int:
        """Memory that queries take outside of this process."""
        return self.workers.resident_bytes() + self.room.shared_bytes


class TimeLimit:
    """The time of one query, until ``sending``. ``waiting_for``: the setting that it waits for at the moment."""

    def __init__(self, timeout_s: float, room: Room) -> None:
        self.timeout_s = timeout_s
        self._room = room
        self._lane: Admission | None = None
        self.waiting_for: str | None = None
        self._timeout: asyncio.Timeout | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """LimitExceeded when the block takes longer; Overloaded when it only waited."""
        try:
            async with asyncio.timeout(self.timeout_s) as self._timeout:
                yield
        except TimeoutError:
            seconds = math.ceil(self.timeout_s)
            if self.waiting_for:
                raise Overloaded(
                    f"no turn within {seconds} s (query_timeout_s): other queries have what setting "
                    f"{self.waiting_for} allows",
                    self.waiting_for,
                ) from None
            raise LimitExceeded(
                "seconds of a query", seconds + 1, seconds, "query_timeout_s"
            ) from None

    def sending(self) -> None:
        """The rest has time-outs of its own."""
        assert self._timeout is not None
        self._timeout.reschedule(None)

    @asynccontextmanager
    async def turn(self, lane: Admission, setting: str) -> AsyncIterator[None]:
        """A turn in a lane. Overloaded: its queue is full."""
        self.waiting_for = setting
        async with lane.turn():
            self.waiting_for = None
            self._lane = lane
            yield

    @property
    def others_wait(self) -> bool:
        """Whether others wait for the turn that this one has, or for memory."""
        return self._room.waiting > 0 or (self._lane is not None and self._lane.waiting > 0)


def limit_of(request: web.Request) -> TimeLimit:
    """Of a request that came through ``in_turn``."""
    limit: TimeLimit = request[LIMIT]
    return limit


@asynccontextmanager
async def memory(request: web.Request, room: Room, size: int) -> AsyncIterator[Share]:
    """So many bytes of the queries' memory for the block, for which it may have to wait; a part is left to renders. For
    requests that came through ``in_turn``."""
    limit = limit_of(request)
    with room.share(heavy=True) as share:
        limit.waiting_for = "memory_max"
        await share.grow(size)
        limit.waiting_for = None
        yield share


def in_turn(queries: Queries, timeout_s: float, handler: Handler) -> Handler:
    """A view that looks names or tags up: its requests wait for their turn, and have a time."""

    async def view(request: web.Request) -> web.StreamResponse:
        limit = request[LIMIT] = TimeLimit(timeout_s, queries.room)
        async with limit.running(), limit.turn(queries.lanes.find, "query_concurrent_max"):
            await queries.pace.turn()
            return await handler(request)

    return view
