"""Rows of operator verbs for people and for scripts: an aligned table, records, or JSON.

Results go to stdout; progress, notes and errors to stderr, progress only where that is a terminal.
Cells are formatted by the unit at the end of their key: ``…_at_s`` a time, ``…_s`` a duration,
``…_bytes`` a size.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import click

from tgres_py.cli.common import (
    NothingFound,
    OneLineError,
    Unreachable,
)
from tgres_py.cli.table import format_value, local_time

Row = Mapping[str, Any]

WIDTH_ROWS = 1_000  # the first rows decide how wide the columns are


def results(rows: Iterable[Row]) -> Iterator[Row]:
    """The results among the rows; the others are shown on stderr. OneLineError: the verb failed."""
    shown = False
    for row in rows:
        if "progress" in row:
            shown = _show_progress(row["progress"])
            continue
        if shown:
            click.echo("\r\x1b[K", nl=False, err=True)
            shown = False
        if "note" in row:
            click.echo(row["note"], err=True)
        elif "error" in row:
            raise _failure(str(row["error"]), int(row.get("status", 500)))
        else:
            yield row


def _show_progress(progress: Row) -> bool:
    if not sys.stderr.isatty():
        return False
    total = "" if progress["total"] is None else f" of {progress['total']:,}"
    click.echo(f"\r{progress['done']:,}{total} {progress['what']}\x1b[K", nl=False, err=True)
    return True


def _failure(text: str, status: int) -> OneLineError:
    return Unreachable(text) if status >= 500 else OneLineError(text)


def print_rows(
    rows: Iterable[Row],
    as_json: bool,
    *,
    nothing: str = "nothing found",
    record: bool = False,
    stream: bool = False,
) -> None:
    """Prints the results. NothingFound when there are none.

    ``record``: each row as lines of its own, for rows with much in them. ``stream``: each row as soon as it
    comes, and JSON as one object a line; else JSON is one list.
    """
    found = results(rows)
    first = next(found, None)
    if first is None and as_json and not stream:
        click.echo("[]")
    if first is None:
        raise NothingFound(nothing)
    found = chain([first], found)
    if as_json:
        _print_json(found, stream)
    elif record:
        click.echo("\n\n".join(map(_record, found)))
    else:
        _print_table(found, 1 if stream else WIDTH_ROWS)


def _print_json(rows: Iterator[Row], stream: bool) -> None:
    if stream:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    lead = "[\n"
    for row in rows:
        click.echo(f"{lead} {json.dumps(row, ensure_ascii=False)}", nl=False)
        lead = ",\n"
    click.echo("\n]")


def _print_table(rows: Iterator[Row], width_rows: int) -> None:
    head = list(islice(rows, width_rows))
    keys = list(dict.fromkeys(key for row in head for key in row))
    titles = [_title(key) for key in keys]
    numeric = [all(_is_number(row.get(key)) for row in head) for key in keys]
    cells = [[cell(key, row.get(key)) for key in keys] for row in head]
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]

    def line(texts: list[str]) -> str:
        return "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, numeric, strict=True)
        ).rstrip()

    click.echo(line(titles))
    for texts in cells:
        click.echo(line(texts))
    for row in rows:
        click.echo(line([cell(key, row.get(key)) for key in keys]))


def _record(row: Row) -> str:
    titles = [_title(key) for key in row]
    width = max(map(len, titles))
    lines: list[str] = []
    for title, (key, value) in zip(titles, row.items(), strict=True):
        texts = _lines(key, value)
        lines += [
            f"{title:<{width}}  {texts[0]}",
            *(f"{'':<{width}}  {text}" for text in texts[1:]),
        ]
    return "\n".join(lines)


def _lines(key: str, value: Any) -> list[str]:
    """A value of a record: a list takes a line for each element."""
    if isinstance(value, list) and value:
        return [_inline(one) if isinstance(one, Mapping) else cell(key, one) for one in value]
    if isinstance(value, Mapping):
        return [_inline(value)]
    return [cell(key, value)]


def _inline(row: Row) -> str:
    return "  ".join(f"{_title(key)} {cell(key, value)}" for key, value in row.items())


def _title(key: str) -> str:
    for unit in ("_at_s", "_s", "_bytes"):
        key = key.removesuffix(unit)
    return key.replace("_", " ")


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def cell(key: str, value: Any) -> str:
    """A value as text, by the unit in its key."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and value:
        return ", ".join(cell(key, one) for one in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={cell(name, one)}" for name, one in value.items())
    if isinstance(value, int | float):
        return _number(key, value)
    return str(value)


def _number(key: str, value: float) -> str:
    if key.endswith("_at_s"):
        return local_time(value)
    if key.endswith("_bytes"):
        return size(value)
    if key.endswith("_s"):
        return duration(value)
    return f"{value:,}" if isinstance(value, int) else format_value(value)


def duration(seconds: float) -> str:
    """About three digits: 12 s, 3.5 h, 400 d."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def size(size_bytes: float) -> str:
    """About three digits: 3.84 kB, 1.2 GB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(size_bytes) >= unit:
            return f"{size_bytes / unit:.3g} {name}"
    return f"{size_bytes:.0f} bytes"
