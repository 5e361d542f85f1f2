"""Line graphs: layout, axes, grid, lines and areas, as graphite-web's parameters say.

title
vtitle | y labels | area with grid and lines | y labels of the right axis | vtitleRight
x labels
legend
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from http_api.pictures.colors import Color, parse_color
from http_api.pictures.legend import Entry, draw_legend
from http_api.pictures.lines import BREAK, Stack, Totals, along, trace
from http_api.pictures.options import Canvas, LineOptions, Side
from http_api.pictures.scale import Scale, make_scale, position
from http_api.pictures.sheet import Sheet
from http_api.pictures.timeaxis import time_marks
from tgres_py.functions.grids import consolidate_part
from tgres_py.functions.series import Grid, Matrix, Part, SeriesBlock

LEGEND_ITEMS_MAX = 10  # more series: no legend unless asked for
WORK_MAX = 100_000_000  # points of all lines times the pixels that each may rise: about 2 s
GAP = 4.0


@dataclass(slots=True)
class Line:
    """One series to draw. ``area``: filled; ``values``: float64 (slots,), NaN = unknown."""

    name: str
    grid: Grid
    values: Matrix
    color: Color
    options: dict[str, Any]
    area: bool = False

    @property
    def right(self) -> bool:
        return bool(self.options.get("secondYAxis"))

    @property
    def infinite(self) -> bool:
        return bool(self.options.get("drawAsInfinite"))


@dataclass(slots=True)
class Area:
    """Where the lines are, in pixels."""

    left: float
    right: float
    bottom: float
    top: float

    @property
    def width(self) -> float:
        return max(1.0, self.right - self.left)

    @property
    def height(self) -> float:
        return max(1.0, self.top - self.bottom)


def draw_lines(block: SeriesBlock, canvas: Canvas, options: LineOptions, zone: tzinfo) -> Sheet:
    """The picture of all series of a block. BadRequest: parameters that leave no graph."""
    sheet = Sheet(canvas)
    if not any(part.values.size for part in block.parts):
        size = max(6.0, math.log(canvas.width * canvas.height))
        sheet.text(canvas.width / 2, canvas.height / 2, "No Data", "center", size=size, color="red")
        return sheet
    return _Graph(sheet, block, options, zone).draw()


class _Graph:
    def __init__(
        self, sheet: Sheet, block: SeriesBlock, options: LineOptions, zone: tzinfo
    ) -> None:
        self.sheet = sheet
        self.canvas = sheet.canvas
        self.options = options
        self.zone = zone
        self.mode = options.line_mode
        if self.mode == "slope" and any(part.values.shape[1] == 1 for part in block.parts):
            self.mode = "staircase"
        grids = [part.grid for part in block.parts]
        last = 0 if self.mode == "staircase" else 1
        self.start_s = min(grid.start_s for grid in grids)
        self.end_s = max(grid.end_s - last * grid.step_s for grid in grids)
        self.end_s = max(self.end_s, self.start_s + 1)
        self.lines = self.lines_of(
            _consolidated(block, self.end_s - self.start_s, self.canvas, options)
        )
        self.two_axes = any(line.right for line in self.lines)

    def lines_of(self, block: SeriesBlock) -> list[Line]:
        colors = self.canvas.colors
        two_axes = any(label.options.get("secondYAxis") for label in block.labels)
        out: list[Line] = []
        turn = 0
        for label, grid, values in block.rows():
            chosen = dict(label.options)
            side = self.options.right if chosen.get("secondYAxis") else self.options.left
            color = side.color if two_axes else None
            if two_axes:
                _restyle(chosen, side)
            if color is None and "color" in chosen:
                color = parse_color(str(chosen["color"]), "color")
            if color is None:
                color, turn = colors[turn % len(colors)], turn + 1
            values = np.where(np.isfinite(values), values, np.nan)
            if self.options.null_as_zero:
                values = np.nan_to_num(values)
            out.append(Line(label.name, grid, values, color, chosen, "stacked" in chosen))
        return self.areas(out, two_axes)

    def areas(self, lines: list[Line], two_axes: bool) -> list[Line]:
        mode = self.options.area_mode
        if mode == "stacked" and not two_axes:
            totals = Totals()
            for line in lines:
                if not line.infinite:
                    line.values, line.area = totals.add(line.values), True
        elif mode == "first" and lines:
            lines[0].area = True
        elif mode == "all":
            for line in lines:
                line.area = not line.infinite
        return lines

    def draw(self) -> Sheet:
        area = self.layout()
        left = self.scale(False)
        right = self.scale(True) if self.two_axes else None
        self.y_labels(area, left, right)
        axes = [self.axes(area, left)]
        if right is not None:
            axes.append(self.axes(area, right))
        self.x_axis(area, axes[0], left)
        stacks = (Stack(), Stack())
        order = sorted(self.lines, key=lambda line: not line.area)
        for level, line in enumerate(order):
            on_right = line.right and self.two_axes
            scale = right if on_right and right is not None else left
            self.line(axes[on_right], scale, line, stacks[on_right], 3 + level)
        return self.sheet

    def layout(self) -> Area:
        """Room for titles and legend taken from the edges."""
        canvas, options, sheet = self.canvas, self.options, self.sheet
        if options.graph_only:
            return Area(0, canvas.width, 0, canvas.height)
        margin = float(canvas.margin)
        area = Area(margin, canvas.width - margin, margin, canvas.height - margin)
        if canvas.title:
            size = canvas.font.size + math.floor(math.log(canvas.font.size))
            for line in canvas.title.split("\n"):
                height = sheet.size_of("Xgjy", size)[1] * 1.25
                sheet.text(canvas.width / 2, area.top - height / 2, line, "center", size=size)
                area.top -= height
            area.top -= GAP
        if options.vtitle:
            area.left += self.side_title(options.vtitle, area.left, 1, 90)
        if options.vtitle_right and self.two_axes:
            area.right -= self.side_title(options.vtitle_right, area.right, -1, 270)
        if self.has_legend():
            entries = [
                Entry(line.name, line.color, line.right)
                for line in self.lines
                if not (options.hide_null_from_legend and not np.isfinite(line.values).any())
            ]
            area.bottom = draw_legend(
                sheet, entries, canvas.unique_legend, area.left, area.right, area.bottom
            )
        if not options.hide_x:
            area.bottom += sheet.line_height + GAP
        return area

    def has_legend(self) -> bool:
        hidden = self.canvas.hide_legend
        return not (len(self.lines) > LEGEND_ITEMS_MAX if hidden is None else hidden)

    def side_title(self, text: str, x: float, direction: int, rotation: float) -> float:
        """Draws it; gives the width that it takes."""
        height = self.sheet.line_height
        lines = text.split("\n")
        for number, line in enumerate(lines):
            middle = x + direction * (number + 0.5) * height
            self.sheet.text(middle, self.canvas.height / 2, line, "center", rotation=rotation)
        return len(lines) * height + GAP

    def scale(self, right: bool) -> Scale:
        """The y axis of one side, from its lines' values."""
        options = self.options
        side = options.one
        if self.two_axes:
            side = options.right if right else options.left
        lines = [line for line in self.lines if not line.infinite]
        if self.two_axes:
            lines = [line for line in lines if line.right == right]
        known = [line.values[np.isfinite(line.values)] for line in lines]
        known = [values for values in known if len(values)]
        low = min((float(values.min()) for values in known), default=0.0)
        high = max((float(values.max()) for values in known), default=1.0)
        if options.log_base is not None and low <= 0:
            positive = [values[values > 0] for values in known]
            low = min((float(v.min()) for v in positive if len(v)), default=high)
        elif any(line.area for line in lines):
            low, high = min(low, 0.0), max(high, 0.0)
        return make_scale(low, high, side, options.divisors, options.units, options.log_base)

    def axes(self, area: Area, scale: Scale) -> Axes:
        axes = self.sheet.axes(area.left, area.bottom, area.width, area.height)
        axes.set_xlim(self.start_s, self.end_s)
        low, high = position(np.array([scale.low, scale.high]), scale)
        axes.set_ylim(low, high)
        return axes

    def y_labels(self, area: Area, left: Scale, right: Scale | None) -> None:
        """Makes room for them and draws them."""
        if self.options.hide_y:
            return
        on_right = right is None and self.options.axis_right
        if on_right:
            area.right -= self.widest(left) + GAP
            self.labels(area, left, area.right + GAP, "left")
            return
        area.left += self.widest(left) + GAP
        if right is not None:
            area.right -= self.widest(right) + GAP
            self.labels(area, right, area.right + GAP, "left")
        self.labels(area, left, area.left - GAP, "right")

    def widest(self, scale: Scale) -> float:
        return max((self.sheet.size_of(text)[0] for text in scale.labels), default=0.0)

    def labels(self, area: Area, scale: Scale, x: float, align: str) -> None:
        room = self.sheet.line_height * 0.8
        before = -math.inf
        for mark, text in zip(scale.marks, scale.labels, strict=True):
            y = _y(area, scale, mark)
            if area.bottom - 1 <= y <= area.top + 1 and y - before >= room:
                self.sheet.text(x, y, text, align, "center_baseline")
                before = y

    def x_axis(self, area: Area, axes: Axes, scale: Scale) -> None:
        """Labels below the area, and the grid."""
        options, canvas = self.options, self.canvas
        marks = time_marks(
            self.start_s,
            self.end_s,
            area.width,
            self.zone,
            lambda text: self.sheet.size_of(text)[0],
            options.x_format,
        )
        if not options.hide_x:
            for mark, text in zip(marks.major, marks.labels, strict=True):
                x = area.left + (mark - self.start_s) / (self.end_s - self.start_s) * area.width
                half = self.sheet.size_of(text)[0] / 2
                if x >= half and x + half <= canvas.width:
                    y = area.bottom - GAP - self.sheet.line_height / 2
                    self.sheet.text(x, y, text, "center", "center_baseline")
        if options.hide_grid:
            return
        levels = position(np.array(scale.marks), scale)
        between = position(np.array(_between(scale, options.minor_y)), scale)
        for times, values, color, order in (
            (marks.minor, between, canvas.minor, 1),
            (marks.major, levels, canvas.major, 2),
        ):
            axes.vlines(times, *axes.get_ylim(), color=color, lw=_THIN[order], zorder=order)
            axes.hlines(values, *axes.get_xlim(), color=color, lw=_THIN[order], zorder=order)

    def line(self, axes: Axes, scale: Scale, line: Line, stack: Stack, order: int) -> None:
        options = line.options
        alpha = _opacity(options)
        color = (*line.color[:3], line.color[3] * alpha)
        width = _number(options.get("lineWidth"), self.options.line_width)
        style: Any = "-"
        if options.get("dashed"):
            dash = max(0.5, _number(options["dashed"], 5.0))
            style = (0, (dash / max(width, 0.5), dash / max(width, 0.5)))
        if line.infinite:
            self.infinite(axes, line, color, width, style, order)
            return
        values = position(line.values, scale)
        times, places = trace(
            line.grid, np.isfinite(values), self.mode, self.options.connected_limit
        )
        if line.area:
            base, top = stack.place(line.grid, line.values)
            fill = color
            if self.options.area_alpha is not None:
                fill = (*line.color[:3], self.options.area_alpha)
            floor = position(np.where(base > 0, base, scale.low), scale) if scale.log_base else base
            axes.fill_between(
                times,
                along(floor, places),
                along(position(top, scale), places),
                where=places != BREAK,
                color=fill,
                lw=0,
                zorder=order,
            )
            if self.options.area_alpha is None:
                return
            color = line.color
        axes.plot(
            times,
            along(values, places),
            color=color,
            lw=width,
            ls=style,
            solid_capstyle="butt",
            solid_joinstyle="miter" if self.mode == "staircase" else "round",
            zorder=order,
        )

    def infinite(
        self, axes: Axes, line: Line, color: Color, width: float, style: Any, order: int
    ) -> None:
        """A line from bottom to top at each value above 0."""
        places = np.flatnonzero(line.values > 0)
        times = (line.grid.start_s + line.grid.step_s * places).tolist()
        axes.add_collection(
            LineCollection(
                [[(time, 0), (time, 1)] for time in times],
                colors=[color],
                linewidths=width,
                linestyles=[style],
                transform=axes.get_xaxis_transform(),
                zorder=order,
            ),
            autolim=False,
        )


