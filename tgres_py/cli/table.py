"""Series as aligned text: one table where it fits, else one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one series: Unix seconds, rising, and values; None = unknown."""

    name: str
    times: Sequence[int]
    values: Sequence[float | None]


def local_time(timestamp_s: float) -> str:
    """The local time of the machine, to the second."""
    return datetime.fromtimestamp(timestamp_s).strftime("%Y-%m-%d %H:%M:%S")


def format_value(value: float | None) -> str:
    """Up to twelve significant digits; ``-`` for unknown."""
    return "-" if value is None else f"{value:.12g}"


def format_table(series: Sequence[Series], width: int | None = None) -> str:
    """All series beside each other, or below each other when that is wider than ``width`` characters."""
    wide = _columns(series)
    if width is None or len(series) == 1 or max(map(len, wide)) <= width:
        return "\n".join(wide)
    return "\n\n".join("\n".join(_columns([one])) for one in series)


def _columns(series: Sequence[Series]) -> list[str]:
    times = sorted({t for one in series for t in one.times})
    columns = [["time", *map(local_time, times)]]
    for one in series:
        values = dict(zip(one.times, one.values, strict=True))
        columns.append([one.name, *(format_value(values[t]) if t in values else "" for t in times)])
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines
