"""rollup() and the plain model against the real whisper package."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.plain_model import PlainSeries, consolidate, naive_sum
from tgres_py.model.consolidation import known_min, rollup
from tgres_py.model.retention import Cf, OnDuplicate, make_bundle, parse_retention

NAN = math.nan
INF = math.inf
WHISPER_CFS = [cf for cf in Cf if cf is not Cf.MEDIAN]
NOW = 1_700_000_000


@pytest.fixture(autouse=True)
def plain_sum(monkeypatch):
    """whisper with the sum() of Python 3.11, whatever Python runs the test."""
    monkeypatch.setattr(whisper, "sum", naive_sum, raising=False)


def bits(values):
    return np.asarray(values, np.float64).view(np.uint64).tolist()


def whisper_rollup(fine, factor, cf, xff):
    """whisper's rule for one series: list of values, NaN = unknown."""
    stored_xff = float(np.float32(xff))
    result = []
    for start in range(0, len(fine) - factor + 1, factor):
        neighbours = [None if math.isnan(v) else float(v) for v in fine[start : start + factor]]
        known = [v for v in neighbours if v is not None]
        if not known or len(known) / factor < stored_xff:
            result.append(NAN)
        elif cf is Cf.MEDIAN:
            result.append(consolidate(cf, known, factor))
        else:
            result.append(whisper.aggregate(cf.value, known, neighbours))
    return result


@st.composite
def rollup_cases(draw):
    factor = draw(st.integers(1, 8))
    shape = (draw(st.integers(0, 3 * factor + 2)), draw(st.integers(0, 4)))
    few = st.sampled_from([NAN, NAN, 0.0, -0.0, 1.0, -1.0, 0.1, 0.2, 0.3, 1e308, -1e308, INF, -INF])
    values = st.one_of(few, st.floats(allow_nan=False))
    return draw(hnp.arrays(np.float64, shape, elements=values)), factor


@given(
    rollup_cases(),
    st.sampled_from(list(Cf)),
    st.one_of(st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0]), st.floats(0, 1)),
)
@settings(max_examples=400, deadline=None)
def test_equals_whisper_bit_for_bit(case, cf, xff):
    fine, factor = case
    before = bits(fine)
    result = rollup(fine, factor, cf, xff)
    assert result.shape == (fine.shape[0] // factor, fine.shape[1])
    assert bits(fine) == before
    for series in range(fine.shape[1]):
        expected = np.array(whisper_rollup(fine[:, series], factor, cf, xff))
        same = (result[:, series].view(np.uint64) == expected.view(np.uint64)) | (
            np.isnan(result[:, series]) & np.isnan(expected)
        )
        if cf is Cf.MEDIAN:  # which of 0.0 and -0.0 is the middle one is the sort's affair
            same |= (result[:, series] == 0) & (expected == 0)
        assert same.all(), (result[:, series], expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1e308, 1e308], 1e308), ([1e308, 1.5e308], 1.25e308), ([-1e308, 1e308], 0.0),
     ([5e-324, 5e-324], 5e-324), ([1.0, INF], INF), ([-INF, 1.0], -INF)],
)  # fmt: skip
def test_median_of_two_does_not_overflow(values, expected):
    assert rollup(np.array(values)[:, None], 2, Cf.MEDIAN, 0.5).tolist() == [[expected]]


@pytest.mark.parametrize(
    ("cf", "expected"),
    [
        (Cf.AVERAGE, 2.0),
        (Cf.SUM, 4.0),
        (Cf.LAST, 3.0),
        (Cf.MAX, 5.0),
        (Cf.MIN, -4.0),
        (Cf.AVG_ZERO, 1.0),
        (Cf.ABSMAX, 5.0),
        (Cf.ABSMIN, 3.0),
        (Cf.MEDIAN, 3.0),
    ],
)
def test_each_function(cf, expected):
    fine = np.array([[5.0], [-4.0], [NAN], [3.0]])
    if cf in (Cf.AVERAGE, Cf.AVG_ZERO):
        expected = 4.0 / (3 if cf is Cf.AVERAGE else 4)
    assert rollup(fine, 4, cf, 0.5).tolist() == [[expected]]


@pytest.mark.parametrize(
    ("cf", "values", "expected"),
    [
        (Cf.ABSMAX, [3.0, -3.0], 3.0),
        (Cf.ABSMAX, [-3.0, 3.0], -3.0),
        (Cf.ABSMIN, [-2.0, 2.0], -2.0),
        (Cf.MEDIAN, [1.0, 4.0], 2.5),
        (Cf.MEDIAN, [INF, INF], INF),
    ],
)
def test_ties(cf, values, expected):
    assert rollup(np.array(values)[:, None], 2, cf, 0.0).tolist() == [[expected]]