_THIN = {1: 0.4, 2: 0.7}


def _restyle(options: dict[str, Any], side: Side) -> None:
    """leftWidth, rightDashed and their like."""
    if side.line_width is not None:
        options["lineWidth"] = side.line_width
    if side.dash is not None:
        options["dashed"] = side.dash


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


def _opacity(options: dict[str, Any]) -> float:
    """An opacity of 0 counts as none given (as graphite-web)."""
    if options.get("invisible"):
        return 0.0
    return min(1.0, max(0.0, _number(options.get("alpha"), 1.0) or 1.0))


def _y(area: Area, scale: Scale, value: float) -> float:
    at, low, high = position(np.array([value, scale.low, scale.high]), scale)
    return area.bottom + float((at - low) / (high - low)) * area.height


def _between(scale: Scale, count: int) -> list[float]:
    """Values of the thin lines, ``count`` between two marks."""
    if scale.log_base is not None:
        return []
    parts = count + 1
    first = math.floor(scale.low / scale.step) - 1
    last = math.ceil(scale.high / scale.step) + 1
    values = [
        (number + part / parts) * scale.step
        for number in range(first, last)
        for part in range(1, parts)
    ]
    return [value for value in values if scale.low < value < scale.high]


def _consolidated(
    block: SeriesBlock, span_s: float, canvas: Canvas, options: LineOptions
) -> SeriesBlock:
    """No more points than pixels, fewer when the series are many; each by its own function."""
    width = canvas.width / max(options.min_x_step, 0.01)
    width = max(1.0, min(width, WORK_MAX / canvas.height / len(block)))

    def compute(part: Part) -> tuple[Grid, Matrix]:
        grid = part.grid
        per = max(1, math.ceil(span_s / grid.step_s / width))
        return replace(grid, step_s=grid.step_s * per), consolidate_part(block, part, per)

    return block.map_values(compute)
