"""The wall clock is set forward and back while points come in: none is lost, none counts twice, writing goes on."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from receivers.statsd_flush import StatsdFlush
from tests.acceptance.load import Load, Sent
from tests.acceptance.process import Known, ServerProcess, wait_for
from tests.acceptance.test_crash import HASTE, JOURNAL_S, RECEIVE_S, add, assert_holds
from tests.adversity.health_watch import HealthWatch
from tests.adversity.serve_with_offset import set_offset
from tests.fake_sink import FakeSink
from tests.rig import Rig
from tests.test_flusher import until
from tgres_py import clock
from tgres_py.ingest.flusher import Pace
from tgres_py.ingest.intake import Limits
from tgres_py.model.points import Reason
from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.settings import StatsdSettings
from tgres_py.storage.memory import MemoryStore
from tgres_py.storage.port import Store
from tgres_py.storage.postgres import PostgresStore

STEP_S = 10
DAY_S, HOUR_S = 86_400, 3_600
NOW_S = 1_700_000_000 // DAY_S * DAY_S
# the finest archive reaches as far as the clock is set, so that no lap meets another
SUM = BundleSpec(
    (Archive(STEP_S, 4 * 8_640, 36), Archive(60, 9 * 1_440, 60)), Cf.SUM, 0.0, OnDuplicate.SUM
)


@pytest.fixture(autouse=True)
def own_clock() -> Iterator[None]:
    yield
    clock.replace_source(None)


class Steps:
    """A sender whose clock is right, or follows the server's, and a server whose clock is set now and then."""

    def __init__(self, rig: Rig, rng: random.Random) -> None:
        self.rig = rig
        self.rng = rng
        self.true_s = NOW_S
        self.sums: dict[str, Counter[int]] = {}
        self.refused = 0

    async def some(self, steps: int) -> None:
        rng, rig = self.rng, self.rig
        for _ in range(steps):
            change = rng.choice([0, 0, 0, 0, 3, -3, HOUR_S, -HOUR_S, DAY_S, -DAY_S])
            rig.now_s += change
            if abs(rig.now_s - self.true_s) > 1.9 * DAY_S:
                rig.now_s = self.true_s
            for _ in range(rng.randint(1, 4)):
                self.true_s += STEP_S
                rig.now_s += STEP_S
                self.send(rng.choice([self.true_s, rig.now_s]))
            if rng.random() < 0.5:
                await rig.tick()
            if rng.random() < 0.1:
                await rig.flusher.checkpoint()
            if rng.random() < 0.15:
                await rig.kill()
                await rig.start()
            assert rig.intake.ledger.balance == 0

    def send(self, at_s: int) -> None:
        """Three points; those that are too far ahead of the server's clock are refused as such."""
        points = [(f"s{i}", at_s - self.rng.randint(0, 20), float(i + 1)) for i in range(3)]
        rejected = self.rig.intake.ledger.rejected
        before = rejected[Reason.FUTURE]
        self.rig.add(points)
        ahead = [time_s for _, time_s, _ in points if time_s > self.rig.now_s + DAY_S]
        assert rejected[Reason.FUTURE] - before == len(ahead)
        self.refused += len(ahead)
        for name, time_s, value in points:
            if time_s not in ahead:
                self.sums.setdefault(name, Counter())[time_s // STEP_S] += int(value)

    async def check(self) -> None:
        """All slots of both archives hold what was sent."""
        for name, slots in self.sums.items():
            await self._check(name, 0, slots)
            coarse: Counter[int] = Counter()
            for slot, value in slots.items():
                coarse[slot * STEP_S // 60] += value
            await self._check(name, 1, coarse)

    async def _check(self, name: str, archive: int, slots: Counter[int]) -> None:
        first, last = min(slots), max(slots)
        values = await self.rig.read(name, archive, first, last + 1)
        got = {first + i: v for i, v in enumerate(values.tolist()) if v == v}
        assert got == dict(slots)


async def steps_and_kills(store: Store, folder: Path, seed: int, steps: int) -> None:
    rng = random.Random(seed)
    pace = Pace(late_grace_s=20, flush_pace_s=10, sql_freshness_s=0)
    rig = Rig(store, folder, SUM, now_s=NOW_S, pace=pace, journal_sync_s=0.02)
    await rig.start()
    test = Steps(rig, rng)
    await test.some(steps)
    await test.check()
    rig.now_s = max(rig.now_s, test.true_s)
    await rig.flusher.settle_until(NOW_S + 5 * DAY_S)
    await test.check()
    assert (rig.intake.ledger.balance, rig.intake.ledger.held) == (0, 0)
    await rig.stop()


@pytest.mark.parametrize("seed", range(6))
async def test_steps_and_kills(tmp_path: Path, seed: int) -> None:
    await steps_and_kills(MemoryStore(), tmp_path, seed, 40)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 200))
