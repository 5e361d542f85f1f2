"""The parameters of a picture, read as graphite-web guesses them.

Digits are an int, digits with a point a float, true and false a bool, "" and "default" not given,
anything else text. What there fails with 500 (a mode that doesn't exist, text for a number, a
colour that is none) is a BadRequest that names the parameter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_plus

from http_api.pictures.colors import TEMPLATES, Color, parse_color
from tgres_py.errors import BadRequest, LimitExceeded

SIDE_PIXELS_MAX = 20_000
FONT_PIXELS_MAX = 200
COLORS_MAX = 1_000
TEXT_CHARS_MAX = 1_000

LINE_MODES = ("slope", "staircase", "connected")
AREA_MODES = ("none", "first", "all", "stacked")
PIE_MODES = ("maximum", "minimum", "average")
UNIT_SYSTEMS = ("si", "binary", "sec", "msec", "none")
VALUE_LABELS = ("none", "number", "numbers", "percent")
PIE_LABELS = ("horizontal", "rotated")

Value = int | float | bool | str


def _guess(name: str, text: str) -> Value | None:
    if re.fullmatch(r"-?[0-9]{1,18}", text) and "color" not in name.lower():
        return int(text)
    if re.fullmatch(r"-?([0-9]+\.[0-9]*|\.[0-9]+)", text):
        return float(text)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return None if text == "" or text.lower() == "default" else text


class Picture:
    """The given parameters, each asked for by its type. BadRequest: it has another."""

    def __init__(self, params: Mapping[str, str]) -> None:
        self._values: dict[str, Value] = {}
        for name, text in params.items():
            value = _guess(name, text)
            if value is not None:
                self._values[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def number(self, name: str, default: float) -> float:
        value = self.number_or_none(name)
        return default if value is None else value

    def number_or_none(self, name: str) -> float | None:
        value = self._values.get(name)
        if isinstance(value, str):
            raise BadRequest(f"{name}: {value[:40]!r} is no number")
        return None if value is None else float(value)

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        value = self._values.get(name, default)
        if isinstance(value, str | float) or not low <= value <= high:
            raise BadRequest(f"{name}: must be a whole number from {low} to {high}")
        return int(value)

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self._values.get(name, default))

    def text(self, name: str, default: str = "") -> str:
        return str(self._values.get(name, default))[:TEXT_CHARS_MAX]

    def title(self, name: str) -> str:
        return unquote_plus(self.text(name))

    def one_of(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        value = self.text(name, default).lower()
        if value not in allowed:
            raise BadRequest(f"{name}: {value[:40]!r} is none of {', '.join(allowed)}")
        return value

    def color(self, name: str, default: str) -> Color:
        return parse_color(self.text(name, default), name)

    def color_or_none(self, name: str) -> Color | None:
        return parse_color(self.text(name), name) if name in self else None


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """What one picture may cost; of the settings picture_pixels_max and picture_series_max."""

    pixels_max: int = 10_000_000
    series_max: int = 1_000


@dataclass(frozen=True, slots=True)
class Font:
    name: str
    size: int
    bold: bool
    italic: bool


@dataclass(frozen=True, slots=True)
class Canvas:
    """What all pictures have. ``colors``: taken in turn; sizes are pixels."""

    width: int
    height: int
    margin: int
    background: Color
    foreground: Color
    major: Color
    minor: Color
    colors: tuple[Color, ...]
    font: Font
    title: str
    hide_legend: bool | None
    unique_legend: bool


def canvas_of(picture: Picture, pixels_max: int) -> Canvas:
    width = picture.whole("width", 330, 1, SIDE_PIXELS_MAX)
    height = picture.whole("height", 250, 1, SIDE_PIXELS_MAX)
    if width * height > pixels_max:
        raise LimitExceeded("width x height", width * height, pixels_max, "picture_pixels_max")
    template = TEMPLATES.get(picture.text("template", "default"), TEMPLATES["default"])
    colors = unquote_plus(picture.text("colorList")) or template.lines
    size = picture.number("fontSize", 10)
    if not 1 <= size <= FONT_PIXELS_MAX:
        raise BadRequest(f"fontSize: must be from 1 to {FONT_PIXELS_MAX}")
    return Canvas(
        width,
        height,
        picture.whole("margin", 10, 0, SIDE_PIXELS_MAX),
        picture.color("bgcolor", template.background),
        picture.color("fgcolor", template.foreground),
        picture.color("majorGridLineColor", template.major),
        picture.color("minorGridLineColor", template.minor),
        tuple(parse_color(color, "colorList") for color in colors.split(",")[:COLORS_MAX]),
        Font(
            picture.text("fontName", "Sans"),
            int(size),
            picture.flag("fontBold"),
            picture.flag("fontItalic"),
        ),
        picture.title("title"),
        picture.flag("hideLegend") if "hideLegend" in picture else None,
        picture.flag("uniqueLegend"),
    )


@dataclass(frozen=True, slots=True)
class Side:
    """One y axis. ``at_data``: its top is the greatest value, not a round one."""

    low: float | None
    high: float | None
    at_data: bool
    limit: float | None
    step: float | None
    line_width: float | None
    dash: float | None
    color: Color | None


def _side(picture: Picture, ending: str, lines: str) -> Side:
    """``ending``: of yMin, yMax, …; ``lines``: the word before Width, Dashed, Color ("" = none)."""
    low, high = f"yMin{ending}", f"yMax{ending}"
    if not ending:
        low = low if low in picture else "min"
        high = high if high in picture else "max"
    at_data = picture.text(high) == "max"
    step = picture.number_or_none(f"yStep{ending}")
    if step is not None and step <= 0:
        raise BadRequest(f"yStep{ending}: must be above 0")
    return Side(
        picture.number_or_none(low),
        None if at_data else picture.number_or_none(high),
        at_data,
        picture.number_or_none(f"yLimit{ending}"),
        step,
        picture.number_or_none(f"{lines}Width") if lines else None,
        picture.number_or_none(f"{lines}Dashed") if lines else None,
        picture.color_or_none(f"{lines}Color") if lines else None,
    )


@dataclass(frozen=True, slots=True)
class LineOptions:
    """Of line graphs. ``one``: the y axis of a graph that has only one."""

    vtitle: str
    vtitle_right: str
    line_mode: str
    connected_limit: float
    area_mode: str
    area_alpha: float | None
    line_width: float
    hide_null_from_legend: bool
    hide_x: bool
    hide_y: bool
    hide_grid: bool
    graph_only: bool
    axis_right: bool
    null_as_zero: bool
    log_base: float | None
    min_x_step: float
    minor_y: int
    units: str
    divisors: tuple[int, ...]
    x_format: str | None
    one: Side
    left: Side
    right: Side


def line_options_of(picture: Picture) -> LineOptions:
    graph_only = picture.flag("graphOnly")
    hide_axes = picture.flag("hideAxes") or graph_only
    units = picture.text("yUnitSystem", "si").lower()
    picture.one_of("pieMode", PIE_MODES, "maximum")
    width = picture.number("lineWidth", picture.number("thickness", 1.2))
    min_x_step = picture.number("minXStep", 1.0)
    if not 0 <= width <= SIDE_PIXELS_MAX or not 0 <= min_x_step <= SIDE_PIXELS_MAX:
        raise BadRequest("lineWidth, minXStep: must be 0 or more pixels")
    return LineOptions(
        picture.title("vtitle"),
        picture.title("vtitleRight"),
        picture.one_of("lineMode", LINE_MODES, "slope"),
        picture.number("connectedLimit", math.inf),
        picture.one_of("areaMode", AREA_MODES, "none"),
        _area_alpha(picture),
        width,
        picture.flag("hideNullFromLegend"),
        hide_axes or picture.flag("hideXAxis"),
        hide_axes or picture.flag("hideYAxis"),
        hide_axes or picture.flag("hideGrid"),
        graph_only,
        picture.text("yAxisSide", "left") == "right",
        picture.flag("drawNullAsZero"),
        _log_base(picture),
        min_x_step,
        max(0, picture.whole("minorY", 1, -1_000, 100)),
        units if units in UNIT_SYSTEMS else "si",
        _divisors(picture),
        picture.text("xFormat") or None,
        _side(picture, "", ""),
        _side(picture, "Left", "left"),
        _side(picture, "Right", "right"),
    )


def _area_alpha(picture: Picture) -> float | None:
    """A text is 0.5 (as graphite-web)."""
    if not picture.flag("areaAlpha"):
        return None
    try:
        return min(1.0, max(0.0, float(picture.text("areaAlpha"))))
    except ValueError:
        return 0.5


def _log_base(picture: Picture) -> float | None:
    if picture.text("logBase") == "e":
        return math.e
    base = picture.number_or_none("logBase")
    return base if base is not None and base > 1 else None


def _divisors(picture: Picture) -> tuple[int, ...]:
    """``yDivisors=4,5,6``: into how many parts the y axis may be divided."""
    parts = picture.text("yDivisors", "4,5,6").split(",")
    if not all(re.fullmatch(r"\s*[1-9][0-9]{0,2}\s*", part) for part in parts):
        raise BadRequest("yDivisors: must be numbers from 1 to 999 with commas between")
    return tuple(int(part) for part in parts)


@dataclass(frozen=True, slots=True)
class PieOptions:
    mode: str
    rotated: bool
    value_labels: str
    value_labels_min: float
    value_labels_color: Color


def pie_options_of(picture: Picture) -> PieOptions:
    return PieOptions(
        picture.one_of("pieMode", PIE_MODES, "average"),
        picture.one_of("pieLabels", PIE_LABELS, "horizontal") == "rotated",
        picture.one_of("valueLabels", VALUE_LABELS, "percent"),
        picture.number("valueLabelsMin", 5.0),
        picture.color("valueLabelsColor", "black"),
    )
