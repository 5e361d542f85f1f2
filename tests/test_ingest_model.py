"""What the whole ingest side holds equals the plain model (and so whisper), slot by slot, in every archive.

Random streams: gaps, duplicates, late and very late points, points from the future; flushes, partial flushes,
checkpoints, an unavailable store and kills in between.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import pytest

from tests.plain_model import PlainSeries
from tests.rig import Rig
from tgres_py import clock
from tgres_py.errors import StoreUnavailable
from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate
from tgres_py.storage.memory import MemoryStore
from tgres_py.storage.port import Store

RETENTIONS = {
    "aligned": (Archive(10, 60, 12), Archive(60, 40, 2), Archive(600, 30, 3)),
    "unaligned": (Archive(10, 60, 13), Archive(60, 40, 5), Archive(300, 30, 4), Archive(900, 40, 3)),
    "one": (Archive(10, 50, 7),),
    "wide": (Archive(1, 300, 120), Archive(60, 20, 4)),
}


async def run_stream(
    store: Store, spec: BundleSpec, seed: int, steps: int, folder: Path, actions: str
) -> None:
    rng = random.Random(seed)
    start = 1_700_000_000 + rng.randrange(10_000)
    rig = Rig(store, folder, spec, now_s=start)
    names = ["a.x", "a.y", "b"]
    models = {name: PlainSeries(spec) for name in names}
    try:
        await rig.start()
        for _ in range(steps):
            rig.now_s += rng.choice([0, 1, 5, 10, 10, 30, 200])
            batch = []
            for _ in range(rng.randrange(0, 12)):
                name = rng.choice(names)
                age = rng.choice([0, 0, 0, 5, 15, 40, 100, 300, 700, 1500, 5000, -30])
                age += rng.randrange(0, 20)
                time_s = rig.now_s - age
                model = models[name]
                if model.at_edge(time_s, rig.now_s) or age > spec.archives[-1].retention_s:
                    continue
                batch.append((name, time_s, float(rng.randrange(-50, 50))))
            if batch:
                # whisper's rollup sees each batch point by point; so does the model
                for name, time_s, value in batch:
                    models[name].add(time_s, value, rig.now_s)
                rig.add(batch)
                assert rig.intake.ledger.balance == 0
            match rng.choice(actions):
                case "t":
                    await rig.tick()
                case "p":
                    await rig.flusher.flush_now()
                case "c":
                    await rig.flusher.checkpoint()
                case "k":
                    await rig.kill()
                    await rig.start()
                case "u":
                    assert isinstance(store, MemoryStore)
                    store.away = True
                    with contextlib.suppress(StoreUnavailable):
                        await rig.flusher.tick()
                    store.away = False
            if rng.random() < 0.15:
                await compare(rig, models, spec)
        await compare(rig, models, spec)
        await rig.kill()
        await rig.start()
        await compare(rig, models, spec)
        assert rig.intake.ledger.balance == 0
        await rig.stop()
    finally:
        clock.replace_source(None)


async def compare(rig: Rig, models: dict[str, PlainSeries], spec: BundleSpec) -> None:
    for name, model in models.items():
        if rig.registry.table.get(name.encode()) < 0:
            assert not any(model.read(k) for k in range(len(spec.archives)))
            continue
        for number, archive in enumerate(spec.archives):
            newest = (rig.now_s + 100) // archive.step_s
            oldest = (rig.now_s - archive.retention_s) // archive.step_s + 1
            got = await rig.read(name, number, oldest, newest + 1)
            known = {s: v for s, v in model.read(number).items() if oldest <= s <= newest}
            want = np.full(newest + 1 - oldest, np.nan)
            for slot, value in known.items():
                want[slot - oldest] = value
            # a point from the future took the place of an old one; ours has room for both
            for slot in range(oldest, newest + 1 - archive.size):
                if model.rings[number].cells.get(slot % archive.size, (slot, 0.0))[0] > slot:
                    got[slot - oldest] = np.nan
            np.testing.assert_allclose(
                got, want, rtol=1e-12, err_msg=f"{name}, archive {number} from slot {oldest}"
            )


@pytest.mark.parametrize("retention", RETENTIONS)
@pytest.mark.parametrize("seed", range(6))
async def test_equals_the_model_in_memory(retention: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    spec = BundleSpec(
        RETENTIONS[retention], rng.choice(list(Cf)), rng.choice([0.0, 0.3, 0.5, 1.0])
    )
    await run_stream(MemoryStore(), spec, seed, 120, tmp_path, "tttttpcu")


@pytest.mark.parametrize("retention", RETENTIONS)
@pytest.mark.parametrize("seed", range(100, 104))
async def test_equals_the_model_across_kills(retention: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    spec = BundleSpec(
        RETENTIONS[retention], rng.choice(list(Cf)), rng.choice([0.0, 0.3, 0.5, 1.0])
    )
    await run_stream(MemoryStore(), spec, seed, 80, tmp_path, "ttttpckk")


@pytest.mark.parametrize("rule", list(OnDuplicate))
@pytest.mark.parametrize("seed", range(3))
async def test_duplicates_follow_the_rule(rule: OnDuplicate, seed: int, tmp_path: Path) -> None:
    spec = BundleSpec(RETENTIONS["aligned"], Cf.AVERAGE, 0.3, rule)
    await run_stream(MemoryStore(), spec, seed, 100, tmp_path, "tttttpcuk")
