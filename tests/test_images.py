"""Pictures: type and size, where the lines are, which parameters are refused. No text is compared by pixels."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.font_manager import fontManager
from numpy.typing import NDArray
from PIL import Image

from http_api.app import make_app
from http_api.pictures import draw, fonts
from http_api.pictures.colors import TEMPLATES, parse_color
from http_api.pictures.options import Picture, Side, line_options_of
from http_api.pictures.scale import label, make_scale
from http_api.pictures.timeaxis import time_marks
from tests.fake_source import of_values
from tests.test_http_render import FakeStatus
from tgres_py.errors import BadRequest, LimitExceeded, NotInstalled
from tgres_py.functions.series import Grid, Label, SeriesBlock

NAN = float("nan")
T0 = 1_700_000_000
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# a hundred pixels for values from 0 to 100: a value's row is 100 minus itself
PLAIN = {
    "width": "100",
    "height": "100",
    "graphOnly": "true",
    "yMin": "0",
    "yMax": "100",
    "colorList": "ff0000,00ff00,0000ff",
    "lineWidth": "3",
}

Pixels = NDArray[np.uint8]


def block(name: str, values: list[float], **options: Any) -> SeriesBlock:
    grid = Grid(T0, T0 + 10 * len(values), 10)
    made = Label(name, name, {"name": name}, options=options)
    return SeriesBlock.uniform([made], grid, np.array([values], float))


def picture(*blocks: SeriesBlock, **params: str) -> Pixels:
    body = draw("png", {**PLAIN, **params}, blocks)
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))


def rows_of(pixels: Pixels, column: int, color: tuple[int, int, int]) -> list[int]:
    """Rows of a column that have a colour, near enough for the edges' smoothing."""
    distance = np.abs(pixels[:, column].astype(int) - color).sum(axis=1)
    return np.flatnonzero(distance < 150).tolist()


def is_blank(pixels: Pixels, column: int) -> bool:
    return bool((pixels[:, column] == 255).all())


# --- type and size


@pytest.mark.parametrize(
    ("width", "height"), [(330, 250), (1, 1), (2, 300), (999, 3), (1023, 767), (586, 308)]
)
@pytest.mark.parametrize("pie", [False, True])
def test_pictures_have_the_size_asked_for(width: int, height: int, pie: bool) -> None:
    blocks = [block("a", [1.0, 2.0, 3.0]), block("b", [3.0, NAN, 3.0])]
    params = {"width": str(width), "height": str(height), "title": "title", "vtitle": "v"}
    slices = [None, ("c", 2.0), None] if pie else None
    png = Image.open(io.BytesIO(draw("png", params, blocks, UTC, slices)))
    assert (png.format, png.size) == ("PNG", (width, height))
    svg = ElementTree.fromstring(draw("svg", params, blocks, UTC, slices))
    assert (svg.get("width"), svg.get("height")) == (f"{width}px", f"{height}px")
    assert draw("pdf", params, blocks, UTC, slices).startswith(b"%PDF-1.")


def test_the_same_picture_is_the_same_bytes() -> None:
    for form in ("png", "svg", "pdf"):
        assert draw(form, {}, [block("a", [1.0, 2.0])]) == draw(form, {}, [block("a", [1.0, 2.0])])


@pytest.mark.parametrize("blocks", [[], [block("a", [])], [SeriesBlock([], [])]])
def test_no_data_says_so_in_red(blocks: list[SeriesBlock]) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(draw("png", {}, blocks))).convert("RGB"))
    reddish = (pixels[:, :, 0] > 200) & (pixels[:, :, 1] < 120)
    rows, columns = np.nonzero(reddish)
    assert 100 < rows.mean() < 150 and 140 < columns.mean() < 190


@pytest.mark.parametrize(
    "values", [[NAN, NAN], [0.0, 0.0], [5.0], [-1.0, -1e300], [float("inf"), 1.0], [1e-300, 2e-300]]
)
@pytest.mark.parametrize("mode", ["slope", "staircase", "connected"])
def test_odd_values_give_a_picture(values: list[float], mode: str) -> None:
    params = {"lineMode": mode, "areaMode": "stacked" if mode == "slope" else "none"}
    for units in ("si", "binary"):
        assert draw("png", {**params, "yUnitSystem": units}, [block("a", values)])


# --- lines


def test_a_level_line_is_at_its_value_from_edge_to_edge() -> None:
    pixels = picture(block("a", [30.0] * 11))
    for column in (1, 2, 50, 98, 99):
        assert rows_of(pixels, column, RED) in ([68, 69, 70], [69, 70, 71])
    assert (pixels[:60] == 255).all() and (pixels[80:] == 255).all()


def test_slope_and_gap() -> None:
    pixels = picture(block("a", [0.0, 50.0, 100.0, NAN, NAN, 100.0, 50.0, 0.0, NAN, 10.0, 10.0]))
    assert 70 <= np.mean(rows_of(pixels, 5, RED)) <= 78
    assert 45 <= np.mean(rows_of(pixels, 10, RED)) <= 55
    assert is_blank(pixels, 35) and is_blank(pixels, 80)
    assert rows_of(pixels, 95, RED)


def test_staircase_holds_each_value_to_the_next() -> None:
    pixels = picture(block("a", [20.0, 80.0, NAN, 50.0]), lineMode="staircase")
    for column, value in ((2, 20), (22, 20), (27, 80), (48, 80), (77, 50), (97, 50)):
        assert abs(float(np.mean(rows_of(pixels, column, RED))) - (100 - value)) < 2
    assert is_blank(pixels, 62)


def test_one_point_is_a_stair() -> None:
    assert rows_of(picture(block("a", [40.0])), 50, RED)


@pytest.mark.parametrize(("limit", "joined"), [(None, True), ("3", True), ("2", False)])
def test_connected_joins_across_gaps(limit: str | None, joined: bool) -> None:
    """Three unknown points between 40 and 60."""
    extra = {"connectedLimit": limit} if limit else {}
    pixels = picture(
        block("a", [40.0, 40.0, NAN, NAN, NAN, 60.0, 60.0]), lineMode="connected", **extra
    )
    assert bool(rows_of(pixels, 50, RED)) == joined
    assert rows_of(pixels, 8, RED) and rows_of(pixels, 92, RED)


def test_null_as_zero() -> None:
    pixels = picture(
        block("a", [50.0, NAN, NAN, NAN, 50.0]), drawNullAsZero="true", lineMode="staircase"
    )
    assert min(rows_of(pixels, 50, RED)) >= 97


def test_vertical_lines() -> None:
    pixels = picture(
        block("a", [50.0] * 11),
        block("v", [0.0, 0.0, 0.0, 1.0, NAN, 0.0, 0.0, 0.0, -5.0, 0.0, 0.0], drawAsInfinite=True),
    )
    assert len(rows_of(pixels, 30, GREEN)) > 90
    assert not rows_of(pixels, 80, GREEN)


def test_options_of_a_series() -> None:
    pixels = picture(
        block("a", [20.0] * 11, color="0000ff", lineWidth=9.0),
        block("b", [80.0] * 11, dashed=10.0),
        block("c", [50.0] * 11, alpha=0.4),
        block("d", [60.0] * 11, invisible=True),
    )
    assert len(rows_of(pixels, 50, BLUE)) >= 8
    dashes = [bool(rows_of(pixels, column, RED)) for column in range(100)]
    assert 30 < sum(dashes) < 70
    faint = pixels[50, 50].astype(int)  # the second colour in turn: color= takes none of them
    assert faint[1] == 255 and 120 < faint[0] < 190
    assert (pixels[38:42] == 255).all()


# --- areas


def test_stacked_areas_lie_on_each_other() -> None:
    pixels = picture(
        block("a", [20.0] * 3), block("b", [30.0] * 3), block("c", [40.0] * 3), areaMode="stacked"
    )
    column = pixels[:, 50].tolist()
    assert column[90] == [*RED] and column[65] == [*GREEN] and column[30] == [*BLUE]
    assert column[5] == [*WHITE]
    assert 19 <= len(rows_of(pixels, 50, RED)) <= 21
    assert 29 <= len(rows_of(pixels, 50, GREEN)) <= 31


def test_stacking_skips_unknown_values() -> None:
    pixels = picture(
        block("a", [20.0, 20.0, 20.0, 20.0, 20.0]),
        block("b", [30.0, NAN, NAN, NAN, 30.0]),
        block("c", [40.0] * 5),
        areaMode="stacked",
        lineMode="staircase",
    )
    assert pixels[45, 50].tolist() == [*BLUE] and pixels[75, 50].tolist() == [*BLUE]
    assert not rows_of(pixels, 50, GREEN)


