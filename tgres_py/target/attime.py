"""Times as Graphite users write them (``-1h``, ``noon yesterday``, ``04:00_20260518``), and
intervals.

    time      = epoch | [reference] [offset]                blanks, "_", "," and case mean nothing
    reference = "now" | [clock] [day]                       a day without clock is its midnight
    clock     = H[H]:MM[am|pm] | H[H](am|pm) | noon | midnight | teatime
    day       = today | yesterday | tomorrow | MM/DD/YY[YY] | YYYYMMDD | monthname D[D] | weekday
    offset    = ("+"|"-") 1*( digits unit )                 one sign for all parts
    unit      = s… | min… | h… | d… | w… | mon… | y…        prefixes; mon = 30 days, y = 365 days

All digits are an epoch unless they are eight that look like YYYYMMDD. A weekday is the latest one,
today included. Days are local to the zone; offsets are absolute seconds. Source: graphite-web
1.1.10 (asked by the conformance corpus), its am/pm of twelve included: ``12am`` is noon and
``12pm`` midnight there, and dashboards have lived with it. Where it fails with a traceback this
module says BadRequest.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from tgres_py.errors import BadRequest

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NAMED_CLOCKS = {"noon": 12, "midnight": 0, "teatime": 16}
_NAMED_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1}
# in this order: "min" goes before "mon" by spelling, nothing else is a prefix of another
_UNITS_S = (
    ("s", 1),
    ("min", 60),
    ("h", 3600),
    ("d", 86_400),
    ("w", 604_800),
    ("mon", 30 * 86_400),
    ("y", 365 * 86_400),
)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(am|pm)?")
_HOUR = re.compile(r"(\d{1,2})(am|pm)")
_PART = re.compile(r"(\d+)([a-z]+)", re.ASCII)
INTERVAL_CHARS_MAX = 100
_EPOCH_MAX_S = 253_402_300_799  # the end of year 9999


def parse_at_time(text: str, now_s: int, tz: tzinfo, parameter: str = "time") -> int:
    """Unix seconds of a time expression; ``now_s`` is what ``now`` means. BadRequest names
    ``parameter``.
    """
    try:
        return _parse(text, now_s, tz)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{parameter}: {text!r} is no time: {error}") from None


def parse_interval(text: str, parameter: str = "interval") -> int:
    """Seconds of an interval such as ``5min``, ``1h30min`` or ``-1d`` (negative with a minus sign)."""
    if len(text) > INTERVAL_CHARS_MAX:  # names of series show it
        raise BadRequest(f"{parameter}: an interval has at most {INTERVAL_CHARS_MAX} characters")
    try:
        return _parse_offset(text)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{parameter}: {text!r} is no interval: {error}") from None


def _parse(text: str, now_s: int, tz: tzinfo) -> int:
    text = re.sub(r"[\s_,]", "", text.lower())
    if text.isdecimal() and text.isascii() and not _looks_like_date(text):
        if len(text) > 15 or int(text) > _EPOCH_MAX_S:
            raise ValueError("an epoch in seconds, please, before the year 10000")
        return int(text)
    at = re.search(r"[+-]", text) if "+" not in text else re.search(r"\+", text)
    reference, offset = (text[: at.start()], text[at.start() :]) if at else (text, "")
    seconds = _parse_reference(reference, now_s, tz) + _parse_offset(offset)
    if not 0 <= seconds <= _EPOCH_MAX_S:
        raise ValueError("outside the years 1970 to 9999")
    return seconds


def _looks_like_date(digits: str) -> bool:
    return (
        len(digits) == 8
        and int(digits[:4]) > 1900
        and int(digits[4:6]) < 13
        and int(digits[6:]) < 32
    )


def _parse_reference(text: str, now_s: int, tz: tzinfo) -> int:
    if text in ("", "now"):
        return now_s
    hour, minute, rest = _take_clock(text)
    today = datetime.fromtimestamp(now_s, UTC).astimezone(tz).replace(tzinfo=None)
    day = _parse_day(rest, today.replace(hour=0, minute=0, second=0, microsecond=0))
    if not (0 <= hour < 24 and 0 <= minute < 60):
        raise ValueError("no such time of day")
    return _local_to_epoch(day.replace(hour=hour, minute=minute), tz)


def _take_clock(text: str) -> tuple[int, int, str]:
    """(hour, minute, what follows)."""
    for pattern in (_CLOCK, _HOUR):
        match = pattern.match(text)
        if match:
            minute = int(match.group(2)) if pattern is _CLOCK else 0
            hour = int(match.group(1))
            if match.group().endswith("pm"):
                hour = (hour + 12) % 24
            return hour, minute, text[match.end() :]
    for name, hour in _NAMED_CLOCKS.items():
        if text.startswith(name):
            return hour, 0, text[len(name) :]
    return 0, 0, text


def _parse_day(text: str, today: datetime) -> datetime:
    """Midnight of the day that ``text`` names."""
    if not text:
        return today
    if text in _NAMED_DAYS:
        return today + timedelta(days=_NAMED_DAYS[text])
    if text.count("/") == 2:
        month, day, year = (int(part) for part in text.split("/"))
        year += 1900 if year < 1900 else 0
        year += 100 if year < 1970 else 0
        return datetime(year, month, day)
    if len(text) == 8 and text.isdecimal():
        return datetime(int(text[:4]), int(text[4:6]), int(text[6:]))
    if text[:3] in _MONTHS:
        digits = re.search(r"\d{1,2}$", text)
        if not digits:
            raise ValueError("a month name needs a day of the month")
        return datetime(today.year, _MONTHS.index(text[:3]) + 1, int(digits.group()))
    if text[:3] in _WEEKDAYS:
        return today - timedelta(days=(today.weekday() - _WEEKDAYS.index(text[:3])) % 7)
    raise ValueError(f"unknown day {text!r}")


def _local_to_epoch(local: datetime, tz: tzinfo) -> int:
    """A local time that a clock change repeats or leaves out is read as standard time (as pytz
    does): the later one.
    """
    return max(int(local.replace(tzinfo=tz, fold=fold).timestamp()) for fold in (0, 1))


def _parse_offset(text: str) -> int:
    if not text:
        return 0
    sign = -1 if text[0] == "-" else 1
    body = text[1:] if text[0] in "+-" else text
    total = at = 0
    while at < len(body):
        match = _PART.match(body, at)
        if not match or len(match.group(1)) > 12:
            raise ValueError(f"expected a number and a unit at {body[at : at + 20]!r}")
        total += int(match.group(1)) * _unit_s(match.group(2))
        at = match.end()
    if at == 0:
        raise ValueError("a sign without a number")
    return sign * total


def _unit_s(unit: str) -> int:
    for prefix, seconds in _UNITS_S:
        if unit.startswith(prefix):
            return seconds
    raise ValueError(f"unknown unit {unit!r}; s, min, h, d, w, mon, y are known")
