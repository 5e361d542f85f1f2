"""Functions that make a series of the request's range alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.aggregation import Array
from tgres_py.functions.params import Integer, LooseInteger, String
from tgres_py.functions.reads import Context, StepSet
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Label, SeriesBlock
from tgres_py.model.ident import parse_tags

IDENTITY_STEP_S = 60
_CALL = re.compile(r"[A-Za-z]+\(.+\)")  # its tags aren't read from inside (as graphite-web)


def range_times(function: str, step_s: int, context: Context) -> tuple[Grid, Array]:
    """The grid of the request's range by a step, and its times (slots,). BadRequest: a step below
    1; LimitExceeded: too many points.
    """
    if step_s < 1:
        raise BadRequest(f"target: {function}(): step is {step_s}; it must be at least 1 second")
    slots = max(0, -(-(context.until_s - context.from_s) // step_s))
    if slots > context.points_max:
        raise LimitExceeded(
            f"points made by {function}()", slots, context.points_max, "query_points_max"
        )
    times = context.from_s + step_s * np.arange(slots, dtype=np.float64)
    return Grid(context.from_s, context.until_s, step_s), times


def one_series(name: str, expression: str, grid: Grid, values: Array, xff: float) -> SeriesBlock:
    label = Label(name, expression, _tags_of(name), xff=xff)
    return SeriesBlock.uniform([label], grid, values[None, :])


def _tags_of(name: str) -> dict[str, str]:
    """The tags that a given name holds; of a text that is no series' name it is all name."""
    tagged = ";" in name and all("=" in tag for tag in name.split(";")[1:])
    return parse_tags(name) if tagged and not _CALL.fullmatch(name) else {"name": name}


def _own_step(arguments: Mapping[str, Any], steps: StepSet, context: Context) -> StepSet:
    return frozenset((max(1, arguments["step"]),))


def _minute(arguments: Mapping[str, Any], steps: StepSet, context: Context) -> StepSet:
    return frozenset((IDENTITY_STEP_S,))


@render_function(group="Calculate", steps=_minute)
def identity(name: String, *, context: Context) -> SeriesBlock:
    """The time itself (Unix seconds) as value, each minute.

    eval identity("now")  => now: 1700000039
    """
    grid, times = range_times("identity", IDENTITY_STEP_S, context)
    return one_series(name, f'identity("{name}")', grid, times, context.xff)


@render_function(group="Transform", aliases=("time",), steps=_own_step)
def timeFunction(name: String, step: Integer = 60, *, context: Context) -> SeriesBlock:
    """The time itself (Unix seconds) as value, each ``step`` seconds.

    eval timeFunction("now", 15)  => now: 1700000039 1700000054 1700000069
    """
    grid, times = range_times("timeFunction", step, context)
    return one_series(name, name, grid, times, context.xff)


@render_function(group="Transform", aliases=("sin",), steps=_own_step)
def sinFunction(
    name: String, amplitude: LooseInteger = 1, step: Integer = 60, *, context: Context
) -> SeriesBlock:
    """A sine wave: the sine of the time (Unix seconds, taken for radians) times ``amplitude``.

    eval sinFunction("wave", 2)  => wave: 0.45753953019545707
    """
    grid, times = range_times("sinFunction", step, context)
    return one_series(name, name, grid, np.sin(times) * amplitude, context.xff)
