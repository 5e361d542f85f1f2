"""From a plan's values to the body of an answer: functions, consolidation, format or picture, gzip.

Pure, and the one way in which it is done: in the event loop for small plans, in a thread for middle ones, in a worker
process for large ones and pictures. Source of the formats: graphite-web 1.1.10.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from http_api import chunks, meta, pictures
from http_api.encoding import dump_json
from http_api.formats import FORMATS
from http_api.formats.look import Look
from http_api.pictures import DEFAULT_LIMITS
from http_api.pictures.options import PictureLimits
from tgres_py import clock
from tgres_py.functions.series import SeriesBlock
from tgres_py.query import explain
from tgres_py.query.consolidate import consolidate_blocks
from tgres_py.query.evaluate import Fetched, evaluate
from tgres_py.query.plan import Plan

PICTURES = ("png", "svg", "pdf")
PICTURE_BYTES = 24 << 20  # in a worker that has its libraries; measured: 10 to 20 MB
# no point and no series of any format takes more; an answer that may be longer than its limit is
# made whole before it is sent
POINT_BYTES_MAX = 64
SERIES_BYTES_MAX = 8_192

# a slice of a pie that the target says itself (name:value), or None: the next target's series
Slices = tuple[tuple[str, float] | None, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """How the answer is to look.

    ``format``: one of FORMATS or PICTURES; ``points_max``: maxDataPoints, None = all;
    ``cache_s``: how long caches may keep the answer; ``picture``: all parameters, for pictures;
    ``slices``: of a pie, None = lines; ``explain``: "", "1" (all) or "plan" (nothing is read).
    """

    format: str
    points_max: int | None
    look: Look
    jsonp: str | None
    cache_s: int = 0
    picture: Mapping[str, str] = field(default_factory=dict)
    slices: Slices | None = None
    meta: bool = False
    explain: str = ""

    @property
    def content_type(self) -> str:
        if self.explain:
            return "application/json"
        if self.is_picture:
            return pictures.CONTENT_TYPES[self.format]
        return "text/javascript" if self.jsonp else FORMATS[self.format].content_type

    @property
    def is_picture(self) -> bool:
        return self.format in PICTURES and not self.explain

    @property
    def is_packed(self) -> bool:
        """Whether gzip would find nothing to do."""
        return self.is_picture and self.format != "svg"


# of all formats but pictures, about
OUTPUT_POINT_NS, OUTPUT_SERIES_NS = 120, 12_000
OUTPUT_POINT_BYTES, OUTPUT_SERIES_BYTES = 24, 256
PRETTY_POINT_BYTES = 700  # memory of points that are made into objects for it, one series at a time
PRETTY_TIMES = 2


def output_s(output: Output, points: int, series: int) -> float:
    """Seconds that the writing of so many takes, about."""
    if output.points_max is not None and output.format == "json":
        points = min(points, series * output.points_max)
    return (points * OUTPUT_POINT_NS + series * OUTPUT_SERIES_NS) / 1e9


def output_bytes(output: Output, points: int, series: int, bytes_max: int) -> int:
    """Memory that the body takes at once, about: the whole one where it may be too long (see ``make``), else some chunks.
    A picture's pixels are in memory thrice.
    """
    if output.is_picture:
        pixels = 1
        for side in ("width", "height"):
            text = output.picture.get(side, "")
            pixels *= int(text) if text.isdecimal() and len(text) < 6 else 400
        return PICTURE_BYTES + 12 * pixels
    pretty = 0
    if output.look.pretty:
        pretty = PRETTY_POINT_BYTES * points // max(1, series)
    if _body_bytes_max(output, points, series) <= bytes_max:
        return pretty + 8 * chunks.CHUNK_BYTES
    return pretty + min(bytes_max, points * OUTPUT_POINT_BYTES + series * OUTPUT_SERIES_BYTES)


class Watch:
    """Stages of a request: when it must be done, and how long each took (of rounds all together)."""

    def __init__(self, timeout_s: float, laps: Mapping[str, float] | None = None) -> None:
        self.last_s = clock.monotonic()
        self.deadline_s = self.last_s + timeout_s
        self.laps: dict[str, float] = dict(laps or {})

    def skip(self) -> None:
        """The time until now counts for no stage."""
        self.last_s = clock.monotonic()

    def lap(self, stage: str) -> None:
        now_s = clock.monotonic()
        self.laps[stage] = self.laps.get(stage, 0.0) + now_s - self.last_s
        self.last_s = now_s


@dataclass(slots=True)
class Task:
    """What is to be made. ``gzip``: whether the client takes it; ``bytes_max``: of the body before that;
    ``points_max``: see evaluate; ``seconds_max``: of functions, if that is less than is left.
    """

    output: Output
    watch: Watch
    gzip: bool = False
    bytes_max: int = 200 << 20
    limits: PictureLimits = DEFAULT_LIMITS
    points_max: int | None = None
    seconds_max: float = math.inf

    def deadline_s(self) -> float:
        return min(self.watch.deadline_s, clock.monotonic() + self.seconds_max)


def make(plan: Plan, fetched: Fetched, task: Task) -> chunks.Made:
    """Begins the answer; LimitExceeded, BadRequest and the like come from here, not while it is sent.
    FurtherNeeded: see in_rounds.
    """
    pieces = _explained(plan, fetched, task) if task.output.explain else _body(plan, fetched, task)
    gzip = task.gzip and not task.output.is_packed
    return chunks.begin(pieces, gzip, whole=task.output.is_picture)


def finish(
    plan: Plan, fetched: Fetched, output: Output, bytes_max: int, deadline_s: float | None
) -> bytes:
    """Functions, consolidation and the whole body."""
    return b"".join(
        chunks.limited(body_of(plan, evaluate(plan, fetched, deadline_s), output), bytes_max)
    )


def _body(plan: Plan, fetched: Fetched, task: Task) -> Iterator[bytes]:
    watch = task.watch
    blocks = evaluate(plan, fetched, task.deadline_s(), None, task.points_max)
    watch.lap("functions")
    stats = {f"executeplan.{stage}.ms": seconds * 1e3 for stage, seconds in watch.laps.items()}
    pieces = chunks.limited(body_of(plan, blocks, task.output, stats, task.limits), task.bytes_max)
    points = sum(part.values.size for block in blocks for part in block.parts)
    if _body_bytes_max(task.output, points, sum(map(len, blocks))) > task.bytes_max:
        return iter(list(pieces))
    return pieces


def _explained(plan: Plan, fetched: Fetched, task: Task) -> Iterator[bytes]:
    watch = task.watch
    observed = explain.Observed()
    evaluate(plan, fetched, task.deadline_s(), observed.add, task.points_max)
    watch.lap("functions")
    yield dump_json(explain.explain(plan, observed, watch.laps), task.output.look.pretty)


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


def _body_bytes_max(output: Output, points: int, series: int) -> int:
    """No body of so many is longer."""
    times = PRETTY_TIMES if output.look.pretty else 1
    return times * (points * POINT_BYTES_MAX + series * SERIES_BYTES_MAX)
