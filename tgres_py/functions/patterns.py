"""Regular expressions that users write, run by RE2: linear time whatever they are."""

from __future__ import annotations

from typing import Any

import re2  # type: ignore[import-untyped]  # it comes without types

from tgres_py.errors import BadRequest, LimitExceeded

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False

# Nested substitutions and choices of nodes may double a name each time: 60 of them would make
# 2**60 characters.
NAME_CHARS_MAX = 16_384
REPLACE_CHARS_MAX = 1_024


def compile_pattern(text: str, parameter: str) -> Any:
    """RE2's pattern object. BadRequest names ``parameter``: look-around and back-references are
    refused, too.
    """
    try:
        return re2.compile(text, options=_OPTIONS)
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if error.args else "not RE2"
        raise BadRequest(
            f"target: {parameter} {text!r} is no regular expression: {reason}"
        ) from None


class Substitution:
    r"""A compiled search and replacement; ``\1`` and ``\g<name>`` are what groups have found."""

    def __init__(self, search: str, replace: str) -> None:
        self.replace = replace
        self.pattern = compile_pattern(search, "search")
        if len(replace) > REPLACE_CHARS_MAX:
            raise _too_long("replace", len(replace), REPLACE_CHARS_MAX)

    def __call__(self, text: str) -> str:
        """LimitExceeded: the name grew beyond NAME_CHARS_MAX."""
        try:
            changed = str(self.pattern.sub(self.replace, text))
        except (re2.error, IndexError, ValueError, KeyError):
            raise BadRequest(
                f"target: replace {self.replace!r} names a group that search doesn't have"
            ) from None
        check_name(changed, text)
        return changed


def check_name(changed: str, before: str) -> None:
    """LimitExceeded: a name grew beyond NAME_CHARS_MAX."""
    if len(changed) > max(NAME_CHARS_MAX, len(before)):
        raise _too_long("a substituted name", len(changed), NAME_CHARS_MAX)


def _too_long(what: str, chars: int, most: int) -> LimitExceeded:
    return LimitExceeded(f"characters of {what}", chars, most, "(it is fixed)")
