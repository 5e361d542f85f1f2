"""The slow path by itself: points whose slots are in the store, merged by the rule and rolled up again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plain_model import PlainSeries
from tests.rig import Rig
from tgres_py import clock
from tgres_py.ingest.intake import Late
from tgres_py.ingest.late import apply, floors_wanted
from tgres_py.ingest.rows import unique_pairs
from tgres_py.model.points import Reason
from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate
from tgres_py.storage.memory import MemoryStore

NOW_S = 1_700_000_000 // 3_600 * 3_600
ARCHIVES = (Archive(10, 60, 12), Archive(60, 60, 12))


# -- apply ---------------------------------------------------------------------------------------

cells = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(-9, 9), st.booleans()), max_size=12
)


@given(cells, st.sampled_from(OnDuplicate), st.booleans())
@settings(deadline=None, max_examples=300)
def test_apply_equals_one_point_after_the_other(
    points: list[tuple[int, int, int, bool]], rule: OnDuplicate, known_before: bool
) -> None:
    known = np.full((2, 3), 4.0 if known_before else np.nan)
    counts = np.where(np.isnan(known), 0.0, 1.0) if rule == OnDuplicate.MEAN else None
    meet: dict[OnDuplicate, Callable[[list[float]], float]] = {
        OnDuplicate.LAST: lambda v: v[-1],
        OnDuplicate.FIRST: lambda v: v[0],
        OnDuplicate.SUM: sum,
        OnDuplicate.MEAN: lambda v: sum(v) / len(v),
        OnDuplicate.MIN: min,
        OnDuplicate.MAX: max,
    }
    met = {(r, c): [4.0] if known_before else [] for r in range(2) for c in range(3)}
    stored = 0
    if rule != OnDuplicate.LAST:  # rollups never meet in a finest archive
        points = [(row, column, value, True) for row, column, value, _ in points]
    for row, column, value, direct in points:
        stored += direct and not met[row, column]
        met[row, column].append(float(value))
    got, cells = apply(
        rule,
        known,
        np.array([p[0] for p in points], np.intp),
        np.array([p[1] for p in points], np.int64),
        np.array([p[2] for p in points], np.float64),
        np.array([p[3] for p in points], np.bool_),
        counts,
    )
    for (row, column), values in met.items():
        if values:
            assert known[row, column] == pytest.approx(meet[rule](values))
        else:
            assert np.isnan(known[row, column])
    assert got == stored
    assert [tuple(cell) for cell in cells.T.tolist()] == sorted({p[:2] for p in points})


@given(
    st.lists(st.tuples(st.integers(-2, 2), st.integers(-(1 << 62), 1 << 62) | st.integers(-2, 2)))
)
def test_unique_pairs(pairs: list[tuple[int, int]]) -> None:
    """As numpy finds them, only faster."""
    table = np.array(pairs, np.int64).reshape(-1, 2).T
    first, which = unique_pairs(*table)
    keys, index, inverse = np.unique(table, axis=1, return_index=True, return_inverse=True)
    assert table[:, first].tolist() == keys.tolist()
    assert first.tolist() == index.tolist()
    assert which.tolist() == inverse.reshape(-1).tolist()


# -- merges --------------------------------------------------------------------------------------


async def started(tmp_path: Path, spec: BundleSpec) -> Rig:
    rig = Rig(MemoryStore(), tmp_path, spec, now_s=NOW_S)
    await rig.start()
    return rig


async def read(rig: Rig, name: str, archive: int) -> dict[int, float]:
    step_s = rig.match_many([name])[0].archives[archive].step_s
    first, until = (NOW_S - 3_600) // step_s, rig.now_s // step_s + 1
    values = await rig.read(name, archive, first, until)
    return {
        (first + i) * step_s - NOW_S: v for i, v in enumerate(values.tolist()) if not np.isnan(v)
    }


@pytest.mark.parametrize("rule", list(OnDuplicate))
async def test_rules_hold_across_the_floor(tmp_path: Path, rule: OnDuplicate) -> None:
    """Some of a slot's points come before its chunk is written, some after."""
    spec = BundleSpec(ARCHIVES, Cf.SUM, 0.0, rule)
    rig = await started(tmp_path, spec)
    model = PlainSeries(spec)
    try:
        for value in (3.0, 5.0):
            rig.add([("a", NOW_S, value)])
            model.add(NOW_S, value, rig.now_s)
        await rig.tick()
        rig.now_s += 400
        await rig.tick()
        assert rig.ring.row_bytes == 0
        for value in (4.0, 2.0, 9.0):
            rig.add([("a", NOW_S, value), ("a", NOW_S + 10, value)])
            model.add(NOW_S, value, rig.now_s)
            model.add(NOW_S + 10, value, rig.now_s)
            await rig.tick()
        for archive in (0, 1):
            step_s = ARCHIVES[archive].step_s
            want = {s * step_s - NOW_S: v for s, v in model.read(archive).items()}
            assert await read(rig, "a", archive) == pytest.approx(want)
        ledger = rig.intake.ledger
        assert (ledger.stored, ledger.overwritten, ledger.balance) == (2, 6, 0)
    finally:
        rig.journal.close()
        clock.replace_source(None)


