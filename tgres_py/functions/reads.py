"""What a render function reads and gives, as far as a plan must know before any value is fetched.

``Reads``: over which ranges a function's first argument is evaluated, when not over the call's own.
``Steps``: which steps the result has, given the steps of the series arguments; a lookback counted
in points needs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.series import SeriesBlock
from tgres_py.model.event import EventQuery
from tgres_py.target.attime import parse_interval

Range = tuple[int, int]
StepSet = frozenset[int]
LOOKBACK_S_MAX = 100 * 365 * 86_400
EVENTS_MAX = 100_000  # that one call reads: 20 MB
# As much memory for names as for points, and some names for whoever allows few points.
NAME_CHARS_PER_POINT = 8
NAME_CHARS_MIN = 1 << 20


def name_chars_max(points_max: int) -> int:
    """Characters that the names of one request may have together."""
    return max(NAME_CHARS_MIN, NAME_CHARS_PER_POINT * points_max)


@dataclass(slots=True)
class RequestState:
    """The little that one call of a request leaves to those after it (graphite-web's
    requestContext).

    ``xff``: the xFilesFactor of what is evaluated from now on, which setXFilesFactor changes;
    ``stacks``: by name the running totals of stacked(), (slots,); ``name_chars``: of the names that
    were made of several series' names.
    """

    xff: float = 0.0
    name_chars: int = 0
    stacks: dict[str, NDArray[np.float64]] = field(default_factory=dict)


def _no_limit() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Context:
    """What surrounds one call.

    ``from_s``, ``until_s``: the range asked of it; ``now_s``, ``tz``: of the request;
    ``state``: what earlier calls of the request have left; ``points_max``: the most points a
    function may make; ``windows``: the ranges over which its first argument was read;
    ``event_times_s``: when the events happened that EventReads asked for; ``check_time``: to be called
    in long loops, LimitExceeded when the time of the query is over.
    """

    from_s: int
    until_s: int
    now_s: int
    tz: tzinfo
    state: RequestState = field(default_factory=RequestState)
    points_max: int = 20_000_000
    windows: tuple[Range, ...] = ()
    event_times_s: tuple[float, ...] = ()
    check_time: Callable[[], None] = _no_limit

    @property
    def xff(self) -> float:
        return self.state.xff

    def count_name(self, name: str) -> None:
        """LimitExceeded when such names become longer together than the points may. Each of a
        thousand shares of a sum holds the name of the sum, which holds a thousand names.
        """
        self.state.name_chars += len(name)
        most = name_chars_max(self.points_max)
        if self.state.name_chars > most:
            raise LimitExceeded(
                "characters of names", self.state.name_chars, most, "query_points_max"
            )

    @property
    def lookback_s(self) -> int:
        """Seconds that the first argument was read before ``from_s``."""
        return self.from_s - self.windows[0][0] if self.windows else 0


@dataclass(frozen=True, slots=True)
class Further:
    """What a function returns when it knows only from its arguments' values what else to read.

    ``targets``: expressions, planned and fetched over the call's own range in another round;
    ``finish``: makes the function's result of their blocks, one for each target, in order.
    """

    targets: tuple[str, ...]
    finish: Callable[[list[SeriesBlock]], SeriesBlock]


class Reads(Protocol):
    def windows(
        self, arguments: Mapping[str, Any], steps: Callable[[], StepSet], context: Context
    ) -> tuple[Range, ...]:
        """Ranges for the first argument; more than one: the function takes a list of blocks.

        ``steps()``: the steps that the argument has over the call's own range.
        """


class EventReads:
    """Of a function that reads events instead of series: those with all of its arguments as tags."""

    def windows(
        self, arguments: Mapping[str, Any], steps: Callable[[], StepSet], context: Context
    ) -> tuple[Range, ...]:
        return ()

    def query(self, tags: tuple[str, ...], context: Context) -> EventQuery | None:
        """None: there is nothing to read."""
        if not tags:
            return None
        wanted = None if tags == ("*",) else tags
        return EventQuery(
            context.from_s, context.until_s, wanted, limit=EVENTS_MAX + 1, times_only=True
        )


@dataclass(frozen=True, slots=True)
class Lookback:
    """An interval, or a number of the longest step, before the range: ``parameter`` says how much.

    ``of_future``: also before a range that begins in the future; else nothing is read there, and
    there are no series (as graphite-web, whose moving functions look at the range itself first).
    """

    parameter: str
    of_future: bool = True

    def windows(
        self, arguments: Mapping[str, Any], steps: Callable[[], StepSet], context: Context
    ) -> tuple[Range, ...]:
        amount = arguments[self.parameter]
        if isinstance(amount, str):
            before_s = abs(parse_interval(amount, self.parameter))
        else:
            before_s = int(amount) * max(steps(), default=0)
        if context.from_s > context.now_s and not self.of_future:
            before_s = min(before_s, 0)
        if before_s < 0:
            raise BadRequest(
                f"target: {self.parameter} is {amount}; a number of points can't be negative"
            )
        if before_s > LOOKBACK_S_MAX:
            raise BadRequest(f"target: {self.parameter} is {amount!r}; at most 100 years are read")
        return ((context.from_s - before_s, context.until_s),)


@dataclass(frozen=True, slots=True)
class LookbackAndOwn:
    """Two ranges: that of a Lookback, and the call's own."""

    parameter: str

    def windows(
        self, arguments: Mapping[str, Any], steps: Callable[[], StepSet], context: Context
    ) -> tuple[Range, ...]:
        earlier = Lookback(self.parameter).windows(arguments, steps, context)
        return *earlier, (context.from_s, context.until_s)


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The range, begun earlier where it is shorter than the interval that ``parameter`` says."""

    parameter: str

    def windows(
        self, arguments: Mapping[str, Any], steps: Callable[[], StepSet], context: Context
    ) -> tuple[Range, ...]:
        interval_s = abs(parse_interval(arguments[self.parameter], self.parameter))
        if interval_s > LOOKBACK_S_MAX:
            raise BadRequest(f"target: {self.parameter}: at most 100 years")
        return ((min(context.from_s, context.until_s - interval_s), context.until_s),)


Steps = Callable[[Mapping[str, Any], StepSet, Context], StepSet]


def same_steps(arguments: Mapping[str, Any], steps: StepSet, context: Context) -> StepSet:
    return steps


def common_step(arguments: Mapping[str, Any], steps: StepSet, context: Context) -> StepSet:
    """Of functions that combine series: the least common multiple."""
    return frozenset((math.lcm(*steps),)) if steps else steps


def half_range(arguments: Mapping[str, Any], steps: StepSet, context: Context) -> StepSet:
    """Of functions that draw a line through start, middle and end."""
    return frozenset((max(1, (context.until_s - context.from_s) // 2),))


def step_from(parameter: str) -> Steps:
    """Of functions that make buckets: the interval that an argument says."""

    def steps_of(arguments: Mapping[str, Any], steps: StepSet, context: Context) -> StepSet:
        return frozenset((abs(parse_interval(arguments[parameter], parameter)) or 1,))

    return steps_of
