"""Whisper files into the store: what the real package wrote comes out slot for slot."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import whisper

from tgres_py import clock
from tgres_py.migrate.chunks import slots_of_rows
from tgres_py.migrate.files import list_files
from tgres_py.migrate.load import Loader, Options
from tgres_py.model.retention import BundleSpec, Cf, make_bundle, pairs_of
from tgres_py.storage.importing import ImportStore
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
        str(path), [(now_s - pick.randrange(recent), pick.random()) for _ in range(recent)], now=now_s
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
async def store(database: str):  # type: ignore[no-untyped-def]
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
