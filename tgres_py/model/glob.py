"""Graphite's path patterns, matched in time linear in pattern and names.

    pattern = element { "." element }
    element = "**"                      any number of levels, none too; at the end: all that is below
            | piece { piece }           matches one level
    piece   = "*" any characters  | "?" one character
            | "[" ["!"] set "]"   one character of (not of) the set; a-c is a range
            | "{" element { "," element } "}"   one of them; may nest
            | any other character: itself

Backslashes are dropped before anything else. A bracket or brace without its partner is itself, as are
braces and brackets that a dot splits. Case counts. Source: graphite-web 1.1.10 (finders, fnmatch).

User patterns never reach Python's ``re``: the common shapes (``*``, ``lit*``, ``*lit``, ``lit*lit``,
lists of literals) become str and set operations, all others google-re2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import re2  # type: ignore[import-untyped]  # it comes without types

from tgres_py.errors import BadRequest, LimitExceeded

PATTERN_CHARS_MAX = 16_384
ELEMENTS_MAX = 128
BRACE_DEPTH_MAX = 16
KEPT_CHARS_MAX = 256  # the matchers of longer elements aren't kept
LITERALS_MAX = 4_096  # an element of more literal variants than this is matched by re2

GLOBSTAR = "**"
_MAGIC = frozenset("*?[{")
_RE2_MEMORY_BYTES = 8 * 1024 * 1024  # re2 keeps 128 compiled patterns


@dataclass(frozen=True, slots=True)
class ElementMatcher:
    """Matches one element of a path.

    ``literals``: the only names that match, each once, when there are few of them; else None.
    ``filter``: the names that match, in the order given. Names hold no newline.
    ``ends``: (head, tail) when those names match that start and end so, without overlap.
    """

    pattern: str
    literals: tuple[str, ...] | None
    filter: Callable[[Iterable[str]], list[str]]
    ends: tuple[str, str] | None = None

    def matches(self, name: str) -> bool:
        return bool(self.filter((name,)))


def split_pattern(pattern: str) -> list[str]:
    """The elements of a pattern, without backslashes. LimitExceeded when it is too long."""
    if len(pattern) > PATTERN_CHARS_MAX:
        raise LimitExceeded(
            "characters of a path pattern", len(pattern), PATTERN_CHARS_MAX, "PATTERN_CHARS_MAX"
        )
    elements = pattern.replace("\\", "").split(".")
    if len(elements) > ELEMENTS_MAX:
        raise LimitExceeded(
            "elements of a path pattern", len(elements), ELEMENTS_MAX, "ELEMENTS_MAX"
        )
    return elements


def has_magic(pattern: str) -> bool:
    """Whether the pattern may match anything but itself."""
    return not _MAGIC.isdisjoint(pattern)


def compile_element(pattern: str) -> ElementMatcher:
    """A matcher of one element (not of ``**``). LimitExceeded for braces nested too deeply."""
    if not has_magic(pattern):
        return _literal_matcher(pattern, (pattern,))
    if ends := _star_ends(pattern):
        return ElementMatcher(pattern, None, _ends_filter(*ends), ends)
    return _compile_kept(pattern) if len(pattern) <= KEPT_CHARS_MAX else _compile(pattern)


def _compile(pattern: str) -> ElementMatcher:
    """Of an element with braces, sets, question marks or several stars."""
    tree = _parse(pattern)
    if literals := _expand_literals(tree):
        return _literal_matcher(pattern, literals)
    if _has_open_set(tree) and (variants := _variants(tree)):
        # a set that goes on behind a brace: braces come first, as in graphite-web
        tree = [_Piece("", tuple([_Piece(text)] for text in variants))]
    return ElementMatcher(pattern, None, _re2_filter(pattern, tree))


# as many as re2 itself keeps, so that no more of its memory is held
_compile_kept = lru_cache(maxsize=128)(_compile)


def _literal_matcher(pattern: str, literals: tuple[str, ...]) -> ElementMatcher:
    wanted = frozenset(literals)
    return ElementMatcher(pattern, literals, lambda names: [n for n in names if n in wanted])


def _star_ends(pattern: str) -> tuple[str, str] | None:
    """What is before and after ``*``, when it is the only magic and occurs once (or as a run)."""
    head, star, tail = pattern.partition("*")
    tail = tail.lstrip("*")
    if not star or has_magic(head) or has_magic(tail):
        return None
    return head, tail


def _ends_filter(head: str, tail: str) -> Callable[[Iterable[str]], list[str]]:
    if not head and not tail:
        return list
    if not tail:
        return lambda names: [n for n in names if n.startswith(head)]
    if not head:
        return lambda names: [n for n in names if n.endswith(tail)]
    least = len(head) + len(tail)
    return lambda names: [
        n for n in names if n.startswith(head) and n.endswith(tail) and len(n) >= least
    ]


def _re2_filter(pattern: str, tree: list[_Piece]) -> Callable[[Iterable[str]], list[str]]:
    """One search over all names, joined by newlines: a call for each name would cost far more."""
    options = re2.Options()
    options.max_mem = _RE2_MEMORY_BYTES
    options.log_errors = False
    try:
        regex = re2.compile(f"(?m)^{_to_regex(tree)}$", options)
    except re2.error as error:
        raise BadRequest(f"path pattern {pattern!r} can't be compiled: {error}") from error

    def matching(names: Iterable[str]) -> list[str]:
        text = "\n".join(names).encode()
        if not text:  # one empty line would match ``*``
            return []
        return [match.group().decode() for match in regex.finditer(text)]

    return matching


@dataclass(frozen=True, slots=True)
class _Piece:
    """Either text in fnmatch's language, or alternatives of a brace."""

    text: str
    alternatives: tuple[list[_Piece], ...] = ()


