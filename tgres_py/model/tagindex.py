"""The index of tags in memory: which series have which value of a tag.

    column of tag "dc":   ids    3   7   8   12      series that have the tag, ascending: its posting list
                          codes  0   1   0   0       the value of each, as a number
                          values {"eu": 0, "us": 1}  numbers of the values

A tag has one column (8 bytes for each series that has it, and its values' texts once); the series of one
value are those of an equal code, which one pass of numpy finds (0.3 ms in 1,000,000). An expression
becomes a table over the values, so a regular expression is asked once for each distinct value and not for
each series; the first expression that needs its tag gives the candidates, the others thin them.

    expression = tag operator value
    operator   = "=" | "!=" | "=~" | "!=~"           regular expressions are anchored at the start only
    tag        = 1*(any but ; ! =)    value = *(any but ;)

A value that an expression accepts may be the empty one: then series without the tag match, too; a query
whose expressions all do that is refused. Only series with tags are in the index (carbon registers no
others), and those that were tagged by hand; the path of a name is the tag ``name``.
Source of the rules: graphite-web 1.1.10 (tags/base.py, localdatabase.py with SQLite: case counts).

One writer and any number of readers may work at the same time without a lock: columns grow behind
what readers see, or are replaced as a whole.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import re2  # type: ignore[import-untyped]  # it comes without types
from numpy.typing import NDArray

from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.model.points import Ids

EXPRESSION_CHARS_MAX = 16_384
EXPRESSIONS_MAX = 256

_EXPRESSION = re.compile(r"([^;!=]+)(!?=~?)([^;]*)")
# a|b.*, (a|b.*), ^(a|b.*), (a|b)$ of plain texts: dashboards send them for chosen values
_TEXT = r"[\w:/@%,~-]+(?:\.\*)?"
_TEXTS = rf"{_TEXT}(?:\|{_TEXT})*"
_LITERALS = re.compile(rf"(?:\^?\(({_TEXTS})\)|({_TEXTS}))", re.ASCII)
_REGEX_MEMORY_BYTES = 8 * 1024 * 1024
_VALUE_BYTES = 70  # of a value besides its text: its place in a dict and its number
_COLUMN_ROOM_MIN = 64
_BATCH = 1 << 14  # names that are split at one time

Codes = NDArray[np.int32]
Accepted = NDArray[np.bool_]


class Regex:
    """A user's regular expression, matched in linear time. BadRequest: re2 can't compile it."""

    def __init__(self, text: str) -> None:
        self.text = text
        options = re2.Options()
        options.max_mem = _REGEX_MEMORY_BYTES
        options.log_errors = False
        anchored = text if text.startswith("^") else f"^({text})"
        try:
            self._compiled = re2.compile(anchored, options)
        except re2.error as error:
            raise BadRequest(f"regular expression {text!r}: {error}") from None
        # anchored at the start only: a.* is a
        self._starts = tuple(one.removesuffix(".*") for one in _literals(text))
        self._whole = frozenset(_literals(text[:-1])) if text.endswith(")$") else frozenset[str]()
        if any(one.endswith(".*") for one in self._whole):
            self._whole = frozenset()

    def accepts(self, values: Iterable[str]) -> Accepted:
        """Which values match somewhere (``^`` holds at their start): bool (n,)."""
        if starts := self._starts:
            return np.array([value.startswith(starts) for value in values], np.bool_)
        if whole := self._whole:
            return np.array([value in whole for value in values], np.bool_)
        search = self._compiled.search
        return np.array([search(value.encode()) is not None for value in values], np.bool_)

    def accepts_start(self, values: Iterable[str]) -> Accepted:
        """Which values match from their start on: bool (n,)."""
        match = self._compiled.match
        return np.array([match(value.encode()) is not None for value in values], np.bool_)


def _literals(text: str) -> tuple[str, ...]:
    """The alternatives of an expression that is nothing but plain texts; else empty."""
    match = _LITERALS.fullmatch(text)
    return tuple((match[1] or match[2]).split("|")) if match else ()


@dataclass(frozen=True, slots=True)
class TagExpression:
    """One condition. ``regex``: of the operators =~ and !=~."""

    tag: str
    operator: str
    value: str
    regex: Regex | None
    matches_empty: bool

    def accepted(self, values: Sequence[str]) -> Accepted:
        """Which of a tag's values fulfil it: bool (n,). None of them is empty."""
        negated = self.operator.startswith("!")
        if self.regex is None:
            equal = np.fromiter((value == self.value for value in values), np.bool_, len(values))
            return ~equal if negated else equal
        # graphite-web asks its database (search) where a value is needed, else Python's match
        found = self.regex.accepts_start if self.matches_empty else self.regex.accepts
        accepted = found(values)
        return ~accepted if negated else accepted


