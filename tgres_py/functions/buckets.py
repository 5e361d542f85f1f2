"""Buckets whose edges depend on the series or on the calendar: smartSummarize, hitcount."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import numpy as np

from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.params import AggFunc, Boolean, Interval, ParamType, Suggest
from tgres_py.functions.reads import Context, Range, StepSet, step_from
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Matrix, Part, SeriesBlock
from tgres_py.functions.transform import bucket_grid, fill_buckets, xff_column
from tgres_py.target.attime import parse_interval
from tgres_py.target.parser import Scalar

_UNITS = ("seconds", "minutes", "hours", "days", "weeks", "months", "years")
_PREFIXES = ("s", "min", "h", "d", "w", "mon", "y")


def _align_to(value: Scalar) -> str | None:
    """A unit of time; the old function took a boolean there, which says nothing now."""
    if isinstance(value, bool) or value is None:
        return None
    if not isinstance(value, str):
        raise ValueError
    unit_of(value)
    return value


def unit_of(text: str) -> str:
    """The unit that a text begins with. ValueError."""
    for prefix, unit in zip(_PREFIXES, _UNITS, strict=True):
        if text.startswith(prefix):
            if unit == "weeks" and text[-1:].isdigit() and text[-1] not in "1234567":
                break
            return unit
    raise ValueError


AlignTo = Annotated[
    str,
    ParamType("string", _align_to, (*_UNITS, "None", "True", "False"), is_open=True),
]


def floor_to_unit(time_s: int, unit: str, context: Context, weekday: int = 1) -> int:
    """The start of the calendar's unit (a week: of the ISO ``weekday``) that a time lies in."""
    local = datetime.fromtimestamp(time_s, context.tz)
    if unit == "years":
        local = local.replace(month=1, day=1)
    elif unit == "months":
        local = local.replace(day=1)
    elif unit == "weeks":
        local -= timedelta(days=(local.isoweekday() - weekday) % 7)
    kept = {"hours": 1, "minutes": 2, "seconds": 3}.get(unit, 0)
    zeroed = dict.fromkeys(("hour", "minute", "second")[kept:], 0)
    return int(local.replace(**zeroed, microsecond=0).timestamp())  # type: ignore[arg-type]  # the fields are numbers


@dataclass(frozen=True, slots=True)
class AlignedToUnit:
    """From the start of the unit that smartSummarize's alignTo names."""

    def windows(
        self, arguments: Mapping[str, Any], steps: Callable[[], StepSet], context: Context
    ) -> tuple[Range, ...]:
        align_to = arguments["alignTo"]
        if align_to is None:
            return ((context.from_s, context.until_s),)
        weekday = int(align_to[-1]) if align_to[-1].isdigit() else 1
        from_s = floor_to_unit(context.from_s, unit_of(align_to), context, weekday)
        return ((from_s, context.until_s),)


@render_function(group="Transform", reads=AlignedToUnit(), steps=step_from("intervalString"))
def smartSummarize(
    seriesList: SeriesBlock,
    intervalString: Annotated[Interval, Suggest("10min", "1h", "1d")],
    func: AggFunc = "sum",
    alignTo: AlignTo | None = None,
    *,
    context: Context,
) -> SeriesBlock:
    """Buckets of ``intervalString`` from the series' first point on, each the ``func`` of its values.

    With ``alignTo`` ("hours", "days", "weeks3" = weeks from Wednesday on, …) the series are read
    from the start of that unit, in the time zone of the request.

    load 10s  a 1 2 3 _ 5
    eval smartSummarize(a, "20s", "sum")  => smartSummarize(a, "20s", "sum"): 3 3 5
    """
    interval_s = _positive(intervalString, "smartSummarize")

    def compute(part: Part) -> tuple[Grid, Matrix]:
        grid = bucket_grid(part, interval_s, True, context.points_max)
        return grid, fill_buckets(part, grid, func, xff_column(seriesList, part))

    with np.errstate(all="ignore"):
        block = seriesList.map_values(compute)
    return block.map_labels(
        lambda label: label.derived(
            f'smartSummarize({label.name}, "{intervalString}", "{func}")',
            smartSummarize=intervalString,
            smartSummarizeFunction=func,
        )
    )