def test_all_areas_show_where_no_earlier_one_is() -> None:
    pixels = picture(block("a", [20.0] * 3), block("b", [60.0] * 3), areaMode="all")
    assert pixels[90, 50].tolist() == [*RED] and pixels[60, 50].tolist() == [*GREEN]


def test_first_area_only() -> None:
    pixels = picture(block("a", [20.0] * 3), block("b", [60.0] * 3), areaMode="first")
    assert pixels[90, 50].tolist() == [*RED]
    assert pixels[60, 50].tolist() == [*WHITE] and rows_of(pixels, 50, GREEN)


def test_area_alpha_keeps_a_full_line() -> None:
    pixels = picture(block("a", [50.0] * 3), areaMode="all", areaAlpha="0.2")
    assert rows_of(pixels, 50, RED)
    assert pixels[80, 50].tolist() == pytest.approx([255, 204, 204], abs=2)


def test_negative_areas_hang_from_zero() -> None:
    pixels = picture(block("a", [-30.0] * 3), areaMode="all", yMin="-50", yMax="50")
    assert pixels[65, 50].tolist() == [*RED] and pixels[40, 50].tolist() == [*WHITE]
    assert pixels[90, 50].tolist() == [*WHITE]


# --- axes


def test_second_axis_has_its_own_scale_and_style() -> None:
    pixels = picture(
        block("a", [20.0] * 3),
        block("b", [8_000.0] * 3, secondYAxis=True),
        yMinLeft="0",
        yMaxLeft="100",
        yMinRight="0",
        yMaxRight="10000",
        rightColor="0000ff",
        rightWidth="8",
    )
    assert abs(float(np.mean(rows_of(pixels, 50, RED))) - 80) < 2
    assert abs(float(np.mean(rows_of(pixels, 50, BLUE))) - 20) < 2
    assert len(rows_of(pixels, 50, BLUE)) >= 7


def test_logarithmic_axis() -> None:
    pixels = picture(block("a", [10.0] * 3), yMin="1", yMax="100", logBase="10")
    assert abs(float(np.mean(rows_of(pixels, 50, RED))) - 50) < 2


def test_colours_of_templates_and_parameters() -> None:
    def corner(**params: str) -> list[int]:
        return list(picture(block("a", [50.0] * 3), **params)[2, 2].tolist())

    assert corner() == [255, 255, 255]
    assert corner(template="noc") == [0, 0, 0]
    assert corner(template="no such") == [255, 255, 255]
    assert corner(template="noc", bgcolor="#102030") == [16, 32, 48]
    for template in TEMPLATES.values():
        for color in (template.background, template.foreground, *template.lines.split(",")):
            parse_color(color, "template")


def test_the_whole_layout_keeps_to_its_places() -> None:
    """Title on top, legend at the bottom, labels left, all inside the margin."""
    params = {
        "width": "400",
        "height": "300",
        "title": "T" * 10,
        "vtitle": "v",
        "colorList": "ff0000",
    }
    body = draw("png", params, [block("a", [50.0] * 3)])
    pixels = np.asarray(Image.open(io.BytesIO(body)).convert("RGB")).astype(int)
    dark = pixels.sum(axis=2) < 200
    assert dark[8:30, 150:250].any()  # the title
    assert dark[100:200, 8:25].any()  # the vertical title
    assert dark[270:292].any()  # the legend
    assert not dark[:6].any() and not dark[:, :6].any()
    rows = np.flatnonzero((np.abs(pixels[:, 200] - [255, 0, 0]).sum(axis=1)) < 150)
    assert len(rows) and 30 < rows.mean() < 250
    without = draw("png", {**params, "hideLegend": "true"}, [block("a", [50.0] * 3)])
    lower = np.asarray(Image.open(io.BytesIO(without)).convert("RGB")).astype(int)
    moved = np.flatnonzero((np.abs(lower[:, 200] - [255, 0, 0]).sum(axis=1)) < 150)
    assert moved.mean() > rows.mean()  # the room of the legend goes to the graph


