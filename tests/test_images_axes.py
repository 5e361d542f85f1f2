"""Marks and labels of the axes of pictures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http_api.pictures.options import Side
from http_api.pictures.scale import label, make_scale
from http_api.pictures.timeaxis import time_marks

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
