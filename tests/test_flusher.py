"""The flusher while other things happen: points, queries and outages in the middle of its writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.rig import Rig, running_rig
from tgres_py import clock
from tgres_py.errors import StoreUnavailable
from tgres_py.ingest.flusher import Pace
from tgres_py.ingest.intake import Limits
from tgres_py.memory import HARD
from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate
from tgres_py.storage.memory import MemoryStore
from tgres_py.storage.port import ChunkRows

NOW_S = 1_700_000_000 // 120 * 120
SPEC = BundleSpec((Archive(10, 360, 12), Archive(60, 240, 6)), Cf.AVERAGE, 0.0)
SUM = BundleSpec((Archive(10, 360, 12),), Cf.SUM, 0.0, OnDuplicate.SUM)

Hook = Callable[[], Awaitable[None]]


class HookedStore(MemoryStore):
    """Calls hooks once: before a write, after a write that happened, while bundles are made."""

    def __init__(self) -> None:
        super().__init__()
        self.before_write: Hook | None = None
        self.after_write: Hook | None = None
        self.after_bundles: Hook | None = None
        self.written: list[ChunkRows] = []

    async def write_chunks(self, rows: Sequence[ChunkRows], late_seq: int | None = None) -> None:
        await self._call("before_write")
        await super().write_chunks(rows, late_seq)
        self.written += rows
        await self._call("after_write")

    async def ensure_bundles(self, specs: Sequence[BundleSpec]) -> list[int]:
        made = await super().ensure_bundles(list(specs))
        await self._call("after_bundles")
        return made

    async def _call(self, name: str) -> None:
        hook, _ = getattr(self, name), setattr(self, name, None)
        if hook is not None:
            await hook()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running_rig(HookedStore(), tmp_path, SPEC, now_s=NOW_S) as rig:
        yield rig


def hooked(rig: Rig) -> HookedStore:
    assert isinstance(rig.store, HookedStore)
    return rig.store


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def pass_chunk(rig: Rig) -> None:
    """The running chunk ends, is written and freed."""
    await rig.tick()
    rig.now_s += 400
    await rig.tick()
    assert rig.ring.row_bytes == 0


async def slots(rig: Rig, name: str, spec: BundleSpec = SPEC, archive: int = 0) -> dict[int, float]:
    """Known slots of the last hour."""
    step_s = spec.archives[archive].step_s
    until = rig.now_s // step_s + 1
    values = await rig.read(name, archive, until - 3600 // step_s, until)
    first = until - len(values)
    return {
        (first + i) * step_s - NOW_S: v for i, v in enumerate(values.tolist()) if not np.isnan(v)
    }


# -- series without a row ------------------------------------------------------------------------


async def test_a_series_that_appears_during_a_flush_keeps_its_old_points(tmp_path: Path) -> None:
    """Its points lie in a chunk that is about to be written, and it has no row in rrd yet."""
    other = BundleSpec(SPEC.archives, Cf.MAX, 0.0)
    rig = Rig(
        HookedStore(),
        tmp_path,
        lambda names: [other if name.startswith("max") else SPEC for name in names],
        now_s=NOW_S,
    )
    await rig.start()
    try:
        rig.add([("a", NOW_S, 1.0), ("max.a", NOW_S, 1.0)])
        await rig.tick()

        async def appear() -> None:
            rig.add([("new", NOW_S + 10, 2.0), ("max.new", NOW_S + 10, 2.0)])

        rig.now_s += 400
        hooked(rig).before_write = appear
        await rig.tick()
        assert rig.ring.span(0) == rig.ring.span(1) == (0, 0), "both were written and freed"
        for name in ("new", "max.new"):
            assert await slots(rig, name) == {10: 2.0}
    finally:
        rig.journal.close()
        clock.replace_source(None)


async def test_late_points_of_a_series_that_has_no_row_yet(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await pass_chunk(rig)

    async def appear() -> None:
        rig.add([("new", NOW_S + 10, 2.0), ("other", NOW_S + 20, 3.0)])

    rig.add([("a", NOW_S + 30, 4.0)])
    hooked(rig).before_write = appear  # while the first batch of late points is merged
    await rig.flusher.settle()
    await rig.flusher.settle()
    assert all(rows.rrd_id.all() for rows in hooked(rig).written)
    assert await slots(rig, "new") == {10: 2.0}
    assert await slots(rig, "other") == {20: 3.0}
    assert await slots(rig, "a") == {0: 1.0, 30: 4.0}


async def test_a_bundle_that_appears_while_others_are_made(tmp_path: Path) -> None:
    other = BundleSpec(SPEC.archives, Cf.MAX, 0.0)
    rig = Rig(
        HookedStore(),
        tmp_path,
        lambda names: [other if name.startswith("max") else SPEC for name in names],
        now_s=NOW_S,
    )
    await rig.start()

    async def appear() -> None:
        rig.add([("max.a", NOW_S, 2.0)])

    try:
        rig.add([("a", NOW_S, 1.0)])
        hooked(rig).after_bundles = appear
        await rig.tick()
        await rig.tick()
        rows = await rig.store.load_series()
        bundles = dict(await rig.store.load_bundles())
        assert {
            n: bundles[b] for n, b in zip(rows.names, rows.bundle_id.tolist(), strict=True)
        } == {
            "a": SPEC,
            "max.a": other,
        }
    finally:
        rig.journal.close()
        clock.replace_source(None)


async def test_a_point_below_a_floor_that_is_being_raised(tmp_path: Path) -> None:
    """A point of the coarser archive raises the floor over slots that are empty and take points meanwhile."""
    spec = BundleSpec((Archive(10, 6, 3), Archive(60, 60, 6)), Cf.AVERAGE, 0.0)
    rig = Rig(HookedStore(), tmp_path, spec, now_s=NOW_S - 10)
    await rig.start()
    try:
        rig.add([("a", NOW_S - 60, 1.0)])
        await rig.tick()
        rig.now_s = NOW_S + 90
        await rig.tick()
        assert rig.ring.floor(0) == (NOW_S - 30) // 10

        async def meanwhile() -> None:
            rig.add([("a", NOW_S + 45, 7.0)])

        rig.add([("a", NOW_S + 29, 5.0)])
        hooked(rig).before_write = meanwhile
        await rig.tick()
        assert hooked(rig).before_write is None
        assert (await slots(rig, "a", spec))[40] == 7.0
        assert rig.intake.ledger.balance == 0
    finally:
        rig.journal.close()
        clock.replace_source(None)


# -- late points and checkpoints -----------------------------------------------------------------


async def test_a_checkpoint_keeps_the_late_points_that_are_being_merged(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await pass_chunk(rig)
    rig.add([("a", NOW_S + 10, 2.0)])
    checkpoint: list[asyncio.Task[None]] = []

    async def fails() -> None:
        checkpoint.append(asyncio.create_task(rig.flusher.checkpoint()))
        await asyncio.sleep(0.05)
        raise StoreUnavailable("away")

    hooked(rig).before_write = fails
    with pytest.raises(StoreUnavailable):
        await rig.flusher.settle()
    await checkpoint[0]
    assert rig.flusher.checkpoints == 1
    await rig.kill()
    await rig.start()
    assert await slots(rig, "a") == {0: 1.0, 10: 2.0}


async def test_a_checkpoint_tells_each_late_point_once(tmp_path: Path) -> None:
    rig = Rig(HookedStore(), tmp_path, SUM, now_s=NOW_S)
    await rig.start()
    try:
        rig.add([("a", NOW_S, 1.0)])
        await pass_chunk(rig)
        checkpoint = asyncio.create_task(rig.flusher.checkpoint())
        for _ in range(20):  # in all its pauses
            rig.add([("a", NOW_S + 10, 1.0)])
            await asyncio.sleep(0)
        await checkpoint
        await rig.kill()
        await rig.start()
        assert await slots(rig, "a", SUM) == {0: 1.0, 10: 20.0}
        assert rig.intake.ledger.balance == 0
    finally:
        rig.journal.close()
        clock.replace_source(None)


# -- merges whose outcome is in doubt ------------------------------------------------------------


async def raise_away() -> None:
    raise StoreUnavailable("the connection was lost")


async def test_a_commit_whose_answer_was_lost_is_not_repeated(tmp_path: Path) -> None:
    """The store stays away after it, so that it can't be asked at once."""
    rig = Rig(HookedStore(), tmp_path, SUM, now_s=NOW_S)
    await rig.start()
    try:
        rig.add([("a", NOW_S, 1.0)])
        await pass_chunk(rig)
        rig.add([("a", NOW_S, 2.0), ("a", NOW_S + 10, 3.0)])

        async def lost() -> None:
            hooked(rig).away = True
            raise StoreUnavailable("the connection was lost")

        hooked(rig).after_write = lost
        with pytest.raises(StoreUnavailable):
            await rig.flusher.settle()
        rig.add([("a", NOW_S + 10, 4.0)])
        hooked(rig).away = False
        assert await slots(rig, "a", SUM) == {0: 3.0, 10: 7.0}
        ledger = rig.intake.ledger
        assert (ledger.balance, ledger.held, ledger.stored, ledger.overwritten) == (0, 0, 2, 2)
    finally:
        rig.journal.close()
        clock.replace_source(None)


