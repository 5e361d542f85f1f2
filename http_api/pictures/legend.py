"""The legend below a graph: boxes with names in as many columns as fit; on two y axes the right
one's names stand at the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from http_api.pictures.colors import Color, parse_color
from http_api.pictures.sheet import Sheet

HEIGHT_PART_MAX = 0.5  # of the picture
NAME_CHARS_MAX = 200
PADDING = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    color: Color
    right: bool = False


def draw_legend(
    sheet: Sheet, entries: Sequence[Entry], unique: bool, left: float, right: float, bottom: float
) -> float:
    """Draws upwards from ``bottom``; gives the lowest pixel that is free above."""
    shown = _prepared(entries, unique)
    if not shown:
        return bottom
    height = sheet.line_height
    rows_max = max(1, int((sheet.height * HEIGHT_PART_MAX) / height))
    columns = _columns(sheet, shown, right - left)
    left_side = [entry for entry in shown if not entry.right]
    right_side = [entry for entry in shown if entry.right]
    left_columns = columns - 1 if left_side and right_side else columns
    rows = -(-len(left_side) // left_columns)
    if right_side and not left_side:
        left_side, right_side = right_side, []
        rows = -(-len(left_side) // columns)
    rows = min(max(rows, len(right_side)), rows_max)
    top = bottom + rows * height
    width = (right - left) / columns
    for number, entry in enumerate(left_side[: rows * left_columns]):
        y = top - (number // left_columns + 0.5) * height
        _draw(sheet, entry, left + number % left_columns * width, y, width)
    for number, entry in enumerate(right_side[:rows]):
        y = top - (number + 0.5) * height
        _draw(sheet, entry, left + (columns - 1) * width, y, width)
    return top + PADDING


def _prepared(entries: Sequence[Entry], unique: bool) -> list[Entry]:
    out: dict[object, Entry] = {}
    for number, entry in enumerate(entries):
        name = " ".join(unquote(entry.name).split())[:NAME_CHARS_MAX]
        if name:
            key = name if unique else number
            out.setdefault(key, Entry(name, entry.color, entry.right))
    return list(out.values())


def _columns(sheet: Sheet, entries: Sequence[Entry], width: float) -> int:
    longest = max(sheet.size_of(entry.name)[0] for entry in entries)
    columns = int(width // (longest + sheet.canvas.font.size + 3 * PADDING))
    both = len({entry.right for entry in entries}) == 2
    return max(2 if both else 1, columns)


def _draw(sheet: Sheet, entry: Entry, x: float, y: float, width: float) -> None:
    side = sheet.canvas.font.size - 1.0
    sheet.box(x, y - side / 2, side, entry.color, parse_color("darkgrey", "legend"))
    name = entry.name
    room = width - side - 2 * PADDING
    while len(name) > 3 and sheet.size_of(name)[0] > room:
        name = name[: max(2, int(len(name) * 0.9) - 1)] + "…"
    sheet.text(x + side + PADDING, y, name, valign="center_baseline")
