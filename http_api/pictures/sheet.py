"""A sheet of pixels to draw on: the thin layer over matplotlib.

Places and sizes are pixels from the lower left corner; a point of type is a pixel. Only the figure
objects are used, no pyplot, so there is no state between pictures but matplotlib's font cache;
because of that one thread draws at a time (see ``http_api.app``).
"""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import IdentityTransform

from http_api.pictures.colors import Color
from http_api.pictures.fonts import drawable, plain, properties_of
from http_api.pictures.options import Canvas

_agg: Any = backend_agg  # has no type hints

DPI = 72  # a point is a pixel


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
        text = drawable(text, self.canvas.font)
        properties = properties_of(self.canvas.font, text, size)
        width, height, _ = self._ruler.get_text_width_height_descent(text, properties, False)
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
        text = plain(text)
        self.figure.text(
            x,
            y,
            text,
            transform=IdentityTransform(),
            ha=align,
            va=valign,
            rotation=rotation,
            color=color or self.canvas.foreground,
            fontproperties=properties_of(self.canvas.font, text, size),
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
        if form != "svg":  # there the viewer's fonts draw the texts
            for text in self.figure.texts:
                text.set_text(drawable(text.get_text(), self.canvas.font))
        if form == "png":
            _agg.FigureCanvasAgg(self.figure).print_png(out, metadata={"Software": None})
            return out.getvalue()
        date = {"Date": None} if form == "svg" else {"CreationDate": None}
        with (
            matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "picture"}),
            warnings.catch_warnings(),
        ):
            # an svg's texts are measured with our fonts, which may lack a character
            warnings.simplefilter("ignore")
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
