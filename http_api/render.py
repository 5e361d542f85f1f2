"""/render: parameters to a request, plan, fetch, functions, answer.

Targets and limits are checked before anything is read; functions, formatting and drawing run in a
worker thread, a large body is sent while it is written. Source of the formats: graphite-web 1.1.10.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from itertools import chain
from typing import Protocol, TypeVar

from aiohttp import web

from http_api import meta, pictures, stream
from http_api.cluster import failed_of
from http_api.formats import FORMATS
from http_api.meters import Meters
from http_api.pictures import DEFAULT_LIMITS
from http_api.pictures.options import PictureLimits
from http_api.render_params import Output, now_of, parse_request, zone_of
from http_api.reply import (
    accepts_gzip,
    compress_for,
    dump_json,
    headers_of,
    read_params,
    reply,
)
from tgres_py import clock
from tgres_py.errors import LimitExceeded
from tgres_py.functions.series import SeriesBlock
from tgres_py.query import explain
from tgres_py.query.consolidate import consolidate_blocks
from tgres_py.query.evaluate import Fetched, evaluate, in_rounds, plan_with
from tgres_py.query.limits import QueryLimits
from tgres_py.query.plan import Plan, RenderRequest
from tgres_py.query.remote import Peers
from tgres_py.query.source import SeriesSource

__all__ = ["Output", "Render", "RenderSettings", "finish", "now_of", "parse_request", "zone_of"]

# up to this many points functions and JSON take a millisecond or two, which a thread isn't worth
INLINE_POINTS_MAX = 5_000
INLINE_GZIP_BYTES_MAX = 128 << 10
# no point and no series of any format takes more; an answer that may be longer than its limit is
# made whole before it is sent
POINT_BYTES_MAX = 64
SERIES_BYTES_MAX = 8_192

T = TypeVar("T")


class RenderSettings(QueryLimits, Protocol):
    @property
    def response_bytes_max(self) -> int: ...
    @property
    def picture_pixels_max(self) -> int: ...
    @property
    def picture_series_max(self) -> int: ...


def finish(
    plan: Plan, fetched: Fetched, output: Output, bytes_max: int, deadline_s: float | None
) -> bytes:
    """Functions, consolidation and the whole body; pure, for a worker thread."""
    body = body_of(plan, compute(plan, fetched, deadline_s), output)
    return b"".join(stream.limited(body, bytes_max))


def compute(plan: Plan, fetched: Fetched, deadline_s: float | None) -> list[SeriesBlock]:
    """A block for each target. FurtherNeeded: see in_rounds."""
    return evaluate(plan, fetched, deadline_s)


def body_of(
    plan: Plan,
    blocks: list[SeriesBlock],
    output: Output,
    stats: dict[str, float] | None = None,
    limits: PictureLimits = DEFAULT_LIMITS,
) -> Iterator[bytes]:
    """The body in pieces, wrapped for jsonp; a picture is one piece.

    maxDataPoints is JSON's alone (as in graphite-web). ``stats``: milliseconds, for meta=true.
    """
    if output.format not in FORMATS:
        look = output.look
        picture = pictures.draw(
            output.format, output.picture, blocks, look.zone, output.slices, limits
        )
        return iter((picture,))
    shown = blocks
    if output.points_max is not None and output.format == "json":
        shown = consolidate_blocks(blocks, output.points_max)
    if output.meta and output.format == "json":
        body = meta.write(plan, blocks, shown, output.look, stats or {})
    else:
        body = FORMATS[output.format].write(shown, output.look)
    return chain((output.jsonp.encode() + b"(",), body, (b")",)) if output.jsonp else body


class Render:
    """The view over one source.

    ``workers`` run what takes longer than a moment; ``drawer``, of one thread, draws pictures: the
    library isn't made for several, and no picture is to keep the workers from series.
    """

    def __init__(
        self,
        source: SeriesSource,
        settings: RenderSettings,
        workers: Executor,
        drawer: Executor | None = None,
        peers: Peers | None = None,
        meters: Meters | None = None,
    ) -> None:
        self.source = source
        self.settings = settings
        self.limits = PictureLimits(settings.picture_pixels_max, settings.picture_series_max)
        self.workers = workers
        self.drawer = drawer or workers
        self.peers = peers
        self.meters = meters or Meters()

    async def view(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        wanted, output = parse_request(params)
        timeout_s = self.settings.query_timeout_s
        watch = _Watch(timeout_s)
        begin_s = watch.last_s
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self.answer(request, wanted, output, watch)
        except TimeoutError:
            raise LimitExceeded(
                "seconds of a query",
                math.ceil(timeout_s) + 1,
                math.ceil(timeout_s),
                "query_timeout_s",
            ) from None
        sent = answer if isinstance(answer, web.Response) else await answer
        self.meters.rendered(output.format, clock.monotonic() - begin_s, watch.laps)
        return sent

    async def answer(
        self, request: web.Request, wanted: RenderRequest, output: Output, watch: _Watch
    ) -> web.Response | Awaitable[web.StreamResponse]:
        """The response, or, when it is long, what sends it."""
        plan = await plan_with(wanted, self.source, self.settings, self.peers)
        watch.lap("plan")
        if output.explain == "plan":
            return await self.explained(request, plan, output, None, watch)
        work: Callable[[Fetched], Awaitable[web.Response | Awaitable[web.StreamResponse]]]
        if output.explain:
            work = partial(self.explained, request, plan, output, watch=watch)
        else:
            work = partial(self.respond, request, plan, output, watch)
        return await in_rounds(plan, self.source, work)

    async def respond(
        self, request: web.Request, plan: Plan, output: Output, watch: _Watch, fetched: Fetched
    ) -> web.Response | Awaitable[web.StreamResponse]:
        watch.lap("fetch")
        if plan.remote is not None:
            failed_of(request).update(plan.remote.failed)
        begin = partial(self.begin, plan, fetched, output, watch)
        if output.format in pictures.CONTENT_TYPES:
            return await self.picture(request, plan, output, begin)
        chunks, first = await self.run(plan.points, begin)
        self.count(plan)
        content_type = "text/javascript" if output.jsonp else FORMATS[output.format].content_type
        if len(first) < stream.CHUNK_BYTES:
            if len(first) <= INLINE_GZIP_BYTES_MAX or not accepts_gzip(request):
                body, headers = compress_for(request, first)
            else:
                body, headers = await self.in_worker(partial(compress_for, request, first))
            return reply(body, content_type, headers, output.cache_s)
        headers = {"Vary": "Accept-Encoding"}
        chunks = chain((first,), chunks)
        if accepts_gzip(request):
            headers["Content-Encoding"] = "gzip"
            chunks = stream.gzipped(chunks)
        return stream.send(
            request, chunks, headers_of(content_type, headers, output.cache_s), self.in_worker
        )

    async def picture(
        self,
        request: web.Request,
        plan: Plan,
        output: Output,
        begin: Callable[[], tuple[Iterator[bytes], bytes]],
    ) -> web.Response:
        loop = asyncio.get_running_loop()
        chunks, first = await loop.run_in_executor(self.drawer, begin)
        self.count(plan)
        body = b"".join((first, *chunks))
        content_type = pictures.CONTENT_TYPES[output.format]
        headers = dict(pictures.HEADERS)
        if output.format == "svg":
            body, packed = await self.in_worker(partial(compress_for, request, body))
            headers.update(packed)
        return reply(body, content_type, headers, output.cache_s)

    def begin(
        self, plan: Plan, fetched: Fetched, output: Output, watch: _Watch
    ) -> tuple[Iterator[bytes], bytes]:
        """The body in chunks and the first of them; one that may become too long is made whole."""
        bytes_max = self.settings.response_bytes_max
        blocks = compute(plan, fetched, watch.deadline_s)
        watch.lap("functions")
        stats = {f"executeplan.{stage}.ms": seconds * 1e3 for stage, seconds in watch.laps.items()}
        body = stream.limited(body_of(plan, blocks, output, stats, self.limits), bytes_max)
        if _bytes_at_most(blocks) > bytes_max:
            body = iter((b"".join(body),))
        chunks = stream.chunked(body)
        return chunks, next(chunks)

    async def explained(
        self,
        request: web.Request,
        plan: Plan,
        output: Output,
        fetched: Fetched | None,
        watch: _Watch,
    ) -> web.Response:
        """explain=1 (with ``fetched``) and explain=plan, as JSON."""

        def work() -> tuple[bytes, dict[str, str]]:
            observed = None
            if fetched is not None:
                watch.lap("fetch")
                observed = explain.Observed()
                evaluate(plan, fetched, watch.deadline_s, observed.add)
                watch.lap("functions")
            text = dump_json(explain.explain(plan, observed, watch.laps), output.look.pretty)
            return compress_for(request, text)

        body, headers = await self.in_worker(work)
        if plan.remote is not None:
            failed_of(request).update(plan.remote.failed)
        return reply(body, headers=headers)

    def count(self, plan: Plan) -> None:
        """Counts what was read, of all rounds of a plan together."""
        self.meters.points_read += plan.points
        self.meters.series_read += sum(len(fetch.ids) for fetch in plan.fetches)

    async def in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.workers, work)

    async def run(self, points: int, work: Callable[[], T]) -> T:
        return work() if points <= INLINE_POINTS_MAX else await self.in_worker(work)


class _Watch:
    """Stages of a request: when it must be done, and how long each took (of rounds all together)."""

    def __init__(self, timeout_s: float) -> None:
        self.last_s = clock.monotonic()
        self.deadline_s = self.last_s + timeout_s
        self.laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now_s = clock.monotonic()
        self.laps[stage] = self.laps.get(stage, 0.0) + now_s - self.last_s
        self.last_s = now_s


def _bytes_at_most(blocks: list[SeriesBlock]) -> int:
    points = sum(part.values.size for block in blocks for part in block.parts)
    return points * POINT_BYTES_MAX + sum(map(len, blocks)) * SERIES_BYTES_MAX
