"""What etsy's daemon (npm statsd 0.9.0) answered to packets, recorded: our aggregator gives the same names and numbers.

Each line of tests/data/statsd/*.jsonl is a daemon of its own with a configuration of its own: packets of an interval, then all
that it flushed, but for its own times. Numbers are kept as the daemon wrote them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from receivers.statsd import StatsdReceiver
from tests.fake_sink import FakeSink
from tests.statsd_flushes import Flushes
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.settings import from_table

CASES = [
    json.loads(line)
    for name in ("answers.jsonl", "further.jsonl")
    for line in (Path(__file__).parent / "data/statsd" / name).read_text("utf-8").split("\n")
    if line
]
INTERVAL_S = 1
OWN_TIMES = ("timestamp_lag", "graphiteStats", "processing_time")


def label(case: dict[str, Any]) -> str:
    return case.get("name") or str(case["flushes"][0]["packets"][:1])[:50]


def feed(receiver: StatsdReceiver, transport: str, packets: list[str]) -> None:
    if transport == "udp":
        for packet in packets:
            receiver.aggregator.add(packet.encode(errors="surrogateescape"), 1, 0)
        return
    rest = b""
    for packet in packets:
        rest = receiver._parse_stream(
            rest + packet.encode(errors="surrogateescape"), 0, receiver._sink.registry
        ).rest


@pytest.mark.parametrize("case", CASES, ids=label)
def test_the_same_names_and_numbers(case: dict[str, Any]) -> None:
    settings = from_table({"flushInterval": 1000 * INTERVAL_S, **case["config"]})
    receiver = StatsdReceiver(Aggregator(settings), FakeSink())
    flushes = Flushes(receiver.aggregator)
    flushes(999)  # the daemon's first flush was before the packets, too
    for step, flush in enumerate(case["flushes"]):
        feed(receiver, case["transport"], flush["packets"])
        ours = {
            name: value
            for name, value in flushes(1_000 + step).items()
            if not any(part in name for part in OWN_TIMES)
        }
        if case["transport"] == "tcp":  # a packet is a read: what comes together is chance
            ours = {name: v for name, v in ours.items() if "packets_received" not in name}
        theirs = {n: float(v) for n, v in flush["answer"].items() if v not in ("NaN", "undefined")}
        theirs = {name: value for name, value in theirs.items() if not math.isnan(value)}
        assert ours.keys() ^ theirs.keys() == set()
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name