def _parse(pattern: str) -> list[_Piece]:
    partner = _brace_partners(pattern)

    def sequence(position: int, end: int) -> list[_Piece]:
        pieces: list[_Piece] = []
        start = position
        while position < end:
            close = partner.get(position)
            if close is None:
                position += 1
                continue
            pieces.append(_Piece(pattern[start:position]))
            inner = [position, *commas(position + 1, close), close]
            pieces.append(
                _Piece("", tuple(sequence(a + 1, b) for a, b in itertools.pairwise(inner)))
            )
            position = start = close + 1
        pieces.append(_Piece(pattern[start:end]))
        return [piece for piece in pieces if piece.text or piece.alternatives]

    def commas(position: int, end: int) -> Iterator[int]:
        while position < end:
            if pattern[position] == ",":
                yield position
            position = partner.get(position, position) + 1

    return sequence(0, len(pattern))


def _brace_partners(pattern: str) -> dict[int, int]:
    """Position of each opening brace that is closed: position of its partner."""
    opened: list[int] = []
    partner: dict[int, int] = {}
    for position, character in enumerate(pattern):
        if character == "{":
            opened.append(position)
        elif character == "}" and opened:
            partner[opened.pop()] = position
            if len(opened) >= BRACE_DEPTH_MAX:
                raise LimitExceeded(
                    "nested braces", len(opened) + 1, BRACE_DEPTH_MAX, "BRACE_DEPTH_MAX"
                )
    return partner


def _expand_literals(tree: list[_Piece]) -> tuple[str, ...]:
    """All variants, each once; empty when there is other magic than braces, or too many of them."""
    return () if any(map(_is_magic, tree)) else _variants(tree)


def _is_magic(piece: _Piece) -> bool:
    """Whether there is other magic than braces."""
    return not _MAGIC.isdisjoint(piece.text.replace("{", "")) or any(
        map(_is_magic, itertools.chain(*piece.alternatives))
    )


def _has_open_set(tree: list[_Piece]) -> bool:
    return any(
        ("[" in piece.text and "]" not in piece.text.rpartition("[")[2])
        or any(map(_has_open_set, piece.alternatives))
        for piece in tree
    )


def _variants(tree: list[_Piece]) -> tuple[str, ...]:
    """All texts that the braces stand for, each once; empty when there are too many of them."""
    variants: dict[str, None] = {"": None}
    for piece in tree:
        tails: list[str] = [] if piece.alternatives else [piece.text]
        for alternative in piece.alternatives:
            expanded = _variants(alternative)
            if not expanded:
                return ()
            tails.extend(expanded)
        if len(variants) * len(tails) > LITERALS_MAX:
            return ()
        variants = {head + tail: None for head in variants for tail in tails}
    return tuple(variants)


def _to_regex(tree: list[_Piece]) -> str:
    return "".join(
        f"(?:{'|'.join(map(_to_regex, piece.alternatives))})"
        if piece.alternatives
        else _text_to_regex(piece.text)
        for piece in tree
    )


def _text_to_regex(text: str) -> str:
    out: list[str] = []
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "*":
            if not out or out[-1] != ".*":
                out.append(".*")
        elif character == "?":
            out.append(".")
        elif character == "[" and (end := _set_end(text, position)) > 0:
            out.append(_set_to_regex(text[position:end]))
            position = end + 1
        else:
            out.append(re2.escape(character))
    return "".join(out)


def _set_end(text: str, position: int) -> int:
    """Position of the bracket that closes the set; -1 when none does. A leading ] is a member."""
    if text.startswith("!", position):
        position += 1
    return text.find("]", position + 1)


def _set_to_regex(members: str) -> str:
    """A regular expression for a set; ranges that run backwards are empty, as in fnmatch."""
    negated = members.startswith("!")
    members = members.removeprefix("!")
    parts: list[str] = []
    position = 0
    while position < len(members):
        low = high = members[position]
        position += 1
        if members.startswith("-", position) and position + 1 < len(members):
            high = members[position + 1]
            position += 2
        if low <= high:
            parts.append(rf"\x{{{ord(low):x}}}-\x{{{ord(high):x}}}")
    if not parts:
        return "." if negated else r"[^\x00-\x{10FFFF}]"
    return f"[{'^' if negated else ''}{''.join(parts)}{chr(92) + 'n' if negated else ''}]"
