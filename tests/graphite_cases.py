"""Recorded answers of graphite-web 1.1.10: reading the cases, and comparing an answer with them.

A case's ``expected`` holds the answer of the base time: per series name "n", "t" = [start - now, step, points] (or {"list": …}),
values "v" ("~5" = five nulls, numbers to 12 digits) and tags "g".
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

Case = dict[str, Any]

DATA = Path(__file__).parent / "data"
_EPOCH = re.compile(r"(?<![\d.])(?:1[4-9]\d{8}|2\d{9})(?!\d)")
_FRACTION = re.compile(r"-?\d+\.\d{6,}(?:e[-+]?\d+)?")
_PLACE = re.compile(r"<<now([+-]\d+)?(?:@(-?\d+))?(?::([^>]*))?>>")


def load(name: str) -> list[Case]:
    with (DATA / name).open() as lines:
        return [json.loads(line) for line in lines]


def place(text: str, now_s: int) -> str:
    """``<<now-600:%Y%m%d>>`` and the like, filled in."""

    def fill(match: re.Match[str]) -> str:
        time = now_s + int(match.group(1) or 0)
        if match.group(3) is None:
            return str(time)
        local = datetime.fromtimestamp(time, UTC) + timedelta(hours=int(match.group(2) or 0))
        return local.strftime(match.group(3))

    return _PLACE.sub(fill, text)


def pairs_of(case: Case, now_s: int) -> list[tuple[str, str]]:
    """The parameters of a render case's request."""
    options = case.get("opt") or {}
    extra = [(key, place(value, now_s)) for key, value in case.get("params", ())]
    name = "target[]" if options.get("brackets") else "target"
    pairs = [(name, place(target, now_s)) for target in case["targets"]]
    for key in ("from", "until"):
        value = case[key]
        if value != "__none__":
            pairs.append(
                (key, str(now_s + value) if isinstance(value, int) else place(value, now_s))
            )
    if "now" not in dict(extra):
        pairs.append(("now", str(now_s)))
    return [*pairs, ("format", "json"), *(pair for pair in extra if pair[0] != "format")]


def difference(
    expected: list[Case], got: list[Case], now_s: int, options: dict[str, Any]
) -> str | None:
    """What differs first, None when nothing does. ``got``: the decoded body of format=json."""
    names = [
        None if series["target"] is None else _rebased(series["target"], now_s) for series in got
    ]
    if [series["n"] for series in expected] != names:
        return f"names {names}, expected {[series['n'] for series in expected]}"
    for wanted, series in zip(expected, got, strict=True):
        values = _recorded(series["datapoints"], now_s, options)
        tags = {tag: _rebased(value, now_s) for tag, value in series["tags"].items()}
        times = [point[1] for point in series["datapoints"]]
        message = (
            _times_differ(wanted["t"], [time - now_s for time in times])
            or _values_differ(wanted["v"], values, options)
            or (None if _same_tags(wanted["g"], tags) else f"tags {tags}, expected {wanted['g']}")
        )
        if message:
            return f"{wanted['n']}: {message}"
    return None


def _rebased(text: str, now_s: int) -> str:
    """Epochs near now in names and tags as the answers hold them: ``@{-600}``."""

    def offset(match: re.Match[str]) -> str:
        off = int(match.group()) - now_s
        return match.group() if abs(off) > 400 * 86_400 else f"@{{{off}}}"

    return _EPOCH.sub(offset, text)


def _recorded(points: list[Any], now_s: int, options: dict[str, Any]) -> list[Any]:
    """Values as the answers hold them: those that are times count from now, of a sine it says whether it is one."""
    if "sin" in options:
        size = options["sin"]
        slack = 1e-6 * max(1, size)
        return [
            int(v is not None and abs(v - size * math.sin(time)) <= slack) for v, time in points
        ]
    if options.get("time_values"):
        zero = options.get("value_scale", 1) * now_s
        return [None if v is None else v - zero for v, _ in points]
    return [v for v, _ in points]


def _same_tags(wanted: dict[str, str], got: dict[str, str]) -> bool:
    """Equal, but for the last digits of long fractions (Python's text of a sum)."""
    if wanted.keys() != got.keys():
        return False
    return all(
        text == got[tag]
        or (
            _FRACTION.fullmatch(text) is not None
            and _FRACTION.fullmatch(got[tag]) is not None
            and math.isclose(float(text), float(got[tag]), rel_tol=1e-9)
        )
        for tag, text in wanted.items()
    )


def _times_differ(wanted: Any, times: list[int]) -> str | None:
    if isinstance(wanted, dict):
        expected = wanted["list"]
    else:
        start, step, count = wanted
        expected = [start + i * step for i in range(count)]
    return None if expected == times else f"times {times[:3]}… ({len(times)}), expected {wanted}"


def _values_differ(wanted: list[Any], values: list[Any], options: dict[str, Any]) -> str | None:
    expected: list[float | None] = []
    for value in wanted:
        if isinstance(value, str) and value.startswith("~"):
            expected += [None] * int(value[1:])
        else:
            expected.append(value)
    if len(expected) != len(values):
        return f"{len(values)} values, expected {len(expected)}"
    largest = max((abs(v) for v in expected if isinstance(v, int | float)), default=0.0)
    slack = options.get("abs", 0.0) + options.get("scale", 1e-12) * largest
    for i, (a, b) in enumerate(zip(expected, values, strict=True)):
        # where the arithmetic hangs on the last digit: sqrt of a variance of about zero, or unknown
        if options.get("null_zero") and abs(a or 0) <= 1e-4 and abs(b or 0) <= 1e-4:
            continue
        if (a is None) != (b is None):
            return f"value {i} is {b}, expected {a}"
        if a is not None and not math.isclose(
            a, b, rel_tol=options.get("rel", 1e-9), abs_tol=slack
        ):
            return f"value {i} is {b!r}, expected {a!r}"
    return None
