"""The ingest side against the real whisper package: random streams, every archive equal slot by slot.

Streams have gaps, duplicates, points out of order, late and very late ones; retentions whose chunks meet the
coarser steps and ones that don't; every aggregation method of whisper. In memory, through PostgreSQL, and across kills.

Left out, because the two differ there on purpose (see plain_model): points within one step of an archive's
retention, points from the future, and finest archives hardly longer than a coarser slot: of those whisper rolls up
what newer points have left of a coarser slot's finer ones, and we roll up all that are in memory.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import whisper

from tests.plain_model import PlainSeries
from tests.rig import Rig
from tgres_py import clock
from tgres_py.model.retention import Archive, BundleSpec, Cf
from tgres_py.storage.memory import MemoryStore
from tgres_py.storage.port import Store
from tgres_py.storage.postgres import PostgresStore

RETENTIONS = {
    "aligned": (Archive(10, 60, 12), Archive(60, 40, 2), Archive(600, 30, 3)),
    "unaligned": (
        Archive(10, 60, 13),
        Archive(60, 40, 5),
        Archive(300, 30, 4),
        Archive(900, 40, 3),
    ),
    "one": (Archive(10, 50, 7),),
    "wide": (Archive(1, 300, 120), Archive(60, 20, 4)),
    "minutes": (Archive(60, 20, 5), Archive(300, 12, 12)),
}
METHODS = [cf for cf in Cf if cf != Cf.MEDIAN]
XFFS = [0.0, 0.1, 0.3, 0.5, 1.0]
NAMES = ["a.x", "a.y", "b"]
AGES = [0, 0, 0, 5, 15, 40, 100, 300, 700, 1500, 5000]


class Oracle:
    """A whisper file, fed point by point."""

    def __init__(self, path: Path, spec: BundleSpec) -> None:
        self.path = str(path)
        pairs = [(a.step_s, a.size) for a in spec.archives]
        whisper.create(self.path, pairs, spec.xff, spec.cf.value)
        self.spec = spec

    def add(self, time_s: int, value: float, now_s: int) -> None:
        whisper.update(self.path, value, time_s, now=now_s)

    def cells(self, archive: int) -> dict[int, float]:
        """All that the archive's part of the file holds: slot -> value, newest lap or not."""
        with open(self.path, "rb") as f:
            archive_info = whisper.info(self.path)["archives"][archive]
            f.seek(archive_info["offset"])
            data = f.read(archive_info["size"])
        step_s = archive_info["secondsPerPoint"]
        return {t // step_s: v for t, v in struct.iter_unpack("!Ld", data) if t}


@pytest.fixture(autouse=True)
def real_clock_afterwards() -> Iterator[None]:
    yield
    clock.replace_source(None)


async def run_stream(
    store: Store, spec: BundleSpec, seed: int, steps: int, folder: Path, actions: str
) -> None:
    rng = random.Random(seed)
    rig = Rig(store, folder / "journal", spec, now_s=1_700_000_000 + rng.randrange(10_000))
    oracles = {name: Oracle(folder / f"{name}.wsp", spec) for name in NAMES}
    edges = PlainSeries(spec)
    await rig.start()
    points = 0
    for _ in range(steps):
        rig.now_s += rng.choice([0, 1, 5, 10, 10, 30, 200])
        batch = []
        for _ in range(rng.randrange(0, 12)):
            time_s = rig.now_s - rng.choice(AGES) - rng.randrange(20)
            too_old = rig.now_s - time_s > spec.archives[-1].retention_s
            if not too_old and not edges.at_edge(time_s, rig.now_s):
                batch.append((rng.choice(NAMES), time_s, float(rng.randrange(-50, 50))))
        for name, time_s, value in batch:
            oracles[name].add(time_s, value, rig.now_s)
        if batch:
            rig.add(batch)
            points += len(batch)
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
        if rng.random() < 0.1:
            await compare(rig, oracles, spec)
    await compare(rig, oracles, spec)
    await rig.kill()
    await rig.start()
    await compare(rig, oracles, spec)
    assert points > steps
    assert rig.intake.ledger.balance == 0
    await rig.stop()


async def compare(rig: Rig, oracles: dict[str, Oracle], spec: BundleSpec) -> None:
    for name, oracle in oracles.items():
        if rig.registry.table.get(name.encode()) < 0:
            assert not any(oracle.cells(k) for k in range(len(spec.archives)))
            continue
        for number, archive in enumerate(spec.archives):
            newest = rig.now_s // archive.step_s
            oldest = (rig.now_s - archive.retention_s) // archive.step_s + 1
            want = np.full(newest + 1 - oldest, np.nan)
            for slot, value in oracle.cells(number).items():
                if oldest <= slot <= newest:
                    want[slot - oldest] = value
            got = await rig.read(name, number, oldest, newest + 1)
            where = f"{name}, archive {number} from slot {oldest}, {spec.cf} {spec.xff}"
            np.testing.assert_allclose(got, want, rtol=1e-12, err_msg=where)


def spec_of(retention: str, seed: int) -> BundleSpec:
    """Seeds go through all aggregation methods; the retention decides which xFilesFactor goes with which."""
    shift = list(RETENTIONS).index(retention)
    return BundleSpec(
        RETENTIONS[retention], METHODS[seed % len(METHODS)], XFFS[(seed + shift) % len(XFFS)]
    )


@pytest.mark.parametrize("retention", RETENTIONS)
@pytest.mark.parametrize("seed", range(len(METHODS)))
async def test_in_memory(retention: str, seed: int, tmp_path: Path) -> None:
    await run_stream(MemoryStore(), spec_of(retention, seed), seed, 60, tmp_path, "tttpc")


@pytest.mark.parametrize("retention", RETENTIONS)
@pytest.mark.parametrize("seed", range(100, 104))
async def test_across_kills(retention: str, seed: int, tmp_path: Path) -> None:
    await run_stream(MemoryStore(), spec_of(retention, seed), seed, 50, tmp_path, "tttpckk")


@pytest.mark.parametrize("retention", RETENTIONS)
@pytest.mark.parametrize("seed", [200])
async def test_through_postgresql(
    retention: str, seed: int, tmp_path: Path, postgres_store: PostgresStore
) -> None:
    seed += list(RETENTIONS).index(retention)
    await run_stream(postgres_store, spec_of(retention, seed), seed, 40, tmp_path, "tttpck")