async def test_a_merge_that_was_cancelled_is_not_repeated(tmp_path: Path) -> None:
    """A query waits a bounded time for late points; the merge that it started may have been committed."""
    rig = Rig(HookedStore(), tmp_path, SUM, now_s=NOW_S)
    await rig.start()
    try:
        rig.add([("a", NOW_S, 1.0)])
        await pass_chunk(rig)
        rig.add([("a", NOW_S, 2.0)])
        hooked(rig).after_write = lambda: asyncio.sleep(30)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await rig.flusher.settle()
        assert await slots(rig, "a", SUM) == {0: 3.0}
        assert (rig.intake.ledger.balance, rig.intake.ledger.held) == (0, 0)
    finally:
        rig.journal.close()
        clock.replace_source(None)


# -- outages -------------------------------------------------------------------------------------


async def test_a_failed_flush_leaves_all_in_memory_and_open(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.tick()
    rig.now_s += 400
    hooked(rig).before_write = raise_away
    with pytest.raises(StoreUnavailable):
        await rig.flusher.tick()
    assert rig.ring.span(0) == (NOW_S // 10, NOW_S // 10 + 1)
    rig.add([("a", NOW_S + 10, 2.0)])
    assert rig.intake.late_points == 0, "the chunk takes points again"
    await rig.tick()
    assert rig.ring.span(0) == (0, 0)
    assert await slots(rig, "a") == {0: 1.0, 10: 2.0}
    assert await slots(rig, "a", archive=1) == {0: 1.5}


async def test_points_of_a_chunk_that_could_not_be_written_keep_their_order(rig: Rig) -> None:
    """One that came while it was sealed, and one that came when the write had failed."""

    async def fail() -> None:
        rig.add([("a", NOW_S, 2.0)])
        raise StoreUnavailable("gone")

    rig.add([("a", NOW_S, 1.0)])
    hooked(rig).before_write = fail
    with pytest.raises(StoreUnavailable):
        await rig.flusher.settle_until(NOW_S + 10)
    rig.add([("a", NOW_S, 3.0)])
    values = await rig.read("a", 0, NOW_S // 10, NOW_S // 10 + 1)
    assert values.tolist() == [3.0]
    assert (rig.intake.ledger.balance, rig.intake.ledger.held) == (0, 0)


async def test_points_of_a_chunk_that_is_being_written_come_through(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.tick()
    rig.now_s += 400

    async def more() -> None:
        rig.add([("a", NOW_S, 3.0), ("a", NOW_S + 10, 5.0)])
        assert rig.intake.late_points == 2

    hooked(rig).before_write = more
    await rig.flusher.tick()
    assert await slots(rig, "a") == {0: 3.0, 10: 5.0}
    assert await slots(rig, "a", archive=1) == {0: 4.0}
    assert rig.intake.ledger.overwritten == 1


async def test_the_task_goes_on_after_outages(tmp_path: Path) -> None:
    rig = Rig(MemoryStore(), tmp_path, SPEC, now_s=NOW_S)
    await rig.start()
    store = rig.store
    assert isinstance(store, MemoryStore)
    task = asyncio.create_task(rig.flusher.run())
    try:
        rig.add([("a", NOW_S, 1.0)])
        await rig.tick()
        store.away = True
        rig.now_s += 400
        await until(lambda: not rig.flusher.presence.available)
        assert rig.flusher.failures >= 1
        store.away = False
        await until(lambda: rig.ring.row_bytes == 0 and rig.flusher.presence.available)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        rig.journal.close()
        clock.replace_source(None)
    assert await slots(rig, "a") == {0: 1.0}


# -- pace, freshness, memory ---------------------------------------------------------------------


async def test_a_chunk_is_written_after_its_grace(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.tick()
    rig.now_s = NOW_S + 120 + 19
    await rig.tick()
    assert rig.flusher.flushes == 0
    rig.now_s += 11
    await rig.tick()
    assert rig.flusher.flushes == 1
    assert rig.ring.row_bytes == 0


async def test_sql_readers_get_partial_chunks(tmp_path: Path) -> None:
    pace = Pace(late_grace_s=20, flush_pace_s=10, sql_freshness_s=0.05)
    rig = Rig(HookedStore(), tmp_path, SPEC, now_s=NOW_S, pace=pace)
    await rig.start()
    try:
        rig.add([("a", NOW_S, 1.0)])
        await rig.tick()
        await asyncio.sleep(0.06)
        await rig.tick()
        [rows] = [r for r in hooked(rig).written if r.archive == 0]
        assert rows.dp[0, 0] == 1.0
        assert np.isnan(rows.dp[0, 1:]).all()
        count = len(hooked(rig).written)
        await asyncio.sleep(0.06)
        await rig.tick()
        assert len(hooked(rig).written) == count, "nothing new, nothing written"
    finally:
        rig.journal.close()
        clock.replace_source(None)


async def test_flush_now_of_some_series(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0), ("b", NOW_S, 2.0)])
    await rig.flusher.flush_now(np.array([rig.registry.table.get(b"b")], np.int32))
    [rows] = [r for r in hooked(rig).written if r.archive == 0]
    assert rows.dp[:, 0].tolist() == [2.0]
    assert rig.ring.row_bytes > 0


async def test_with_memory_short_chunks_leave_early(tmp_path: Path) -> None:
    rig = Rig(HookedStore(), tmp_path, SPEC, now_s=NOW_S, limits=Limits(int(64 * 8 * 10 * HARD)))
    await rig.start()
    try:
        rig.add([("a", NOW_S + 10 * i, float(i)) for i in range(10)])
        await rig.journal.synced()  # its pending records count, too
        rig.intake.room()
        assert not rig.intake.paused
        rig.now_s = NOW_S + 100
        await rig.tick()
        assert rig.flusher.flushes >= 1
        assert rig.ring.row_bytes <= 64 * 8 * 8
        assert await slots(rig, "a") == {10 * i: float(i) for i in range(10)}
    finally:
        rig.journal.close()
        clock.replace_source(None)