def _positive(interval: str, function: str) -> int:
    interval_s = parse_interval(interval, "intervalString")
    if interval_s <= 0:
        raise BadRequest(f"target: {function}(): intervalString {interval!r} must be positive")
    return interval_s


@dataclass(frozen=True, slots=True)
class AlignedToInterval:
    """From the start of the day, hour or minute, whichever hitcount's interval is at least as long
    as, when alignToInterval is true.
    """

    def windows(
        self, arguments: Mapping[str, Any], steps: Callable[[], StepSet], context: Context
    ) -> tuple[Range, ...]:
        interval_s = parse_interval(arguments["intervalString"], "intervalString")
        from_s = context.from_s
        if arguments["alignToInterval"]:
            for unit, unit_s in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
                if interval_s >= unit_s:
                    from_s = floor_to_unit(from_s, unit, context)
                    break
        return ((from_s, context.until_s),)


@render_function(group="Transform", reads=AlignedToInterval(), steps=step_from("intervalString"))
def hitcount(
    seriesList: SeriesBlock,
    intervalString: Annotated[Interval, Suggest("10min", "1h", "1d")],
    alignToInterval: Boolean = False,
    *,
    context: Context,
) -> SeriesBlock:
    """How often something happened in each ``intervalString``, of series that say how often it does
    each second: value times seconds, split where a bucket ends within a step.

    Buckets are counted back from the end of the range, with ``alignToInterval`` on from the start of
    the day, hour or minute.

    load 10s  a 1 2 3 _ 5 6
    eval hitcount(a, "20s")  => hitcount(a, "20s"): 30 30 110
    eval hitcount(a, "15s")  => hitcount(a, "15s"): 20 40 25 85
    """
    interval_s = _positive(intervalString, "hitcount")
    suffix = ", true" if alignToInterval else ""

    def compute(part: Part) -> tuple[Grid, Matrix]:
        old = part.grid
        span_s = old.end_s - old.start_s
        end_s = old.end_s
        if alignToInterval:
            end_s = old.start_s + (span_s // interval_s + 1) * interval_s
        buckets = -(-(end_s - old.start_s) // interval_s)
        made = buckets * len(part.values)
        if made > context.points_max:
            raise LimitExceeded(
                "points made by hitcount()", made, context.points_max, "query_points_max"
            )
        start_s = end_s - buckets * interval_s
        return Grid(start_s, end_s, interval_s), _hits(part, start_s, buckets, interval_s)

    with np.errstate(all="ignore"):
        block = seriesList.map_values(compute)
    return block.map_labels(
        lambda label: label.derived(
            f'hitcount({label.name}, "{intervalString}"{suffix})', hitcount=intervalString
        )
    )


def _hits(part: Part, start_s: int, buckets: int, interval_s: int) -> Matrix:
    """Value times seconds in each bucket: (k, buckets). The range is cut where a step or a bucket
    ends; each piece belongs to one of both.
    """
    grid, values = part.grid, part.values
    slots = values.shape[1]
    if not buckets:
        return np.empty((len(values), 0))
    edges = start_s + interval_s * np.arange(buckets + 1)
    steps = grid.start_s + grid.step_s * np.arange(slots + 1)
    cuts = np.union1d(edges, steps[(steps > edges[0]) & (steps < edges[-1])])
    slot = (cuts[:-1] - grid.start_s) // grid.step_s
    inside = (slot >= 0) & (slot < slots)
    # a column of NaN for the pieces outside of the data
    padded = np.concatenate([values, np.full((len(values), 1), np.nan)], axis=1)
    pieces = padded[:, np.where(inside, slot, slots)] * np.diff(cuts)
    known = ~np.isnan(pieces)
    first = np.searchsorted(cuts, edges[:-1])
    sums = np.add.reduceat(np.where(known, pieces, 0.0), first, axis=1)
    return np.where(np.add.reduceat(known, first, axis=1), sums, np.nan)
