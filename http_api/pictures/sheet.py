"""A sheet of pixels to draw on: the thin layer over matplotlib.

Places and sizes are pixels from the lower left corner; a point of type is a pixel. Only the figure
objects are used, no pyplot, so there is no state between pictures but matplotlib's font cache;
because of that one thread draws at a time (see ``http_api.app``).
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from functools import cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.patches import Rectangle
from matplotlib.transforms import IdentityTransform

from http_api.pictures.colors import Color
from http_api.pictures.options import Canvas, Font

_agg: Any = backend_agg  # has no type hints

DPI = 72  # a point is a pixel
SANS = "DejaVu Sans"  # comes with matplotlib

# what characters that the font lacks would print on stderr
warnings.filterwarnings("ignore", message=r"Glyph \d+ ")
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)


@cache
def _families() -> dict[str, str]:
    return {font.name.lower(): font.name for font in fontManager.ttflist}


def _font(font: Font, size: float) -> FontProperties:
    return FontProperties(
        family=[_families().get(font.name.lower(), SANS), SANS],
        size=size,
        weight="bold" if font.bold else "normal",
        style="italic" if font.italic else "normal",
    )


def _plain(text: str) -> str:
    """Without what no font has: control characters, halves of surrogate pairs."""
    return "".join(mark if mark.isprintable() else " " for mark in text)


class Sheet:
    def __init__(self, canvas: Canvas) -> None:
        self.width, self.height = canvas.width, canvas.height
        self.canvas = canvas
        # a hundredth more: a size a hair below the whole number would lose a pixel
        size = ((canvas.width + 0.01) / DPI, (canvas.height + 0.01) / DPI)
        self.figure = Figure(figsize=size, dpi=DPI, facecolor=canvas.background)
        self._ruler: Any = _agg.RendererAgg(1, 1, DPI)
        self.line_height = self.size_of("Xgjy")[1] * 1.25

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes without frame, ticks or labels."""
        place = (
            left / self.width,
            bottom / self.height,
            max(1.0, width) / self.width,
            max(1.0, height) / self.height,
        )
        axes = self.figure.add_axes(place)
        axes.set_facecolor("none")
        axes.set_axis_off()
        return axes

    def size_of(self, text: str, size: float | None = None) -> tuple[float, float]:
        """(width, height) of a text of one line."""
        properties = _font(self.canvas.font, size or self.canvas.font.size)
        width, height, _ = self._ruler.get_text_width_height_descent(
            _plain(text), properties, False
        )
        return width, height

    def text(
        self,
        x: float,
        y: float,
        text: str,
        align: str = "left",
        valign: str = "center",
        rotation: float = 0.0,
        size: float | None = None,
        color: Color | str | None = None,
    ) -> None:
        """Text as it is: no formulas between dollar signs."""
        self.figure.text(
            x,
            y,
            _plain(text),
            transform=IdentityTransform(),
            ha=align,
            va=valign,
            rotation=rotation,
            color=color or self.canvas.foreground,
            fontproperties=_font(self.canvas.font, size or self.canvas.font.size),
            parse_math=False,
        )

    def box(self, x: float, y: float, side: float, fill: Color, edge: Color) -> None:
        self.figure.add_artist(
            Rectangle(
                (x, y),
                side,
                side,
                facecolor=fill,
                edgecolor=edge,
                lw=1,
                transform=IdentityTransform(),
            )
        )

    def save(self, form: str) -> bytes:
        """The picture as png, svg or pdf; the same drawing always gives the same bytes."""
        out = io.BytesIO()
        if form == "png":
            _agg.FigureCanvasAgg(self.figure).print_png(out, metadata={"Software": None})
            return out.getvalue()
        date = {"Date": None} if form == "svg" else {"CreationDate": None}
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "picture"}):
            self.figure.savefig(
                out, format=form, dpi=DPI, facecolor=self.canvas.background, metadata=date
            )
        return self._in_pixels(out.getvalue()) if form == "svg" else out.getvalue()

    def _in_pixels(self, svg: bytes) -> bytes:
        """Size in pixels, not in points."""
        for name, pixels in ((b"width", self.width), (b"height", self.height)):
            size = re.compile(rb'(<svg\b[^>]*?\s%b=")[^"]*"' % name)
            svg = size.sub(rb'\g<1>%dpx"' % pixels, svg, count=1)
        return svg
