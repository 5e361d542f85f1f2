"""The doctor: every finding is provoked, and stays away where nothing is wrong."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rig import Rig
from tgres_py.admin.doctor import rings, sorted_findings
from tgres_py.admin.doctor.finding import Finding, Severity
from tgres_py.admin.doctor.postgres import bundle_findings, postgres_findings
from tgres_py.admin.doctor.series import (
    case_findings,
    ring_facts,
    ring_findings,
    skew_findings,
    watch_findings,
)
from tgres_py.admin.doctor.server import (
    MENDS,
    REASONS,
    State,
    limit_findings,
    refusal_findings,
    state_findings,
)
from tgres_py.admin.doctor.watch import Watch
from tgres_py.admin.limits import Limit
from tgres_py.ingest.ledger import RejectSample
from tgres_py.ingest.traffic import tapped
from tgres_py.model.points import Parsed, PointBlock, Reason
from tgres_py.model.retention import Archive, BundleSpec
from tgres_py.storage.inspect import PostgresFacts, TableFacts
from tgres_py.storage.memory import MemoryStore

NOW_S = 1_700_000_000
SPEC = BundleSpec((Archive(10, 360, 36), Archive(60, 360, 36)), xff=0.5)
GOOD_SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "autovacuum": "on",
    "track_counts": "on",
    "shared_buffers": str(128 << 20),
    "max_wal_size": str(1 << 30),
    "max_connections": "100",
}
TABLE = TableFacts("ts", 1_000_000, 50_000, 4 << 30, 100 << 20, 5_000)
GOOD = PostgresFacts("18.0", NOW_S, GOOD_SETTINGS, (TABLE,), True, 10, 0.0, 5 << 30)


def checks(found: Iterable[Finding]) -> list[str]:
    return [one.check for one in found]


# -- PostgreSQL ----------------------------------------------------------------------------------


def postgres(embedded: bool = False, **changes: Any) -> list[str]:
    return checks(postgres_findings(dataclasses.replace(GOOD, **changes), NOW_S, embedded))


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert postgres() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("synchronous_commit", "off"),
        ("autovacuum", "off"),
        ("track_counts", "off"),
        ("shared_buffers", str(16 << 20)),
        ("max_wal_size", str(32 << 20)),
    ],
)
def test_settings_of_postgresql(name: str, value: str) -> None:
    settings = {**GOOD_SETTINGS, name: value}
    assert postgres(settings=settings) == [f"postgres.{name}"]
    assert postgres(embedded=True, settings=settings) == [], "these are ours"


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"dead": 2_500_000}, "postgres.bloat"),
        ({"index_bytes": 5 << 30}, "postgres.index_bloat"),
        ({"age": 1_200_000_000}, "postgres.wraparound"),
    ],
)
def test_bloat(change: dict[str, int], check: str) -> None:
    assert postgres(tables=(dataclasses.replace(TABLE, **change),)) == [check]


def test_a_table_near_the_wraparound_is_an_error() -> None:
    table = dataclasses.replace(TABLE, age=1_900_000_000)
    [found] = postgres_findings(dataclasses.replace(GOOD, tables=(table,)), NOW_S, False)
    assert found.severity is Severity.ERROR and "FREEZE" in found.mend


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"lz4": False}, "postgres.lz4"),
        ({"oldest_transaction_s": 7_200.0}, "postgres.transaction"),
        ({"now_s": NOW_S + 10.0}, "postgres.clock"),
        ({"now_s": NOW_S - 10.0}, "postgres.clock"),
        ({"connections": 90}, "postgres.connections"),
    ],
)
def test_the_moment_of_postgresql(change: dict[str, Any], check: str) -> None:
    assert postgres(**change) == [check]


def test_steps_that_do_not_divide() -> None:
    bad = BundleSpec((Archive(10, 360, 36), Archive(25, 360, 36)))
    assert checks(bundle_findings({1: SPEC, 2: bad})) == ["steps"]
    assert checks(bundle_findings({1: SPEC})) == []


# -- the server ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "severities"),
    [(79, []), (80, [Severity.WARNING]), (95, [Severity.ERROR]), (120, [Severity.ERROR])],
)
@pytest.mark.parametrize("name", list(MENDS))
def test_limits(name: str, used: int, severities: list[Severity]) -> None:
    found = list(limit_findings([Limit(name, used, 100)]))
    assert [one.severity for one in found] == severities
    assert all(one.check == "limit" and one.examples == [name] for one in found)


def test_every_reason_of_a_refusal_has_its_mend() -> None:
    assert set(REASONS) == set(Reason)
    for reason in Reason:
        sample = RejectSample("carbon", "10.0.0.1:99", b"a\x1b[2J b", NOW_S)
        [found] = refusal_findings({reason: 7}, {reason: sample})
        assert found.check == f"refused.{reason.value}" and found.count == 7
        assert "\x1b" not in found.examples[0] and "10.0.0.1:99" in found.examples[0]
    assert checks(refusal_findings(Counter(dict.fromkeys(Reason, 0)), {})) == []


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"opened": False}, "starting"),
        ({"available": False}, "store"),
        ({"paused": True}, "paused"),
        ({"journal_failed": "disk full"}, "journal"),
        ({"native": False}, "kernels"),
        ({"refused_connections": 3}, "connections"),
        ({"open_files": (1_024, 7_128)}, "open_files"),
        ({"refused_queries": {"query_series_max": 2}}, "query_limit"),
        ({"sockets": {"carbon_udp": (425_984, 32 << 20)}}, "udp_buffer"),
        ({"statsd": (10, 60)}, "statsd_step"),
    ],
)
def test_states(change: dict[str, Any], check: str) -> None:
    assert checks(state_findings(State(**change))) == [check]


def test_a_good_state() -> None:
    state = State(
        sockets={"carbon_udp": (64 << 20, 32 << 20)},
        statsd=(10, 10),
        refused_queries={},
        open_files=(7_128, 7_128),
    )
    assert checks(state_findings(state)) == []


# -- intervals, from the ring --------------------------------------------------------------------


def block_of(slots: int, *known: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    block = np.full((slots, len(known)), np.nan)
    for column, rows in enumerate(known):
        block[list(rows), column] = 1.0
    return block


def test_patterns() -> None:
    every = range(60)
    block = block_of(
        60,
        every,
        range(2, 60, 6),  # every sixth
        [int(k * 1.5) for k in range(40)],  # 15 s in slots of 10 s
        [k for k in every if k not in (7, 8, 30)],  # some were lost
        [3, 9],  # too few to tell
        [0, 1, 2, 40, 41, 42, 59],  # comes and goes
    )
    pattern = rings.pattern_of(block)
    assert pattern.slow.tolist() == [False, True, False, False, False, False]
    assert pattern.uneven.tolist() == [False, False, True, False, False, False]
    assert pattern.interval[1] == 6


def test_a_block_without_points_has_no_pattern() -> None:
    assert np.isnan(rings.pattern_of(block_of(10, [], [])).interval).all()


@given(st.integers(11, 600), st.integers(0, 9), st.integers(0, 99))
def test_any_regular_sender_has_its_interval(interval: int, step_offset: int, begin: int) -> None:
    """Points every ``interval`` tenths of a slot, whatever the phase."""
    times = range(begin * 10 + step_offset, 400 * 10, interval)
    slots = sorted({t // 10 for t in times})
    pattern = rings.pattern_of(block_of(400, slots))
    if len(slots) < rings.POINTS_MIN:
        assert np.isnan(pattern.interval[0])
    else:
        assert pattern.interval[0] == pytest.approx(interval / 10, abs=1 / (len(slots) - 1))


def test_unmet_xfilesfactor() -> None:
    block = block_of(
        30,
        range(30),  # all known
        range(0, 30, 6),  # one of six
        [*range(0, 12)],  # two whole coarse slots, then nothing
        [],
        [0, 1, 2, 8],  # one is met
    )
    assert rings.unmet_xff(block, 600, 6, 0.5).tolist() == [False, True, False, False, False]
    assert not rings.unmet_xff(block, 600, 6, 0.0).any()
    assert not rings.unmet_xff(block[:11], 600, 6, 0.5).any(), "less than two whole slots"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(MemoryStore(), tmp_path, SPEC, now_s=NOW_S)
    await rig.start()
    yield rig
    await rig.stop()


def send_every(rig: Rig, name: str, interval_s: int) -> None:
    rig.add((name, t, 1.0) for t in range(NOW_S - 1_200, NOW_S, interval_s))


async def test_senders_that_fit_their_archives(rig: Rig) -> None:
    send_every(rig, "good.a", 10)
    facts = await ring_facts(rig)  # type: ignore[arg-type]  # what is used of it is there
    assert facts.looked_at == 1 and checks(ring_findings(facts)) == []


async def test_senders_that_do_not_fit_their_archives(rig: Rig) -> None:
    for number in range(8):
        send_every(rig, f"slow.s{number}", 60)
    send_every(rig, "odd.a", 15)
    send_every(rig, "good.a", 10)
    found = list(ring_findings(await ring_facts(rig)))  # type: ignore[arg-type]  # what is used of it is there
    assert checks(found) == ["interval", "steps", "xff"]
    slow, uneven, unmet = found
    assert slow.count == 8 and "every 60 s in slots of 10 s" in slow.what
    assert len(slow.row()["examples"]) == 5 and slow.examples[0] == "slow.s0"
    assert uneven.count == 1 and uneven.examples[0] == "odd.a" and "15 s" in uneven.what
    assert unmet.count == 8 and "60 s stay empty" in unmet.what


async def test_series_that_are_gone_are_no_finding(rig: Rig) -> None:
    send_every(rig, "slow.a", 60)
    rig.registry.retire(np.array([0], np.int32))
    facts = await ring_facts(rig)  # type: ignore[arg-type]  # what is used of it is there
    assert facts.looked_at == 0 and checks(ring_findings(facts)) == []


# -- senders, watched ----------------------------------------------------------------------------


def arrive(rig: Rig, peer: str, points: Sequence[tuple[str, int]]) -> None:
    ids, _ = rig.registry.resolve([name.encode() for name, _ in points])
    times = np.array([t for _, t in points], np.int64)
    parsed = Parsed(PointBlock(ids, times, np.ones(len(ids))))
    rig.intake.accept("carbon", parsed, peer)


async def watched(rig: Rig, *arrivals: tuple[str, Sequence[tuple[str, int]]]) -> list[Finding]:
    watch = Watch(0)
    with tapped(rig.intake, watch):
        for peer, points in arrivals:
            arrive(rig, peer, points)
    assert not rig.intake.taps
    return list(watch_findings(watch, rig.registry))


async def test_two_senders_of_one_series(rig: Rig) -> None:
    found = await watched(
        rig,
        ("10.0.0.1:1000", [("a", NOW_S), ("b", NOW_S)]),
        ("10.0.0.2:1000", [("b", NOW_S)]),
        ("[::1]:9", [("c", NOW_S)]),
    )
    assert checks(found) == ["two_senders"]
    assert found[0].examples == ["b from 10.0.0.1 and 10.0.0.2"]


async def test_one_sender_with_several_connections(rig: Rig) -> None:
    assert await watched(rig, ("10.0.0.1:1", [("a", NOW_S)]), ("10.0.0.1:2", [("a", NOW_S)])) == []


async def test_datagrams_have_no_sender_to_compare(rig: Rig) -> None:
    assert await watched(rig, ("10.0.0.1:1", [("a", NOW_S)]), ("", [("a", NOW_S)])) == []


async def test_several_points_in_one_slot(rig: Rig) -> None:
    fast = [("fast.a", NOW_S - 2 * i) for i in range(5)]
    found = await watched(rig, ("h:1", fast), ("h:1", [("ok", NOW_S - 10 * i) for i in range(5)]))
    assert checks(found) == ["interval"]
    assert found[0].examples == ["fast.a every 2 s"]


async def test_clocks_of_senders(rig: Rig) -> None:
    found = await watched(
        rig,
        ("ahead:1", [("a", NOW_S + 600)]),
        ("behind:1", [("b", NOW_S - 3_600)]),
        ("good:1", [("c", NOW_S - 3_600), ("c", NOW_S - 3)]),
    )
    assert [(one.check, one.examples) for one in found] == [
        ("clock", ["ahead"]),
        ("clock", ["behind"]),
    ]
    assert "600 s ahead of" in found[0].what and "3,600 s behind" in found[1].what


def test_what_waited_on_the_way_is_no_wrong_clock() -> None:
    assert checks(skew_findings("a", [900.0, 4.0])) == []
    assert checks(skew_findings("a", [900.0, 400.0])) == ["clock"]


def test_names_that_differ_only_by_case() -> None:
    [found] = case_findings(["a.CPU", "a.cpu", "b", "a.Cpu", "c.x", "C.x"])
    assert found.count == 5 and found.examples == ["a.CPU, a.cpu, a.Cpu", "c.x, C.x"]
    assert checks(case_findings(["a.cpu", "a.cpu2", "b"])) == []


def test_the_worst_comes_first() -> None:
    made = [Finding(s, s.value, "", "") for s in (Severity.INFO, Severity.ERROR, Severity.WARNING)]
    assert checks(sorted_findings(made)) == ["error", "warning", "info"]


def test_watch_bounds_what_it_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgres_py.admin.doctor.watch.SENDERS_MAX", 2)
    watch = Watch(1)
    block = PointBlock(np.array([3], np.int32), np.array([NOW_S]), np.ones(1))
    for host in range(5):
        watch("carbon", SimpleNamespace(block=block), f"h{host}:1")  # type: ignore[arg-type]  # what is used of it is there
    assert len(watch.senders) == len(watch.lags_s) == 2
    assert watch.count[3] == 5
