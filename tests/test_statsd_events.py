"""DogStatsD's events and service checks: what is read, what is refused, and the switches that leave them out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgres_py.model.event import Event
from tgres_py.statsd import dogstatsd
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.dogstatsd import is_check, parse_event
from tgres_py.statsd.settings import from_table

NOW = 1_700_000_000


def event(title: str, text: str, rest: str = "") -> bytes:
    sizes = f"{len(title.encode())},{len(text.encode())}"
    return f"_e{{{sizes}}}:{title}|{text}{rest}".encode()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (event("up", "it is"), Event("up", NOW, (), "it is")),
        (event("up", ""), Event("up", NOW)),
        (event("é|x", "ü|#no"), Event("é|x", NOW, (), "ü|#no")),
        (event("up", "a\\nb"), Event("up", NOW, (), "a\nb")),
        (event("up", "t", "|d:1600000000|#env:prod,web 1,,env:prod"),
         Event("up", 1_600_000_000, ("env:prod", "web_1"), "t")),
        (event("up", "t", "|h:web1|k:a b|p:low|t:error|s:me|c:ci-12"),
         Event("up", NOW, ("host:web1", "aggregation_key:a_b", "priority:low",
                           "alert_type:error", "source:me"), "t")),
        (event("up", "t", "|d:soon|zzz"), Event("up", NOW, (), "t")),
        (event("a\0b", "t\0") + b"\r", Event("ab", NOW, (), "t")),
        (b"_e{1,1}:\xff|t", Event("\ufffd", NOW, (), "t")),
    ],
)  # fmt: skip
def test_events(line: bytes, expected: Event) -> None:
    assert parse_event(line, NOW) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"_e{", b"_e{2,5}", b"_e{2,5}:up", b"_e{0,1}:|t", b"_e{2,5}:upXit is", b"_e{2,9}:up|it is",
        b"_e{2,2}:up|it is", b"_e{-1,1}:a|b", b"_e{99999999,1}:a|b", b"_e{2}:up|t",
    ],
)  # fmt: skip
def test_malformed_events(line: bytes) -> None:
    assert parse_event(line, NOW) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_an_event_or_none(rest: bytes) -> None:
    found = parse_event(b"_e{" + rest, NOW)
    assert found is None or found.what


@pytest.mark.parametrize(
    ("line", "good"),
    [
        (b"_sc|db|0", True), (b"_sc|db|3|d:1|h:x|#a:b|m:gone", True), (b"_sc|db|4", False),
        (b"_sc||0", False), (b"_sc|db", False), (b"_sc|db|00", False),
    ],
)  # fmt: skip
def test_service_checks(line: bytes, good: bool) -> None:
    assert is_check(line) is good


PACKET = b"a:1|c\n_e{2,1}:up|t\n_sc|db|0\n_e{9,9}:x\n_sc|db|7\na:2|c\n"


def test_they_stand_beside_the_metrics_of_a_packet() -> None:
    aggregator = Aggregator(from_table({"dialect": "dogstatsd"}), NOW)
    aggregator.add(PACKET, 1, NOW)
    inbox = aggregator.inbox
    assert inbox.events == [Event("up", NOW, (), "t")]
    assert (inbox.seen, inbox.checks, aggregator.bad_lines_seen) == (1, 1, 2)
    assert aggregator.counters()["a"] == 3
    assert aggregator.counters()["statsd.metrics_received"] == 6


def test_etsy_takes_each_as_a_bad_line() -> None:
    aggregator = Aggregator(from_table({}), NOW)
    aggregator.add(b"_e{2,1}:up|t\n_sc|db|0\na:2|c", 1, NOW)
    assert aggregator.inbox.events == [] and aggregator.bad_lines_seen == 2
    assert aggregator.counters()["a"] == 2


def test_events_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dogstatsd, "WAITING_MAX", 2)
    aggregator = Aggregator(from_table({"events": True}), NOW)
    aggregator.add(b"\n".join([event("up", "t")] * 5), 1, NOW)
    assert len(aggregator.inbox.events) == 2
    assert aggregator.limits()["events"] == 3
