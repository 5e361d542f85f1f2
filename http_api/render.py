"""/render: parameters to a request, plan, fetch, functions, answer.

Targets and limits are checked before anything is read. What the rest will take is estimated from the plan: little is done in the
event loop, more in a thread, much in a worker process, as are all pictures. A large body is sent while it is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from aiohttp import web

from http_api import answer, pictures, stream
from http_api.answer import Output, Task, Watch, finish
from http_api.cluster import failed_of
from http_api.encoding import dump_json
from http_api.meters import Meters
from http_api.pictures.options import PictureLimits
from http_api.queries import Queries, TimeLimit
from http_api.render_params import now_of, parse_request, zone_of
from http_api.reply import (
    accepts_gzip,
    compress_for,
    encoded_headers,
    headers_of,
    read_params,
    reply,
)
from http_api.room import POINT_BYTES, working_bytes
from http_api.workers.session import Session
from http_api.workers.wire import Place
from tgres_py import clock
from tgres_py.errors import LimitExceeded
from tgres_py.query import explain
from tgres_py.query.cost import Cost
from tgres_py.query.evaluate import Fetched, in_rounds, in_rounds_kept, plan_with
from tgres_py.query.limits import QueryLimits
from tgres_py.query.plan import Plan, RenderRequest
from tgres_py.query.remote import Peers
from tgres_py.query.source import SeriesSource

__all__ = ["Output", "Render", "RenderSettings", "finish", "now_of", "parse_request", "zone_of"]

INLINE_S = 0.002  # what takes no longer isn't worth a thread
THREAD_S = 0.03  # what takes longer, about 200,000 points, isn't done in this process
# what was estimated too low is begun anew in a worker process
INLINE_S_MAX, THREAD_S_MAX = 0.1, 0.5
HERE_POINTS_MAX = 500_000
GONE_EVERY_S = 0.25

T = TypeVar("T")


class RenderSettings(QueryLimits, Protocol):
    @property
    def response_bytes_max(self) -> int: ...
    @property
    def picture_pixels_max(self) -> int: ...
    @property
    def picture_series_max(self) -> int: ...


class _TooHeavy(Exception):
    """For this process."""


@dataclass(slots=True)
class _Asked:
    """One request."""

    request: web.Request
    wanted: RenderRequest
    task: Task
    limit: TimeLimit

    @property
    def output(self) -> Output:
        return self.task.output

    @property
    def watch(self) -> Watch:
        return self.task.watch


class Render:
    """The view over one source. ``threads`` do what takes longer than a moment, worker processes what takes long."""

    def __init__(
        self,
        source: SeriesSource,
        settings: RenderSettings,
        threads: Executor,
        queries: Queries,
        peers: Peers | None = None,
        meters: Meters | None = None,
    ) -> None:
        self.source = source
        self.settings = settings
        self.threads = threads
        self.workers = queries.workers
        self.lanes = queries.lanes
        self.room = queries.room
        self.pace = queries.pace
        self.peers = peers
        self.meters = meters or Meters()

    async def view(self, request: web.Request) -> web.StreamResponse:
        settings = self.settings
        params = await read_params(request)
        wanted, output = parse_request(params)
        timeout_s = settings.query_timeout_s
        watch = Watch(timeout_s)
        begin_s = watch.last_s
        task = Task(
            output,
            watch,
            accepts_gzip(request),
            settings.response_bytes_max,
            PictureLimits(settings.picture_pixels_max, settings.picture_series_max),
        )
        limit = request[stream.LIMIT] = TimeLimit(timeout_s, self.room)
        async with limit.running():
            sent = await self.answer(_Asked(request, wanted, task, limit))
        self.meters.rendered(output.format, clock.monotonic() - begin_s, watch.laps)
        return sent

    async def answer(self, asked: _Asked) -> web.StreamResponse:
        output = asked.output
        async with asked.limit.turn(self.lanes.light, "query_concurrent_max"):
            plan = await self.plan(asked)
            if output.explain == "plan":
                return await self.explained(asked, plan)
            is_light = self.cost_s(plan, output) <= THREAD_S
            if is_light and not output.is_picture:
                try:
                    work = partial(self.here, asked, plan)
                    return await in_rounds(plan, self.source, work, self.pace)
                except _TooHeavy:
                    pass
        lane = self.lanes.pictures if is_light and output.is_picture else self.lanes.heavy
        # what waits doesn't keep its plan, which may be large; a plan of several rounds is begun anew
        kept = None if lane.is_full or plan.further else plan
        del plan
        async with asked.limit.turn(lane, "render_workers"):
            asked.watch.skip()
            return await self.elsewhere(asked, kept or await self.plan(asked))

    async def plan(self, asked: _Asked) -> Plan:
        plan = await plan_with(asked.wanted, self.source, self.settings, self.peers, self.pace)
        asked.watch.lap("plan")
        return plan

    def cost_s(self, plan: Plan, output: Output) -> float:
        """Seconds of functions and output, about; no more than it takes to be too heavy."""
        cost = Cost(plan, THREAD_S)
        return cost.seconds + answer.output_s(output, cost.points, cost.series)

    def working_bytes(self, plan: Plan, output: Output) -> int:
        """Memory for functions and output, about."""
        cost = Cost(plan)
        body = answer.output_bytes(
            output, cost.points, cost.series, self.settings.response_bytes_max
        )
        return working_bytes(cost, body)

    def needed_bytes(self, plan: Plan, output: Output) -> int:
        """The same, with what is read."""
        return self.working_bytes(plan, output) + plan.points * POINT_BYTES

    async def here(self, asked: _Asked, plan: Plan, fetched: Fetched) -> web.StreamResponse:
        """Answers in this process. _TooHeavy: that isn't to be done."""
        cost_s = self.cost_s(plan, asked.output)
        if cost_s > THREAD_S:
            raise _TooHeavy
        asked.watch.lap("fetch")
        inline = cost_s <= INLINE_S
        task = replace(
            asked.task,
            points_max=HERE_POINTS_MAX,
            seconds_max=INLINE_S_MAX if inline else THREAD_S_MAX,
        )
        begin = partial(answer.make, plan, fetched, task)
        with self.room.share() as share:
            await share.grow(self.needed_bytes(plan, asked.output))
            try:
                if inline:
                    await self.pace.turn()
                made = begin() if inline else await self.in_thread(begin)
            except LimitExceeded as error:
                # how long functions take, and what they make of little, is known only when they do
                if error.setting in ("query_points_max", "query_timeout_s"):
                    raise _TooHeavy from None
                raise
            self.count(asked, plan)

            async def next_chunk() -> bytes | None:
                return await self.in_thread(lambda: next(made.chunks, None))

            if made.is_whole:
                return self.whole(asked, b"".join(made.chunks), made.is_gzipped)
            return await self.streamed(asked, next_chunk, made.is_gzipped)

    async def elsewhere(self, asked: _Asked, plan: Plan) -> web.StreamResponse:
        """Answers by a worker process."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_while_connected(asked.request))
            share = stack.enter_context(self.room.share(heavy=True))
            asked.limit.waiting_for = "memory_max"
            await share.grow(self.needed_bytes(plan, asked.output))
            asked.limit.waiting_for = None
            worker = await stack.enter_async_context(self.workers.worker(asked.output.is_picture))
            session = stack.enter_context(Session(worker, plan, asked.task, self.settings, self.room))

            async def begin(places: list[Place]) -> None:
                # further rounds read more, as may other nodes' answers
                await share.grow(self.needed_bytes(plan, asked.output))
                await session.begin(places, self.working_bytes(plan, asked.output))

            asked.watch.skip()
            await in_rounds_kept(plan, self.source, begin, session.keep, self.pace)
            self.count(asked, plan)
            if not session.is_whole:
                return await self.streamed(asked, session.chunk, session.is_gzipped)
            chunks = []
            while (chunk := await session.chunk()) is not None:
                chunks.append(chunk)
        return self.whole(asked, b"".join(chunks), session.is_gzipped)

    def whole(self, asked: _Asked, body: bytes, is_gzipped: bool) -> web.Response:
        output = asked.output
        headers = {} if output.is_packed else encoded_headers(is_gzipped)
        if output.is_picture:
            headers.update(pictures.HEADERS)
        return reply(body, output.content_type, headers, 0 if output.explain else output.cache_s)

    async def streamed(
        self,
        asked: _Asked,
        next_chunk: Callable[[], Awaitable[bytes | bytearray | None]],
        is_gzipped: bool,
    ) -> web.StreamResponse:
        output = asked.output
        headers = headers_of(output.content_type, encoded_headers(is_gzipped), output.cache_s)
        return await stream.send(asked.request, headers, next_chunk)

    async def explained(self, asked: _Asked, plan: Plan) -> web.Response:
        """explain=plan, as JSON."""

        def work() -> tuple[bytes, dict[str, str]]:
            told = explain.explain(plan, None, asked.watch.laps)
            return compress_for(asked.request, dump_json(told, asked.output.look.pretty))

        body, headers = await self.in_thread(work)
        if plan.remote is not None:
            failed_of(asked.request).update(plan.remote.failed)
        return reply(body, headers=headers)

    def count(self, asked: _Asked, plan: Plan) -> None:
        """Counts what was read, of all rounds of a plan together."""
        if plan.remote is not None:
            failed_of(asked.request).update(plan.remote.failed)
        self.meters.points_read += plan.points
        self.meters.series_read += sum(len(fetch.ids) for fetch in plan.fetches)

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)


@asynccontextmanager
async def _while_connected(request: web.Request) -> AsyncIterator[None]:
    """Ends the block with ConnectionResetError when the client goes away."""
    asking = asyncio.current_task()
    assert asking is not None
    loop = asyncio.get_running_loop()
    is_gone = False
    next_look: asyncio.TimerHandle

    def look() -> None:
        nonlocal is_gone, next_look
        if request.transport is None or request.transport.is_closing():
            is_gone = True
            asking.cancel()
        else:
            next_look = loop.call_later(GONE_EVERY_S, look)

    next_look = loop.call_later(GONE_EVERY_S, look)
    try:
        yield
    except asyncio.CancelledError:
        if not is_gone:
            raise
        asking.uncancel()
        raise ConnectionResetError("the client went away") from None
    finally:
        next_look.cancel()
