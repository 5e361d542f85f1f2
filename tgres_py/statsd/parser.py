"""One line of a statsd packet to events, as etsy's daemon reads it.

    packet    = line { LF line }                     empty lines are nothing
    line      = specs [ "|#" tag { "," tag } ]       what follows a second "|#" is ignored
    specs     = key { ":" spec }                     several values in one line; no spec at all is a bad line
    spec      = value "|" type [ "|" "@" rate ]      later fields are ignored
    type      = "ms" timer | "g" gauge | "s" set | anything else: counter     trimmed, after the checks

A spec is bad when it has no type; when its third field isn't ``@`` and a number that doesn't start with ``-``; when its
value isn't a number of JavaScript's (type ``s``: anything goes; ``ms``: not below 0, either). The checks see the type as it
was sent, so ``s`` with a CR behind it needs a number. A bad spec costs itself; the rest of the line goes on.
Numbers are JavaScript's ``Number(text)``: blanks around, hex, octal and binary pass, a text of blanks is 0, digits are ASCII.
The rate that counts is the digits and dots after ``@`` (``@1e-1`` is 1, ``@0`` gives infinity); where there are none
(``@+1``) the daemon dies: here the spec is bad. A gauge's value with a sign in front is a change, if the gauge is known and not 0.

Tags: in each the first ``;`` becomes ``_``, the first ``:`` becomes ``=``; they follow the key, each after a ``;``.
Keys: runs of blanks become ``_``, ``/`` becomes ``-``, whatever isn't a letter, a digit or one of ``_-.;=`` goes.

Source: stats.js and lib/helpers.js of npm statsd 0.9.0, and its answers (tests/data/statsd/). What others added
to the protocol is off unless the settings ask for it, since it changes what some lines mean.
"""

from __future__ import annotations

import math
import re
from enum import IntEnum
from typing import NamedTuple

from tgres_py.statsd.settings import StatsdSettings

LINE_BYTES_MAX = 65_536

JS_BLANKS = "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_BLANKS = re.compile(f"[{JS_BLANKS}]+")
_FORBIDDEN = re.compile(r"[^a-zA-Z_\-0-9.;=]")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PREFIXED = re.compile(r"0(?:[xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)")
_INFINITE = {"Infinity": math.inf, "+Infinity": math.inf, "-Infinity": -math.inf}
_RATE = re.compile(r"@([0-9.]+)")
# Fields that DogStatsD clients add after the type: container, external data, cardinality.
_EXTRA_FIELDS = re.compile(r"\|(?:c:(?:ci-|in-|[0-9a-f]{32})[^|]*|e:[^|]*|card:[^|]*)")
_TIMESTAMP = re.compile(r"\|T([0-9]{1,11})(?=\||$)")


class Kind(IntEnum):
    """What an event does. A gauge with a sign changes the one that is there."""

    COUNT = 0
    TIME = 1
    GAUGE = 2
    GAUGE_SIGNED = 3
    MEMBER = 4


class Event(NamedTuple):
    """``value``: number, or a set's member as text; ``weight``: how many the event stands for, 1/rate."""

    kind: Kind
    key: str
    value: float | str
    weight: float = 1.0
    time_s: int | None = None


def js_number(text: str) -> float | None:
    """JavaScript's ``Number(text)``; None for NaN."""
    text = text.strip(JS_BLANKS)
    if _DECIMAL.fullmatch(text):
        return float(text)
    if not text:
        return 0.0
    if _PREFIXED.fullmatch(text):
        try:
            return float(int(text, 0))
        except OverflowError:
            return math.inf
    return _INFINITE.get(text)


def is_number(text: str) -> bool:
    """What passes as a number in a line: not empty, and a number of JavaScript's."""
    return text != "" and js_number(text) is not None


def clean_key(key: str) -> str:
    """The key as Graphite takes it."""
    return _FORBIDDEN.sub("", _BLANKS.sub("_", key).replace("/", "-"))


