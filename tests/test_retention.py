"""Retentions against whisper's own parser and checks; widths; sizes."""

from __future__ import annotations

import pytest
import whisper
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tgres_py.errors import ConfigError
from tgres_py.model.retention import (
    DEFAULT_RETENTION,
    RETENTION_S_MAX,
    Archive,
    Cf,
    OnDuplicate,
    bytes_per_series,
    choose_widths,
    format_retention,
    make_bundle,
    pairs_of,
    parse_retention,
    validate_retention,
)

UNITS = ["", "s", "sec", "second", "seconds", "m", "min", "minutes", "h", "hours", "d", "day"]
UNITS += ["days", "w", "weeks", "y", "year", "years", "mo", "x", "S", "secondss"]


def test_default():
    assert parse_retention(DEFAULT_RETENTION) == ((10, 2160), (60, 10080), (600, 262800))


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("60:1440", ((60, 1440),)),
        ("60s:1440", ((60, 1440),)),
        (" 1min:1day , 1s:2minutes", ((1, 120), (60, 1440))),
        ("7s:1m", ((7, 8),)),
        ("1d:1y", ((86400, 365),)),
        ("1w:1y", ((604800, 52),)),
    ],
)
def test_parses(text, pairs):
    assert parse_retention(text) == pairs


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not STEP:LENGTH"),
        ("10s", "not STEP:LENGTH"),
        ("10s:6h,", "not STEP:LENGTH"),
        ("10s:6h:3", "is not a number with a unit"),
        ("10x:6h", "unknown unit 'x'"),
        ("10s:6mo", "unknown unit 'mo'"),
        ("-10s:6h", "is not a number with a unit"),
        ("1.5s:6h", "is not a number with a unit"),
        ("10 s:6h", "is not a number with a unit"),
        ("s:6h", "is not a number with a unit"),
        ("0s:6h", "has no slots"),
        ("0:5", "has no slots"),
        ("60s:30s", "has no slots"),
        ("10s:0", "has no slots"),
        ("10s:137y", "longer than"),
        ("1s:9999999999999", "too large"),
        ("10s:6h,10s:1d", "same step of 10 s"),
        ("10s:6h,15s:1d", "no multiple of the next finer"),
        ("10s:6h,60s:6h", "must reach further back"),
        ("10s:6h,60s:1h", "must reach further back"),
        ("10s:50s,60s:1h", "one coarser slot is made of 6"),
        (",".join(f"{2**i}s:{2 ** (2 * i + 2)}s" for i in range(17)), "at most 16"),
    ],
)
def test_refuses(text, reason):
    with pytest.raises(ConfigError, match=reason):
        parse_retention(text)


def test_negative_numbers_from_settings_are_refused():
    for pair in ((-10, 5), (10, -5), (0, 0)):
        with pytest.raises(ConfigError, match="has no slots"):
            validate_retention([pair])
    with pytest.raises(ConfigError, match="at least one archive"):
        validate_retention([])


@given(
    st.integers(1, 100),
    st.sampled_from(UNITS),
    st.integers(1, 100_000),
    st.sampled_from(UNITS),
)
def test_parses_as_whisper(step, step_unit, length, length_unit):
    text = f"{step}{step_unit}:{length}{length_unit}"
    try:
        expected = whisper.parseRetentionDef(text)
    except ValueError:
        expected = None
    if expected is None or expected[1] < 1 or expected[0] * expected[1] > RETENTION_S_MAX:
        with pytest.raises(ConfigError):
            parse_retention(text)
    else:
        assert parse_retention(text) == (expected,)


small_pairs = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 4, 6, 10, 12, 60]), st.integers(1, 60)),
    min_size=1,
    max_size=4,
)


@given(small_pairs)
@settings(max_examples=500)
def test_refuses_what_whisper_refuses(pairs):
    theirs = list(pairs)
    try:
        whisper.validateArchiveList(theirs)
    except whisper.InvalidConfiguration:
        with pytest.raises(ConfigError):
            validate_retention(pairs)
    else:
        assert validate_retention(pairs) == tuple(theirs)


@st.composite
def valid_pairs(draw):
    step_s = draw(st.sampled_from([1, 5, 7, 10, 15, 60, 300, 3600, 86400]))
    pairs = [(step_s, draw(st.integers(1, 10_000)))]
    for _ in range(draw(st.integers(0, 3))):
        factor = draw(st.sampled_from([2, 3, 5, 6, 7, 10, 60]))
        fine_s, size = pairs[-1]
        pairs[-1] = fine_s, max(size, factor)
        coarse_s = fine_s * factor
        least = pairs[-1][0] * pairs[-1][1] // coarse_s + 1
        pairs.append((coarse_s, draw(st.integers(least, 2 * least + 100))))
    assume(pairs[-1][0] * pairs[-1][1] <= RETENTION_S_MAX)
    return validate_retention(pairs)


@given(valid_pairs())
def test_format_goes_round(pairs):
    assert parse_retention(format_retention(pairs)) == pairs


def test_format_uses_the_largest_unit():
    assert format_retention(parse_retention(DEFAULT_RETENTION)) == DEFAULT_RETENTION
    assert format_retention([(90, 2), (604800, 52)]) == "90s:3m,7d:364d"


@pytest.mark.parametrize(
    ("text", "widths"),
    [
        (DEFAULT_RETENTION, (480, 80, 48)),
        ("10s:6h,1m:1d", (480, 80)),
        ("10s:1d,1h:5y", (360, 48)),  # 480 would not be whole hours
        ("1s:1h,1m:1d", (480, 48)),
        ("7s:1d,21s:3d,210s:30d", (480, 160, 48)),
        ("10s:1d,70s:7d", (483, 69)),  # nearest multiple of 7
        ("5m:1d", (288,)),  # at most a day
        ("2m:30d", (480,)),
        ("1d:5y", (1,)),
        ("2d:5y", (1,)),
        ("10s:20", (20,)),  # at most the archive
        ("10s:20,100s:21", (20, 21)),
        ("1s:2h,2s:4h", (480, 240)),
    ],
)
def test_widths(text, widths):
    assert choose_widths(parse_retention(text)) == widths


@given(valid_pairs())
def test_widths_keep_their_bounds(pairs):
    widths = choose_widths(pairs)
    assert len(widths) == len(pairs)
    for (step_s, size), width in zip(pairs, widths, strict=True):
        assert 1 <= width <= min(size, 720)
        assert width >= min(size, 48) * 3 // 4 or step_s > 86_400 // 48
    assert pairs[0][0] * widths[0] <= max(86_400, pairs[0][0])


def test_bundles():
    spec = make_bundle([(60, 10080), (10, 2160)], Cf.MAX, 0.25, OnDuplicate.SUM)
    assert spec.archives == (Archive(10, 2160, 480), Archive(60, 10080, 80))
    assert (spec.cf, spec.xff, spec.on_duplicate) == (Cf.MAX, 0.25, OnDuplicate.SUM)
    assert pairs_of(spec) == ((10, 2160), (60, 10080))
    assert hash(spec) == hash(make_bundle([(10, 2160), (60, 10080)], Cf.MAX, 0.25, OnDuplicate.SUM))
    for xff in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="xFilesFactor"):
            make_bundle([(10, 6)], xff=xff)


def test_bytes_per_series():
    assert bytes_per_series(make_bundle(parse_retention(DEFAULT_RETENTION))).memory <= 5_000
    size = bytes_per_series(make_bundle([(10, 960), (60, 200)]))
    assert size.memory == 400 + 9 * 480
    assert size.disk == 3 * (140 + 8 * 480) + 4 * (140 + 8 * 80)