async def test_very_late_points_go_to_the_archive_that_covers_them(tmp_path: Path) -> None:
    rig = await started(tmp_path, BundleSpec(ARCHIVES, Cf.SUM, 0.0))
    try:
        rig.add([("a", NOW_S - 1_800, 3.0), ("a", NOW_S - 1_790, 4.0), ("a", NOW_S - 3_601, 5.0)])
        await rig.tick()
        assert await read(rig, "a", 0) == {}
        assert await read(rig, "a", 1) == {-1_800: 4.0}
        ledger = rig.intake.ledger
        assert (ledger.stored, ledger.overwritten) == (1, 1)
        assert +ledger.rejected == {Reason.TOO_OLD: 1}
    finally:
        rig.journal.close()
        clock.replace_source(None)


async def test_a_point_from_the_future_below_the_floor(tmp_path: Path) -> None:
    """Its slot is in the store already, as an import has asked for it."""
    rig = await started(tmp_path, BundleSpec(ARCHIVES, Cf.SUM, 0.0))
    try:
        rig.add([("a", NOW_S, 1.0)])
        await rig.flusher.settle_until(NOW_S + 60)
        rig.add([("a", NOW_S + 20, 2.0)])
        await rig.tick()
        assert rig.intake.ledger.balance == 0
        rig.now_s += 60
        assert (await read(rig, "a", 0), await read(rig, "a", 1)) == ({0: 1.0, 20: 2.0}, {0: 3.0})
    finally:
        rig.journal.close()
        clock.replace_source(None)


@pytest.mark.parametrize("killed", [False, True])
async def test_points_that_wait_meet_the_ring_of_when_they_came(
    tmp_path: Path, killed: bool
) -> None:
    """While the store is away the finest ring comes round: its new points take no place in the
    rollup of a point that came before them."""
    spec = BundleSpec(ARCHIVES, Cf.SUM, 0.0)
    rig = await started(tmp_path, spec)
    model = PlainSeries(spec)

    def add(*points: tuple[int, float]) -> None:
        rig.add([("a", NOW_S + after_s, value) for after_s, value in points])
        for after_s, value in points:
            model.add(NOW_S + after_s, value, rig.now_s)

    store = rig.store
    assert isinstance(store, MemoryStore)
    try:
        add((0, 1.0))
        rig.now_s += 240
        await rig.flusher.settle_until(NOW_S + 120)
        store.away = True
        add((10, 2.0))
        rig.now_s += 400
        add((600, 4.0), (610, 8.0))
        if killed:
            await rig.kill()
        store.away = False
        if killed:
            await rig.start()
        want = {s * 60 - NOW_S: v for s, v in model.read(1).items()}
        assert await read(rig, "a", 1) == want == {0: 3.0, 600: 12.0}
        assert rig.intake.ledger.balance == 0
    finally:
        rig.journal.close()
        clock.replace_source(None)


