"""The x axis: which times get a label and a line, in the time zone of the request.

Marks are round in local time (every 3 hours from midnight, every 7 days, the first of a month), also
across a change of the clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

from tgres_py.errors import BadRequest

_M, _H, _D = 60, 3600, 86_400
# (seconds between labels, between thin lines)
_STEPS = (
    *((1, 1), (2, 1), (5, 1), (10, 2), (15, 5), (30, 5), (_M, 15), (2 * _M, 30), (5 * _M, _M)),
    *((10 * _M, 2 * _M), (15 * _M, 5 * _M), (20 * _M, 5 * _M), (30 * _M, 10 * _M), (_H, 15 * _M)),
    *((2 * _H, 30 * _M), (3 * _H, _H), (4 * _H, _H), (6 * _H, 2 * _H), (12 * _H, 3 * _H)),
    *((_D, 6 * _H), (2 * _D, 12 * _H), (4 * _D, _D), (7 * _D, _D), (14 * _D, 7 * _D)),
)
_MONTHS = ((1, 0), (2, 1), (3, 1), (6, 1), (12, 3), (24, 6), (60, 12), (120, 12), (600, 120))
_MONTH_S = 30 * _D
CLOCK_CHANGE_S = 2 * _H
YEAR_MAX = 9_998
GAP = 1.4  # label widths from one label to the next
FORMAT_CHARS_MAX = 100


@dataclass(frozen=True, slots=True)
class TimeMarks:
    """Epoch seconds: ``major`` with ``labels``, ``minor`` without."""

    major: tuple[float, ...]
    labels: tuple[str, ...]
    minor: tuple[float, ...]


def time_marks(
    start_s: float,
    end_s: float,
    width: float,
    zone: tzinfo,
    measure: Callable[[str], float],
    form: str | None = None,
) -> TimeMarks:
    """As many labels as fit side by side. ``width``: pixels from start to end; ``measure``: pixels
    that a text takes; ``form``: of strftime, instead of the one that fits the step.
    """
    span_s = max(1.0, end_s - start_s)
    for step_s, minor_s in _STEPS:
        text = form or _format_of(step_s, span_s)
        if step_s * width / span_s >= GAP * measure(_shown(start_s, text, zone)):
            marks = tuple(_every(start_s, end_s, step_s, zone))
            return _marks(marks, tuple(_every(start_s, end_s, minor_s, zone)), text, zone)
    fitting = (
        (months, minor, text)
        for months, minor in _MONTHS
        for text in (form or ("%Y" if months >= 12 else "%m/%Y"),)
        if months * _MONTH_S * width / span_s >= GAP * measure(_shown(start_s, text, zone))
    )
    months, minor, text = next(fitting, (*_MONTHS[-1], form or "%Y"))
    between = tuple(_months(start_s, end_s, minor, zone)) if minor else ()
    return _marks(tuple(_months(start_s, end_s, months, zone)), between, text, zone)


def _marks(
    major: tuple[float, ...], minor: tuple[float, ...], form: str, zone: tzinfo
) -> TimeMarks:
    labels = tuple(_shown(mark, form, zone) for mark in major)
    return TimeMarks(major, labels, tuple(sorted(set(minor) - set(major))))


def _format_of(step_s: int, span_s: float) -> str:
    if step_s >= _D:
        return "%m/%d"
    if span_s > 2 * _D:
        return "%a %H:%M"
    return "%H:%M" if step_s >= _M else "%H:%M:%S"


def _shown(second: float, form: str, zone: tzinfo) -> str:
    try:
        return datetime.fromtimestamp(second, zone).strftime(form[:FORMAT_CHARS_MAX])
    except (ValueError, OverflowError, OSError):
        raise BadRequest("xFormat: can't be written, or the time is out of range") from None


def _every(start_s: float, end_s: float, step_s: int, zone: tzinfo) -> Iterator[float]:
    """Times that are multiples of the step in local time, counted from midnight (from day 0)."""
    start = datetime.fromtimestamp(start_s, zone)
    day = start.date()
    days = max(1, step_s // _D)
    day -= timedelta(days=day.toordinal() % days)
    last = datetime.fromtimestamp(end_s, zone).date()
    # of a day with few marks near its end not all earlier seconds are tried
    second = max(0, start.hour * _H + start.minute * _M - CLOCK_CHANGE_S) // step_s * step_s
    previous = float("-inf")
    while day <= last:
        for moment in range(second, _D, min(step_s, _D)):
            time = _epoch(day, moment, zone)
            if time > end_s + CLOCK_CHANGE_S:
                return
            if start_s <= time <= end_s and time > previous:
                previous = time
                yield time
        day, second = day + timedelta(days=days), 0


def _months(start_s: float, end_s: float, months: int, zone: tzinfo) -> Iterator[float]:
    first = datetime.fromtimestamp(start_s, zone)
    number = (first.year * 12 + first.month - 1) // months * months
    while number // 12 <= YEAR_MAX:
        time = _epoch(date(number // 12, number % 12 + 1, 1), 0, zone)
        if time > end_s:
            return
        if time >= start_s:
            yield time
        number += months


def _epoch(day: date, second: int, zone: tzinfo) -> float:
    naive = datetime(day.year, day.month, day.day) + timedelta(seconds=second)
    return naive.replace(tzinfo=zone).astimezone(UTC).timestamp()