async def test_many_steps_and_kills(tmp_path: Path, seed: int) -> None:
    await steps_and_kills(MemoryStore(), tmp_path, seed, 80)


async def test_steps_and_kills_on_postgresql(tmp_path: Path, postgres_store: PostgresStore) -> None:
    await steps_and_kills(postgres_store, tmp_path, 7, 25)


async def test_points_too_far_ahead_are_refused_as_such(tmp_path: Path) -> None:
    """The server's clock is two days behind its senders'."""
    rig = Rig(MemoryStore(), tmp_path, SUM, now_s=NOW_S)
    await rig.start()
    test = Steps(rig, random.Random(1))
    test.send(NOW_S)
    rig.now_s -= 2 * DAY_S
    test.send(NOW_S)
    assert test.refused == 3
    assert rig.intake.ledger.balance == 0
    rig.now_s += 2 * DAY_S
    test.send(NOW_S + 20)
    await test.check()
    await rig.stop()


@pytest.mark.parametrize("step_s", [HOUR_S, DAY_S])
async def test_a_clock_that_was_ahead_keeps_the_present_out_of_no_ring(
    tmp_path: Path, postgres_store: PostgresStore, step_s: int
) -> None:
    """The ring is shorter than the step: what was written by the wrong clock lies where the present belongs."""
    spec = BundleSpec((Archive(STEP_S, 180, 36), Archive(60, 180, 36)), Cf.SUM, 0.0)
    rig = Rig(postgres_store, tmp_path, spec, now_s=NOW_S, pace=Pace(20, 10, 0))
    await rig.start()

    async def minutes(count: int) -> list[float]:
        sent = []
        for _ in range(count * 6):
            rig.now_s += STEP_S
            sent.append(float(rig.now_s % 1_000))
            rig.add((f"s{i}", rig.now_s, sent[-1]) for i in range(12))
            await rig.tick()
        return sent

    await minutes(20)
    rig.now_s += step_s
    await minutes(40)
    rig.now_s -= step_s
    first = rig.now_s // STEP_S + 1
    sent = await minutes(20)
    assert (await rig.read("s3", 0, first, first + len(sent))).tolist() == sent
    await rig.kill()
    await rig.start()
    assert (await rig.read("s3", 0, first, first + len(sent))).tolist() == sent
    assert (rig.intake.ledger.balance, rig.intake.ledger.held) == (0, 0)
    await rig.stop()