def parse_expression(text: str) -> TagExpression:
    """BadRequest: no expression, or a bad regular expression in it."""
    if len(text) > EXPRESSION_CHARS_MAX:
        raise LimitExceeded(
            "characters of a tag expression",
            len(text),
            EXPRESSION_CHARS_MAX,
            "EXPRESSION_CHARS_MAX",
        )
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        raise BadRequest(f"Invalid tagspec {text}")
    tag, operator, value = match.groups()
    if not operator.endswith("~"):
        return TagExpression(tag, operator, value, None, (value == "") == (operator == "="))
    regex = Regex(value)
    matches_empty = bool(regex.accepts_start([""])[0]) == (operator == "=~")
    return TagExpression(tag, operator, value, regex, matches_empty)


def parse_expressions(texts: Sequence[str]) -> list[TagExpression]:
    """BadRequest: one is bad, or series without any tag would match all of them."""
    if len(texts) > EXPRESSIONS_MAX:
        raise LimitExceeded("tag expressions", len(texts), EXPRESSIONS_MAX, "EXPRESSIONS_MAX")
    parsed = [parse_expression(text) for text in texts]
    if all(expression.matches_empty for expression in parsed):
        raise BadRequest("At least one tagspec must not match the empty string")
    return parsed


class _Column:
    """The series of one tag. ``number``: of the tag, from 1."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.values: dict[str, int] = {}
        self._texts_bytes = 0
        self._rows: tuple[Ids, Codes] = np.empty(0, np.int32), np.empty(0, np.int32)
        self._room = np.empty((2, _COLUMN_ROOM_MIN), np.int32)

    def rows(self) -> tuple[Ids, Codes]:
        """Ids, ascending, and the codes of their values: int32 (n,) each; they never change."""
        return self._rows

    def append(self, ids: Sequence[int], codes: Sequence[int]) -> None:
        """Adds series; one that is there gets the new code."""
        fresh = np.array([ids, codes], np.int32)
        used, end = len(self._rows[0]), len(self._rows[0]) + len(ids)
        if (np.diff(fresh[0]) <= 0).any() or (used and fresh[0, 0] <= self._rows[0][-1]):
            self._replace(_merged(np.concatenate([self._rows, fresh], axis=1)))
            return
        if end > self._room.shape[1]:
            room = np.empty((2, max(end, used * 3 // 2)), np.int32)
            room[:, :used] = self._rows
            self._room = room
        # behind what readers see
        self._room[:, used:end] = fresh
        self._rows = self._room[0, :end], self._room[1, :end]

    def _replace(self, rows: NDArray[np.int32]) -> None:
        self._room = rows
        self._rows = rows[0], rows[1]

    def discard(self, ids: Ids) -> None:
        kept = ~np.isin(self._rows[0], ids)
        if not kept.all():
            self._replace(np.stack([array[kept] for array in self._rows]))

    def codes_of(self, ids: Ids) -> Codes:
        """The code of each series, -1 where it lacks the tag."""
        have, codes = self._rows
        if len(have) == 0:
            return np.full(len(ids), -1, np.int32)
        places = np.minimum(np.searchsorted(have, ids), len(have) - 1)
        return np.where(have[places] == ids, codes[places], np.int32(-1))

    def code(self, value: str) -> int:
        """The number of a value, which may be new."""
        known = self.values.get(value)
        if known is None:
            known = self.values[value] = len(self.values)
            self._texts_bytes += sys.getsizeof(value)
        return known

    def texts(self) -> list[str]:
        """The values by code; there may be more than codes in use."""
        return list(self.values)

    @property
    def bytes_used(self) -> int:
        return self._room.nbytes + self._values_bytes

    @property
    def bytes_filled(self) -> int:
        return self._rows[0].nbytes + self._rows[1].nbytes + self._values_bytes

    @property
    def _values_bytes(self) -> int:
        return self._texts_bytes + _VALUE_BYTES * len(self.values)


def _merged(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Rows (2, n) in the order of ids; of an id that is there twice the later counts."""
    ids, last = np.unique(rows[0, ::-1], return_index=True)
    return np.stack([ids, rows[1, ::-1][last]])


