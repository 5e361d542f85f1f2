"""/render: parameters to a request, plan, fetch, functions, answer.

Targets and limits are checked before anything is read; functions and formatting run in a worker
thread. Source of the parameters: graphite-web 1.1.10. Decided knowingly: an unknown format is a 400
(there it is a picture); without ``format`` the answer is JSON. An unknown tz and a maxDataPoints
that is no number are ignored, as there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import partial
from typing import Protocol, TypeVar
from zoneinfo import ZoneInfo

from aiohttp import web

from http_api.formats import json
from http_api.reply import Params, check_jsonp, compress_for, read_params, reply
from tgres_py import clock
from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.series import SeriesBlock
from tgres_py.query.consolidate import consolidate_blocks
from tgres_py.query.evaluate import Fetched, evaluate, fetch_all
from tgres_py.query.limits import QueryLimits
from tgres_py.query.plan import Plan, RenderRequest, make_plan
from tgres_py.query.source import SeriesSource
from tgres_py.target.attime import parse_at_time

FROM_DEFAULT = "-1d"
# up to this many points functions and JSON take less than a thread's switch is worth
INLINE_POINTS_MAX = 2_000
MAX_DATA_POINTS_MAX = 10**9

T = TypeVar("T")


class RenderSettings(QueryLimits, Protocol):
    @property
    def response_bytes_max(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Output:
    """How the answer is to look. ``points_max``: maxDataPoints, None = all."""

    points_max: int | None
    no_null_points: bool
    pretty: bool
    jsonp: str | None


def zone_of(params: Params) -> tzinfo:
    """The zone of parameter ``tz``; UTC without one, and when it is unknown (as graphite-web)."""
    try:
        return ZoneInfo(params.get("tz") or "UTC")
    except (KeyError, ValueError, OSError):
        return UTC


def now_of(params: Params, zone: tzinfo) -> int:
    text = params.get("now")
    return parse_at_time(text, clock.now_s(), zone, "now") if text else clock.now_s()


def parse_request(params: Params) -> tuple[RenderRequest, Output]:
    """BadRequest names the parameter."""
    _check_format(params)
    zone = zone_of(params)
    now_s = now_of(params, zone)
    ends = [
        parse_at_time(params.get(name) or default, now_s, zone, name)
        for name, default in (("from", FROM_DEFAULT), ("until", "now"))
    ]
    if ends[0] == ends[1]:
        raise BadRequest("from: Invalid empty time range: from and until are the same second")
    templates = {
        name[len("template[") : -1]: params.get(name) or ""
        for name in params.names()
        if name.startswith("template[") and name.endswith("]")
    }
    request = RenderRequest(
        tuple(params.all("target") or params.all("target[]")),
        min(ends),
        max(ends),
        now_s,
        zone,
        _xff_of(params),
        templates,
    )
    for name in ("cacheTimeout", "local", "noCache"):
        if name == "cacheTimeout" and params.get(name):
            params.number(name)
    output = Output(
        _points_max_of(params),
        "noNullPoints" in params,
        bool(params.get("pretty")),
        check_jsonp(params),
    )
    return request, output


def _check_format(params: Params) -> None:
    wanted = params.get("format")
    if wanted is None:
        wanted = "raw" if "rawData" in params else "pickle" if "pickle" in params else "json"
    if wanted != "json":
        raise BadRequest(f"format: {wanted!r} isn't served; json is")
    if params.get("graphType", "line") != "line":
        raise BadRequest("graphType: only line is served")


def _xff_of(params: Params) -> float:
    text = params.get("xFilesFactor")
    if text is None:
        return 0.0
    try:
        xff = float(text)
    except ValueError:
        xff = math.nan
    if math.isnan(xff):
        raise BadRequest(f"xFilesFactor: {text!r} is no number")
    return xff


def _points_max_of(params: Params) -> int | None:
    """Not a number counts as not given, as in graphite-web; 0 is refused (there a failure)."""
    text = params.get("maxDataPoints") or ""
    if not (text.isascii() and text.isdecimal()):
        return None
    points_max = int(text) if len(text) < 10 else MAX_DATA_POINTS_MAX
    if points_max == 0:
        raise BadRequest("maxDataPoints: must be 1 or more")
    return points_max


def finish(
    plan: Plan, fetched: Fetched, output: Output, bytes_max: int, deadline_s: float | None
) -> bytes:
    """Functions, consolidation and JSON; pure, for a worker thread."""
    blocks: list[SeriesBlock] = evaluate(plan, fetched, deadline_s)
    if output.points_max is not None:
        blocks = consolidate_blocks(blocks, output.points_max)
    body = json.encode(blocks, output.no_null_points, output.pretty, bytes_max)
    return output.jsonp.encode() + b"(" + body + b")" if output.jsonp else body


class Render:
    """The view over one source. ``workers`` run what takes longer than a moment."""

    def __init__(self, source: SeriesSource, settings: RenderSettings, workers: Executor) -> None:
        self.source = source
        self.settings = settings
        self.workers = workers

    async def view(self, request: web.Request) -> web.Response:
        params = await read_params(request)
        wanted, output = parse_request(params)
        timeout_s = self.settings.query_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                body = await self.answer(wanted, output, clock.monotonic() + timeout_s)
                headers: dict[str, str]
                body, headers = await self.run(
                    len(body) // 20, partial(compress_for, request, body)
                )
        except TimeoutError:
            raise LimitExceeded(
                "seconds of a query",
                math.ceil(timeout_s) + 1,
                math.ceil(timeout_s),
                "query_timeout_s",
            ) from None
        return reply(body, "text/javascript" if output.jsonp else "application/json", headers)

    async def answer(self, wanted: RenderRequest, output: Output, deadline_s: float) -> bytes:
        plan = make_plan(wanted, self.source, self.settings)
        fetched = await fetch_all(plan, self.source)
        points = sum(fetch.points for fetch in plan.fetches)
        work = partial(finish, plan, fetched, output, self.settings.response_bytes_max, deadline_s)
        return await self.run(points, work)

    async def run(self, points: int, work: Callable[[], T]) -> T:
        if points <= INLINE_POINTS_MAX:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self.workers, work)