@pytest.mark.parametrize(
    ("count", "params", "shown"),
    [
        (10, {}, True),
        (11, {}, False),
        (11, {"hideLegend": "false"}, True),
        (2, {"hideLegend": "1"}, False),
    ],
)
def test_legend_of_up_to_ten(count: int, params: Mapping[str, str], shown: bool) -> None:
    blocks = [block(f"series{number}", [1.0, 2.0]) for number in range(count)]
    assert (b">series1<" in draw("svg", params, blocks)) == shown


def test_legend_names() -> None:
    blocks = [block(name, [1.0, 2.0]) for name in ("a%20b", "x", "x")] + [block("none", [NAN, NAN])]
    body = draw("svg", {"uniqueLegend": "1", "hideNullFromLegend": "true"}, blocks)
    assert b">a b<" in body and body.count(b">x<") == 1 and b">none<" not in body


def test_names_are_text_whatever_they_hold() -> None:
    """No formulas, no markup, no program; half a surrogate pair neither."""
    names = [
        "$x^2$ \\frac{",
        "<script>alert(1)</script>",
        "a\nb\x00\x1f",
        "\ud800",
        "日本🎉",
        "x" * 5_000,
    ]
    body = draw("svg", {"title": "<b>$"}, [block(name, [1.0, 2.0]) for name in names])
    ElementTree.fromstring(body)
    assert b"<script" not in body and b"$x^2$ \\frac{" in body


@pytest.fixture
def font_with(tmp_path: Path) -> Iterator[Callable[[str, str], None]]:
    """Installs a font whose characters are all full black squares, until the end of the test."""
    before = list(fontManager.ttflist)

    def forget() -> None:
        for kept in (fonts._chosen, fonts._installed, fonts._characters):
            kept.cache_clear()

    def install(family: str, characters: str) -> None:
        pen = TTGlyphPen(None)
        for number, corner in enumerate([(0, 0), (0, 1000), (1000, 1000), (1000, 0)]):
            (pen.lineTo if number else pen.moveTo)(corner)
        pen.closePath()
        builder = FontBuilder(1000, isTTF=True)
        names = [".notdef", *(f"u{ord(one)}" for one in characters)]
        builder.setupGlyphOrder(names)
        builder.setupCharacterMap({ord(one): f"u{ord(one)}" for one in characters})
        square = pen.glyph()
        builder.setupGlyf(dict.fromkeys(names, square))
        builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
        builder.setupHorizontalHeader(ascent=1000, descent=0)
        builder.setupNameTable({"familyName": family, "styleName": "Regular"})
        builder.setupOS2()
        builder.setupPost()
        path = tmp_path / f"{family}.ttf"
        builder.save(path)
        fontManager.addfont(path)
        forget()

    forget()
    yield install
    fontManager.ttflist[:] = before
    forget()


def ink_of_title(title: str) -> Pixels:
    """Which pixels of a title are black, 20 pixels high."""
    look = {"title": title, "fontSize": "20", "bgcolor": "white", "fgcolor": "black"}
    body = draw("png", {**look, "hideAxes": "true"}, [block("a", [1.0, 1.0])])
    return np.asarray(Image.open(io.BytesIO(body)).convert("L"))[:40] < 60


def test_other_scripts_are_drawn_with_a_font_that_has_them(
    font_with: Callable[[str, str], None],
) -> None:
    boxes = ink_of_title("日本")
    assert boxes.any() and (ink_of_title("木木") == boxes).all(), "a box for each, whichever"
    font_with("WenQuanYi Zen Hei", "日木")
    squares = ink_of_title("日日")
    assert squares.sum() > 2 * 20 * 20 * 0.8, "two full squares"
    assert (ink_of_title("木木") == squares).all()
    mixed = ink_of_title("日本")
    assert boxes.sum() < mixed.sum() < squares.sum()
    # what one font lacks comes from the next
    font_with("Noto Emoji", "🎉")
    assert (ink_of_title("日🎉") == squares).all()


