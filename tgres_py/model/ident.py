"""Names of series: what a sender may send, and the one spelling under which it is stored.

    name  = path { ";" tag "=" value }
          | path "{" tag "=" '"' value '"' { "," tag "=" '"' value '"' } "}"     (OpenMetrics)
    path  = elements joined by dots: runs of dots collapse, dots at either end are cut off
    tag   = at least one character, none of ; ! ^ =
    value = at least one character, no ;, not starting with ~

Canonical: the path, then ``;tag=value`` sorted as text; of a tag given twice the last counts; a tag
called ``name`` is dropped, since the path is it; each ``~`` before the path is cut off.
Letters of any script are allowed; white space and control characters anywhere are refused.
Rules: carbon 1.1.10, ``TaggedSeries``; the dots are what carbon's directories make of them.
"""

from __future__ import annotations

import re
import unicodedata

from tgres_py.errors import BadRequest
from tgres_py.model.points import Reason

NAME_BYTES_MAX = 1_024
TAGS_MAX = 64

_TAG_FORBIDDEN = re.compile(r"[;!^=]")
_DOTS = re.compile(r"\.{2,}")
_OPENMETRICS_TAG = re.compile(r'([^="]+)="((?:\\["\\]|[^"\\])+)"(?:,|$)')
_REFUSED_CATEGORIES = frozenset(("Cc", "Cs", "Zs", "Zl", "Zp"))


class NameRefused(BadRequest):
    """A name that no series can have. ``reason``: NAME, or LIMIT when it is too long."""

    counter = "name"

    def __init__(self, message: str, reason: Reason = Reason.NAME) -> None:
        super().__init__(message)
        self.reason = reason


def canonical(name: str, name_bytes_max: int = NAME_BYTES_MAX, tags_max: int = TAGS_MAX) -> str:
    """The canonical spelling of a name as sent. NameRefused when no series can have it.

    ``name_bytes_max``: of the name as sent and of its canonical spelling, in UTF-8.
    """
    _check_characters(name, name_bytes_max)
    if name.endswith('"}') and "{" in name.partition(";")[0]:
        path, tags = _split_openmetrics(name)
    elif ";" in name:
        path, tags = _split_carbon(name)
    else:
        return _clean_path(name, name)
    if len(tags) > tags_max:
        raise NameRefused(
            f"{_shown(name)} has {len(tags)} tags; setting tags_max allows {tags_max}", Reason.LIMIT
        )
    path = _clean_path(path, name)
    tags.pop("name", None)
    return path + "".join(sorted(f";{tag}={value}" for tag, value in tags.items()))


def parse_tags(canonical_name: str) -> dict[str, str]:
    """The tags of a canonical name; its path is the tag ``name``."""
    path, *tags = canonical_name.split(";")
    return {"name": path, **dict(tag.split("=", 1) for tag in tags)}


def _check_characters(name: str, name_bytes_max: int) -> None:
    if not name.isascii() or not name.isprintable() or " " in name:
        for character in name:
            if character.isspace() or unicodedata.category(character) in _REFUSED_CATEGORIES:
                raise NameRefused(
                    f"{_shown(name)} holds a blank or control character (U+{ord(character):04X})"
                )
    size = len(name) if name.isascii() else len(name.encode())
    if size > name_bytes_max:
        raise NameRefused(
            f"{_shown(name)} is {size} bytes long; setting name_bytes_max allows {name_bytes_max}", Reason.LIMIT
        )


def _clean_path(path: str, name: str) -> str:
    if ".." in path:
        path = _DOTS.sub(".", path)
    path = path.lstrip("~.").rstrip(".")
    if not path:
        raise NameRefused(f"{_shown(name)} is an empty name")
    return path


def _split_carbon(name: str) -> tuple[str, dict[str, str]]:
    path, *segments = name.split(";")
    tags = {}
    for segment in segments:
        tag, equals, value = segment.partition("=")
        if not equals:
            raise NameRefused(f"{_shown(segment)} in {_shown(name)} is not tag=value")
        tags[_checked_tag(tag, name)] = _checked_value(value, name)
    return path, tags


def _split_openmetrics(name: str) -> tuple[str, dict[str, str]]:
    path, rest = name[:-1].split("{", 1)
    tags = {}
    while rest:
        match = _OPENMETRICS_TAG.match(rest)
        if not match:
            raise NameRefused(f'{_shown(rest)} in {_shown(name)} is not tag="value"')
        tag, value = match.groups()
        value = re.sub(r'\\(["\\])', r"\1", value)
        tags[_checked_tag(tag, name)] = _checked_value(value, name)
        rest = rest[match.end() :]
    return path, tags


def _checked_tag(tag: str, name: str) -> str:
    if not tag or _TAG_FORBIDDEN.search(tag):
        raise NameRefused(f"tag {_shown(tag)} in {_shown(name)} is empty or holds one of ; ! ^ =")
    return tag


def _checked_value(value: str, name: str) -> str:
    if not value or ";" in value or value[0] == "~":
        raise NameRefused(
            f"tag value {_shown(value)} in {_shown(name)} is empty, holds ; or starts with ~"
        )
    return value


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")
