"""Series that the store got under other archives before this server made their rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from tests.rig import Rig
from tgres_py.ingest.intake import Late
from tgres_py.ingest.late import Merge
from tgres_py.ingest.rows import rows_of_slots
from tgres_py.model.retention import BundleSpec, OnDuplicate, make_bundle
from tgres_py.storage.memory import MemoryStore

OURS = make_bundle([(10, 360), (60, 600)])
THEIRS = make_bundle([(5, 720), (60, 1_200)])


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(MemoryStore(), tmp_path, OURS)
    await rig.start()
    yield rig
    await rig.stop()


async def make_theirs(
    rig: Rig, spec: BundleSpec, names: list[str], time_s: int, value: float
) -> None:
    """As an import makes series: rows in the store, with one point each."""
    store = rig.store
    [bundle] = await store.ensure_bundles([spec])
    rrd_ids, _ = await store.create_series(names, np.full(len(names), bundle, np.int32))
    slots = np.full(len(names), time_s // spec.archives[0].step_s)
    rows = rows_of_slots(0, spec.archives[0], rrd_ids, slots, np.full(len(names), value))
    await store.write_chunks([rows])


async def check(rig: Rig, name: str, expected: dict[int, float]) -> None:
    step_s = THEIRS.archives[0].step_s
    first, end = rig.now_s // step_s - 200, rig.now_s // step_s + 10
    values = await rig.read(name, 0, first, end)
    found = {(first + int(i)) * step_s: float(values[i]) for i in np.flatnonzero(~np.isnan(values))}
    assert found == expected
    assert rig.intake.ledger.balance == 0


@pytest.mark.parametrize("rule", [OnDuplicate.LAST, OnDuplicate.SUM])
async def test_the_stores_archives_count_and_no_point_is_lost(rig: Rig, rule: OnDuplicate) -> None:
    theirs = BundleSpec(THEIRS.archives, THEIRS.cf, THEIRS.xff, rule)
    now_s = rig.now_s
    rig.add([("a", now_s, 1.0), ("a", now_s - 10, 2.0), ("b", now_s, 3.0)])
    await make_theirs(rig, theirs, ["a"], now_s - 500, 7.0)
    rig.intake.add_late(
        rig.registry.resolve([b"a"])[0], np.array([now_s - 20]), np.array([4.0]), now_s
    )
    rig.intake.ledger.received["test"] += 1
    await rig.tick()
    expected = {now_s: 1.0, now_s - 10: 2.0, now_s - 20: 4.0, now_s - 500: 7.0}
    await check(rig, "a", expected)
    rig.add([("a", now_s + 5, 5.0), ("b", now_s + 10, 6.0)])
    rig.now_s += 10
    expected[now_s + 5] = 5.0
    await rig.tick()
    await check(rig, "a", expected)

    await rig.kill()
    await rig.start()
    await check(rig, "a", expected)
    rig.now_s += 10_000
    await rig.tick()
    await rig.kill()
    await rig.start()
    id_ = rig.registry.resolve([b"a"])[0]
    assert rig.registry.specs(id_) == [theirs]


async def test_points_that_come_during_a_merge_wait_for_the_next(rig: Rig) -> None:
    """A sender of late points that is quicker than their merges must not keep the flusher's lock for ever."""
    now_s = rig.now_s
    rig.add([("a", now_s, 1.0)])
    await rig.tick()
    await rig.flusher.settle_until(now_s + 1)
    merge, rounds = rig.flusher._merger.merge, 0

    async def slow(batch: list[Late]) -> Merge:
        nonlocal rounds
        rounds += 1
        rig.add([("a", now_s - rounds, float(rounds))])
        assert rounds < 10
        return await merge(batch)

    rig.flusher._merger.merge = slow  # type: ignore[method-assign]  # a method is put in another's place
    rig.add([("a", now_s - 100, 5.0)])
    await rig.flusher.settle()
    assert rounds == 1 and rig.intake.late_points == 1
    await rig.flusher.settle()
    assert rounds == 2
    rig.flusher._merger.merge = merge  # type: ignore[method-assign]  # a method is put in another's place