class TagIndex:
    """Tags of series by their ids (int32, from 0). Names are canonical (model.ident)."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}

    def __len__(self) -> int:
        """How many series are in it."""
        column = self._columns.get("name")
        return len(column.rows()[0]) if column else 0

    @property
    def bytes_used(self) -> int:
        """Memory, about."""
        return sum(column.bytes_used for column in list(self._columns.values()))

    @property
    def bytes_filled(self) -> int:
        """The same without room for more: grows evenly with what is added."""
        return sum(column.bytes_filled for column in list(self._columns.values()))

    # -- writing -----------------------------------------------------------------------------

    def add_lines(self, lines: bytes, first_id: int) -> None:
        """Adds those names that have tags. ``lines``: names of the ids first_id, first_id + 1, …,
        an LF after each.
        """
        if b";" not in lines:
            return
        names = lines.decode().split("\n")
        names.pop()
        for first in range(0, len(names), _BATCH):
            part = enumerate(names[first : first + _BATCH], first_id + first)
            self._add_batch((id_, name) for id_, name in part if ";" in name)

    def add(self, names: Sequence[str], ids: Ids) -> None:
        """Adds names, those without tags, too."""
        self._add_batch(zip(ids.tolist(), names, strict=True))

    def discard(self, ids: Ids) -> None:
        """Takes series out; unknown ones are ignored."""
        for column in list(self._columns.values()):
            column.discard(ids)

    def _add_batch(self, series: Iterable[tuple[int, str]]) -> None:
        rows: dict[str, tuple[list[int], list[int]]] = {}  # by tag: ids, codes
        pairs: dict[str, tuple[list[int], list[int], int]] = {}  # "tag=value", each looked up once
        for id_, name in series:
            for pair in f"name={name}".split(";"):
                known = pairs.get(pair)
                if known is None:
                    tag, _, value = pair.partition("=")
                    ids, codes = rows.setdefault(tag, ([], []))
                    known = pairs[pair] = (ids, codes, self._code(tag, value))
                known[0].append(id_)
                known[1].append(known[2])
        for tag, (ids, codes) in rows.items():
            self._columns[tag].append(ids, codes)

    def _code(self, tag: str, value: str) -> int:
        column = self._columns.get(tag)
        if column is None:
            column = self._columns[tag] = _Column(len(self._columns) + 1)
        return column.code(value)

    def holds(self, ids: Ids) -> Accepted:
        """Which series are in the index: bool (n,)."""
        column = self._columns.get("name")
        return column.codes_of(ids) >= 0 if column else np.zeros(len(ids), np.bool_)

    # -- searching ---------------------------------------------------------------------------

    def find(self, expressions: Sequence[str]) -> Ids:
        """Ids, ascending, of the series that fulfil all expressions: int32 (n,). BadRequest."""
        parsed = parse_expressions(expressions)
        # equality leaves few candidates and costs least
        parsed.sort(key=lambda e: (e.matches_empty, e.operator != "="))
        first, *rest = parsed
        column = self._columns.get(first.tag)
        if column is None:
            return np.empty(0, np.int32)
        ids, codes = column.rows()
        found: Ids = ids[self._fulfilled(first, column, codes)]
        for expression in rest:
            if len(found) == 0:
                break
            found = found[self._holds(expression, found)]
        return found.copy() if found.base is not None else found

    def _holds(self, expression: TagExpression, ids: Ids) -> Accepted:
        column = self._columns.get(expression.tag)
        if column is None:
            return np.full(len(ids), expression.matches_empty)
        return self._fulfilled(expression, column, column.codes_of(ids))

    def _fulfilled(self, expression: TagExpression, column: _Column, codes: Codes) -> Accepted:
        """Which rows fulfil an expression; code -1: the series lacks the tag."""
        if expression.regex is None and expression.value:
            code = column.values.get(expression.value, -2)
            fulfilled: Accepted = codes == code
            return ~fulfilled if expression.operator == "!=" else fulfilled
        # the code -1 is the table's last place
        table: Accepted = np.append(expression.accepted(column.texts()), expression.matches_empty)
        return table[codes]

    # -- listing -----------------------------------------------------------------------------

    def tags(self, pattern: str | None = None) -> list[tuple[int, str]]:
        """(number, tag) of the tags that some series has, sorted; ``pattern``: a regular expression."""
        found = [
            (tag, column) for tag, column in list(self._columns.items()) if len(column.rows()[0])
        ]
        found.sort(key=lambda item: item[0])
        if pattern:
            accepted = Regex(pattern).accepts([tag for tag, _ in found])
            found = [item for item, ok in zip(found, accepted.tolist(), strict=True) if ok]
        return [(column.number, tag) for tag, column in found]

    def tag_number(self, tag: str) -> int:
        """The number of a tag that some series has, else 0."""
        column = self._columns.get(tag)
        return column.number if column and len(column.rows()[0]) else 0

    def value_count(self, tag: str) -> int:
        """How many values a tag has or had."""
        column = self._columns.get(tag)
        return len(column.values) if column is not None else 0

    def value_counts(self, tag: str) -> tuple[list[str], NDArray[np.int64]]:
        """The values of a tag by number less one, and how many series have each."""
        column = self._columns.get(tag)
        if column is None:
            return [], np.empty(0, np.int64)
        _, codes = column.rows()
        texts = column.texts()
        return texts, np.bincount(codes, minlength=len(texts))

    def tags_of(self, ids: Ids) -> list[str]:
        """The tags that some of the series have, sorted."""
        return sorted(
            tag for tag, column in list(self._columns.items()) if (column.codes_of(ids) >= 0).any()
        )

    def values_of(self, tag: str, ids: Ids) -> list[str]:
        """The values of a tag that some of the series have, sorted."""
        column = self._columns.get(tag)
        if column is None:
            return []
        codes = np.unique(column.codes_of(ids))
        texts = column.texts()
        return sorted(texts[code] for code in codes.tolist() if code >= 0)
