"""The ingest side without sockets: intake, journal, flusher and reader over any store, with a clock of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from tgres_py import clock
from tgres_py.ingest.flusher import Flusher, Pace
from tgres_py.ingest.follow import Follower
from tgres_py.ingest.intake import Intake, Limits
from tgres_py.ingest.journal import KEPT_BYTES, Journal
from tgres_py.ingest.reader import Floats, Reader
from tgres_py.ingest.recover import Recovered, recover
from tgres_py.ingest.registry import Registry
from tgres_py.kernels import RingStore
from tgres_py.model.points import Parsed, PointBlock
from tgres_py.model.retention import BundleSpec
from tgres_py.storage.port import Store

Point = tuple[str, int, float]


class Rig:
    """``match_many`` or one spec for all names. ``now_s`` is the time that the parts see."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        spec: BundleSpec | Callable[[Sequence[str]], Sequence[BundleSpec]],
        *,
        now_s: int = 1_700_000_000,
        pace: Pace | None = None,
        limits: Limits | None = None,
        journal_sync_s: float = 0.05,
    ) -> None:
        self.store = store
        self.folder = folder
        self.match_many = spec if callable(spec) else lambda names: [spec] * len(names)
        self.now_s = now_s
        self.pace = pace or Pace(late_grace_s=20, flush_pace_s=10, sql_freshness_s=0)
        self.limits = limits or Limits(1 << 30)
        self.journal_sync_s = journal_sync_s
        self.journal_kept_bytes = KEPT_BYTES
        self.recovered = Recovered()
        clock.replace_source(lambda: self.now_s)

    async def start(self) -> None:
        """Starts, or starts again after ``kill``."""
        self.boot()
        await self.recover()

    def boot(self) -> None:
        """Starts as far as that goes without a store: points are taken from here on."""
        self.ring = RingStore()
        self.registry = Registry(self.match_many, self.ring)
        self.journal = Journal(self.folder, self.journal_sync_s, self.journal_kept_bytes)
        self.journal.start()
        self.intake = Intake(self.registry, self.journal, self.limits)
        self.reader = Reader(self.registry, self.store)
        self.flusher = Flusher(self.intake, self.store, self.reader, self.journal, self.pace)
        self.follower = Follower(self.intake, self.store, self.flusher.lock)

    async def recover(self) -> None:
        self.recovered = await recover(self.intake, self.journal, self.store)

    async def kill(self) -> None:
        """Ends like kill -9 a moment after the journal's sync: nothing is flushed."""
        await self.journal.synced()
        self.journal.close()

    async def stop(self) -> None:
        await self.flusher.flush_now()
        self.journal.close()
        clock.replace_source(None)

    def add(self, points: Iterable[Point], receiver: str = "test") -> None:
        points = list(points)
        ids, refused = self.registry.resolve([name.encode() for name, _, _ in points])
        assert not refused
        block = PointBlock(
            ids,
            np.array([t for _, t, _ in points], np.int64),
            np.array([v for _, _, v in points], np.float64),
        )
        self.intake.accept(receiver, Parsed(block))

    async def tick(self) -> None:
        """One round of the flusher; late points don't wait for others."""
        await self.flusher.settle()
        await self.flusher.tick()

    async def read(self, name: str, archive: int, from_slot: int, until_slot: int) -> Floats:
        await self.flusher.settle()
        id_ = self.registry.table.get(name.encode())
        values = await self.reader.fetch(np.array([id_], np.int32), archive, from_slot, until_slot)
        return values[0]


@asynccontextmanager
async def running_rig(
    store: Store, folder: Path, spec: BundleSpec, *, now_s: int
) -> AsyncIterator[Rig]:
    """A rig that was started; at the end the time is the machine's again."""
    rig = Rig(store, folder, spec, now_s=now_s)
    await rig.start()
    try:
        yield rig
    finally:
        rig.journal.close()
        clock.replace_source(None)
