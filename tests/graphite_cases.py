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
    if [series["n"] for series in expected] != [series["target"] for series in got]:
        return (
            f"names {[series['target'] for series in got]}, expected {[s['n'] for s in expected]}"
        )
    for wanted, series in zip(expected, got, strict=True):
        values = [point[0] for point in series["datapoints"]]
        times = [point[1] for point in series["datapoints"]]
        message = (
            _times_differ(wanted["t"], [time - now_s for time in times])
            or _values_differ(wanted["v"], values, options)
            or (
                None
                if wanted["g"] == series["tags"]
                else f"tags {series['tags']}, expected {wanted['g']}"
            )
        )
        if message:
            return f"{wanted['n']}: {message}"
    return None


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
        if (a is None) != (b is None):
            return f"value {i} is {b}, expected {a}"
        if a is not None and not math.isclose(
            a, b, rel_tol=options.get("rel", 1e-9), abs_tol=slack
        ):
            return f"value {i} is {b!r}, expected {a!r}"
    return None
