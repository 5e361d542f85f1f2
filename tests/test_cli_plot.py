"""Tables and plots of the terminal, as text."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgres_py.cli.plot import plot, plot_charts, round_ticks
from tgres_py.cli.table import Series, format_table, format_value, local_time

T0 = 1_700_000_000


def line(name: str, values: list[float | None], step_s: int = 60) -> Series:
    return Series(name, [T0 + i * step_s for i in range(len(values))], values)


def test_table_is_aligned_and_shows_unknown_and_missing_apart() -> None:
    text = format_table([line("long.name", [1.0, None]), Series("b", [T0], [-2.5])])
    assert text.splitlines() == [
        "time                 long.name     b",
        f"{local_time(T0)}          1  -2.5",
        f"{local_time(T0 + 60)}          -",
    ]


def test_tables_that_are_too_wide_stand_below_each_other() -> None:
    series = [line("a" * 30, [1.0]), line("b" * 30, [2.0])]
    assert len(format_table(series, 200).splitlines()) == 2
    assert [row[:4] for row in format_table(series, 60).splitlines()] == [
        "time",
        "2023",
        "",
        "time",
        "2023",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.1 + 0.2, "0.3"), (1e15, "1e+15"), (3.0, "3"), (-0.5, "-0.5")],
)
def test_values(value: float | None, text: str) -> None:
    assert format_value(value) == text


def test_rising_line_goes_from_lower_left_to_upper_right() -> None:
    rows = plot([line("up", [float(i) for i in range(11)])], 40, 12).splitlines()
    chart = rows[:10]
    assert chart[0].startswith("10 ┤") and chart[-1].startswith(" 0 ┤")
    first = [next(i for i, c in enumerate(row) if ord(c) >= 0x2800) for row in chart]
    assert first == sorted(first, reverse=True) and first[0] > first[-1]
    assert rows[10].split() == [local_time(t)[11:] for t in (T0, T0 + 300, T0 + 600)]
    assert rows[11] == "━━ up  min 0  max 10  last 10"


def test_unknown_points_are_a_gap() -> None:
    whole = plot([line("x", [1.0] * 60)], 70, 8)
    gap = plot([line("x", [1.0] * 20 + [None] * 20 + [1.0] * 20)], 70, 8)
    dots = [sum(ord(c) >= 0x2800 for c in text) for text in (whole, gap)]
    assert dots[1] == pytest.approx(dots[0] * 2 / 3, abs=3)


def test_a_single_point_is_a_dot() -> None:
    assert sum(ord(c) >= 0x2800 for c in plot([line("x", [5.0])], 40, 8)) == 1


def test_no_known_points_is_said() -> None:
    text = plot([line("x", [None, None])], 40, 8)
    assert text.splitlines() == ["(no known points in this range)", "━━ x  no known points"]


def test_series_share_a_chart_only_where_colours_tell_them_apart() -> None:
    series = [line("a", [1.0, 2.0]), line("b", [2.0, 1.0])]
    assert "\x1b[" not in plot_charts(series, 60, 20, colour=False)
    assert plot_charts(series, 60, 20, colour=False).count("\n\n") == 1
    coloured = plot_charts(series, 60, 20, colour=True)
    assert "\n\n" not in coloured and "\x1b[36m" in coloured and "\x1b[33m" in coloured


finite = st.floats(-1e12, 1e12, allow_subnormal=False).map(lambda x: float(f"{x:.6g}"))


@given(finite, finite, st.integers(2, 12))
def test_ticks_enclose_the_range_and_are_evenly_spaced(a: float, b: float, count: int) -> None:
    low, high = min(a, b), max(a, b)
    ticks = round_ticks(low, high, count)
    slack = 1e-9 * max(abs(low), abs(high), 1e-300)
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= count + 3
    steps = [y - x for x, y in itertools.pairwise(ticks)]
    assert all(s > 0 for s in steps) and max(steps) == pytest.approx(min(steps), rel=1e-3)


@given(
    st.lists(st.one_of(st.none(), finite, st.just(math.inf), st.just(math.nan)), max_size=50),
    st.integers(1, 200),
    st.integers(1, 60),
)
def test_a_plot_of_anything_keeps_its_width(
    values: list[float | None], width: int, height: int
) -> None:
    rows = plot([line("x", values)], width, height).splitlines()[:-1]
    assert rows and all(len(row) <= max(width, 31 + 14) for row in rows)
