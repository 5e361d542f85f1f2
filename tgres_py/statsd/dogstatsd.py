"""DogStatsD's events and service checks: one line each, beside the metrics of a packet.

    event  = "_e{" title_bytes "," text_bytes "}:" title "|" text { "|" field }
             field: "d:" Unix seconds | "h:" host | "k:" aggregation key | "p:" priority | "t:" alert type
                    | "s:" source | "#" tag { "," tag } | others, which are ignored
    check  = "_sc|" name "|" status { "|" field }     status: 0 to 3

The lengths count bytes of UTF-8; in the text, ``\\n`` (two characters) is a line feed. What has no place of its own in a
Graphite event becomes a tag ``key:value``. Source: the DogStatsD datagram format's description, versions 1.0 to 1.3.
"""

from __future__ import annotations

import re

from tgres_py.model.event import Event
from tgres_py.statsd.settings import StatsdSettings

EVENT, CHECK = b"_e{", b"_sc|"
TAG_CHARS_MAX = 200
TAGS_MAX = 100
WAITING_MAX = 1_000  # events that wait for the store
EVENT_BYTES_MAX = 8_192  # as DogStatsD's clients have it; so those that wait are some MB at most

_HEAD = re.compile(rb"_e\{([0-9]{1,7}),([0-9]{1,7})\}:")
_CHECK = re.compile(rb"_sc\|[^|]+\|[0-3](?:\|.*)?", re.DOTALL)
_AS_TAGS = {"h": "host", "k": "aggregation_key", "p": "priority", "t": "alert_type", "s": "source"}


class Inbox:
    """Takes events and service checks out of the stream of lines, as the settings say.

    ``events``: those that wait, for whoever stores them; ``seen``, ``checks`` and ``refused`` (events that found
    no room, or are too long) count since the start.
    """

    def __init__(self, settings: StatsdSettings) -> None:
        self.events: list[Event] = []
        self.seen = 0
        self.checks = 0
        self.refused = 0
        self.reconfigure(settings)

    def reconfigure(self, settings: StatsdSettings) -> None:
        """What it takes from now on."""
        self._takes_events = settings.events
        self._takes_checks = settings.serviceChecks

    def take(self, line: bytes, now_s: int) -> bool | None:
        """None when the line is no business of this class, else whether it was well-formed."""
        if self._takes_events and line.startswith(EVENT):
            event = parse_event(line, now_s)
            if event is None:
                return False
            self.seen += 1
            if len(self.events) < WAITING_MAX and len(line) <= EVENT_BYTES_MAX:
                self.events.append(event)
            else:
                self.refused += 1
            return True
        if self._takes_checks and line.startswith(CHECK):
            good = is_check(line)
            self.checks += good
            return good
        return None


def parse_event(line: bytes, now_s: int) -> Event | None:
    """The event of a line that starts with EVENT; None when it is malformed."""
    head = _HEAD.match(line)
    if head is None:
        return None
    begin = head.end()
    middle = begin + int(head[1])
    end = middle + 1 + int(head[2])
    if not begin < middle < len(line) or line[middle : middle + 1] != b"|" or end > len(line):
        return None
    if line[end : end + 1] not in (b"", b"|", b"\r"):
        return None
    title = line[begin:middle].decode(errors="replace")
    text = line[middle + 1 : end].decode(errors="replace")
    at_s, tags = _fields(line[end + 1 :].decode(errors="replace").rstrip("\r"), now_s)
    return Event(_stored(title), at_s, tuple(tags[:TAGS_MAX]), _stored(text))


def is_check(line: bytes) -> bool:
    """Whether a line that starts with CHECK is a service check."""
    return _CHECK.fullmatch(line) is not None


def _fields(text: str, now_s: int) -> tuple[float, list[str]]:
    """The time and the tags."""
    at_s = float(now_s)
    tags: list[str] = []
    for field in text.split("|") if text else ():
        name, _, value = field.partition(":")
        if field.startswith("#"):
            tags += [_tag(tag) for tag in field[1:].split(",") if tag.strip()]
        elif name == "d" and re.fullmatch("[0-9]{1,11}", value):
            at_s = float(value)
        elif name in _AS_TAGS and value.strip():
            tags.append(_tag(f"{_AS_TAGS[name]}:{value}"))
    return at_s, list(dict.fromkeys(tags))


def _tag(text: str) -> str:
    """A tag without blanks, as the store keeps them."""
    return "_".join(_stored(text).split())[:TAG_CHARS_MAX]


def _stored(text: str) -> str:
    """The text as PostgreSQL takes it (no NUL), with its line feeds."""
    return text.replace("\\n", "\n").replace("\0", "")