def test_nothing_is_said_of_characters_that_no_font_has() -> None:
    """A name in a legend would else be a line of the log at every picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in ("png", "pdf", "svg"):
            body = draw(form, {"title": "日本🎉", "vtitle": "\U000f0000"}, [block("本.木", [1.0])])
            if form == "svg":
                assert "日本🎉".encode() in body, "the viewer may have the font"


# --- the y axis


def side(**given: Any) -> Side:
    empty: dict[str, Any] = dict.fromkeys(Side.__slots__)
    return Side(**{**empty, "at_data": False, **given})


@pytest.mark.parametrize(
    ("low", "high", "given", "units", "marks", "labels"),
    [
        (0, 60, {}, "si", [0, 10, 20, 30, 40, 50, 60], ["0", "10", "20", "30", "40", "50", "60"]),
        (
            0,
            9_000,
            {},
            "si",
            [0, 2000, 4000, 6000, 8000, 10000],
            ["0", "2 k", "4 k", "6 k", "8 k", "10 k"],
        ),
        (0, 1, {}, "si", [0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 4096, {}, "binary", [0, 1024, 2048, 3072, 4096], ["0", "1 Ki", "2 Ki", "3 Ki", "4 Ki"]),
        (3, 47, {"low": 0.0, "high": 50.0, "step": 25.0}, "none", [0, 25, 50], ["0", "25", "50"]),
        (0, 500, {"limit": 100.0, "step": 50.0}, "none", [0, 50, 100], ["0", "50", "100"]),
        (-5, 5, {"step": 5.0}, "none", [-5, 0, 5], ["-5", "0", "5"]),
    ],
)
def test_marks(
    low: float,
    high: float,
    given: dict[str, Any],
    units: str,
    marks: list[float],
    labels: list[str],
) -> None:
    scale = make_scale(low, high, side(**given), (4, 5, 6), units, None)
    assert list(scale.marks) == pytest.approx(marks)
    assert list(scale.labels) == labels


@given(
    st.floats(-1e15, 1e15),
    st.floats(-1e15, 1e15),
    st.sampled_from(["si", "binary", "sec", "msec", "none"]),
)
def test_the_scale_holds_the_data(a: float, b: float, units: str) -> None:
    low, high = min(a, b), max(a, b)
    scale = make_scale(low, high, side(), (4, 5, 6), units, None)
    slack = 1e-6 * max(abs(low), abs(high), 1e-300)
    assert scale.low <= low + slack and high - slack <= scale.high and scale.low < scale.high
    assert 2 <= len(scale.marks) <= 20 and len(scale.labels) == len(scale.marks)


@pytest.mark.parametrize(
    ("value", "step", "units", "text"),
    [
        (2_500, 500, "si", "2.5 k"),
        (7_200, 3_600, "sec", "2 H"),
        (0.25, 0.05, "si", "0.25"),
        (-1.5e9, 5e8, "si", "-1.5 G"),
        (1e21, 1e20, "none", "1e+21"),
    ],
)
def test_labels(value: float, step: float, units: str, text: str) -> None:
    assert label(value, step, units) == text


# --- the x axis


def marks_of(start: datetime, hours: float, zone: str, form: str | None = None) -> list[str]:
    start_s = start.timestamp()
    made = time_marks(
        start_s, start_s + hours * 3600, 500, ZoneInfo(zone), lambda text: 6.0 * len(text), form
    )
    return list(made.labels)


def test_labels_are_in_the_zone() -> None:
    start = datetime(2026, 5, 12, 10, 30, tzinfo=UTC)
    assert marks_of(start, 2, "UTC")[:3] == ["10:30", "10:45", "11:00"]
    assert marks_of(start, 2, "Asia/Kolkata")[:3] == ["16:00", "16:15", "16:30"]
    assert marks_of(start, 24, "Asia/Tokyo")[:3] == ["21:00", "00:00", "03:00"]
    assert marks_of(start, 24 * 7, "Europe/Berlin")[:2] == ["05/13", "05/14"]
    assert marks_of(start, 24 * 400, "UTC")[0].endswith("/2026")
    assert marks_of(start, 2, "UTC", "%d.%m. %Hh")[0] == "12.05. 10h"


def test_marks_stay_round_when_the_clocks_change() -> None:
    """2026-03-29 has 23 hours in Berlin, 2026-10-25 has 25."""
    for month, day in ((3, 29), (10, 25)):
        start = datetime(2026, month, day, tzinfo=ZoneInfo("Europe/Berlin"))
        labels = marks_of(start, 26, "Europe/Berlin")
        assert [text[3:] for text in labels] == ["00"] * len(labels)
        assert "06:00" in labels and "12:00" in labels


@settings(deadline=None)
@given(
    st.integers(0, 4_000_000_000),
    st.integers(1, 10**9),
    st.integers(1, 3_000),
    st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_time_labels_never_overlap(start: int, span: int, width: int, zone: str) -> None:
    marks = time_marks(start, start + span, width, ZoneInfo(zone), lambda text: 6.0 * len(text))
    places = [(mark - start) / span * width for mark in marks.major]
    assert all(0 <= place <= width + 1e-6 for place in places)
    assert list(marks.major) == sorted(set(marks.major)) and len(marks.minor) <= 5_000
    for (a, text), b in zip(zip(places, marks.labels, strict=True), places[1:], strict=False):
        # an hour that the clocks skip, or a short month, may bring two a little nearer
        assert b - a >= 6.0 * len(text) * 0.9 or b - a >= 3600 / span * width * 0.5


# --- pies


def test_slices_by_size_clockwise_from_the_top() -> None:
    params = {
        "width": "200",
        "height": "200",
        "hideLegend": "true",
        "valueLabels": "none",
        "colorList": "ff0000,00ff00,0000ff",
        "margin": "0",
    }
    slices = [("a", 1.0), None, ("none", -5.0)]
    body = draw("png", params, [block("b", [2.0, 4.0, NAN])], UTC, slices)
    pixels = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
    red = (pixels == RED).all(axis=2)
    green = (pixels == GREEN).all(axis=2)
    assert green.sum() / red.sum() == pytest.approx(3.0, rel=0.03)
    assert red[60, 140] and green[140, 140] and green[60, 60] and green[140, 60]


@pytest.mark.parametrize(("mode", "share"), [("average", 2.0), ("maximum", 3.0), ("minimum", 1.0)])
def test_pie_modes(mode: str, share: float) -> None:
    params = {
        "pieMode": mode,
        "hideLegend": "1",
        "valueLabels": "none",
        "colorList": "ff0000,00ff00",
    }
    body = draw("png", params, [block("b", [1.0, 2.0, 3.0])], UTC, [("a", 1.0), None])
    pixels = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
    red, green = ((pixels == color).all(axis=2).sum() for color in (RED, GREEN))
    assert green / red == pytest.approx(share, rel=0.03)


# --- parameters


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"width": "0"}, "width"),
        ({"width": "-5"}, "width"),
        ({"height": "1e3"}, "height"),
        ({"height": "12.5"}, "height"),
        ({"lineMode": "wavy"}, "lineMode"),
        ({"areaMode": "some"}, "areaMode"),
        ({"pieMode": "median"}, "pieMode"),
        ({"bgcolor": "nocolour"}, "bgcolor"),
        ({"colorList": "red,12345"}, "colorList"),
        ({"majorGridLineColor": "x"}, "majorGridLineColor"),
        ({"yMin": "low"}, "yMin"),
        ({"yMin": "5", "yMax": "5"}, "yMin"),
        ({"yStep": "0"}, "yStep"),
        ({"yStep": "0.00001"}, "yStep"),
        ({"yDivisors": "4,x"}, "yDivisors"),
        ({"fontSize": "0"}, "fontSize"),
        ({"fontSize": "huge"}, "fontSize"),
        ({"lineWidth": "thick"}, "lineWidth"),
        ({"margin": "-1"}, "margin"),
        ({"logBase": "ten"}, "logBase"),
    ],
)
def test_refused(params: dict[str, str], word: str) -> None:
    with pytest.raises(BadRequest, match=word):
        draw("png", params, [block("a", [1.0, 2.0])])


@pytest.mark.parametrize(
    "params",
    [
        {"width": "", "height": "default"},
        {"template": "x", "fontName": "No Such Font", "fontBold": "true", "fontItalic": "true"},
        {"lineMode": "STAIRCASE", "areaMode": "All", "areaAlpha": "much"},
        {"yMax": "max", "yUnitSystem": "furlongs", "logBase": "1"},
        {"minorY": "-1", "minXStep": "0", "thickness": "2", "min": "0", "max": "9"},
        {
            "hideAxes": "1",
            "hideXAxis": "1",
            "hideYAxis": "1",
            "hideGrid": "1",
            "yAxisSide": "right",
        },
        {"title": "a%0Ab+c", "vtitle": "x\ny", "vtitleRight": "z", "xFormat": "%H:%M%n$"},
        {"logBase": "e", "leftDashed": "3", "leftColor": "red", "rightWidth": "2"},
        {"margin": "500"},
        {"fontSize": "150"},
    ],
)
def test_accepted(params: dict[str, str]) -> None:
    assert draw("png", params, [block("a", [1.0, 2.0]), block("b", [5.0, 7.0], secondYAxis=True)])
    assert draw("png", params, [block("a", [1.0, 2.0])])


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "yMin",
                "yMax",
                "yLimit",
                "yStep",
                "logBase",
                "margin",
                "fontSize",
                "lineWidth",
                "title",
                "xFormat",
                "minorY",
                "bgcolor",
                "connectedLimit",
                "areaAlpha",
                "yDivisors",
                "minXStep",
            ]
        ),
        st.one_of(
            st.text(max_size=8),
            st.integers(-1000, 1000).map(str),
            st.floats(-10, 10).map(lambda f: f"{f:.3f}"),
        ),
    )
)
def test_any_parameters_give_a_picture_or_a_refusal(params: dict[str, str]) -> None:
    blocks = [block("a", [1.0, NAN, 3.0]), block("b", [-1.0, 5.0, 3.0])]
    try:
        body = draw("png", {"width": "60", "height": "40", **params}, blocks)
    except BadRequest as error:
        assert "\n" not in str(error)
    else:
        assert Image.open(io.BytesIO(body)).size == (60, 40)


def test_limits() -> None:
    with pytest.raises(LimitExceeded, match="pixels"):
        draw("png", {"width": "4000", "height": "4000"}, [])
    many = SeriesBlock.uniform(
        [Label(str(n), "x", {}) for n in range(1_001)], Grid(T0, T0 + 10, 10), np.ones((1_001, 1))
    )
    with pytest.raises(LimitExceeded, match="series to draw"):
        draw("png", {}, [many])


def test_many_long_series_are_drawn_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By fewer points each, not by refusing: the line is still at its place."""
    monkeypatch.setattr("http_api.pictures.line_graph.WORK_MAX", 10_000)
    labels = [Label(str(n), "x", {}) for n in range(10)]
    many = SeriesBlock.uniform(labels, Grid(T0, T0 + 50_000, 10), np.full((10, 5_000), 30.0))
    assert len(rows_of(picture(many, colorList="ff0000"), 50, RED)) == 3
    drawn = draw("svg", {**PLAIN, "graphOnly": "1"}, [many])
    assert len(drawn) < 20_000


