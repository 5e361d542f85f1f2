"""Regular expressions of the rule files as fast tests of names.

A rule's pattern is searched in the name (carbon: ``re.search``). Most patterns are a text at the start
(``^carbon\\.``), at the end (``\\.min$``), anywhere, or everything (``.*``): these become str methods. All
others go to google-re2, behind a look for a text that the name must hold; so no pattern of a user
can take more than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import re2  # type: ignore[import-untyped]  # it comes without types

from tgres_py.errors import ConfigError

PATTERN_CHARS_MAX = 4_096

_META = frozenset("\\^$.|?*+()[]{}")
# What Python's re takes and RE2 refuses.
_PYTHON_ONLY = (
    (re.compile(r"\(\?<?[=!]"), "look-around"),
    (re.compile(r"\(\?P=|\\[1-9]"), "a back-reference"),
    (re.compile(r"\(\?\("), "a conditional group"),
    (re.compile(r"\(\?>|[*+?}]\+"), "an atomic group or possessive quantifier"),
    (re.compile(r"\(\?#"), "a comment"),
    (re.compile(r"\\Z"), r"\Z (write $)"),
    (re.compile(r"\(\?[aLux]"), "a flag"),
)
_OPEN_REPEAT = re.compile(r"\{,[0-9]+\}")  # RE2 takes it, but as plain text


@dataclass(frozen=True, slots=True)
class NameTest:
    """``matches(name)``: whether the pattern is found in the name.

    ``prefix``, ``suffix``, ``inside``: text that every matching name begins with, ends with, holds; at
    most one is not empty. ``takes_all``: every name matches.
    """

    matches: Callable[[str], bool]
    prefix: str = ""
    suffix: str = ""
    inside: str = ""
    takes_all: bool = False


def compile_test(pattern: str) -> NameTest:
    """The fastest test that is equal to searching ``pattern``. ConfigError says why it can't be used."""
    regex = _compile(pattern)
    anchored = pattern.startswith("^")
    text, rest = _leading_literal(pattern.removeprefix("^"))
    if not text and rest in ("", ".*", ".*$"):
        return NameTest(lambda name: True, takes_all=True)
    if text and rest == "$" and not anchored:
        return NameTest(lambda name: name.endswith(text), suffix=text)
    if text and rest in ("", ".*", ".*$"):
        if anchored:
            return NameTest(lambda name: name.startswith(text), prefix=text)
        return NameTest(lambda name: text in name, inside=text)
    if "|" in pattern:  # the text may belong to one of the alternatives only
        text = ""
    return NameTest(
        lambda name: text in name and regex.search(name) is not None,  # the search takes 1 µs
        prefix=text if anchored else "",
        inside="" if anchored else text,
    )


def compile_look(tests: Sequence[NameTest]) -> Callable[[Sequence[str]], bool]:
    """A quick look at many names at once: False when none of them has the text that any test needs.

    One search over all of them costs a tenth of a look at each.
    """
    texts = [
        *(f"^{re2.escape(test.prefix)}" for test in tests if test.prefix),
        *(f"{re2.escape(test.suffix)}$" for test in tests if test.suffix),
        *(re2.escape(test.inside) for test in tests if test.inside),
    ]
    pattern = f"(?m){'|'.join(texts)}"
    if not tests:
        return lambda names: False
    if len(texts) < len(tests) or len(pattern) > PATTERN_CHARS_MAX:
        return lambda names: True
    regex = _compile(pattern)
    return lambda names: regex.search("\n".join(names)) is not None


def _compile(pattern: str) -> re2._Regexp:
    if len(pattern) > PATTERN_CHARS_MAX:
        raise ConfigError(f"the pattern is longer than {PATTERN_CHARS_MAX} characters")
    if _OPEN_REPEAT.search(pattern):
        raise ConfigError(f"the pattern {pattern} has a repeat without lower end; write {{0,n}}")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
    for syntax, name in _PYTHON_ONLY:
        if syntax.search(pattern):
            raise ConfigError(
                f"the pattern {pattern} uses {name}, which RE2, the linear-time matcher used here,"
                " does not have; write it without"
            )
    raise ConfigError(f"the pattern {pattern} is no regular expression that RE2 takes: {reason}")


def _leading_literal(pattern: str) -> tuple[str, str]:
    """The text that a match must begin with, and the rest of the pattern."""
    text: list[str] = []
    starts: list[int] = []
    position = 0
    while position < len(pattern):
        character, width = pattern[position], 1
        if character == "\\":
            character, width = pattern[position + 1], 2
            if character.isalnum():  # a class such as \d
                break
        elif character in _META:
            break
        text.append(character)
        starts.append(position)
        position += width
    if pattern[position : position + 1] in ("?", "*", "+", "{") and text:
        text.pop()  # the quantifier makes the last character optional or repeated
        position = starts.pop()
    return "".join(text), pattern[position:]
