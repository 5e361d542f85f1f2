"""Whisper files into the store: what the real package wrote comes out slot for slot."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import whisper

from tgres_py import clock
from tgres_py.ingest.reader import archives_of
from tgres_py.ingest.rows import rows_of_block
from tgres_py.migrate.chunks import slots_of_rows
from tgres_py.migrate.files import list_files
from tgres_py.migrate.load import Loader, Options
from tgres_py.model.retention import BundleSpec, Cf, make_bundle, pairs_of
from tgres_py.storage.importing import ImportStore
from tgres_py.storage.port import ChunkRows
from tgres_py.storage.postgres import PostgresStore

METHODS = [cf for cf in Cf if cf != Cf.MEDIAN]
XFFS = [0.0, 0.1, 0.3, 0.5, 1.0]
RETENTIONS = [
    [(10, 60), (60, 40), (600, 30)],
    [(60, 30)],
    [(1, 300), (60, 20), (300, 15)],
    [(10, 700), (120, 200)],
]

Slots = dict[int, float]


def make_file(
    path: Path, pairs: list[tuple[int, int]], xff: float, cf: str, seed: int, now_s: int
) -> None:
    """A file with the ring wound round a few times, gaps, and points that came late."""
    pick = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    whisper.create(str(path), pairs, xff, cf)
    span_s = pairs[-1][0] * pairs[-1][1]
    for _ in range(pick.randrange(1, 6)):
        then_s = now_s - pick.randrange(span_s * 2)
        points = [
            (then_s - pick.randrange(span_s), pick.uniform(-1e6, 1e6))
            for _ in range(pick.randrange(400))
        ]
        whisper.update_many(str(path), points, now=then_s)
    recent = pairs[0][0] * pairs[0][1]
    whisper.update_many(
        str(path),
        [(now_s - pick.randrange(recent), pick.random()) for _ in range(recent)],
        now=now_s,
    )


def whisper_slots(path: Path, number: int, now_s: int) -> Slots:
    """What whisper's fetch knows of one archive."""
    info = whisper.info(str(path))["archives"][number]
    step_s = info["secondsPerPoint"]
    fetched = whisper.fetch(str(path), now_s - info["retention"], now_s, now_s, step_s)
    assert fetched is not None
    (start_s, _, _), values = fetched
    return {start_s + i * step_s: v for i, v in enumerate(values) if v is not None}


async def stored_slots(store: PostgresStore, rrd_id: int, spec: BundleSpec, number: int) -> Slots:
    archive = spec.archives[number]
    rows = await store.read_chunks(np.array([rrd_id]), number, archive.width, 0, 1 << 40)
    _, slots, values = slots_of_rows(rows, archive)
    return dict(zip((slots * archive.step_s).tolist(), values.tolist(), strict=True))


@pytest.fixture
async def store(database: str) -> AsyncIterator[ImportStore]:
    store = ImportStore(database)
    yield store
    await store.close()


async def test_every_method_factor_and_retention_slot_for_slot(
    store: ImportStore, tmp_path: Path
) -> None:
    now_s = clock.now_s()
    cases = {}
    for number, (cf, xff) in enumerate((cf, xff) for cf in METHODS for xff in XFFS):
        pairs = RETENTIONS[number % len(RETENTIONS)]
        path = tmp_path / f"a/{cf}/x{xff}.wsp"
        make_file(path, pairs, xff, cf.value, number, now_s)
        cases[f"a.{cf}.x{xff}"] = path, make_bundle(pairs, cf, xff)
    report = await Loader(store, Options(str(tmp_path), now_s)).load(list_files(tmp_path).files)
    assert report.left_out == [] and report.files == len(cases)
    rows = await store.load_series()
    bundles = dict(await store.load_bundles())
    ids = dict(zip(rows.names, rows.rrd_id.tolist(), strict=True))
    found_specs = dict(zip(rows.names, rows.bundle_id.tolist(), strict=True))
    total = 0
    for name, (path, spec) in cases.items():
        assert bundles[found_specs[name]] == spec
        for number in range(len(pairs_of(spec))):
            expected = whisper_slots(path, number, now_s)
            assert await stored_slots(store, ids[name], spec, number) == expected
            total += len(expected)
    assert total == report.slots > 7_000


async def test_what_is_known_stays_and_gaps_are_filled(store: ImportStore, tmp_path: Path) -> None:
    """A server that began in the middle of a coarse slot: its points stay, the sum of that slot is of all points."""
    now_s = clock.now_s() // 600 * 600
    spec = make_bundle([(10, 360), (60, 600), (600, 300)], Cf.SUM, 0.5)
    path = tmp_path / "a.wsp"
    whisper.create(str(path), list(pairs_of(spec)), 0.5, "sum")
    old = [(now_s - age, 1.0) for age in range(30, 3_000, 10)]
    whisper.update_many(str(path), old, now=now_s)
    # live since 1,000 s: 2 each, and nothing for a while
    ids = await store.ensure_bundles([spec])
    rrd_ids, _ = await store.create_series(["a"], np.array(ids, np.int32))
    live_from, gap = now_s - 970, (now_s - 400, now_s - 300)
    live = {t: 2.0 for t in range(live_from, now_s, 10) if not gap[0] <= t < gap[1]}
    await store.write_chunks(rows_of(spec, int(rrd_ids[0]), live))

    await Loader(store, Options(str(tmp_path), now_s)).load(list_files(tmp_path).files)

    expected = {t: 1.0 for t, _ in old if t > now_s - 3_600} | live
    assert await stored_slots(store, int(rrd_ids[0]), spec, 0) == expected
    minutes = await stored_slots(store, int(rrd_ids[0]), spec, 1)
    whole = range((now_s - 2_900) // 60 * 60 + 60, now_s - 60, 60)
    assert {t: minutes[t] for t in whole} == {
        t: sum(expected[t + i] for i in range(0, 60, 10)) for t in whole
    }
    tens = await stored_slots(store, int(rrd_ids[0]), spec, 2)
    whole = range((now_s - 2_900) // 600 * 600 + 600, now_s, 600)
    assert {t: tens[t] for t in whole} == {
        t: sum(expected.get(t + i, 0.0) for i in range(0, 600, 10)) for t in whole
    }


def rows_of(spec: BundleSpec, rrd_id: int, finest: Slots) -> list[ChunkRows]:
    """All archives of a series as a server that saw only these points would have written them."""
    first = min(finest) // spec.archives[0].step_s
    slots = np.array(sorted(finest)) // spec.archives[0].step_s
    block = np.full((int(slots[-1]) - first + 1, 1), np.nan)
    block[slots - first, 0] = [finest[t] for t in sorted(finest)]
    found: list[ChunkRows] = []
    pad = -first % 60
    lead = np.full(((60 - pad) % 60, 1), np.nan)
    block, first = np.concatenate([lead, block]), first - len(lead)
    for number, (start, values) in enumerate(archives_of(spec, block, first)):
        found += rows_of_block(number, spec.archives[number], np.array([rrd_id]), start, values)
    return found