def test_guesses_are_those_of_graphite_web() -> None:
    given = {
        "a": "5",
        "b": "-5",
        "c": "5.5",
        "d": "TRUE",
        "e": "default",
        "f": "",
        "bgcolor": "123456",
        "g": "x",
    }
    guessed = Picture(given)
    assert [guessed._values.get(name) for name in given] == [
        5,
        -5,
        5.5,
        True,
        None,
        None,
        "123456",
        "x",
    ]
    assert line_options_of(Picture({"min": "3", "thickness": "7"})).one.low == 3.0


# --- the library


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "http_api.pictures.line_graph", raising=False)
    monkeypatch.delattr("http_api.pictures.line_graph", raising=False)
    monkeypatch.setitem(sys.modules, "http_api.pictures.line_graph", None)
    with pytest.raises(NotInstalled, match=r"tgres-py\[images\]"):
        draw("png", {}, [])


def test_the_library_is_loaded_for_pictures_only() -> None:
    code = "import sys, http_api.app, http_api.pictures; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


async def test_pictures_over_http() -> None:
    source = of_values({"a": [1.0, 2.0, 3.0]}, T0)
    async with TestClient(TestServer(make_app(source, FakeStatus()))) as client:
        url = f"/render?target=a&from={T0 - 60}&until={T0 + 30}&now={T0 + 30}"
        svg = await client.get(url + "&format=svg")
        assert svg.content_type == "image/svg+xml"
        assert "default-src 'none'" in svg.headers["Content-Security-Policy"]
        bad = await client.get(url + "&format=png&lineMode=wavy")
        assert (bad.status, bad.content_type) == (400, "text/plain")
        pie = await client.get(url.replace("target=a", "target=x:y") + "&graphType=pie")
        assert (pie.status, (await pie.text()).startswith("target: 'x:y'")) == (400, True)
