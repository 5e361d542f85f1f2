"""An object of numbers, or of lists of numbers, as Node's ``util.inspect`` shows it: what the management port answers.

Observed on Node 20 with its defaults (lines of 80, three levels on one line, 100 items of a list); tests/data/statsd_inspect.jsonl
holds its answers. Scripts parse this text, so blanks and line feeds count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from tgres_py.statsd.js import number_text

WIDTH = 80
ITEMS_MAX = 100
GROUPED_FROM = 7  # lists of this length or more are set in columns
COLUMNS_MAX = 12
INDENT = 2

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_ESCAPED = re.compile(r"[\x00-\x1f\\\x7f-\x9f]")
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", "\\": "\\\\"}


def inspect_numbers(members: Mapping[str, float]) -> str:
    """``{ 'a.b': 1, c: 2 }``, over several lines where it is too long."""
    return _object([f"{_key(k)}: {_number(members[k])}" for k in _ordered(members)])


def inspect_lists(members: Mapping[str, Sequence[float]]) -> str:
    """``{ 'a.b': [ 1, 2 ] }``."""
    return _object([f"{_key(k)}: {_list(members[k])}" for k in _ordered(members)])


def _ordered(members: Mapping[str, object]) -> list[str]:
    """JavaScript's order: keys that are array indices first, by number; then as they were added."""
    indices = [k for k in members if _INDEX.fullmatch(k) and int(k) < 2**32 - 1]
    if not indices:
        return list(members)
    first = set(indices)
    return sorted(indices, key=int) + [k for k in members if k not in first]


def _object(entries: list[str]) -> str:
    return _bracketed("{", entries, "}", 0) if entries else "{}"


def _list(values: Sequence[float]) -> str:
    if not len(values):
        return "[]"
    entries = [_number(v) for v in values[:ITEMS_MAX]]
    if len(values) > ITEMS_MAX:
        rest = len(values) - ITEMS_MAX
        entries.append(f"... {rest} more item{'s' if rest > 1 else ''}")
    if len(entries) >= GROUPED_FROM:
        lines = _in_columns(entries, len(values) > ITEMS_MAX)
        if len(lines) != len(entries):
            return _on_lines("[", lines, "]", INDENT)
    return _bracketed("[", entries, "]", INDENT)


def _bracketed(opening: str, entries: list[str], closing: str, indent: int) -> str:
    """On one line if that is short enough, else a line for each entry."""
    length = sum(map(len, entries)) + 2 * len(entries) + indent + len(opening) + 10
    if length <= WIDTH and not any("\n" in entry for entry in entries):
        return f"{opening} {', '.join(entries)} {closing}"
    return _on_lines(opening, entries, closing, indent)


def _on_lines(opening: str, entries: list[str], closing: str, indent: int) -> str:
    margin = "\n" + " " * indent
    inner = f",{margin}  ".join(entries)
    return f"{opening}{margin}  {inner}{margin}{closing}"


def _in_columns(entries: list[str], cut: bool) -> list[str]:
    """Numbers set right in columns of even width, about two and a half times as wide as high."""
    cells = entries[:-1] if cut else entries
    widths = [len(cell) + 2 for cell in cells]
    widest = max(widths)
    if not (widest * 3 + INDENT < WIDTH and (sum(widths) / widest > 5 or widest <= 8)):
        return entries
    bias = math.sqrt(widest - sum(widths) / len(entries))
    typical = max(widest - 3 - bias, 1)
    square = math.floor(math.sqrt(2.5 * typical * len(cells)) / typical + 0.5)
    columns = min(square, (WIDTH - INDENT) // widest, COLUMNS_MAX)
    if columns <= 1:
        return entries
    column_widths = [max(widths[i::columns]) - 2 for i in range(columns)]
    lines = []
    for start in range(0, len(cells), columns):
        row = zip(cells[start : start + columns], column_widths, strict=False)
        lines.append(", ".join(cell.rjust(width) for cell, width in row))
    return [*lines, entries[-1]] if cut else lines


def _number(value: float) -> str:
    return "-0" if value == 0 and math.copysign(1, value) < 0 else number_text(value)


def _key(key: str) -> str:
    """The key, quoted unless it is a plain word; double quotes or backticks if single ones are inside."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    quote = "'"
    if "'" in key:
        quote = '"' if '"' not in key else "`" if "`" not in key and "${" not in key else "'"
    text = _ESCAPED.sub(lambda m: _SHORT.get(m[0]) or f"\\x{ord(m[0]):02X}", key)
    return quote + (text.replace("'", "\\'") if quote == "'" else text) + quote
