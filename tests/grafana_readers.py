"""What Grafana reads of an answer: its Go back end's strict types, and what its front end relies on.

Go's encoding/json refuses a float for an int, a text for a list, a number beyond float64 and a member of another type, and
with it the whole answer. Each reader raises Refused then. Source: reference notes on Grafana 5 to 12 (pkg/tsdb/graphite and
the data source's front end).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any


class Refused(Exception):
    """Grafana couldn't read the answer."""


def strict_json(body: bytes) -> Any:
    """JSON as browsers and Go take it: UTF-8, no NaN or Infinity, no number beyond float64."""

    def constant(word: str) -> Any:
        raise Refused(f"{word} is no JSON")

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise Refused(f"{text} doesn't fit a float64")
        return value

    try:
        return json.loads(body.decode(), parse_constant=constant, parse_float=number)
    except ValueError as error:
        raise Refused(f"no JSON: {error}") from None


def _is(value: Any, *kinds: type) -> Any:
    """bool is no int here, as in Go."""
    if type(value) not in kinds:
        raise Refused(f"{value!r} is none of {', '.join(kind.__name__ for kind in kinds)}")
    return value


def _texts(value: Any) -> list[str]:
    return [_is(one, str) for one in _is(value, list)]


def go_render(body: bytes) -> list[dict[str, Any]]:
    """``[]{target, datapoints [][2]number|null, tags map}`` or an object that has it under series."""
    answer = strict_json(body)
    if isinstance(answer, dict):
        answer = answer.get("series")
    series = _is(answer, list)
    for one in series:
        _is(_is(one, dict)["target"], str)
        for value, time in _is(one["datapoints"], list):
            _is(value, float, int, type(None))
            _is(time, float, int)
        _is(one.get("tags", {}), dict)
    return list(series)


def js_render(body: bytes) -> list[dict[str, Any]]:
    """The front end: an array, or an object with an array series; the last word of a target is its query's
    letter.
    """
    answer = strict_json(body)
    series = answer if isinstance(answer, list) else answer.get("series")
    if not isinstance(series, list):
        raise Refused("Missing series in result")
    return series


def go_find(body: bytes) -> list[dict[str, Any]]:
    nodes = _is(strict_json(body), list)
    for node in nodes:
        for name, kind in (
            ("text", str),
            ("id", str),
            ("allowChildren", int),
            ("expandable", int),
            ("leaf", int),
        ):
            _is(node[name], kind)
    return list(nodes)


def expanded(body: bytes) -> list[str]:
    return _texts(_is(strict_json(body), dict)["results"])


def texts(body: bytes) -> list[str]:
    return _texts(strict_json(body))


def tags(body: bytes) -> list[str]:
    return [_is(one["tag"], str) for one in _is(strict_json(body), list)]


def tag_values(body: bytes) -> list[str]:
    return [_is(one["value"], str) for one in _is(strict_json(body)["values"], list)]


def go_events(body: bytes) -> list[dict[str, Any]]:
    events = _is(strict_json(body), list)
    for event in events:
        _is(event["when"], int)
        _is(event["what"], str)
        _is(event["data"], str)
        _texts(event["tags"])
    return list(events)


def functions(body: bytes) -> dict[str, Any]:
    """As text, with the bare word that graphite-web writes replaced; the rest must be JSON."""
    found = json.loads(body.decode().replace('"default": Infinity', '"default": 1e9999'))
    for name, function in _is(found, dict).items():
        if function["name"] != name:
            raise Refused(f"{name} is called {function['name']}")
        _is(function["group"], str)
        _is(function["description"], str)
        for param in _is(function["params"], list):
            _is(param["name"], str)
            _is(param["type"], str)
            _is(param.get("required", False), bool)
            _is(param.get("multiple", False), bool)
            for key in ("options", "suggestions"):
                _is(param.get(key, []), list)
    return dict(found)


def version(body: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in body.decode().strip().split("."))


Reader = Callable[[bytes], Any]
