"""What statsd keeps ends at its part of the memory, whatever is sent within one interval."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tgres_py.kernels import statsd_py
from tgres_py.statsd import aggregate
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.settings import from_table

native = pytest.importorskip("tgres_py.kernels._statsd", reason="the extension isn't built")

MOST = 200_000
BUFFER = 2_000  # lines of a buffer, whose start is looked at
NOW_S = 1_700_000_000


@pytest.fixture(params=[native.StatsdCells, statsd_py.StatsdCells], ids=["native", "pure"])
def aggregator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Aggregator:
    monkeypatch.setattr(aggregate, "StatsdCells", request.param)
    return Aggregator(from_table({"timestamps": True}), NOW_S, MOST)


def buffers(line: str, count: int) -> Iterator[bytes]:
    for first in range(0, count, BUFFER):
        yield "".join(line.format(i) for i in range(first, first + BUFFER)).encode()


def send(aggregator: Aggregator, line: str, count: int) -> None:
    for data in buffers(line, count):
        aggregator.add(data, 1, NOW_S)


@pytest.mark.parametrize("key", ["storm.{}", "storm {}"])  # the other one isn't plain
@pytest.mark.parametrize("kind", ["c", "g", "ms", "s"])
def test_new_keys_end_and_known_ones_go_on(aggregator: Aggregator, key: str, kind: str) -> None:
    before = aggregator.bytes_used
    send(aggregator, "known:1|c\n", BUFFER)
    send(aggregator, f"{key}:1|{kind}\n", 20_000)
    taken = aggregator.bytes_used - before
    assert MOST < taken < 8 * MOST  # one buffer more than there is room for
    assert aggregator.limits()["keys"] > 10_000
    keys = aggregator.keys
    send(aggregator, f"other.{key}:1|{kind}\n", 100_000)
    assert aggregator.keys == keys
    assert aggregator.bytes_used - before < taken * 1.1
    send(aggregator, "known:1|c\n", BUFFER)
    assert aggregator.counters()["known"] == 2 * BUFFER


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ("a:{}|ms\n", "timer_values"),
        ("a:{}|s\n", "set_members"),
        ("a:{}|c|T1700000000\n", "timed"),
    ],
)
def test_what_an_interval_brings_ends_until_it_is_flushed(
    aggregator: Aggregator, line: str, limit: str
) -> None:
    send(aggregator, line, 40_000)
    refused = aggregator.limits()[limit]
    assert refused > 20_000
    assert aggregator.bytes_used < 6 * MOST  # one buffer more than there is room for
    aggregator.take(NOW_S + 10)
    aggregator.take_timed()
    aggregator.flushed(NOW_S + 10, 1, 0.0)
    send(aggregator, line, BUFFER)
    assert aggregator.limits()[limit] == refused


def test_what_is_being_flushed_counts_until_it_is(aggregator: Aggregator) -> None:
    send(aggregator, "a:{}|ms\n", 8_000)
    before = aggregator.bytes_used
    aggregator.take(NOW_S + 10)
    assert aggregator.bytes_used > before
    send(aggregator, "a:{}|ms\n", BUFFER)
    assert aggregator.limits()["timer_values"] == BUFFER
    aggregator.flushed(NOW_S + 10, 1, 0.0)
    send(aggregator, "a:{}|ms\n", BUFFER)
    assert aggregator.limits()["timer_values"] == BUFFER