def test_zeros_keep_their_sign_as_in_python():
    for cf, function in ((Cf.MAX, max), (Cf.MIN, min)):
        for values in ([0.0, -0.0], [-0.0, 0.0]):
            assert bits(rollup(np.array(values)[:, None], 2, cf, 0.0)[0]) == bits(
                [function(values)]
            )


def test_xff_counts_as_whispers_32_bits():
    assert float(np.float32(0.1)) > 0.1
    assert known_min(10, 0.1) == 2
    assert known_min(10, 0.0) == 1
    assert known_min(6, 0.5) == 3
    assert known_min(5, 0.5) == 3
    assert known_min(7, 1.0) == 7


def test_infinities_that_cancel_are_unknown():
    fine = np.array([[INF, INF], [-INF, 1.0]])
    result = rollup(fine, 2, Cf.SUM, 0.5)
    assert math.isnan(result[0, 0])
    assert result[0, 1] == INF


# Whole files: a stream of points through whisper and through the plain model.

RETENTIONS = ["1s:10,5s:10", "10s:1m,1m:5m,5m:30m", "10s:2m,30s:5m", "60s:7", "2s:12,6s:20,12s:30"]


@st.composite
def streams(draw, one_infinity=True):
    """Retention, CF, xff, and points (time, value, now): in order, late, duplicate and with gaps."""
    pairs = parse_retention(draw(st.sampled_from(RETENTIONS)))
    spec = make_bundle(
        pairs,
        draw(st.sampled_from(WHISPER_CFS)),
        draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0])),
    )
    longest_s = spec.archives[-1].retention_s
    step_s = spec.archives[0].step_s
    now_s = NOW
    points = []
    special = [INF, 1e308, -0.0] if one_infinity else [0.0]
    values = st.one_of(st.floats(-1e6, 1e6), st.sampled_from(special))
    advance_s = st.sampled_from([0, 1, step_s, step_s, step_s, 3 * step_s, longest_s // 3])
    age_s = st.one_of(
        st.just(0), st.just(0), st.integers(-step_s, 3 * step_s), st.integers(0, longest_s + step_s)
    )
    for _ in range(draw(st.integers(1, 60))):
        now_s += draw(advance_s)
        points.append((now_s - draw(age_s), draw(values), now_s))
    return spec, points


def whisper_slots(path, archive, now_s):
    """All known slots of one archive that a reader can reach."""
    (start, _, step), values = whisper.fetch(
        path, now_s - archive.retention_s, now_s, now_s, archiveToSelect=f"{archive.step_s}s"
    )
    return {
        (start + i * step) // step: value for i, value in enumerate(values) if value is not None
    }


@given(streams())
@settings(max_examples=300, deadline=None)
def test_plain_model_equals_whisper_files(stream):
    spec, points = stream
    model = PlainSeries(spec)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "a.wsp")
        pairs = [(archive.step_s, archive.size) for archive in spec.archives]
        whisper.create(path, pairs, spec.xff, spec.cf.value, sparse=True)
        for time_s, value, now_s in points:
            if model.at_edge(time_s, now_s):
                continue
            taken = model.add(time_s, value, now_s)
            within = now_s - time_s <= spec.archives[-1].retention_s
            if within and not taken:
                # a point from the future has its place; whisper would overwrite that
                assert any(at_s > now_s - ring.step_s for ring in model.rings for at_s in ring.times_s())
                continue
            assert taken == within
            whisper.update_many(path, [(time_s, value)], now_s)
        now_s = points[-1][2]
        for number, archive in enumerate(spec.archives):
            newest = now_s // archive.step_s
            expected = whisper_slots(path, archive, now_s)
            held = {
                slot: value
                for slot, value in model.read(number).items()
                if newest - archive.size < slot <= newest
            }
            assert {s: bits(v) for s, v in held.items()} == {
                s: bits(v) for s, v in expected.items()
            }, (spec, number)


def test_plain_model_rules_for_duplicates():
    expected = {
        OnDuplicate.LAST: 3.0,
        OnDuplicate.FIRST: 4.0,
        OnDuplicate.SUM: 8.0,
        OnDuplicate.MEAN: 8 / 3,
        OnDuplicate.MIN: 1.0,
        OnDuplicate.MAX: 4.0,
    }
    for rule, value in expected.items():
        series = PlainSeries(make_bundle([(10, 6), (60, 5)], Cf.SUM, 0.0, rule))
        for offset, point in enumerate((4.0, 1.0, 3.0)):
            assert series.add(NOW + offset, point, NOW + 5)
        assert not series.add(NOW, NAN, NOW)
        assert series.read(0) == {NOW // 10: value}
        assert series.read(1) == {NOW // 60: value}


def test_plain_model_keeps_the_newest_lap():
    series = PlainSeries(make_bundle([(10, 6)]))
    assert series.add(NOW, 1.0, NOW)
    assert not series.add(NOW - 60, 2.0, NOW)
    assert series.read(0) == {NOW // 10: 1.0}
    assert not series.add(NOW - 61, 2.0, NOW)
