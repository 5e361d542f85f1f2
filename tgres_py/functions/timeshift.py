"""Functions that show other times than the request's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Any

import numpy as np

from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.params import Boolean, Date, Integer, Interval, Suggest
from tgres_py.functions.reads import Context, Range, StepSet
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Label, Matrix, Part, SeriesBlock, concat
from tgres_py.target.attime import parse_at_time, parse_interval

ShiftUnit = Annotated[Interval, Suggest("1h", "6h", "12h", "1d", "2d", "7d", "14d", "30d")]

SHIFTS_MAX = 1_000
SHIFT_S_MAX = 200 * 365 * 86_400


def signed(shift: str) -> str:
    """An interval without a sign lies in the past."""
    return f"-{shift}" if shift[:1].isdigit() else shift


@dataclass(frozen=True, slots=True)
class Shifted:
    """The call's own range, and the one that timeShift's arguments say."""

    def windows(
        self, arguments: Mapping[str, Any], steps: Callable[[], StepSet], context: Context
    ) -> tuple[Range, ...]:
        shift_s = shift_seconds(arguments["timeShift"], 1)
        own = (context.from_s, context.until_s)
        if arguments["alignDst"]:
            shift_s += _dst_change_s(own, shift_s, context.tz)
        return own, (own[0] + shift_s, own[1] + shift_s)


def shift_seconds(interval: str, times: int) -> int:
    """``times`` an interval that is signed by ``signed``. BadRequest when that is centuries."""
    shift_s = parse_interval(signed(interval)) * times
    if abs(shift_s) > SHIFT_S_MAX:
        raise BadRequest(f"target: a shift by {times} times {interval!r} is more than 200 years")
    return shift_s


def _dst_change_s(own: Range, shift_s: int, tz: tzinfo) -> int:
    """Seconds to add so that the shifted range shows the same clock times as the own one."""
    here = [_has_dst(time_s, tz) for time_s in own]
    there = [_has_dst(time_s + shift_s, tz) for time_s in own]
    if all(here) and not any(there):
        return 3_600
    if all(there) and not any(here):
        return -3_600
    return 0


def _has_dst(time_s: int, tz: tzinfo) -> bool:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time_s)
    return bool(moment.astimezone(tz).dst())


@render_function(group="Transform", reads=Shifted())
def timeShift(
    seriesList: list[SeriesBlock],
    timeShift: ShiftUnit,
    resetEnd: Boolean = True,
    alignDst: Boolean = False,
) -> SeriesBlock:
    """The series as they were ``timeShift`` earlier ("+1h": later), at the times of the request.

    With ``resetEnd`` false what reaches beyond the end of the range is kept. ``alignDst``: clock
    times agree though daylight saving time began or ended between.

    load 10s  a 1 2 3 4
    eval timeShift(a, "20s")  => timeShift(a, "-20s"): _ _ 1 2
    """
    own, shifted = seriesList
    if not len(own):
        return own
    first = next(own.rows())[1]
    text = signed(timeShift)

    def place(part: Part) -> tuple[Grid, Matrix]:
        old = part.grid
        end_s = first.end_s if resetEnd else old.end_s - old.start_s + first.start_s
        return Grid(first.start_s, end_s, old.step_s), part.values

    return shifted.map_values(place).map_labels(
        lambda label: tagged(label, timeShift=text).renamed(f'timeShift({label.name}, "{text}")')
    )


def tagged(label: Label, **tags: str) -> Label:
    """The same label with more tags."""
    new = label.renamed(label.name)
    new.tags = {**label.tags, **tags}
    return new


@dataclass(frozen=True, slots=True)
class Stacked:
    """The call's own range, and one for each shift from timeShiftStart to before timeShiftEnd."""

    def windows(
        self, arguments: Mapping[str, Any], steps: Callable[[], StepSet], context: Context
    ) -> tuple[Range, ...]:
        own = (context.from_s, context.until_s)
        shifts = shift_numbers(arguments["timeShiftStart"], arguments["timeShiftEnd"])
        moved = [shift_seconds(arguments["timeShiftUnit"], number) for number in shifts]
        # two at least, so that the function gets a list
        return own, *([(own[0] + s, own[1] + s) for s in moved] or [own])


def shift_numbers(start: int, end: int) -> range:
    """LimitExceeded when there are too many."""
    if end - start > SHIFTS_MAX:
        raise LimitExceeded("shifts of a series", end - start, SHIFTS_MAX, "(it is fixed)")
    return range(start, end)


@render_function(group="Transform", reads=Stacked())
def timeStack(
    seriesList: list[SeriesBlock],
    timeShiftUnit: ShiftUnit = "1d",
    timeShiftStart: Integer = 0,
    timeShiftEnd: Integer = 7,
) -> SeriesBlock:
    """The series as they were ``timeShiftUnit`` times ``timeShiftStart`` … before ``timeShiftEnd``
    earlier, all at the times of the request.

    load 10s  a 1 2 3
    eval timeStack(a, "10s", 0, 2)  => timeShift(a, -10s, 0): 1 2 3 | timeShift(a, -10s, 1): _ 1 2
    """
    own, *shifted = seriesList
    if not len(own):
        return own
    first = next(own.rows())[1]
    unit = signed(timeShiftUnit)

    def place(part: Part) -> tuple[Grid, Matrix]:
        return Grid(first.start_s, first.end_s, part.grid.step_s), part.values

    blocks = []
    for number, block in zip(shift_numbers(timeShiftStart, timeShiftEnd), shifted, strict=False):
        blocks.append(
            block.map_values(place).map_labels(
                lambda label, number=number: label.derived(  # type: ignore[misc]  # mypy infers no types of a lambda's defaults
                    f"timeShift({label.name}, {unit}, {number})",
                    timeShiftUnit=unit,
                    timeShift=str(number),
                )
            )
        )
    return concat(blocks)


@render_function(group="Transform")
def timeSlice(
    seriesList: SeriesBlock, startSliceAt: Date, endSliceAt: Date = "now", *, context: Context
) -> SeriesBlock:
    """Only the values from ``startSliceAt`` to ``endSliceAt``; all others are unknown.

    Which values these are is counted from the start of the request, as in graphite-web.

    load 10s  a 1 2 3 4
    eval timeSlice(a, 1700000050, 1700000065)  => timeSlice(a, 1700000050, 1700000065): _ _ 3 _
    """
    start_s = moment(startSliceAt, "timeSlice", "startSliceAt", context)
    end_s = moment(endSliceAt, "timeSlice", "endSliceAt", context)

    def compute(part: Part) -> tuple[Grid, Matrix]:
        times = context.from_s + part.grid.step_s * np.arange(part.values.shape[1])
        return part.grid, np.where((times < start_s) | (times > end_s), np.nan, part.values)

    return seriesList.map_values(compute).map_labels(
        lambda label: tagged(label, timeSliceStart=str(start_s), timeSliceEnd=str(end_s)).renamed(
            f"timeSlice({label.name}, {start_s}, {end_s})"
        )
    )


def moment(value: int | str, function: str, parameter: str, context: Context) -> int:
    """Unix seconds of a date argument."""
    try:
        return parse_at_time(str(value), context.now_s, context.tz, parameter)
    except BadRequest as error:
        raise BadRequest(f"target: {function}(): {error}") from None
