"""Pictures: type and size, where lines, areas and slices are, without the library. No text is compared by pixels."""

from __future__ import annotations

import io
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from datetime import UTC

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from http_api.app import make_app
from http_api.pictures import draw
from tests.fake_source import of_values
from tests.pictures import (
    BLUE,
    GREEN,
    NAN,
    RED,
    T0,
    WHITE,
    block,
    is_blank,
    picture,
    rows_of,
)
from tests.test_http_render import FakeStatus
from tgres_py.errors import NotInstalled
from tgres_py.functions.series import SeriesBlock

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