class LineParser:
    """Reads lines as the settings say; keeps nothing in between."""

    def __init__(self, settings: StatsdSettings) -> None:
        self._sanitize = settings.keyNameSanitize
        self._packed = settings.valuePacking
        self._timers = frozenset(("ms", *settings.timerTypes))
        self._timestamps = settings.timestamps
        self._extra_fields = settings.extraFields
        self._tag_styles = frozenset(settings.tagStyles)

    @property
    def plain(self) -> bool:
        """True when plain lines (key, number, c, g, ms or s, a rate, tags) mean what etsy says."""
        return self._timers.isdisjoint(("c", "g", "s")) and self._sanitize

    def parse(self, line: str) -> tuple[str, list[Event], int]:
        """(key, events of the line in their order, how many of its specs were bad)."""
        time_s = None
        if self._timestamps and (stamp := _TIMESTAMP.search(line)):
            time_s = int(stamp[1])
            line = line[: stamp.start()] + line[stamp.end() :]
        if self._extra_fields:
            line = _EXTRA_FIELDS.sub("", line)
        parts = line.split("|#")
        key, *specs = parts[0].split(":")
        tags: list[str] = []
        if self._tag_styles:
            key, tags = _tags_in_key(key, self._tag_styles)
        if len(parts) > 1 and parts[1]:
            tags += parts[1].split(",")
        if tags:
            key += ";" + ";".join(t.replace(";", "_", 1).replace(":", "=", 1) for t in tags)
        if self._sanitize:
            key = clean_key(key)
        if self._packed:
            specs = _unpack(specs)
        events: list[Event] = []
        bad = 0
        for spec in specs or ["1"]:
            event = self._event(key, spec.split("|"), time_s)
            if event is None:
                bad += 1
            else:
                events.append(event)
        return key, events, bad

    def _event(self, key: str, fields: list[str], time_s: int | None) -> Event | None:
        """The event of one spec; None when it is bad."""
        weight = _weight(fields)
        if weight is None:
            return None
        text, raw_type = fields[0], fields[1]
        kind = raw_type.strip(JS_BLANKS)
        number = js_number(text) if text else None
        if kind == "s" and (raw_type == "s" or number is not None):
            return Event(Kind.MEMBER, key, text or "0")
        if number is None or (raw_type == "ms" and number < 0):
            return None
        if kind in self._timers:
            return Event(Kind.TIME, key, number, weight)
        if kind == "g":
            signed = text[0] in "+-"
            return Event(Kind.GAUGE_SIGNED if signed else Kind.GAUGE, key, number, 1.0, time_s)
        return Event(Kind.COUNT, key, number * weight, weight, time_s)


def _weight(fields: list[str]) -> float | None:
    """1/rate, 1 without a rate; None when the type is missing or the rate bad."""
    if len(fields) < 3:
        return 1.0 if len(fields) == 2 else None
    rate = _RATE.match(fields[2])
    if rate is None or not is_number(fields[2][1:]):
        return None
    number = js_number(rate[1])
    if number is None:
        return None
    return 1 / number if number else math.inf


def _unpack(specs: list[str]) -> list[str]:
    """``1``, ``2``, ``3|ms`` to three specs of the last one's type."""
    out: list[str] = []
    waiting: list[str] = []
    for spec in specs:
        value, bar, rest = spec.partition("|")
        if bar:
            out += [f"{other}|{rest}" for other in waiting]
            out.append(spec)
            waiting = []
        else:
            waiting.append(value)
    return out + waiting


def _tags_in_key(key: str, styles: frozenset[str]) -> tuple[str, list[str]]:
    """A key and the tags that are spelled in it."""
    if "signalfx" in styles:
        head, bracket, rest = key.partition("[")
        tags, closing, tail = rest.partition("]")
        if bracket and closing:
            return head + tail, tags.split(",") if tags else []
    for style, mark in (("librato", "#"), ("influx", ",")):
        head, found, tags = key.partition(mark)
        if style in styles and found and "=" in tags:
            return head, tags.split(",")
    return key, []
