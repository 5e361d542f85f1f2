"""Pictures: which parameters are refused, what any of them give, limits, guesses."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from http_api.pictures import draw
from http_api.pictures.options import Picture, line_options_of
from tests.pictures import (
    NAN,
    PLAIN,
    RED,
    T0,
    block,
    picture,
    rows_of,
)
from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.series import Grid, Label, SeriesBlock


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