async def test_one_batch_for_many_series_and_bundles(tmp_path: Path) -> None:
    """Bundles of other steps and rules in one batch, series in any order, many points a slot."""
    specs = {
        "a": BundleSpec(ARCHIVES, Cf.SUM, 0.0),
        "b": BundleSpec((Archive(20, 90, 9),), Cf.MAX, 0.5, OnDuplicate.MAX),
    }
    rig = Rig(MemoryStore(), tmp_path, lambda names: [specs[n[0]] for n in names], now_s=NOW_S)
    await rig.start()
    names = [f"{kind}{i}" for i in range(20) for kind in "ab"]
    models = {name: PlainSeries(specs[name[0]]) for name in names}
    rng = np.random.default_rng(5)
    try:
        rig.add([(name, NOW_S, 1.0) for name in names])
        for name in names:
            models[name].add(NOW_S, 1.0, rig.now_s)
        await rig.tick()
        rig.now_s += 500
        await rig.tick()
        batch = [
            (names[i], NOW_S + int(age), float(value))
            for i, age, value in zip(
                rng.integers(0, 40, 600),
                rng.integers(0, 240, 600),
                rng.integers(0, 99, 600),
                strict=True,
            )
        ]
        rig.add(batch)
        for name, time_s, value in batch:
            models[name].add(time_s, value, rig.now_s)
        await rig.tick()
        assert rig.intake.late_points == 0
        for name in names:
            for number, archive in enumerate(specs[name[0]].archives):
                want = {s * archive.step_s - NOW_S: v for s, v in models[name].read(number).items()}
                assert await read(rig, name, number) == want, (name, number)
        assert rig.intake.ledger.balance == 0
    finally:
        rig.journal.close()
        clock.replace_source(None)


async def test_floors_that_a_batch_needs(tmp_path: Path) -> None:
    """A point that goes straight to a coarser slot needs all of that slot in the store first."""
    rig = await started(tmp_path, BundleSpec(ARCHIVES, Cf.SUM, 0.0))
    try:
        rig.add([("a", NOW_S, 1.0)])
        ids = np.zeros(3, np.int32)

        def wanted(*ages_s: int) -> dict[int, int]:
            times = NOW_S - np.array(ages_s, np.int64)
            return floors_wanted(
                rig.registry, [Late(ids[: len(times)], times, np.ones(len(times)), NOW_S, 1)]
            )

        assert wanted(0, 600) == {}
        assert wanted(3_601) == {}
        assert wanted(601) == {0: NOW_S - 600}
        assert wanted(3_600, 1_230, 700) == {0: NOW_S - 660}
    finally:
        rig.journal.close()
        clock.replace_source(None)


@pytest.mark.parametrize("ahead_s", [1, 5, 600])
async def test_a_point_ahead_of_the_clock_and_below_the_floor_is_merged(
    tmp_path: Path, ahead_s: int
) -> None:
    """As after an import asked for all up to now, or after the clock was set back; senders may be ahead."""
    rig = Rig(MemoryStore(), tmp_path, BundleSpec(ARCHIVES, Cf.AVERAGE, 0.0), now_s=NOW_S)
    await rig.start()
    rig.add([("a", NOW_S, 1.0)])
    await rig.flusher.settle_until(NOW_S + 1_000)
    rig.add([("a", NOW_S + ahead_s, 2.0)])
    slot = (NOW_S + ahead_s) // 10
    assert (await rig.read("a", 0, slot, slot + 1)).tolist() == [2.0]
    assert (rig.intake.ledger.balance, rig.intake.ledger.held) == (0, 0)
    await rig.stop()
