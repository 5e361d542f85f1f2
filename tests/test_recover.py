"""Starts after kills: what the journal and the store hold together is there again, once, and in order."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.rig import Point, Rig
from tgres_py import clock
from tgres_py.errors import StoreUnavailable
from tgres_py.ingest.journal import RECORD_HEADER, RECORD_MAGIC, Kind, Record
from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate
from tgres_py.storage.memory import MemoryStore

NOW_S = 1_700_000_000 // 720 * 720
SPEC = BundleSpec((Archive(10, 360, 12), Archive(60, 240, 6)), Cf.AVERAGE, 0.0)
SUM = BundleSpec((Archive(10, 360, 12),), Cf.SUM, 0.0, OnDuplicate.SUM)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes rigs, the first one in ``first``; all are closed at the end."""
    rigs: list[Rig] = []

    def make_rig(store: MemoryStore | None = None, spec: BundleSpec = SPEC) -> Rig:
        folder = tmp_path / f"journal{len(rigs)}"
        rigs.append(Rig(store or MemoryStore(), folder, spec, now_s=NOW_S))
        return rigs[-1]

    yield make_rig
    for rig in rigs:
        if hasattr(rig, "journal"):
            with contextlib.suppress(OSError):  # closed by the test
                rig.journal.close()
    clock.replace_source(None)


@pytest.fixture
async def rig(make: Callable[..., Rig]) -> AsyncIterator[Rig]:
    rig = make()
    await rig.start()
    yield rig


def memory(rig: Rig) -> MemoryStore:
    assert isinstance(rig.store, MemoryStore)
    return rig.store


async def pass_chunk(rig: Rig) -> None:
    """The running chunk ends, is written and freed."""
    await rig.tick()
    rig.now_s += 400
    await rig.tick()
    assert rig.ring.row_bytes == 0


async def restart(rig: Rig) -> None:
    await rig.kill()
    await rig.start()
    assert rig.registry.opened
    assert rig.intake.ledger.balance == 0


