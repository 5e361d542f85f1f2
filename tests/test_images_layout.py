"""Pictures: axes, colours, places, legends, and the fonts of names and titles."""

from __future__ import annotations

import io
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from PIL import Image

from http_api.pictures import draw, fonts
from http_api.pictures.colors import TEMPLATES, parse_color
from tests.pictures import (
    BLUE,
    NAN,
    RED,
    Pixels,
    block,
    picture,
    rows_of,
)


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
