"""A start with a damaged journal: it starts, the ledger is right, and no point comes back that nobody sent.

Damage of the disk (bits and pieces of the files), and records with a right checksum round a damaged payload, as a
defect before the writing would leave them: these may bring wrong numbers, but never end the start.
"""

from __future__ import annotations

import asyncio
import copy
import random
import shutil
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.effort import fuzz_seconds, fuzz_times
from tests.fuzz.mutate import mutations
from tests.rig import Rig
from tgres_py import clock
from tgres_py.ingest.journal import FILE_HEADER_BYTES, RECORD_HEADER, RECORD_MAGIC
from tgres_py.model.retention import Archive, BundleSpec, Cf
from tgres_py.storage.memory import MemoryStore

NOW_S = 1_700_000_000 // 720 * 720
SPEC = BundleSpec((Archive(10, 360, 12), Archive(60, 240, 6)), Cf.LAST, 0.0)
STARTS = 40
NAMES = [f"a.x{n}" for n in range(6)]
Sent = dict[tuple[str, int], float]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemoryStore, Sent]:
    """A journal with names, rows, points, late ones, floors, an image; the store at the kill; what was sent."""
    folder = tmp_path_factory.mktemp("written") / "journal"

    async def write() -> tuple[MemoryStore, Sent]:
        store = MemoryStore()
        rig = Rig(store, folder, SPEC, now_s=NOW_S)
        await rig.start()
        sent: Sent = {}
        for round_ in range(30):
            rig.now_s += 10
            points = [(name, rig.now_s, round_ + place / 10) for place, name in enumerate(NAMES)]
            if round_ % 7 == 6:
                points += [("late.x", rig.now_s - 1_000, float(round_))]
            rig.add(points)
            sent |= {(name, time_s): value for name, time_s, value in points}
            if round_ % 10 == 5:
                await rig.tick()
        await rig.kill()
        return store, sent

    try:
        store, sent = asyncio.run(write())
    finally:
        clock.replace_source(None)
    return folder, store, sent


def resealed(data: bytes, draw: random.Random) -> bytes:
    """One record's payload damaged, its length and checksum right again."""
    records = []
    at = FILE_HEADER_BYTES
    while at < len(data):
        _, kind, length, _ = RECORD_HEADER.unpack_from(data, at)
        records.append((at, kind, length))
        at += RECORD_HEADER.size + length
    at, kind, length = draw.choice(records)
    end = at + RECORD_HEADER.size + length
    [payload] = mutations([data[at + RECORD_HEADER.size : end]], draw.randrange(1 << 30), 1)
    crc = zlib.crc32(payload, zlib.crc32(struct.pack("<BI", kind, len(payload))))
    return (
        data[:at] + RECORD_HEADER.pack(RECORD_MAGIC, kind, len(payload), crc) + payload + data[end:]
    )


def damaged(source: Path, target: Path, draw: random.Random, is_sealed: bool) -> None:
    shutil.copytree(source, target)
    path = draw.choice(sorted(target.glob("*.journal")))
    data = path.read_bytes()
    if is_sealed:
        path.write_bytes(resealed(data, draw))
    else:
        [changed] = mutations([data], draw.randrange(1 << 30), 1)
        path.write_bytes(changed)


async def start(folder: Path, store: MemoryStore, sent: Sent, is_sealed: bool) -> None:
    rig = Rig(copy.deepcopy(store), folder, SPEC, now_s=NOW_S + 310)
    await rig.start()
    try:
        assert rig.registry.opened
        assert rig.intake.ledger.balance == 0
        if not is_sealed:
            await check(rig, sent)
        rig.add([("a.x0", rig.now_s, 99.0), ("new.x", rig.now_s, 1.0)])
        await rig.tick()
        assert rig.intake.ledger.balance == 0
    finally:
        rig.journal.close()


async def check(rig: Rig, sent: Sent) -> None:
    """Each slot of the finest archive is unknown or holds what was sent for it."""
    until = rig.now_s // 10 + 1
    known = {name for name in (*NAMES, "late.x") if rig.registry.table.get(name.encode()) >= 0}
    for name in known:
        values = await rig.read(name, 0, until - 200, until)
        for place in np.flatnonzero(~np.isnan(values)).tolist():
            slot = until - len(values) + place
            assert sent[name, slot * 10] == values[place]


@pytest.mark.parametrize("is_sealed", [False, True], ids=["disk", "sealed"])
def test_a_damaged_journal_starts(
    written: tuple[Path, MemoryStore, Sent], tmp_path: Path, is_sealed: bool
) -> None:
    source, store, sent = written
    until_s, seed, number = time.monotonic() + fuzz_seconds(), time.time_ns(), 0
    starts = fuzz_times(STARTS)
    try:
        while number < starts or time.monotonic() < until_s:
            chosen = number if number < starts else seed + number
            folder = tmp_path / "journal"
            damaged(source, folder, random.Random(chosen), is_sealed)
            try:
                asyncio.run(start(folder, store, sent, is_sealed))
            except BaseException as error:
                error.add_note(f"seed {chosen}")
                raise
            shutil.rmtree(folder)
            number += 1
    finally:
        clock.replace_source(None)


def test_without_damage_all_is_there(
    written: tuple[Path, MemoryStore, Sent], tmp_path: Path
) -> None:
    """The check sees points: what stands in the journal as it was written comes back whole."""
    source, store, sent = written
    folder = tmp_path / "journal"
    shutil.copytree(source, folder)

    async def read() -> int:
        rig = Rig(copy.deepcopy(store), folder, SPEC, now_s=NOW_S + 310)
        await rig.start()
        await check(rig, sent)
        until = rig.now_s // 10 + 1
        counts = [
            np.count_nonzero(~np.isnan(await rig.read(name, 0, until - 200, until)))
            for name in (*NAMES, "late.x")
        ]
        rig.journal.close()
        return sum(map(int, counts))

    try:
        assert asyncio.run(read()) == len(sent)
    finally:
        clock.replace_source(None)
