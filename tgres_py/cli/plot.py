"""Line charts of braille characters (two dots wide, four dots high each) for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime

from tgres_py.cli.table import Series, format_value

# Bits of U+2800 by column and row of the dot.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_COLOURS = (36, 33, 35, 32, 31, 34)  # ANSI: cyan, yellow, magenta, green, red, blue
WIDTH_MIN, HEIGHT_MIN = 30, 4


def plot_charts(series: Sequence[Series], width: int, height: int, colour: bool) -> str:
    """The series in one chart when colours tell them apart, else a chart for each.

    ``width`` × ``height`` are the characters of one chart, axes included.
    """
    if len(series) == 1 or (colour and len(series) <= len(_COLOURS)):
        return plot(series, width, height, colour)
    each = max(HEIGHT_MIN, height // min(len(series), 4))
    return "\n\n".join(plot([one], width, each, colour) for one in series)


def plot(series: Sequence[Series], width: int, height: int, colour: bool = False) -> str:
    """One chart: y axis with round labels at the left, times below, then a legend."""
    known = [v for one in series for v in one.values if v is not None and math.isfinite(v)]
    legend = [_legend(one, _COLOURS[i % len(_COLOURS)], colour) for i, one in enumerate(series)]
    if not known:
        return "\n".join(["(no known points in this range)", *legend])
    rows = max(HEIGHT_MIN, height - 2)
    ticks = round_ticks(min(known), max(known), max(2, rows // 3))
    labels = [f"{tick:.6g}" for tick in ticks]
    gutter = max(map(len, labels))
    columns = max(WIDTH_MIN, width) - gutter - 2
    t0 = min(one.times[0] for one in series if one.times)
    t1 = max(one.times[-1] for one in series if one.times)
    canvas = _Canvas(columns, rows)
    for number, one in enumerate(series):
        _draw(canvas, one, (t0, t1), (ticks[0], ticks[-1]), number)
    axis = dict.fromkeys(range(rows), " " * gutter + " │")
    for tick, label in zip(ticks, labels, strict=True):
        row = round((rows - 1) * (ticks[-1] - tick) / (ticks[-1] - ticks[0]))
        axis[row] = f"{label:>{gutter}} ┤"
    lines = [axis[row] + canvas.line(row, colour) for row in range(rows)]
    return "\n".join([*lines, _time_axis(t0, t1, gutter, columns), *legend])


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 × 10^k apart) that enclose low…high; at least two."""
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [n * step for n in range(first, max(last, first + 1) + 1)]


class _Canvas:
    """Dots on ``columns`` × ``rows`` characters; a character takes the colour of its last dot."""

    def __init__(self, columns: int, rows: int) -> None:
        self.dots_x, self.dots_y = columns * 2, rows * 4
        self._columns = columns
        self._bits = [[0] * columns for _ in range(rows)]
        self._owner = [[0] * columns for _ in range(rows)]

    def dot(self, x: int, y: int, owner: int) -> None:
        """Sets a dot; (0, 0) is the upper left one. Dots outside are ignored."""
        if 0 <= x < self.dots_x and 0 <= y < self.dots_y:
            self._bits[y // 4][x // 2] |= _DOTS[x % 2][y % 4]
            self._owner[y // 4][x // 2] = owner

    def line(self, row: int, colour: bool) -> str:
        cells = zip(self._bits[row], self._owner[row], strict=True)
        if not colour:
            return "".join(chr(0x2800 + bits) if bits else " " for bits, _ in cells).rstrip()
        return "".join(
            _coloured(chr(0x2800 + bits), _COLOURS[owner % len(_COLOURS)]) if bits else " "
            for bits, owner in cells
        ).rstrip()


def _draw(
    canvas: _Canvas, one: Series, times: tuple[int, int], values: tuple[float, float], owner: int
) -> None:
    """Draws known neighbours as a line and leaves a gap where a value is unknown."""
    before: tuple[int, int] | None = None
    for time, value in zip(one.times, one.values, strict=True):
        if value is None or not math.isfinite(value):
            before = None
            continue
        x = round((time - times[0]) / max(1, times[1] - times[0]) * (canvas.dots_x - 1))
        y = round((values[1] - value) / (values[1] - values[0]) * (canvas.dots_y - 1))
        for dot in _line(before or (x, y), (x, y)):
            canvas.dot(*dot, owner)
        before = (x, y)


def _line(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    (x0, y0), (x1, y1) = start, end
    steps = max(abs(x1 - x0), abs(y1 - y0), 1)
    for i in range(steps + 1):
        yield round(x0 + (x1 - x0) * i / steps), round(y0 + (y1 - y0) * i / steps)


def _time_axis(t0: int, t1: int, gutter: int, columns: int) -> str:
    """Local times at the start, the middle and the end; with the date when the range is a day or more."""
    shape = "%m-%d %H:%M" if t1 - t0 >= 86_400 else "%H:%M:%S"
    start, middle, end = (
        datetime.fromtimestamp(t).strftime(shape) for t in (t0, (t0 + t1) / 2, t1)
    )
    left = start + middle.rjust(columns // 2 + len(middle) // 2 - len(start))
    return " " * (gutter + 2) + left + end.rjust(columns - len(left))


def _legend(one: Series, code: int, colour: bool) -> str:
    known = [v for v in one.values if v is not None]
    mark = _coloured("━━", code) if colour else "━━"
    if not known:
        return f"{mark} {one.name}  no known points"
    facts = f"min {_short(min(known))}  max {_short(max(known))}  last {_short(known[-1])}"
    return f"{mark} {one.name}  {facts}"


def _short(value: float) -> str:
    return format_value(float(f"{value:.6g}"))


def _coloured(text: str, code: int) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"