async def test_writing_goes_on_after_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk is written when the time that it lacked has passed, whatever the clock says by then."""
    passed = [0.0]
    monotonic = time.monotonic
    monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + passed[0])
    rig = Rig(MemoryStore(), tmp_path, SUM, now_s=NOW_S, pace=Pace(20, 10, 0))
    await rig.start()
    rig.add([("a", NOW_S, 1.0)])
    await rig.tick()
    rig.now_s -= HOUR_S
    for passed[0] in (300.0, 375.0):
        await rig.tick()
        assert rig.flusher.flushes == 0
    passed[0] = 381.0
    await rig.tick()
    assert rig.flusher.flushes == 1
    await rig.stop()


async def test_the_journal_syncs_by_time_that_passes(tmp_path: Path) -> None:
    rig = Rig(MemoryStore(), tmp_path, SUM, now_s=NOW_S)
    await rig.start()
    for change in (0, DAY_S, -2 * DAY_S, HOUR_S):
        rig.now_s += change
        rig.add([("a", rig.now_s, 1.0)])
        syncs = rig.journal.syncs
        await until(lambda syncs=syncs: rig.journal.syncs > syncs)  # type: ignore[misc]  # mypy infers no types of a lambda's defaults
    await rig.stop()


async def test_a_short_memory_is_relieved_of_what_is_ahead_of_the_clock(tmp_path: Path) -> None:
    rig = Rig(
        MemoryStore(), tmp_path, SUM, now_s=NOW_S, pace=Pace(20, 10, 0), limits=Limits(20_000)
    )
    await rig.start()
    for i in range(100):
        rig.now_s += STEP_S
        rig.add([("a", rig.now_s, float(i))])
        if rig.intake.paused:
            break
    assert rig.intake.paused
    rig.now_s -= HOUR_S
    await rig.tick()
    assert not rig.intake.paused
    assert rig.intake.ledger.balance == 0
    await rig.stop()


async def test_statsd_flushes_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid is the clock's; after a step the next point of the new grid is the next flush."""
    offset = 0.0
    clock.replace_source(lambda: time.time() + offset)
    flush = StatsdFlush(Aggregator(StatsdSettings(flushInterval=200), clock.now_s()), FakeSink())
    stamps: list[int] = []

    async def note(stamp_s: int) -> int:
        stamps.append(stamp_s)
        return 0

    monkeypatch.setattr(flush, "flush", note)
    task = asyncio.create_task(flush.run())
    for change in (0.0, HOUR_S, -DAY_S, 0.3, -0.3):
        offset += change
        count = len(stamps)
        begin = time.monotonic()
        await until(lambda count=count: len(stamps) > count + 1)  # type: ignore[misc]  # mypy infers no types of a lambda's defaults
        assert time.monotonic() - begin < 5
        assert abs(stamps[-1] - clock.now()) < 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def writes(server: ServerProcess) -> float:
    """Chunks and merges of late points: with the clock ahead, floors are, too."""
    metrics = server.metrics()
    return metrics["tgres_flushes_total"] + metrics["tgres_merge_duration_seconds_count"]


def written_more(server: ServerProcess, than: float) -> bool:
    return writes(server) > than


@pytest.mark.slow
def test_a_server_whose_clock_is_set_and_that_is_killed(tmp_path: Path, database: str) -> None:
    """The senders' clock is right throughout; points of now and older ones, under load."""
    server = ServerProcess(tmp_path, *HASTE, "--dsn", database)
    server.module = "tests.adversity.serve_with_offset"
    set_offset(tmp_path, 0.0)
    must: Known = {}
    may: Known = {}
    old_s = int(time.time()) - 3_000
    try:
        # until the end the clock isn't where it belongs, neither at the kills nor at the starts
        for offsets in ((HOUR_S, 0.0, -HOUR_S), (0.3, -0.3, 2.0, -2.0, HOUR_S), (-HOUR_S, 1.0)):
            server.start()
            port = server.ports["carbon"]
            old = Load(Sent(), port, old_s, pause_s=0.02, series=5, prefix="load2")
            live = Load(Sent(), port, int(time.time()), pause_s=1.0, late_slots=3)
            with HealthWatch(server) as watch:
                for offset in offsets:
                    set_offset(tmp_path, offset)
                    goes_on = partial(written_more, server, writes(server))
                    wait_for(goes_on, "writing goes on", 30)
                    assert server.imbalance() == 0
            watch.check()
            assert server.sum_of("tgres_points_dropped_total") == 0
            killed = time.monotonic()
            server.kill()
            for load in (live, old):
                load.abandon()
                add(must, load.sent.known(killed - JOURNAL_S - RECEIVE_S))
                add(may, load.sent.known())
            old_s = old.next_s
        set_offset(tmp_path, 0.0)
        server.start()
        assert_holds(server, must, may)
        wait_for(lambda: server.sum_of("tgres_points_held") == 0, "late points are merged", 30)
        assert_holds(server, must, may)
        assert server.imbalance() == 0
    finally:
        server.close()