async def slots(rig: Rig, name: str, archive: int = 0) -> dict[int, float]:
    """Known slots of the last hour, by their time after NOW_S."""
    step_s = rig.match_many([name])[0].archives[archive].step_s
    until = rig.now_s // step_s + 1
    values = await rig.read(name, archive, until - 3600 // step_s, until)
    first = until - len(values)
    known = np.flatnonzero(~np.isnan(values)).tolist()
    return {(first + i) * step_s - NOW_S: float(values[i]) for i in known}


def journal_files(rig: Rig) -> list[Path]:
    return sorted(rig.folder.glob("*.journal"))


def damage(path: Path, kind: Kind) -> int:
    """Flips a bit in each record of a kind; how many."""
    data = bytearray(path.read_bytes())
    head = RECORD_MAGIC.to_bytes(4, "little") + bytes([kind])
    count, at = 0, data.find(head)
    while at >= 0:
        data[at + RECORD_HEADER.size] ^= 4
        count, at = count + 1, data.find(head, at + 1)
    path.write_bytes(data)
    return count


# -- kills at any moment -------------------------------------------------------------------------


class Snapshots(MemoryStore):
    """Calls ``take`` before and after each write of chunks."""

    take: Callable[[], Awaitable[object]] | None = None

    async def write_chunks(self, rows, late_seq=None):  # type: ignore[no-untyped-def]  # it hands on what it gets
        await self._take()
        await super().write_chunks(rows, late_seq)
        await self._take()

    async def _take(self) -> None:
        if self.take is not None:
            await self.take()


async def test_a_kill_at_any_moment(make: Callable[..., Rig], tmp_path: Path) -> None:
    """Journal and store are copied at many moments, in the middle of writes too; each copy starts."""
    store = Snapshots()
    rig = make(store)
    await rig.start()
    sent: dict[str, dict[int, float]] = {"a": {}, "b": {}}
    copies: list[tuple[MemoryStore, Path, int, dict[str, dict[int, float]]]] = []

    async def take() -> None:
        await rig.journal.synced()
        folder = tmp_path / f"copy{len(copies)}"
        shutil.copytree(rig.folder, folder)
        take_hook, store.take = store.take, None
        copies.append((copy.deepcopy(store), folder, rig.now_s, copy.deepcopy(sent)))
        store.take = take_hook

    store.take = take

    def add(name: str, after_s: int, value: float) -> None:
        rig.add([(name, NOW_S + after_s, value)])
        sent[name][after_s] = value

    for i in range(40):
        rig.now_s = NOW_S + 10 * i
        add("a", 10 * i, float(i))
        if i > 3:
            add("b", 10 * i, -float(i))
        if i % 7 == 0 and i > 20:
            add("a", 10 * i - 155, i + 0.5)  # late
        if i % 5 == 0:
            await rig.tick()
        if i in (17, 33):
            await rig.flusher.checkpoint()
        if i == 25:
            await rig.flusher.flush_now()
        if i % 4 == 0:
            await take()
    store.take = None
    assert len(copies) > 20
    for saved, folder, now_s, expected in copies:
        again = Rig(saved, folder, SPEC, now_s=now_s)
        await again.start()
        try:
            for name, known in expected.items():
                if known:
                    got = await slots(again, name)
                    assert got == {t // 10 * 10: v for t, v in sorted(known.items())}, folder.name
            assert again.intake.ledger.balance == 0
        finally:
            again.journal.close()


async def test_a_torn_tail_costs_the_last_record(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.journal.synced()
    rig.add([("a", NOW_S + 10, 2.0)])
    await rig.kill()
    path = journal_files(rig)[-1]
    os.truncate(path, path.stat().st_size - 3)
    await rig.start()
    assert rig.recovered.damage.records == 1
    assert await slots(rig, "a") == {0: 1.0}


async def test_many_runs(rig: Rig) -> None:
    """Ids of each run differ: names come in another order."""
    expected: dict[str, dict[int, float]] = {}
    for run in range(5):
        rig.now_s = NOW_S + 10 * run
        for name in ("abcde"[run:] + "abcde")[:3]:
            rig.add([(name, rig.now_s, run + 0.5)])
            expected.setdefault(name, {})[10 * run] = run + 0.5
        await restart(rig)
        assert rig.recovered.points == sum(map(len, expected.values()))
        for name, known in expected.items():
            assert await slots(rig, name) == known
    rig.now_s = NOW_S + 1_000
    await rig.tick()
    await rig.flusher.checkpoint()
    assert len(journal_files(rig)) == 1
    await restart(rig)
    assert rig.recovered.points == 15
    for name, known in expected.items():
        assert await slots(rig, name) == known


# -- floors --------------------------------------------------------------------------------------


async def test_points_below_the_floor_are_not_taken_back_to_memory(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await pass_chunk(rig)
    rig.add([("a", rig.now_s, 2.0)])
    await restart(rig)
    assert rig.recovered.points == 1
    assert rig.ring.span(0) == (rig.now_s // 10, rig.now_s // 10 + 1)
    assert await slots(rig, "a") == {0: 1.0, 400: 2.0}
    # what came late after the flush isn't shadowed by the journal's older points
    rig.add([("a", NOW_S, 5.0)])
    await rig.tick()
    await restart(rig)
    assert await slots(rig, "a") == {0: 5.0, 400: 2.0}


@pytest.mark.parametrize("kind", [Kind.FLOOR, Kind.NAMES, Kind.POINTS])
async def test_a_damaged_record_costs_no_more_than_it_holds(rig: Rig, kind: Kind) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await pass_chunk(rig)
    await restart(rig)  # a second file with a FLOOR of its own
    rig.add([("a", rig.now_s, 2.0)])
    await rig.kill()
    assert damage(journal_files(rig)[-1], kind)
    await rig.start()
    assert rig.recovered.damage.records
    # a series is known by its row as well as by its name
    expected = {0: 1.0} if kind == Kind.POINTS else {0: 1.0, 400: 2.0}
    assert await slots(rig, "a") == expected
    rig.add([("a", rig.now_s, 3.0)])
    assert await slots(rig, "a") == {0: 1.0, 400: 3.0}
    assert rig.intake.ledger.balance == 0


async def test_a_series_without_any_sound_floor_is_merged(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.flusher.flush_now()
    rig.add([("a", NOW_S + 10, 2.0)])
    await rig.kill()
    assert damage(journal_files(rig)[-1], Kind.FLOOR)
    await rig.start()
    rig.now_s += 30
    assert rig.recovered.late == 2
    assert await slots(rig, "a") == {0: 1.0, 10: 2.0}


async def test_a_journal_whose_names_are_all_lost_does_not_stop_the_start(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.kill()
    assert damage(journal_files(rig)[-1], Kind.NAMES)
    await rig.start()
    assert rig.registry.opened
    rig.now_s += 30
    rig.add([("a", NOW_S + 10, 2.0)])
    assert await slots(rig, "a") == {10: 2.0}


# -- journal and store that don't belong together ------------------------------------------------


async def test_a_journal_of_another_database_is_merged_into_this_one(
    rig: Rig, make: Callable[..., Rig]
) -> None:
    rig.add([("a", NOW_S, 1.0), ("b", NOW_S + 10, 2.0)])
    await rig.kill()

    other = make()
    await other.start()
    other.add([("b", NOW_S, 3.0), ("b", NOW_S + 10, 4.0), ("c", NOW_S, 5.0)])
    await other.flusher.flush_now()
    await other.kill()

    rig.store = other.store
    await rig.start()
    rig.now_s += 30
    assert rig.recovered.late == 2
    assert await slots(rig, "a") == {0: 1.0}
    assert await slots(rig, "b") == {0: 3.0, 10: 2.0}
    assert await slots(rig, "c") == {0: 5.0}
    rig.add([("c", NOW_S + 10, 6.0)])
    await restart(rig)  # the two belong together now
    assert rig.recovered.late == 0
    assert await slots(rig, "b") == {0: 3.0, 10: 2.0}
    assert await slots(rig, "c") == {0: 5.0, 10: 6.0}


async def test_a_foreign_journal_counts_once_and_in_order(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the store was bound to it, right after that, and later."""
    rig = make(spec=SUM)
    await rig.start()
    rig.add([("a", NOW_S, 1.0)])
    await rig.kill()
    rig.store = other = MemoryStore()

    class Killed(BaseException):
        pass

    async def die(journal_id: str) -> None:
        await rig.journal.synced()
        raise Killed

    monkeypatch.setattr(other, "set_journal_id", die)
    for value in (2.0, 4.0):
        with pytest.raises(Killed):
            await rig.start()
        rig.add([("a", NOW_S, value)])
        await rig.kill()
    monkeypatch.undo()
    await rig.start()
    await rig.kill()
    for _ in range(3):
        await rig.start()
        assert await slots(rig, "a") == {0: 7.0}
        assert rig.intake.ledger.balance == 0
        await rig.kill()


async def test_a_foreign_journal_that_was_copied_but_not_removed(
    make: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = make(spec=SUM)
    await rig.start()
    rig.add([("a", NOW_S, 1.0)])
    await rig.kill()
    old = journal_files(rig)
    shutil.copytree(rig.folder, tmp_path / "old")
    rig.store = MemoryStore()
    await rig.start()
    await rig.kill()
    assert not any(path.exists() for path in old)
    for path in (tmp_path / "old").glob("*.journal"):
        shutil.copy(path, rig.folder)
    for _ in range(2):
        await rig.start()
        assert await slots(rig, "a") == {0: 1.0}
        assert not any(path.exists() for path in old)
        await rig.kill()


async def test_points_of_two_starts_without_the_store_keep_their_order(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    for value in (1.0, 2.0, 3.0):
        await start_away(rig, [("a", NOW_S, value)])
        await rig.kill()
    await start_away(rig, [("a", NOW_S, 4.0)])
    await rig.recover()
    assert await slots(rig, "a") == {0: 4.0}


async def test_a_lost_journal_costs_what_was_only_there(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.flusher.flush_now()
    rig.add([("a", NOW_S + 10, 2.0)])
    await rig.kill()
    shutil.rmtree(rig.folder)
    await rig.start()
    assert await slots(rig, "a") == {0: 1.0}
    rig.now_s += 30
    rig.add([("a", NOW_S, 7.0), ("a", NOW_S + 20, 3.0), ("a", NOW_S + 30, 4.0)])
    assert await slots(rig, "a") == {0: 7.0, 20: 3.0, 30: 4.0}
    await restart(rig)
    assert await slots(rig, "a") == {0: 7.0, 20: 3.0, 30: 4.0}


async def test_series_that_only_the_journal_knows(rig: Rig) -> None:
    memory(rig).away = True
    rig.add([("a", NOW_S, 1.0), ("b", NOW_S, 2.0)])
    memory(rig).away = False
    await restart(rig)
    assert len((await rig.store.load_series()).names) == 0
    assert await slots(rig, "a") == {0: 1.0}
    await pass_chunk(rig)
    assert sorted((await rig.store.load_series()).names) == ["a", "b"]
    assert await slots(rig, "b") == {0: 2.0}


async def test_many_new_series_that_come_before_the_store(make: Callable[..., Rig]) -> None:
    """Their names fill the table before any series has a place; the start ended with an exception."""
    rig = make()
    await start_away(rig, [(f"n{i}", NOW_S, float(i)) for i in range(2_000)])
    await rig.recover()
    assert await slots(rig, "n1999") == {0: 1999.0}
    await restart(rig)
    assert await slots(rig, "n1999") == {0: 1999.0}


# -- late points ---------------------------------------------------------------------------------


async def with_flushed_chunk(make: Callable[..., Rig], spec: BundleSpec = SPEC) -> Rig:
    rig = make(spec=spec)
    await rig.start()
    rig.add([("a", NOW_S, 1.0)])
    await pass_chunk(rig)
    return rig


async def test_late_points_are_applied_once(make: Callable[..., Rig]) -> None:
    rig = await with_flushed_chunk(make, SUM)
    rig.add([("a", NOW_S, 2.0), ("a", NOW_S + 10, 3.0)])
    await rig.tick()
    rig.add([("a", NOW_S, 4.0)])
    await restart(rig)
    assert rig.recovered.late == 1
    assert await slots(rig, "a") == {0: 7.0, 10: 3.0}
    await restart(rig)
    assert rig.recovered.late == 0
    assert await slots(rig, "a") == {0: 7.0, 10: 3.0}


async def test_late_points_that_met_two_kills_are_applied_once(make: Callable[..., Rig]) -> None:
    rig = await with_flushed_chunk(make, SUM)
    rig.add([("a", NOW_S, 2.0)])
    for _ in range(3):
        await restart(rig)
        assert rig.recovered.late == 1
        assert rig.intake.ledger.held == 1
    await rig.flusher.checkpoint()
    await restart(rig)
    assert rig.recovered.late == 1
    assert await slots(rig, "a") == {0: 3.0}
    await restart(rig)
    assert await slots(rig, "a") == {0: 3.0}


# -- the store is away at the start --------------------------------------------------------------


async def start_away(rig: Rig, meanwhile: list[Point]) -> None:
    """A start without the store, points that come then; the store stays away."""
    memory(rig).away = True
    with pytest.raises(StoreUnavailable):
        await rig.start()
    rig.add(meanwhile)
    assert rig.intake.ledger.held == len(meanwhile)
    assert rig.intake.ledger.balance == 0
    memory(rig).away = False


async def test_points_that_come_while_the_store_is_away(make: Callable[..., Rig]) -> None:
    rig = make()
    await start_away(rig, [("a", NOW_S, 1.0), ("a", NOW_S, 2.0), ("b", NOW_S, 3.0)])
    await rig.recover()
    assert await slots(rig, "a") == {0: 2.0}
    assert await slots(rig, "b") == {0: 3.0}
    assert (rig.intake.ledger.stored, rig.intake.ledger.overwritten) == (2, 1)
    await restart(rig)
    assert await slots(rig, "a") == {0: 2.0}


async def test_they_survive_a_kill_before_the_store_comes(make: Callable[..., Rig]) -> None:
    """Also when late points of an earlier run had higher numbers than a new count would give."""
    rig = await with_flushed_chunk(make)
    for i in range(5):
        rig.add([("a", NOW_S + 10 * i, float(i))])
        await rig.tick()
    await rig.kill()
    await start_away(rig, [("a", NOW_S + 60, 7.0), ("new", rig.now_s, 8.0)])
    await restart(rig)
    assert await slots(rig, "a") == {**{10 * i: float(i) for i in range(5)}, 60: 7.0}
    assert await slots(rig, "new") == {400: 8.0}


async def test_late_points_of_the_last_run_come_before_those_of_this_one(
    make: Callable[..., Rig],
) -> None:
    rig = await with_flushed_chunk(make)
    rig.add([("a", NOW_S + 10, 1.0), ("a", NOW_S + 20, 1.0)])
    await rig.kill()
    await start_away(rig, [("a", NOW_S + 10, 2.0)])
    await rig.recover()
    assert await slots(rig, "a") == {0: 1.0, 10: 2.0, 20: 1.0}


async def test_points_that_found_their_place_in_memory_count_once_after_a_kill(
    make: Callable[..., Rig],
) -> None:
    """Half of a batch lands in the ring, the rest must be merged into the store, which fails."""
    rig = await with_flushed_chunk(make, SUM)
    await rig.kill()
    await start_away(rig, [("a", NOW_S, 2.0), ("a", rig.now_s, 3.0), ("a", rig.now_s, 4.0)])
    await rig.recover()
    memory(rig).away = True
    with pytest.raises(StoreUnavailable):
        await rig.flusher.settle()
    assert rig.intake.ledger.held == 1
    memory(rig).away = False
    for _ in range(2):
        await restart(rig)
        assert (rig.recovered.late, rig.intake.ledger.held) == (1, 1)
    assert await slots(rig, "a") == {0: 3.0, 400: 7.0}
    assert rig.intake.ledger.balance == 0
    await restart(rig)
    assert await slots(rig, "a") == {0: 3.0, 400: 7.0}


async def test_points_that_waited_come_before_those_that_come_after_the_start(
    make: Callable[..., Rig],
) -> None:
    """Though they aren't merged yet when the first of these come."""
    rig = make()
    await start_away(rig, [("a", NOW_S, 1.0)])
    await rig.recover()
    rig.add([("a", NOW_S, 2.0)])
    assert await slots(rig, "a") == {0: 2.0}
    await restart(rig)
    assert await slots(rig, "a") == {0: 2.0}


async def test_points_that_come_during_the_replay(make: Callable[..., Rig]) -> None:
    """They are newer than what is replayed, and they count beside it."""
    for spec, expected in ((SPEC, 2.0), (SUM, 3.0)):
        rig = make(spec=spec)
        await rig.start()
        rig.add([("a", NOW_S, 1.0)])
        await rig.flusher.checkpoint()  # an image replaces what a slot holds
        await rig.kill()
        start = asyncio.create_task(rig.start())
        added = False
        while not start.done():
            await asyncio.sleep(0)
            if hasattr(rig, "intake") and not added and rig.registry.table.get(b"a") >= 0:
                rig.add([("a", NOW_S, 2.0)])
                added = True
        await start
        assert added
        assert await slots(rig, "a") == {0: expected}


async def test_a_kill_anywhere_in_the_writing_of_a_merge(make: Callable[..., Rig], tmp_path: Path) -> None:
    """The journal's file ends at any byte of what the merge wrote: no point counts twice, none is lost."""
    rig = await with_flushed_chunk(make, SUM)
    await rig.kill()
    await start_away(rig, [("a", NOW_S, 2.0), ("a", rig.now_s, 3.0), ("a", rig.now_s, 4.0)])
    await rig.journal.synced()
    path = journal_files(rig)[-1]
    before = path.stat().st_size
    await rig.recover()
    memory(rig).away = True
    with pytest.raises(StoreUnavailable):
        await rig.flusher.settle()
    memory(rig).away = False
    await rig.kill()
    after = path.stat().st_size
    assert after > before
    for size in [*range(before, after, 3), after]:
        folder = tmp_path / f"cut{size}"
        shutil.copytree(rig.folder, folder)
        os.truncate(folder / path.name, size)
        again = Rig(copy.deepcopy(memory(rig)), folder, SUM, now_s=rig.now_s)
        await again.start()
        try:
            assert await slots(again, "a") == {0: 3.0, 400: 7.0}, (size, before, after)
            assert again.intake.ledger.balance == 0
        finally:
            again.journal.close()


async def test_one_damaged_copy_of_a_floor_brings_back_no_older_values(rig: Rig) -> None:
    """The file has an older, sound floor of the series, below which a late point was merged meanwhile."""
    rig.add([("a", NOW_S, 1.0)])
    await pass_chunk(rig)
    rig.add([("a", NOW_S, 5.0)])
    await rig.tick()
    await rig.kill()
    path = journal_files(rig)[-1]
    data = path.read_bytes()
    head = RECORD_MAGIC.to_bytes(4, "little") + bytes([Kind.FLOOR])
    at = [i for i in range(len(data)) if data.startswith(head, i)]
    assert len(at) >= 4
    for begin in at:
        flipped = bytearray(data)
        flipped[begin + RECORD_HEADER.size] ^= 4
        path.write_bytes(flipped)
        await rig.start()
        assert rig.recovered.damage.records == 1
        assert await slots(rig, "a") == {0: 5.0}, begin
        await rig.kill()
        for other in journal_files(rig):
            if other != path:
                other.unlink()


# -- images in pieces ----------------------------------------------------------------------------


async def test_points_that_come_between_the_pieces_of_an_image(make: Callable[..., Rig]) -> None:
    """The loop's others get their turn while a large image is made, and nothing counts twice for it."""
    series, length = 1_500, 200
    wide = BundleSpec((Archive(10, 2_160, 480),), Cf.SUM, 0.0, OnDuplicate.SUM)
    rig = make(spec=wide)
    await rig.start()
    names = [f"s{i}" for i in range(series)]
    for slot in range(length):
        rig.now_s = NOW_S + slot * 10
        rig.add((name, rig.now_s, 1.0) for name in names)
    await rig.flusher.create_rows()
    pieces = [0]
    append = rig.journal.append

    def counted(record: Record) -> None:
        pieces[-1] += len(record.ids) if record.kind == Kind.IMAGE else 0
        append(record)

    rig.journal.append = counted  # type: ignore[method-assign]  # it hands on what it gets
    making = asyncio.create_task(rig.flusher.checkpoint())
    turns = 0
    while not making.done():
        turns += 1
        pieces.append(0)
        for slot in (turns % length, -turns % length):
            rig.add([("s0", NOW_S + slot * 10, 100.0), (f"new{turns}", NOW_S + slot * 10, 5.0)])
        await asyncio.sleep(0)
    await making
    assert rig.flusher.checkpoints == 1
    assert sum(pieces) >= series * length
    assert max(pieces) < 70_000  # some 10 ms
    await restart(rig)
    end = NOW_S // 10 + length
    values = await rig.read("s0", 0, NOW_S // 10, end)
    assert values.sum() == length + 2 * turns * 100
    assert (await rig.read("s1", 0, NOW_S // 10, end)).tolist() == [1.0] * length
    for turn in (1, turns):
        new = await rig.read(f"new{turn}", 0, NOW_S // 10, end)
        assert np.nansum(new) == 10.0
