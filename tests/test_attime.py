"""Times and intervals as users write them."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgres_py.errors import BadRequest
from tgres_py.target.attime import parse_at_time, parse_interval

NOW_S = 1_778_597_240  # Tuesday 2026-05-12 14:47:20 UTC


def vectors() -> list[tuple[str, str, str]]:
    lines = (Path(__file__).parent / "data" / "attime.txt").read_text().splitlines()
    out = []
    for line in lines:
        if line and not line.startswith("#"):
            zone, rest = line.split(" | ", 1)
            text, wanted = rest.split("=> ", 1)
            out.append((zone, text.removesuffix(" "), wanted))
    return out


@pytest.mark.parametrize(("zone", "text", "wanted"), vectors())
def test_vector(zone: str, text: str, wanted: str) -> None:
    if wanted.startswith("! "):
        with pytest.raises(BadRequest, match="from: ") as caught:
            parse_at_time(text, NOW_S, ZoneInfo(zone), "from")
        assert wanted[2:] in str(caught.value)
        return
    seconds = parse_at_time(text, NOW_S, ZoneInfo(zone), "from")
    assert datetime.fromtimestamp(seconds, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S") == wanted


def test_a_repeated_hour_is_standard_time() -> None:
    local = parse_at_time("02:30_20251026", NOW_S, ZoneInfo("Europe/Berlin"))
    assert datetime.fromtimestamp(local, UTC).hour == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("5min", 300), ("1h30min", 5400), ("-1d", -86_400), ("+2w", 1_209_600), ("", 0)],
)
def test_interval(text: str, seconds: int) -> None:
    assert parse_interval(text) == seconds


@pytest.mark.parametrize("text", ["5", "min", "1foo", "1h-", "1.5h", "5m", "²h", "1h 5min"])
def test_no_interval(text: str) -> None:
    with pytest.raises(BadRequest, match="windowSize"):
        parse_interval(text, "windowSize")


@given(
    st.text(alphabet="0123456789+-:/ _,adhimnoprstuwy", max_size=24),
    st.sampled_from(["UTC", "Asia/Tokyo"]),
)
def test_any_text_is_a_time_or_refused(text: str, zone: str) -> None:
    with contextlib.suppress(BadRequest):
        assert isinstance(parse_at_time(text, NOW_S, ZoneInfo(zone)), int)


@given(st.integers(0, 400), st.sampled_from(["s", "min", "h", "d", "w"]))
def test_relative_times_are_intervals(count: int, unit: str) -> None:
    text = f"{count}{unit}"
    assert parse_at_time("-" + text, NOW_S, UTC) == NOW_S - parse_interval(text)
