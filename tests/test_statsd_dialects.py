"""What came after etsy: each switch does its thing, and without it the line means what it means to etsy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.statsd_flushes import Flushes
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.settings import from_table

# (settings, line, what it gives, bad lines; the same for etsy)
SWITCHES: list[tuple[dict[str, Any], str, dict[str, float], int, dict[str, float], int]] = [
    ({"valuePacking": True}, "k:1:2:4|c", {"stats_counts.k": 7}, 0, {"stats_counts.k": 4}, 2),
    ({"timerTypes": ["h", "d"]}, "k:5|d", {"stats.timers.k.sum": 5}, 0, {"stats_counts.k": 5}, 0),
    ({"extraFields": True}, "k:1|c|c:ci-ab12", {"stats_counts.k": 1}, 0, {}, 2),
    ({"extraFields": True}, "k:1|c|#a:b|e:x", {"stats_counts.k;a=b": 1}, 0, {"stats_counts.k;a=bex": 1}, 0),
    ({"events": True}, "_e{1,1}:a|b", {}, 0, {}, 1),
    ({"serviceChecks": True}, "_sc|db|0", {}, 0, {}, 1),
    ({"tagStyles": ["influx"]}, "k,a=b,c=d:1|c", {"stats_counts.k;a=b;c=d": 1}, 0, {"stats_counts.ka=bc=d": 1}, 0),
    ({"tagStyles": ["librato"]}, "k#a=b:1|c", {"stats_counts.k;a=b": 1}, 0, {"stats_counts.ka=b": 1}, 0),
    ({"tagStyles": ["signalfx"]}, "k[a=b].x:1|c", {"stats_counts.k.x;a=b": 1}, 0, {"stats_counts.ka=b.x": 1}, 0),
]  # fmt: skip


def given(table: dict[str, Any], line: str) -> tuple[dict[str, float], int]:
    """What one line gives, but for rates and the numbers of timers other than their sums; bad lines."""
    flush = Flushes(Aggregator(from_table(table)))
    flush.aggregator.add(line.encode(), 1, 0)
    found = {
        name: value
        for name, value in flush(100).items()
        if "statsd." not in name and (name.endswith(".sum") or name.startswith("stats_counts"))
    }
    return found, flush.aggregator.bad_lines_seen


@pytest.mark.parametrize(("table", "line", "on", "on_bad", "off", "off_bad"), SWITCHES)
def test_a_switch_and_etsys_meaning_without_it(
    table: dict[str, Any],
    line: str,
    on: dict[str, float],
    on_bad: int,
    off: dict[str, float],
    off_bad: int,
) -> None:
    assert given(table, line) == (on, on_bad)
    assert given({}, line) == (off, off_bad)


def test_a_timestamp_is_the_time_of_its_value_only_where_it_is_switched_on() -> None:
    aggregator = Aggregator(from_table({"timestamps": True}))
    aggregator.add(b"g:5|g|T1700000000", 1, 0)
    assert aggregator.take_timed() == [("stats.gauges.g", 1_700_000_000, 5.0)]
    assert given({}, "g:5|g|T1700000000") == ({}, 1)


@pytest.mark.parametrize(
    ("kind", "name", "setting"),
    [
        ("c", "stats_counts.k", "counters"),
        ("ms", "stats.timers.k.count", "timers"),
        ("g", "stats.gauges.k", "gauges"),
        ("s", "stats.sets.k.count", "sets"),
    ],
)
@pytest.mark.parametrize("ttl", [1, 3])
def test_each_type_lives_as_many_idle_flushes_as_it_is_given(
    kind: str, name: str, setting: str, ttl: int
) -> None:
    flush = Flushes(Aggregator(from_table({"deleteIdleStats": True, f"{setting}MaxTTL": ttl})))
    flush.aggregator.add(f"k:1|{kind}".encode(), 1, 0)
    seen = [name in flush(100 + 10 * turn) for turn in range(5)]
    assert seen == [turn < ttl for turn in range(5)]
