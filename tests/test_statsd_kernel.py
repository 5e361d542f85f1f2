"""The native cells of statsd against their pure twin, both below the same aggregator; and both against a slow plain model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.statsd_flushes import Flushes
from tests.statsd_model import Model
from tgres_py.kernels import statsd_py
from tgres_py.statsd import aggregate
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.settings import DIALECTS, from_table

native = pytest.importorskip(
    "tgres_py.kernels._statsd", reason="the extension isn't built: only the pure twin can run"
)

_keys = st.sampled_from(
    ["a", "b", "a.b", "c-d_e", "x" * 40, "a b", "", "é", "a/b", "A9.packets_received"]
)
_values = st.one_of(
    st.integers(-9, 99).map(str),
    st.floats(allow_nan=False).map(repr),
    st.decimals(-99, 99, places=2).map(str),
    st.sampled_from(
        [
            "+1",
            "+.5",
            "-0",
            ".5",
            "5.",
            "1e3",
            "1e",
            "",
            "--1",
            "+-1",
            " 5",
            "0x10",
            "Infinity",
            "1" * 70,
            "1.2.3",
            "٣",
        ]
    ),
)
_types = st.sampled_from(
    ["c", "c", "c", "g", "g", "ms", "ms", "s", "h", "", "c\r", "ms ", "m", "gg"]
)
_rates = st.sampled_from(
    [
        "",
        "",
        "",
        "|@0.1",
        "|@.5",
        "|@5.",
        "|@0",
        "|@1e-1",
        "|@x",
        "|",
        "|@",
        "|@-1",
        "|@1|x",
        "|@1.1.1",
    ]
)
_line = st.builds(lambda k, v, t, r, tail: f"{k}:{v}|{t}{r}{tail}", _keys, _values, _types, _rates, st.sampled_from(["", "", "", "|#t:1", "|#a:b,c:d", "|#x", "|#", "|#a:b:c", "|#a b:c", "|#a:1,,b", "|#a|#b", ":3|c"]))  # fmt: skip
_packet = st.lists(st.one_of(_line, _line, st.text(max_size=6)), max_size=15).map("\n".join)


def pair(table: dict[str, Any]) -> list[Flushes]:
    made = []
    for cells in (native.StatsdCells, statsd_py.StatsdCells):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(aggregate, "StatsdCells", cells)
            made.append(Flushes(Aggregator(from_table(table))))
    return made


def numbers(flush: Flushes, now_s: int) -> dict[str, float]:
    flushed = flush(now_s)
    return {n: v for n, v in flushed.items() if "graphiteStats" not in n and "processing" not in n}


@given(
    st.lists(st.lists(_packet, max_size=3), max_size=4),
    st.booleans(),
    st.integers(3, 12),
    st.integers(0, 9),
    st.sampled_from(["", "a", "a.b"]),
)
@settings(max_examples=100, deadline=None)
def test_twins_agree(
    flushes: list[list[str]], deletes: bool, keys: int, values: int, gone: str
) -> None:
    table = {
        "deleteIdleStats": deletes,
        "gaugesMaxTTL": 2,
        "keysMax": keys,
        "timerValuesMax": values + 1,
    }
    twins = pair(table)
    one, other = (twin.aggregator for twin in twins)
    for number, packets in enumerate(flushes):
        for aggregator in (one, other):
            aggregator.add("\n".join(packets).encode(), len(packets), 5)
        assert sorted(one.timers().items()) == sorted(other.timers().items())
        for verb in ("delete_counter", "delete_timer", "delete_gauge"):
            assert getattr(one, verb)(gone) == getattr(other, verb)(gone)
        assert one.limits() == other.limits() and one.bad_lines_seen == other.bad_lines_seen
        a, b = (numbers(twin, 100 + number) for twin in twins)
        assert a.keys() == b.keys()
        np.testing.assert_array_equal([a[k] for k in a], [b[k] for k in a])


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes(data: bytes) -> None:
    one, other = pair({})
    one.aggregator.add(data, 1, 0)
    other.aggregator.add(data, 1, 0)
    assert numbers(one, 9) == pytest.approx(numbers(other, 9), nan_ok=True)


_dialects = st.sampled_from(
    [
        {},
        {"dialect": "dogstatsd"},
        {"dialect": "dogstatsd", "tagStyles": ["influx"]},
        {"valuePacking": True, "timerTypes": ["h"]},
        {"extraFields": True, "timestamps": True},
    ]
)
_odd = st.sampled_from(
    [
        "a:1:2:3|ms", "a:1:2|c|@0.5|#x:y", "a:1|h", "b:7|d|@0.1", "a:1|c|T1700000000", "g:-5|g|T1700000001", "a:1|c|c:ci-9",
        "b:1|ms|@0.5|#env:prod|c:in-8", "a:1|g|e:it-x|card:low", "_e{2,3}:ab|cde|t:info", "_e{9,9}:ab|c", "cpu,host=a,dc=b:4|c",
        "cpu,x:4|c", "a:1|c:+2|g:-3|g:4|ms|@0.25", "s:x|s:y|s:x|s|#t", "a b/c:1|g", "nothing", "k:1", ":1|c", "a:1|c|@", "a:1|c|#",
    ]
)  # fmt: skip
_lines = st.lists(st.one_of(_line, _line, _odd, st.text(max_size=6)), max_size=30)


@given(
    st.lists(st.lists(_lines.map("\n".join), max_size=3), max_size=3),
    _dialects,
    st.lists(st.sampled_from([90, 50, 99.9, -10, 1]), min_size=1, max_size=3, unique=True),
)
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("which", [0, 1])
def test_against_a_slow_model(
    which: int, flushes: list[list[str]], dialect: dict[str, Any], percentiles: list[float]
) -> None:
    table = {"percentThreshold": percentiles, **dialect}
    flush = pair(table)[which]
    model = Model({**DIALECTS[table.get("dialect", "etsy")], **table})
    for number, packets in enumerate(flushes):
        for packet in packets:
            flush.aggregator.add(packet.encode(), 1, 5)
            model.packet(packet.encode())
        timed = sorted((t.name, t.time_s, t.value) for t in flush.aggregator.take_timed())
        expected = sorted(model.timed)
        assert [t[:2] for t in timed] == [t[:2] for t in expected]
        np.testing.assert_allclose([t[2] for t in timed], [t[2] for t in expected], rtol=1e-12)
        model.timed = []
        found, wanted = numbers(flush, 100 + number), model.flush()
        found.pop("stats.gauges.statsd.timestamp_lag", None)
        wanted["statsd.numStats"] += number > 0  # that one
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            near = pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True)
            assert found[name] == near or _sums_overflow(name, value), name


def _sums_overflow(name: str, value: float) -> bool:
    """Differences of sums beyond what a double holds, or of which the small part is lost, depend on how they are made."""
    return not math.isfinite(value) or "_top" in name or name.endswith("std") or abs(value) > 1e150


def test_keys_that_went_make_room_again() -> None:
    for flush in pair({"deleteIdleStats": True, "keysMax": 2_000}):
        for turn in range(5):
            lines = "".join(f"k{turn}.{i}:1|c\n" for i in range(1_900)).encode()
            flush.aggregator.add(lines, 1, 0)
            flushed = flush(100 + turn)
            assert flushed[f"stats_counts.k{turn}.1899"] == 1
        assert flush.aggregator.limits()["keys"] == 0


def test_a_timer_with_a_million_values() -> None:
    values = np.random.default_rng(7).permutation(1_000_000)
    for flush in pair({}):
        lines = b"".join(b"t:%d|ms\n" % value for value in values[:1000].tolist())
        flush.aggregator.add(lines, 1, 0)
        for value in values[1000:].tolist():
            flush.aggregator._cells.time("t", value, 1.0)
        flushed = flush(100)
        assert flushed["stats.timers.t.upper_90"] == 899_999
        assert flushed["stats.timers.t.median"] == 499_999.5
        assert flushed["stats.timers.t.count"] == 1_000_000


def test_sets_are_exact_up_to_their_limit_then_near() -> None:
    for flush in pair({"setExactMax": 4_096}):
        add = flush.aggregator.add
        add("\n".join(f"s:{i}|s" for i in range(4_096)).encode(), 1, 0)
        assert flush(100)["stats.sets.s.count"] == 4_096
        assert flush.numbers.estimated == 0 and flush.numbers.estimated_key == ""
        add("\n".join(f"big:{i}|s" for i in range(50_000)).encode(), 1, 0)
        flushed = flush(110)
        assert flushed["stats.sets.s.count"] == 0
        assert flushed["stats.sets.big.count"] == pytest.approx(50_000, rel=0.1)
        assert flush.numbers.estimated == 1 and flush.numbers.estimated_key == "big"


def test_members_of_all_sets_have_a_limit() -> None:
    for flush in pair({"setMembersMax": 10}):
        for turn in range(2):
            lines = "\n".join(f"s{i % 3}:{i}|s" for i in range(30)).encode()
            flush.aggregator.add(lines, 1, 0)
            flushed = flush(100 + turn)
            assert sum(flushed[f"stats.sets.s{i}.count"] for i in range(3)) == 10
        assert flush.aggregator.limits()["set_members"] == 40


def test_a_cell_that_got_another_key_is_flushed_under_that() -> None:
    for flush in pair({"deleteIdleStats": True}):
        for turn in range(4):
            flush.aggregator.add(f"k{turn}:{turn}|c\nt{turn}:{turn}|ms".encode(), 1, 0)
            flushed = flush(100 + turn)
            assert {n for n in flushed if ".k" in n} == {f"stats_counts.k{turn}", f"stats.k{turn}"}
            assert flushed[f"stats.timers.t{turn}.upper"] == turn
