"""New series beyond the budget or the memory: refused with their own reason, sampled, told by prefix; known ones go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from receivers import carbon_line, carbon_pickle
from tgres_py import clock
from tgres_py.admin.doctor.server import refusal_findings
from tgres_py.config_sources import load
from tgres_py.ingest.intake import Intake, Limits
from tgres_py.ingest.registry import Registry
from tgres_py.kernels import Budget, RingStore
from tgres_py.model.points import Parsed, Reason
from tgres_py.model.retention import Archive, BundleSpec, Cf
from tgres_py.server import Server

NOW_S = 1_700_000_000
SPEC = BundleSpec((Archive(10, 360, 120),), Cf.AVERAGE, 0.5)


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    ticks = Clock()
    monkeypatch.setattr(clock, "monotonic", ticks)
    clock.replace_source(lambda: NOW_S)
    yield ticks
    clock.replace_source(None)


def make(budget: Budget | None = None, **more: Any) -> Intake:
    registry = Registry(lambda names: [SPEC] * len(names), RingStore(), budget=budget, **more)
    registry.open()
    return Intake(registry, None, Limits(1 << 30))


def lines(*names: str) -> bytes:
    return "".join(f"{name} 1 {NOW_S - 5}\n" for name in names).encode()


def pickles(*names: str) -> bytes:
    count = len(names)
    return carbon_pickle.encode([n.encode() for n in names], [NOW_S - 5] * count, [1.0] * count)


def parse(intake: Intake, wire: str, *names: str) -> Parsed:
    if wire == "lines":
        return carbon_line.parse(lines(*names), NOW_S, intake.registry)
    return carbon_pickle.parse(pickles(*names), NOW_S, intake.registry)


wires = pytest.mark.parametrize("wire", ["lines", "pickles"])


@wires
def test_a_storm_is_slowed_and_known_series_of_the_same_buffer_are_stored(
    wire: str, ticks: Clock
) -> None:
    intake = make(Budget(1, 3, 0, 0))
    intake.accept(wire, parse(intake, wire, "a.known"))
    for _ in range(2):
        names = ["a.known", "storm.1", "storm.2", "storm.3", "storm.4;tag=x", "a.known"]
        intake.accept(wire, parse(intake, wire, *names))
    ledger = intake.ledger
    assert ledger.rejected == {Reason.NEW_SERIES: 4}
    assert intake.registry.refused == {Reason.NEW_SERIES: 4}
    assert (ledger.stored, ledger.balance) == (3, 0)
    sample = intake.rejects.last[Reason.NEW_SERIES]
    assert b"storm" in sample.line
    ticks.now += 2
    intake.accept(wire, parse(intake, wire, "storm.3", "storm.4;tag=x", "storm.5"))
    assert ledger.rejected == {Reason.NEW_SERIES: 5}


@wires
def test_no_memory_for_further_series(wire: str, ticks: Clock) -> None:
    intake = make(Budget(0, 1, 0, 1))
    intake.accept(wire, parse(intake, wire, "a.1", "a.2"))
    intake.registry.size_max = 3
    intake.accept(wire, parse(intake, wire, "a.1", "a.3", "a.4", "a.5;x=y", "a.2"))
    assert intake.ledger.rejected == {Reason.MEMORY: 2}
    assert intake.registry.refused == {Reason.MEMORY: 2}
    intake.registry.size_max = 1 << 40
    intake.accept(wire, parse(intake, wire, "a.4"))
    assert (intake.ledger.rejected.total(), intake.ledger.balance) == (2, 0)


@wires
def test_more_than_series_max_is_counted_too(wire: str, ticks: Clock) -> None:
    intake = make(series_max=2)
    intake.accept(wire, parse(intake, wire, "a.1", "a.2", "a.3", "a.4"))
    assert intake.ledger.rejected == intake.registry.refused == {Reason.LIMIT: 2}


def test_the_budget_begins_when_the_store_s_series_are_known(ticks: Clock) -> None:
    registry = Registry(lambda names: [SPEC] * len(names), RingStore(), budget=Budget(1, 1, 1, 1))
    intake = Intake(registry, None, Limits(1 << 30))
    intake.accept("lines", parse(intake, "lines", "a.1", "a.2", "a.3"))
    assert (intake.ledger.held, intake.ledger.rejected) == (3, Counter())
    registry.open()
    intake.accept("lines", parse(intake, "lines", "a.4", "a.5"))
    assert intake.ledger.rejected == {Reason.NEW_SERIES: 1}


def test_own_names_cost_nothing(ticks: Clock) -> None:
    registry = make(Budget(1, 1, 1, 1)).registry
    assert not registry.resolve([b"own.1", b"own.2", b"own.3"], budgeted=False)[1]
    assert registry.resolve([b"a.1", b"a.2"])[1] == {1: Reason.NEW_SERIES}


def test_the_doctor_names_the_prefixes(ticks: Clock) -> None:
    intake = make(Budget(0, 1, 1, 1))
    intake.accept("lines", parse(intake, "lines", "a.b.1", "a.b.2", "a.b.3", "a.c.1", "a.c.2"))
    assert intake.registry.refused_prefixes(10) == [("a.b", 2), ("a.c", 1)]
    assert intake.registry.refused_prefixes(1) == [("a.b", 2)]
    found = refusal_findings(
        intake.ledger.rejected, intake.rejects.last, intake.registry.refused_prefixes(10)
    )
    [finding] = found
    assert finding.check == "refused.new_series" and finding.count == 3
    assert "a.b: 2" in finding.examples


async def test_sighup_takes_the_budget_over(tmp_path: Path) -> None:
    file = tmp_path / "tgres.toml"
    file.write_text("series_new_prefix_burst = 1\nseries_new_prefix_per_s = 0.001\n")
    server = Server(load(file, {}, {}))
    server.registry.open()
    assert server.registry.resolve([b"a.b.1", b"a.b.2"])[1] == {1: Reason.NEW_SERIES}
    budget = server.registry.budget
    server.reload()
    assert server.registry.budget is budget, "what didn't change keeps its buckets"
    file.write_text("series_new_prefix_burst = 5\n")
    server.reload()
    assert not server.registry.resolve([b"a.b.2", b"a.b.3"])[1]


def test_a_million_names_are_never_copied_to_make_room_for_more() -> None:
    """What was copied held the loop for 50 to 100 ms at a million; beyond what is reserved it still is."""
    registry = Registry(lambda names: [SPEC] * len(names), RingStore(), series_max=1_000_000)
    registry.open()
    ids, _ = registry.resolve([b"a.0", b"a.1"])
    registry.set_rows(ids, np.array([70, 71]))
    bundle_of, rrd_id, retired = registry.bundle_of, registry.rrd_id, registry.retired
    registry._grow(1_000_000)
    assert len(registry.bundle_of) == len(registry.rrd_id) == len(registry.retired) >= 1_000_000
    assert np.shares_memory(registry.bundle_of, bundle_of)
    assert np.shares_memory(registry.rrd_id, rrd_id)
    assert np.shares_memory(registry.retired, retired)
    for room in (1_000_000, 1_500_000):
        registry._grow(room)
        assert registry.bundle_of[:3].tolist() == [0, 0, -1]
        assert (registry.bundle_of[2:] == -1).all()
        assert registry.rrd_id[:3].tolist() == [70, 71, 0]
        assert not registry.retired.any()
