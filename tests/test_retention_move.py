"""Changes of retention on the ingest side over PostgreSQL: nothing is lost, whatever moment a kill comes at."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.rig import Rig
from tgres_py import clock
from tgres_py.errors import StoreUnavailable
from tgres_py.ingest import retention_job
from tgres_py.ingest.move import Batch, Mover
from tgres_py.ingest.retention_job import RetentionWorker
from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate
from tgres_py.storage.postgres import PostgresStore
from tgres_py.storage.retention_jobs import RetentionJobs

NOW_S = 1_700_000_000 // 720 * 720
OLD = BundleSpec((Archive(10, 360, 12), Archive(60, 240, 6)), Cf.AVERAGE, 0.0)
LONGER = BundleSpec((Archive(10, 720, 18), Archive(60, 600, 10), Archive(300, 500, 8)), Cf.AVERAGE, 0.0)
COARSER = BundleSpec((Archive(60, 120, 12), Archive(300, 200, 6)), Cf.AVERAGE, 0.0)
FINER = BundleSpec((Archive(5, 720, 24), Archive(60, 240, 6)), Cf.AVERAGE, 0.0)
NAMES = [f"s.{i}" for i in range(5)]


class Sent:
    """What was sent: last value of each slot of 10 s, by name."""

    def __init__(self) -> None:
        self.slots: dict[str, dict[int, float]] = {name: {} for name in NAMES}

    def send(self, rig: Rig, seconds: int, seed: int) -> None:
        """Points of ``seconds`` up to now, time going on."""
        rng = random.Random(seed)
        for _ in range(0, seconds, 10):
            rig.now_s += 10
            points = []
            for name in NAMES:
                if rng.random() < 0.9:
                    late = rng.choice([0, 0, 0, 0, 10, 30, 150])
                    time_s = rig.now_s - late
                    value = float(rng.randrange(1000))
                    points.append((name, time_s, value))
                    self.slots[name][time_s // 10 * 10] = value
            rig.add(points)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make_rig(store: PostgresStore, spec: BundleSpec = OLD) -> Rig:
        rigs.append(Rig(store, tmp_path / f"journal{len(rigs)}", spec, now_s=NOW_S))
        return rigs[-1]

    yield make_rig
    for rig in rigs:
        with contextlib.suppress(OSError):
            rig.journal.close()
    clock.replace_source(None)


async def sent_to(rig: Rig, seconds: int) -> Sent:
    """Starts the rig and sends it points for this time, each series one in each slot; the flusher had its turn."""
    await rig.start()
    sent = Sent()
    sent.send(rig, seconds, 1)
    await rig.tick()
    return sent


async def start_job(rig: Rig, spec: BundleSpec) -> int:
    """A job that moves all series to ``spec``."""
    store = rig.store
    assert isinstance(store, PostgresStore)
    await rig.flusher.flush_now()
    rows = await store.load_series()
    [bundle] = await store.ensure_bundles([spec])
    return await store.create_job(
        "test", 0, rows.rrd_id, rows.bundle_id.astype(np.int64), np.full(len(rows.names), bundle)
    )


def worker(rig: Rig) -> RetentionWorker:
    assert isinstance(rig.store, PostgresStore)
    return RetentionWorker(rig.flusher, rig.store, rig.store)


async def state_of(rig: Rig, job: int) -> str:
    assert isinstance(rig.store, PostgresStore)
    [one] = await rig.store.jobs(job)
    return one.state


async def known(rig: Rig, name: str, archive: int = 0, back_s: int = 3_500) -> dict[int, float]:
    """Known slots by time."""
    id_ = rig.registry.table.get(name.encode())
    step_s = rig.registry.specs(np.array([id_], np.int32))[0].archives[archive].step_s
    until = (rig.now_s + 60) // step_s + 1
    first = (rig.now_s - back_s) // step_s
    values = await rig.read(name, archive, first, until)
    return {
        (first + i) * step_s: float(values[i]) for i in np.flatnonzero(~np.isnan(values)).tolist()
    }


def younger(slots: dict[int, float], rig: Rig, back_s: int = 3_490) -> dict[int, float]:
    return {t: v for t, v in slots.items() if t > rig.now_s - back_s}


async def everything(rig: Rig) -> list[dict[int, float]]:
    return [await known(rig, name, k) for name in NAMES for k in (0, 1)]


@pytest.mark.parametrize("spec", [LONGER, COARSER, FINER], ids=["longer", "coarser", "finer"])
async def test_a_change_while_points_come(
    make: Callable[..., Rig], postgres_store: PostgresStore, spec: BundleSpec
) -> None:
    rig = make(postgres_store)
    sent = await sent_to(rig, 1_500)
    sent.send(rig, 130, 2)
    job = await start_job(rig, spec)
    await worker(rig).work(job)
    assert await state_of(rig, job) == "done"
    assert rig.registry.specs(np.arange(5, dtype=np.int32)) == [spec] * 5
    sent.send(rig, 300, 3)
    await rig.tick()
    assert rig.intake.ledger.balance == 0
    for name in NAMES:
        slots = younger(sent.slots[name], rig)
        step_s = spec.archives[0].step_s
        if step_s <= 10:
            assert younger(await known(rig, name), rig) == slots
        else:
            assert younger(await known(rig, name), rig).keys() >= {
                t // step_s * step_s for t in slots if t > rig.now_s - 3_400
            }


async def test_a_coarser_finest_archive_is_rolled_up(
    make: Callable[..., Rig], postgres_store: PostgresStore
) -> None:
    rig = make(postgres_store)
    sent = await sent_to(rig, 1_200)
    job = await start_job(rig, COARSER)
    await worker(rig).work(job)
    for name in NAMES:
        got = await known(rig, name)
        minutes = {t // 60 * 60 for t in sent.slots[name] if t < rig.now_s - 120}
        for minute in minutes:
            parts = [sent.slots[name].get(minute + i) for i in range(0, 60, 10)]
            values = [v for v in parts if v is not None]
            assert got[minute] == sum(values) / len(values)


async def test_more_series_than_a_segment_holds(
    make: Callable[..., Rig], postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tgres_py.ingest.registry.SEGMENT_SERIES_MAX", 8)
    monkeypatch.setattr("tgres_py.ingest.registry.SEGMENT_SERIES_MIN", 4)
    monkeypatch.setattr("tgres_py.ingest.retention_job.BATCH", (3, 3))
    rig = make(postgres_store)
    await rig.start()
    names = [f"n.{i:02}" for i in range(20)]
    rig.add([(name, rig.now_s - 10 * k, float(k)) for name in names for k in range(5)])
    job = await start_job(rig, LONGER)
    await worker(rig).work(job)
    assert await state_of(rig, job) == "done"
    rig.now_s += 10
    rig.add([(name, rig.now_s, 9.0) for name in names])
    for name in names:
        assert list((await known(rig, name)).values()) == [4.0, 3.0, 2.0, 1.0, 0.0, 9.0]


async def test_names_that_were_joined_move_together(
    make: Callable[..., Rig], postgres_store: PostgresStore
) -> None:
    rig = make(postgres_store)
    await rig.start()
    rig.add([("a", rig.now_s - 10 * k, 1.0) for k in range(0, 20, 2)])
    job = await start_job(rig, LONGER)
    rig.add([("b", rig.now_s - 10 * k, 2.0) for k in range(1, 20, 2)])
    await rig.flusher.flush_names()
    a, b = (rig.registry.table.get(name) for name in (b"a", b"b"))
    rig.registry.set_rows(np.array([b], np.int32), rig.registry.rrd_id[[a]])
    rig.registry.retire(np.array([b], np.int32))
    await worker(rig).work(job)
    assert await state_of(rig, job) == "done"
    got = await known(rig, "a")
    assert got == {rig.now_s - 10 * k: 1.0 + k % 2 for k in range(20)}


async def test_undo_gives_everything_back_and_keeps_what_came_meanwhile(
    make: Callable[..., Rig], postgres_store: PostgresStore
) -> None:
    rig = make(postgres_store)
    sent = await sent_to(rig, 1_500)
    job = await start_job(rig, COARSER)
    before = await everything(rig)
    at_s = rig.now_s
    await worker(rig).work(job)
    sent.send(rig, 200, 2)
    await rig.tick()
    assert await postgres_store.set_job_state(job, "undoing", ("done",))
    await worker(rig).work(job)
    assert await state_of(rig, job) == "undone"
    after = await everything(rig)
    border = at_s - 120  # slots from the cut on went through the coarser archive
    for old, new in zip(before, after, strict=True):
        low = rig.now_s - 3_400
        assert {t: v for t, v in new.items() if low < t < border} == {
            t: v for t, v in old.items() if low < t < border
        }
    for name in NAMES:
        got = await known(rig, name)
        for t in sent.slots[name]:
            if border <= t < at_s + 60:
                assert any(t // 60 * 60 <= u < t // 60 * 60 + 60 for u in got)
    # nothing of the way there and back is left in the store
    rows = await postgres_store.load_series()
    async with postgres_store._pool.use() as connection:
        ids = await connection.fetch("SELECT DISTINCT rrd_id FROM ts")
    assert {row["rrd_id"] for row in ids} == set(rows.rrd_id.tolist())


async def test_undo_keeps_what_came_late_meanwhile(
    make: Callable[..., Rig], postgres_store: PostgresStore
) -> None:
    rig = make(postgres_store)
    await rig.start()
    now_s = rig.now_s
    rig.add([("a", now_s - i * 10, float(i)) for i in range(200) if i % 3])
    await rig.tick()
    job = await start_job(rig, LONGER)
    before = await known(rig, "a"), await known(rig, "a", 1)
    await worker(rig).work(job)
    rig.add([("a", now_s - 900, 77.0), ("a", now_s - 930, 78.0)])  # gaps, long below the cut
    await rig.tick()
    rig.now_s += 20
    rig.add([("a", rig.now_s, 5.0)])
    assert await postgres_store.set_job_state(job, "undoing", ("done",))
    await worker(rig).work(job)
    after = await known(rig, "a"), await known(rig, "a", 1)
    wanted = {now_s - 900: 77.0, now_s - 930: 78.0, now_s + 20: 5.0}
    assert after[0] == {**before[0], **wanted}
    minute = (now_s - 900) // 60 * 60
    parts = [v for t, v in after[0].items() if minute <= t < minute + 60]
    assert after[1][minute] == sum(parts) / len(parts)
    changed = {t for t, v in after[1].items() if before[1].get(t) != v}
    assert changed == {minute, minute - 60, now_s // 60 * 60}


async def test_forget_deletes_what_undo_would_need(
    make: Callable[..., Rig], postgres_store: PostgresStore
) -> None:
    rig = make(postgres_store)
    await sent_to(rig, 600)
    job = await start_job(rig, LONGER)
    await worker(rig).work(job)
    before = await everything(rig)
    assert await postgres_store.set_job_state(job, "forgetting", ("done",))
    await worker(rig).work(job)
    assert await state_of(rig, job) == "forgotten"
    assert await everything(rig) == before
    rows = await postgres_store.load_series()
    async with postgres_store._pool.use() as connection:
        ids = await connection.fetch("SELECT DISTINCT rrd_id FROM ts")
    assert {row["rrd_id"] for row in ids} == set(rows.rrd_id.tolist())


# -- kills -----------------------------------------------------------------------------------------


class Killed(Exception):
    """The process ends here."""


def kill_in(monkeypatch: pytest.MonkeyPatch, step: str, batch: int = 2) -> None:
    """The second batch (or another) dies before or after a step."""
    calls = 0
    owner: Any = PostgresStore if step in ("claim", "commit", "committed") else Mover
    name = {
        "claim": "claim_moves",
        "flush": "_flush_old",
        "copy": "_copy",
        "floor": "_journal_floor",
        "commit": "switch_rows",
        "committed": "switch_rows",
        "switch": "_switch",
        "image": "_journal_image",
    }[step]
    original = getattr(owner, name)

    def count() -> bool:
        nonlocal calls
        calls += 1
        return calls == batch

    async def dies(self: Any, *args: Any) -> Any:
        if count():
            if step == "committed":
                await original(self, *args)
            raise Killed
        return await original(self, *args)

    def dies_at_once(self: Any, *args: Any) -> Any:
        if count():
            raise Killed
        return original(self, *args)

    monkeypatch.setattr(owner, name, dies_at_once if step in ("switch", "image") else dies)


STEPS = ["claim", "flush", "copy", "floor", "commit", "committed", "switch", "image"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("spec", [LONGER, FINER, COARSER], ids=["longer", "finer", "coarser"])
async def test_a_kill_at_each_step(
    make: Callable[..., Rig],
    postgres_store: PostgresStore,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    spec: BundleSpec,
) -> None:
    monkeypatch.setattr("tgres_py.ingest.retention_job.BATCH", (2, 2))
    rig = make(postgres_store)
    sent = await sent_to(rig, 900)
    sent.send(rig, 60, 2)
    job = await start_job(rig, spec)
    with monkeypatch.context() as patch:
        kill_in(patch, step)
        patch.setattr(PostgresStore, "set_job_state", _never)
        await worker(rig).work(job)
    await rig.kill()
    await rig.start()
    sent.send(rig, 50, 3)
    assert await state_of(rig, job) == "running"
    await worker(rig).work(job)
    assert await state_of(rig, job) == "done"
    sent.send(rig, 100, 4)
    await rig.tick()
    await rig.kill()
    await rig.start()
    step_s = spec.archives[0].step_s
    for name in NAMES:
        slots = younger(sent.slots[name], rig)
        got = await known(rig, name)
        if step_s <= 10:
            assert younger(got, rig) == slots
        else:
            assert younger(got, rig).keys() >= {t // step_s * step_s for t in slots}


async def _never(*args: Any, **kwargs: Any) -> bool:
    return True


async def test_the_rule_sum_counts_each_point_once(
    make: Callable[..., Rig], postgres_store: PostgresStore
) -> None:
    old = BundleSpec((Archive(10, 360, 12),), Cf.SUM, 0.0, OnDuplicate.SUM)
    new = BundleSpec((Archive(30, 360, 12), Archive(300, 60, 6)), Cf.SUM, 0.0, OnDuplicate.SUM)
    rig = make(postgres_store, old)
    await rig.start()
    total = 0.0
    for i in range(100):
        rig.now_s += 7
        rig.add([("a", rig.now_s, float(i))])
        total += i
    job = await start_job(rig, new)
    await worker(rig).work(job)
    for i in range(30):
        rig.now_s += 7
        rig.add([("a", rig.now_s, float(i))])
        total += i
    assert sum((await known(rig, "a")).values()) == total
    await rig.tick()
    await rig.kill()
    await rig.start()
    assert sum((await known(rig, "a")).values()) == total


@pytest.mark.parametrize("rule", [OnDuplicate.SUM, OnDuplicate.MAX, OnDuplicate.MEAN])
async def test_an_image_of_the_old_ring_fills_the_new_one(
    make: Callable[..., Rig],
    postgres_store: PostgresStore,
    monkeypatch: pytest.MonkeyPatch,
    rule: OnDuplicate,
) -> None:
    """A checkpoint, the commit, and a kill before the switch."""
    old = BundleSpec((Archive(10, 360, 12),), Cf.SUM, 0.0, rule)
    new = BundleSpec((Archive(30, 360, 12),), Cf.SUM, 0.0, rule)
    rig = make(postgres_store, old)
    await rig.start()
    rig.add([("a", rig.now_s + i, float(i)) for i in range(0, 90, 5)])
    rig.now_s += 90
    job = await start_job(rig, new)
    await rig.flusher.checkpoint()
    with monkeypatch.context() as patch:
        kill_in(patch, "committed", 1)
        patch.setattr(PostgresStore, "set_job_state", _never)
        await worker(rig).work(job)
    await rig.kill()
    await rig.start()
    assert rig.registry.specs(np.zeros(1, np.int32)) == [new]
    got = {t - NOW_S: v for t, v in (await known(rig, "a")).items()}
    slots = {60: [float(i) for i in range(60, 90, 5)]}
    # the mean of means of two points each is that of all
    fold: dict[OnDuplicate, Callable[[list[float]], float]] = {
        OnDuplicate.SUM: sum,
        OnDuplicate.MAX: max,
        OnDuplicate.MEAN: lambda values: sum(values) / len(values),
    }
    assert got[60] == fold[rule](slots[60])  # slots above the cut are the journal's


async def test_points_of_a_slot_that_begins_before_the_floor(
    make: Callable[..., Rig], postgres_store: PostgresStore
) -> None:
    """The retention changes while no server runs; the journal's floor lies inside a slot of the new one."""
    rig = make(postgres_store)
    await rig.start()
    rig.add([("a", rig.now_s + i * 10, float(i)) for i in range(20)])
    await rig.tick()
    rig.now_s += 400
    await rig.tick()  # the chunks that are over are written
    first_s = rig.registry.floor_s(0)
    rig.add([("a", first_s + i * 10, 100.0 + i) for i in range(10)])
    rig.now_s += 100
    await rig.kill()
    new = BundleSpec((Archive(210, 100, 12),), Cf.LAST, 0.0)
    assert first_s % 210
    rows = await postgres_store.load_series()
    [bundle] = await postgres_store.ensure_bundles([new])
    job = await postgres_store.create_job(
        "", 0, rows.rrd_id, rows.bundle_id.astype(np.int64), np.array([bundle])
    )
    alone = make(postgres_store)
    alone.now_s = rig.now_s
    await alone.start()
    await worker(alone).work(job)
    await alone.kill()
    await rig.start()
    assert (await known(rig, "a"))[first_s // 210 * 210] >= 100.0


async def test_a_lost_answer_to_the_commit_is_asked_for(
    make: Callable[..., Rig], postgres_store: PostgresStore
) -> None:
    rig = make(postgres_store)
    await rig.start()
    Sent().send(rig, 100, 1)
    await rig.flusher.flush_now()
    ids = np.arange(2, dtype=np.int32)
    done = False

    async def commit(cut_s: int) -> None:
        nonlocal done
        done = True
        raise StoreUnavailable("cut")

    async def committed() -> bool:
        return done

    batch = Batch(ids, np.array([100, 101]), LONGER, None, 2, commit, committed)
    await Mover(rig.flusher, postgres_store, postgres_store).move(batch)
    assert rig.registry.specs(np.arange(3, dtype=np.int32)) == [LONGER, LONGER, OLD]
    done = False

    async def refused(cut_s: int) -> None:
        raise StoreUnavailable("cut")

    batch = Batch(np.array([2], np.int32), np.array([102]), LONGER, None, 2, refused, committed)
    with pytest.raises(StoreUnavailable):
        await Mover(rig.flusher, postgres_store, postgres_store).move(batch)
    assert rig.registry.specs(np.arange(3, dtype=np.int32)) == [LONGER, LONGER, OLD]


async def test_what_was_planned_before_reads_where_it_was(
    make: Callable[..., Rig], postgres_store: PostgresStore
) -> None:
    rig = make(postgres_store)
    await sent_to(rig, 900)
    ids = np.arange(5, dtype=np.int32)
    window = (0, rig.now_s // 10 - 300, rig.now_s // 10 + 1)
    before = await rig.reader.fetch(ids, *window, OLD)
    job = await start_job(rig, COARSER)
    await worker(rig).work(job)
    assert np.array_equal(await rig.reader.fetch(ids, *window, OLD), before, equal_nan=True)
    after = await rig.reader.fetch(ids, 0, window[1] // 6, window[2] // 6 + 1, COARSER)
    assert (~np.isnan(after)).any(axis=1).all()


class AwayJobs:
    """Jobs of a PostgreSQL that is away, counted; one job is known when ``job`` is set."""

    def __init__(self, job: int | None) -> None:
        self.job = job
        self.asked = 0
        self.often = asyncio.Event()  # set when it was asked five times

    async def next_job(self) -> int | None:
        self.asked += 1
        if self.asked >= 5:
            self.often.set()
        if self.job is None:
            raise StoreUnavailable("away")
        return self.job

    async def jobs(self, job_id: int) -> list[object]:
        raise StoreUnavailable("away")


@pytest.mark.parametrize(("job", "lines"), [(None, 0), (7, 1)], ids=["no job", "a job"])
async def test_an_outage_is_told_once_and_only_where_a_job_waits(
    make: Callable[..., Rig],
    postgres_store: PostgresStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    job: int | None,
    lines: int,
) -> None:
    rig = make(postgres_store)
    await rig.start()
    monkeypatch.setattr(retention_job, "LOOK_S", 0.001)
    monkeypatch.setattr(retention_job, "RETRY_S", 0.001)
    jobs = AwayJobs(job)
    running = asyncio.create_task(
        RetentionWorker(rig.flusher, postgres_store, cast(RetentionJobs, jobs)).run()
    )
    async with asyncio.timeout(30):
        await jobs.often.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [r.name for r in caplog.records].count(retention_job.log.name) == lines
