"""The intake: where points go, what is refused and why, and when senders have to wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tgres_py import clock
from tgres_py.ingest import intake as intake_module
from tgres_py.ingest.intake import Intake, Late, Limits
from tgres_py.ingest.journal import Damage, Journal, Kind, decode, list_files, read_records
from tgres_py.ingest.registry import Registry
from tgres_py.kernels import RingStore
from tgres_py.memory import HARD
from tgres_py.model.points import Parsed, PointBlock, Reason, empty_block
from tgres_py.model.retention import Archive, BundleSpec, Cf

NOW_S = 1_700_000_040
SPEC = BundleSpec((Archive(10, 60, 12), Archive(60, 40, 2)), Cf.AVERAGE, 0.0)
ROW_BYTES = 64 * 8  # of one slot of the smallest segment


def make(
    limits: Limits | None = None, journal: Journal | None = None, opened: bool = True
) -> Intake:
    registry = Registry(lambda names: [SPEC] * len(names), RingStore())
    if opened:
        registry.open()
    return Intake(registry, journal, limits or Limits(1 << 30, future_s_max=100))


@pytest.fixture(autouse=True)
def now() -> Iterator[None]:
    clock.replace_source(lambda: NOW_S)
    yield
    clock.replace_source(None)


def add(intake: Intake, *ages_s: int, name: bytes = b"a") -> None:
    ids, refused = intake.registry.resolve([name] * len(ages_s))
    assert not refused
    times = NOW_S - np.array(ages_s, np.int64)
    intake.accept("carbon", Parsed(PointBlock(ids, times, np.arange(len(ages_s)) + 1.0)))


def test_points_are_sorted_by_where_they_go() -> None:
    intake = make()
    add(intake, 0, 0, 600, 601, 2_400, 2_401, -100, -101)
    ledger = intake.ledger
    assert (ledger.stored, ledger.overwritten, ledger.held) == (3, 1, 2)
    assert ledger.rejected == {Reason.TOO_OLD: 1, Reason.FUTURE: 1}
    [late] = intake.late
    assert late.times.tolist() == [NOW_S - 601, NOW_S - 2_400] and late.now_s == NOW_S
    assert ledger.balance == 0


def test_refusals_are_received_too() -> None:
    intake = make()
    intake.accept("pickle", Parsed(empty_block(), Counter({Reason.NAN: 3})))
    intake.refuse("carbon_udp", Reason.UDP_KERNEL, 4)
    assert intake.ledger.received == {"pickle": 3, "carbon_udp": 4}
    assert intake.ledger.rejected == {Reason.NAN: 3, Reason.UDP_KERNEL: 4}


def test_before_the_registry_is_open_points_wait() -> None:
    intake = make(opened=False)
    add(intake, 0, 5_000)
    assert (intake.ledger.held, intake.ledger.stored) == (2, 0)
    assert not intake.ledger.rejected, "their retention isn't known yet"


def test_names_are_journaled_before_their_points(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1.0)
    journal.start()
    intake = make(journal=journal)
    add(intake, 0, name=b"a")
    add(intake, 700, name=b"b")
    add(intake, 0, name=b"a")
    journal.close()
    [file] = list_files(tmp_path)
    known: set[int] = set()
    kinds = []
    for kind, payload in read_records(file.path, Damage()):
        record = decode(kind, payload)
        kinds.append(record.kind)
        if record.kind == Kind.NAMES:
            known |= set(record.ids.tolist())
        elif record.kind in (Kind.POINTS, Kind.LATE):
            assert known.issuperset(record.ids.tolist())
    assert kinds.count(Kind.NAMES) == 2
    assert kinds.count(Kind.LATE) == 1
    assert Kind.POINTS in kinds


# -- the late queue ------------------------------------------------------------------------------


def late(seq: int, n: int = 1) -> Late:
    return Late(np.zeros(n, np.int32), np.zeros(n, np.int64), np.ones(n), NOW_S, seq)


def test_the_queue_gives_the_oldest_and_takes_back() -> None:
    intake = make()
    for _ in range(5):
        add(intake, 700, 700)
    first = intake.take_late(3)
    assert [part.seq for part in first] == [1, 2]
    assert intake.ledger.held == 10, "what is being merged is held"
    intake.give_back_late(first)
    assert [part.seq for part in intake.take_late(100)] == [1, 2, 3, 4, 5]
    assert intake.take_late(100) == []


def test_records_of_earlier_runs_go_in_front_once() -> None:
    intake = make()
    add(intake, 700)
    intake.late_seq = 10
    add(intake, 700)
    assert intake.requeue_late(late(5, 3)) == 3
    assert intake.requeue_late(late(3)) == 1
    assert intake.requeue_late(late(4)) == 1
    assert intake.requeue_late(late(5)) == -2, "what is left of it"
    assert intake.requeue_late(late(4, 0)) == -1
    assert intake.requeue_late(late(2, 0)) == 0
    assert [part.seq for part in intake.late] == [1, 3, 5, 11]
    assert intake.late_points == intake.ledger.held == 4
    assert [part.seq for part in intake.take_late_until(5)] == [1, 3, 5]
    assert [part.seq for part in intake.late] == [11]


def test_numbers_rise_from_run_to_run(tmp_path: Path) -> None:
    last = 0
    for _ in range(3):
        journal = Journal(tmp_path, 1.0)
        journal.start()
        intake = make(journal=journal)
        add(intake, 700)
        add(intake, 700)
        assert last < intake.late[0].seq < intake.late[1].seq
        last = intake.late_seq
        journal.close()


# -- back-pressure -------------------------------------------------------------------------------


def test_a_full_ring_pauses_and_then_refuses() -> None:
    intake = make(Limits(int(8 * ROW_BYTES * HARD)))
    add(intake, *range(0, 80, 10))
    assert not intake.paused
    add(intake, 80)
    assert intake.paused
    add(intake, 90)
    assert not intake.ledger.rejected, "up to HARD senders that can't wait are taken"
    add(intake, 100)
    assert intake.ring.row_bytes > 8 * ROW_BYTES * HARD
    add(intake, 0, 10)
    assert intake.ledger.rejected == {Reason.OVERLOAD: 2}
    assert intake.ledger.balance == 0


def test_pieces_are_as_large_as_there_is_room_for_rows_of_their_own() -> None:
    """Each line of 20 bytes may need a row of 32 KiB."""
    intake = make(Limits(1 << 30))
    assert intake.piece_bytes_max == 262_144
    intake = make(Limits(int((100 << 20) * HARD)))
    assert intake.piece_bytes_max == pytest.approx((100 << 20) / 32_768 * 20, rel=0.01)
    assert make(Limits(1 << 20)).piece_bytes_max == 4_096


def test_fewer_late_points_are_merged_together_where_memory_is_small() -> None:
    assert Limits(64 << 30).late_batch == 200_000
    assert Limits(1 << 30).late_batch == 16_384
    assert Limits(1 << 20).late_batch == 1_000


def test_many_late_points_pause() -> None:
    intake = make(Limits(1 << 30, late_points_max=3))
    add(intake, 700, 700, 700)
    assert not intake.paused
    add(intake, 700)
    assert intake.paused
    batch = intake.take_late(100)
    intake.late_done(batch, 1, 3, {})
    assert not intake.paused
    assert intake.ledger.balance == 0


def test_a_large_journal_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, 100.0)
    journal.start()
    try:
        intake = make(Limits(1 << 30, journal_bytes_max=journal.total_bytes), journal)
        add(intake, 0)
        assert not intake.paused
        monkeypatch.setattr(intake_module, "JOURNAL_PENDING_MAX", 30)
        add(intake, 0)
        assert intake.paused, "much waits for the disk"
    finally:
        journal.close()
    add_to = make(Limits(1 << 30, journal_bytes_max=journal.total_bytes - 1), journal)
    add(add_to, 0)
    assert add_to.paused, "the files are large"


def test_who_waits_is_called_once_when_there_is_room() -> None:
    intake = make(Limits(int(8 * ROW_BYTES * HARD)))
    add(intake, *range(0, 90, 10))
    calls: list[int] = []
    intake.on_room(lambda: calls.append(1))
    intake.room()
    assert not calls
    intake.ring.drop(0, (NOW_S - 50) // 10)
    intake.room()
    intake.room()
    assert calls == [1]
    assert not intake.paused


def test_who_waits_may_wait_again_from_its_call() -> None:
    """A listener that finds the sink full again asks again; that must not run for ever."""
    intake = make()
    calls: list[int] = []

    def again() -> None:
        calls.append(1)
        intake.on_room(again)

    intake.on_room(again)
    intake.room()
    assert calls == [1]
    intake.room()
    assert calls == [1, 1]
