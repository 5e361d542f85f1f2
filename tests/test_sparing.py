"""Warnings at a bounded rate, whoever causes them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tgres_py import clock, sparing
from tgres_py.ingest.ledger import SAMPLES_BURST, RejectLog
from tgres_py.model.points import Reason
from tgres_py.sparing import BURST, FREELY, Allowance, Sparing


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.addFilter(Sparing())
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, in its first element."""
    moment = [1_000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: moment[0])
    return moment


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    log = logging.getLogger("tests.sparing")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield handler
    log.removeHandler(handler)


log = logging.getLogger("tests.sparing")


def warn(number: int) -> None:
    log.warning("bad thing %d", number)


def test_an_allowance_is_a_burst_and_then_a_rate(now: list[float]) -> None:
    allowance = Allowance(2.0, 3.0)
    assert [allowance.take() for _ in range(5)] == [True, True, True, False, False]
    assert allowance.hidden == 2
    now[0] += 0.5
    assert [allowance.take() for _ in range(2)] == [True, False]
    assert allowance.told() == " (3 others not shown)"
    assert allowance.told() == ""
    now[0] += 1_000
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


def test_each_place_that_warns_has_its_own(now: list[float], kept: Kept) -> None:
    for number in range(1_000):
        warn(number)
    log.error("something else")
    assert len(kept.texts) == BURST + 1
    assert kept.texts[-1] == "something else"
    now[0] += 1 / sparing.PER_S
    warn(1_000)
    assert kept.texts[-1] == "bad thing 1000 (990 others not shown)"


def test_what_is_no_warning_is_always_shown(now: list[float], kept: Kept) -> None:
    for number in range(100):
        log.info("said %d", number)
        log.debug("looked at %d", number)
        log.warning("seen to by the caller", extra=FREELY)
    assert len(kept.texts) == 300


def test_refused_lines_are_sampled_by_reason(now: list[float], kept: Kept) -> None:
    ledger_log = logging.getLogger("tgres_py.ingest.ledger")
    ledger_log.addHandler(kept)
    try:
        rejects = RejectLog()
        for number in range(100):
            for reason in (Reason.NAN, Reason.UTF8, Reason.MALFORMED):
                rejects.show("carbon", "", [(reason, b"%d" % number)])
        assert len(kept.texts) == 3 * SAMPLES_BURST
        now[0] += 1
        rejects.show("carbon", "192.0.2.1:1", [(Reason.NAN, b"a nan 1")])
        assert (
            kept.texts[-1]
            == "carbon from 192.0.2.1:1: refused (nan): b'a nan 1' (95 others not shown)"
        )
        assert rejects.last[Reason.UTF8].line == b"99"
    finally:
        ledger_log.removeHandler(kept)
