"""graphType=pie: one slice for each series or name:value, clockwise from the top."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Wedge
from matplotlib.transforms import IdentityTransform

from http_api.pictures.legend import Entry, draw_legend
from http_api.pictures.line_graph import GAP
from http_api.pictures.options import Canvas, PieOptions
from http_api.pictures.sheet import Sheet
from tgres_py.functions.series import Matrix

Slice = tuple[str, float]


def slice_value(values: Matrix, mode: str) -> float:
    """A series' size by pieMode; without a known value 0."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0
    match mode:
        case "maximum":
            return float(known.max())
        case "minimum":
            return float(known.min())
    return float(known.mean())


def draw_pie(slices: Sequence[Slice], canvas: Canvas, options: PieOptions) -> Sheet:
    """Negative sizes count as nothing: a slice can't have them."""
    sheet = Sheet(canvas)
    margin = float(canvas.margin)
    bottom, top = margin, canvas.height - margin
    if canvas.title:
        size = canvas.font.size + math.floor(math.log(canvas.font.size))
        height = sheet.size_of("Xgjy", size)[1] * 1.25
        sheet.text(canvas.width / 2, top - height / 2, canvas.title, "center", size=size)
        top -= height + GAP
    colors = [canvas.colors[number % len(canvas.colors)] for number in range(len(slices))]
    if not canvas.hide_legend:
        entries = [Entry(name, color) for (name, _), color in zip(slices, colors, strict=True)]
        bottom = draw_legend(
            sheet, entries, canvas.unique_legend, margin, canvas.width - margin, bottom
        )
    center = (canvas.width / 2, (bottom + top) / 2)
    radius = max(1.0, min(canvas.width - 2 * margin, top - bottom) / 2 * 0.95)
    total = sum(max(0.0, value) for _, value in slices)
    end = 90.0
    for (_, value), color in zip(slices, colors, strict=True):
        part = max(0.0, value) / total if total > 0 else 0.0
        start = end - 360 * part
        if part > 0:
            sheet.figure.add_artist(
                Wedge(
                    center, radius, start, end, facecolor=color, lw=0, transform=IdentityTransform()
                )
            )
            _label(sheet, options, value, part, math.radians((start + end) / 2), center, radius)
        end = start
    return sheet


def _label(
    sheet: Sheet,
    options: PieOptions,
    value: float,
    part: float,
    angle: float,
    center: tuple[float, float],
    radius: float,
) -> None:
    if options.value_labels == "none":
        return
    if options.value_labels == "percent":
        size, text = part * 100, f"{part * 100:.2f}%"
    else:
        size = value
        text = f"{value:.2f}" if value < 10 and value != int(value) else str(int(value))
    if size < options.value_labels_min:
        return
    rotation = math.degrees(angle) % 360 if options.rotated else 0.0
    if 90 < rotation <= 270:
        rotation -= 180
    sheet.text(
        center[0] + radius / 2 * math.cos(angle),
        center[1] + radius / 2 * math.sin(angle),
        text,
        "center",
        rotation=rotation,
        color=options.value_labels_color,
    )
