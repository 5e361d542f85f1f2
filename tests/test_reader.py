"""The reader: any archive and window is the same whether its slots are in memory, in the store, or in both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from tests.rig import Rig, running_rig
from tgres_py.errors import StoreUnavailable
from tgres_py.ingest.reader import archives_of, scatter
from tgres_py.ingest.rows import joined, rows_of_block, rows_of_slots
from tgres_py.model.consolidation import rollup
from tgres_py.model.retention import Archive, BundleSpec, Cf
from tgres_py.storage.memory import MemoryStore
from tgres_py.storage.port import ChunkRows

# chunks of 7 slots meet neither 60 nor 300 s: coarse slots straddle most floors
SPEC = BundleSpec((Archive(10, 360, 7), Archive(60, 120, 5), Archive(300, 48, 4)), Cf.SUM, 0.0)
NOW_S = 1_700_000_000 // 2_100 * 2_100
SLOTS = 120


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running_rig(MemoryStore(), tmp_path, SPEC, now_s=NOW_S) as rig:
        yield rig


async def fill(rig: Rig, flush_until: int) -> np.ndarray:
    """Three series, one point each slot with some gaps; slots below ``flush_until`` go to the store."""
    rng = np.random.default_rng(7)
    values = rng.integers(-50, 50, (3, SLOTS)).astype(float)
    values[rng.random((3, SLOTS)) < 0.3] = np.nan
    for slot in range(SLOTS):
        rig.now_s = NOW_S + 10 * slot
        rig.add(
            [
                (f"s{i}", rig.now_s, float(values[i, slot]))
                for i in range(3)
                if not np.isnan(values[i, slot])
            ]
        )
    await rig.flusher._create_series()
    if flush_until:
        await rig.flusher.flush_until(0, NOW_S // 10 + flush_until)
        assert rig.ring.floor(0) == NOW_S // 10 + flush_until
    return values


def ids_of(rig: Rig, *names: str) -> np.ndarray:
    return np.array([rig.registry.table.get(n.encode()) for n in names], np.int32)


@pytest.mark.parametrize("flush_until", [0, 1, 7, 30, 33, 60, 91, 119, 120])
async def test_every_archive_whatever_the_floor(rig: Rig, flush_until: int) -> None:
    values = await fill(rig, flush_until)
    ids = ids_of(rig, "s2", "s0", "s1")
    order = [2, 0, 1]
    expected = np.full((SLOTS, 3), np.nan)
    expected[:] = values[order].T
    for number, archive in enumerate(SPEC.archives):
        if number:
            factor = archive.step_s // SPEC.archives[number - 1].step_s
            expected = rollup(expected, factor, SPEC.cf, SPEC.xff)
        first = NOW_S // archive.step_s
        got = await rig.reader.fetch(ids, number, first, first + len(expected))
        np.testing.assert_array_equal(got, expected.T, err_msg=f"archive {number}")
        for low, high in ((3, 4), (0, 2), (len(expected) - 1, len(expected) + 3), (-5, 1)):
            part = await rig.reader.fetch(ids, number, first + low, first + high)
            wide = np.full((3, 5 + len(expected) + 5), np.nan)
            wide[:, 5 : 5 + len(expected)] = expected.T
            np.testing.assert_array_equal(part, wide[:, 5 + low : 5 + high])


async def test_empty_windows_and_unknown_series(rig: Rig) -> None:
    await fill(rig, 30)
    first = NOW_S // 10
    assert (await rig.reader.fetch(ids_of(rig, "s0"), 0, first, first)).shape == (1, 0)
    assert (await rig.reader.fetch(ids_of(rig, "s0"), 0, first, first - 5)).shape == (1, 0)
    assert (await rig.reader.fetch(np.empty(0, np.int32), 0, first, first + 5)).shape == (0, 5)


async def test_what_is_in_memory_needs_no_store(rig: Rig) -> None:
    await fill(rig, 60)
    store = rig.store
    assert isinstance(store, MemoryStore)
    store.away = True
    first = NOW_S // 10
    got = await rig.reader.fetch(ids_of(rig, "s0"), 0, first + 60, first + 120)
    assert not np.isnan(got).all()
    with pytest.raises(StoreUnavailable):
        await rig.reader.fetch(ids_of(rig, "s0"), 0, first + 59, first + 120)


async def test_a_row_of_an_earlier_lap_is_not_read(rig: Rig) -> None:
    rig.add([("a", NOW_S, 1.0)])
    await rig.tick()
    rig.now_s += 400
    await rig.tick()
    first = NOW_S // 10
    # the chunk's place in the ring comes round after 53 chunks of 7 slots
    lap = SPEC.archives[0].chunks * 7
    values = await rig.reader.fetch(ids_of(rig, "a"), 0, first + lap - 10, first + lap + 10)
    assert np.isnan(values).all()


# -- the arrays between --------------------------------------------------------------------------


def chunk(start_s: int, *values: float) -> ChunkRows:
    return ChunkRows(
        0,
        np.array([1], np.int64),
        np.array([0], np.int32),
        np.array([start_s], np.int64),
        np.array([values], float),
    )


@pytest.mark.parametrize(
    ("from_slot", "expected"),
    [(10, "123__"), (11, "23___"), (8, "__123"), (7, "___12"), (13, "_____"), (5, "_____")],
)
def test_scatter_cuts_to_the_window(from_slot: int, expected: str) -> None:
    out = np.full((1, 5), np.nan)
    scatter(chunk(100, 1, 2, 3), np.array([0]), 10, from_slot, out)
    assert "".join("_" if np.isnan(v) else str(int(v)) for v in out[0]) == expected


def test_archives_of_takes_whole_groups_only() -> None:
    block = np.arange(20.0).reshape(20, 1)
    levels = archives_of(SPEC, block, 3)
    assert [first for first, _ in levels] == [3, 1, 1]
    assert levels[1][1][:, 0].tolist() == [sum(range(3, 9)), sum(range(9, 15))]
    assert len(levels[2][1]) == 0


def test_rows_of_block_round_trip() -> None:
    archive = Archive(10, 20, 4)
    rng = np.random.default_rng(3)
    block = rng.random((11, 3))
    block[rng.random((11, 3)) < 0.4] = np.nan
    rows = list(rows_of_block(0, archive, np.array([5, 0, 9]), 6, block))
    out = np.full((2, 11), np.nan)
    for part in rows:
        assert part.dp.shape[1] == 4
        assert set(part.rrd_id.tolist()) <= {5, 9}, "a series without a row in rrd gets no chunk"
        assert (part.start_s % 40 == 0).all()
        np.testing.assert_array_equal(part.n, part.start_s // 40 % archive.chunks)
        scatter(part, np.where(part.rrd_id == 5, 0, 1), 10, 6, out)
    np.testing.assert_array_equal(out, block[:, [0, 2]].T)


def test_rows_of_slots_and_joined() -> None:
    archive = Archive(10, 20, 4)
    one = rows_of_slots(1, archive, np.array([7, 7, 8]), np.array([4, 6, 4]), np.array([1.0, 2, 3]))
    assert one.rrd_id.tolist() == [7, 8] and one.start_s.tolist() == [40, 40]
    two = rows_of_slots(1, archive, np.array([7, 7]), np.array([5, 9]), np.array([4.0, 5]))
    other = rows_of_slots(2, archive, np.array([7]), np.array([5]), np.array([6.0]))
    found = {
        (rows.archive, rrd_id, start_s): dp.tolist()
        for rows in joined([one, other], [two])
        for rrd_id, start_s, dp in zip(
            rows.rrd_id.tolist(), rows.start_s.tolist(), np.nan_to_num(rows.dp), strict=True
        )
    }
    assert found == {
        (1, 7, 40): [1, 4, 2, 0],
        (1, 8, 40): [3, 0, 0, 0],
        (1, 7, 80): [0, 5, 0, 0],
        (2, 7, 40): [0, 6, 0, 0],
    }
