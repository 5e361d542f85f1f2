"""Ring, journal and store together against the plain model (dicts), whatever is done to them in which order.

Points of several retentions and rules for duplicates, late ones and ones from the future; the clock, up to several laps
of the rings at a time; the flusher's rounds, flushes and checkpoints. Faults: the store is away and back, fails at any
call of a round or of a start, before or after it has done what was asked; kills at any of these calls, while the store is away, and
with what wasn't synced lost; torn ends and damaged records of the journal. After each step the ledger's equation holds, and
what the rig counted is what was sent. A normal run takes the same ways every time; ``TGRES_FUZZ_SECONDS=60`` tries
new ones for a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray

from tests.fuzz.effort import fuzz
from tests.plain_model import PlainSeries
from tests.rig import Point, Rig
from tgres_py import clock
from tgres_py.errors import StoreUnavailable
from tgres_py.ingest.intake import Limits
from tgres_py.ingest.journal import (
    FILE_HEADER_BYTES,
    RECORD_HEADER,
    RECORD_MAGIC,
    Kind,
    Record,
    encode,
)
from tgres_py.model.points import Reason
from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate
from tgres_py.storage.memory import MemoryStore
from tgres_py.storage.port import ChunkRows

FUTURE_S_MAX = 900
AHEAD_S = 30  # how far from the future points come
GROUPS = ("a", "b", "c")
NAMES = ("a.x", "a.y", "b.x", "c.x")
RETENTIONS = (
    (Archive(10, 60, 12), Archive(60, 40, 2), Archive(600, 30, 3)),
    (Archive(10, 60, 13), Archive(60, 40, 5), Archive(300, 30, 4), Archive(900, 40, 3)),
    (Archive(10, 50, 7),),
    (Archive(1, 300, 120), Archive(60, 20, 4)),
)

specs = st.builds(
    BundleSpec,
    st.sampled_from(RETENTIONS),
    st.sampled_from(list(Cf)),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.sampled_from(list(OnDuplicate)),
)
# how old a point is when it comes; few are from the future, as the model's rings have no room for old and new
ages = st.one_of(
    st.integers(0, 40), st.integers(0, 700), st.integers(0, 30_000), st.integers(-AHEAD_S, -1)
)
points = st.tuples(st.sampled_from(NAMES), ages, st.integers(-50, 50))
pauses = st.one_of(st.integers(0, 15), st.integers(0, 250), st.integers(250, 40_000))


class Killed(BaseException):
    """The process ends here."""


class FaultyStore(MemoryStore):
    """Fails at a chosen step: each call is one, and so is the answer to each that changes something."""

    def __init__(self) -> None:
        super().__init__()
        self.steps_left = 0
        self.fault: Callable[[], BaseException] = Killed

    def fail_at(self, step: int, fault: Callable[[], BaseException]) -> None:
        """Of the next steps the one with this number, from 1; 0: none."""
        self.steps_left, self.fault = step, fault

    def _check(self) -> None:
        super()._check()
        self._step()

    def _step(self) -> None:
        if self.steps_left:
            self.steps_left -= 1
            if not self.steps_left:
                raise self.fault()

    async def create_series(
        self, names: Sequence[str], bundle_ids: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        made = await super().create_series(names, bundle_ids)
        self._step()
        return made

    async def write_chunks(self, rows: Sequence[ChunkRows], late_seq: int | None = None) -> None:
        await super().write_chunks(rows, late_seq)
        self._step()

    async def set_journal_id(self, journal_id: str) -> None:
        await super().set_journal_id(journal_id)
        self._step()


def lost() -> StoreUnavailable:
    return StoreUnavailable("the connection was lost")


steps = st.integers(1, 12)


class Ingest(RuleBasedStateMachine):
    """``sent``: points given to the rig since it was last started. ``durable``: the models as of the
    journal's last sync, which is when the rig asks for it: what came since is lost in a kill."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = FaultyStore()
        self.sent = self.too_far = self.syncs = 0

    @initialize(chosen=st.tuples(specs, specs, specs), offset=st.integers(0, 10_000))
    def begin(self, chosen: Sequence[BundleSpec], offset: int) -> None:
        by_group = dict(zip(GROUPS, chosen, strict=True))
        self.specs = {name: by_group[name[0]] for name in NAMES}
        self.models = {name: PlainSeries(self.specs[name]) for name in NAMES}
        self.rig = Rig(
            self.store,
            Path(tempfile.mkdtemp(prefix="tgres-machine-")),
            lambda names: [self.specs[name] for name in names],
            now_s=1_700_000_000 + offset,
            limits=Limits(1 << 30, future_s_max=FUTURE_S_MAX),
            journal_sync_s=7_200,
        )
        self.run(self.rig.start())
        self._note_sync()

    def run(self, step: Any) -> Any:
        try:
            return self.runner.run(step)
        finally:
            if hasattr(self, "durable") and self.rig.journal.syncs != self.syncs:
                self._note_sync()

    def _note_sync(self) -> None:
        self.syncs = self.rig.journal.syncs
        self.durable = copy.deepcopy(self.models)

    @property
    def opened(self) -> bool:
        return self.rig.registry.opened

    # -- points and time -----------------------------------------------------------------------

    @rule(drawn=st.lists(points, min_size=1, max_size=12))
    def receive(self, drawn: list[tuple[str, int, int]]) -> None:
        batch: list[Point] = []
        for name, age_s, value in drawn:
            time_s = self.rig.now_s - age_s
            if self._at_edge(name, time_s):
                continue
            batch.append((name, time_s, float(value)))
            self.models[name].add(*batch[-1][1:], self.rig.now_s)
        self._add(batch)

    def _at_edge(self, name: str, time_s: int) -> bool:
        """Whether whisper's rings, unlike ours, may have given places of its rollup to points from the future."""
        now_s = self.rig.now_s
        for fine, coarse in itertools.pairwise(self.specs[name].archives):
            lost_s = now_s + AHEAD_S + fine.step_s - fine.retention_s
            if (
                time_s >= now_s - fine.retention_s
                and time_s // coarse.step_s * coarse.step_s < lost_s
            ):
                return True
        return self.models[name].at_edge(time_s, now_s)

    @rule(name=st.sampled_from(NAMES), ahead_s=st.integers(1, 100_000))
    def receive_from_too_far_in_the_future(self, name: str, ahead_s: int) -> None:
        if self.opened:
            self._add([(name, self.rig.now_s + FUTURE_S_MAX + ahead_s, 1.0)])
            self.too_far += 1

    def _add(self, batch: list[Point]) -> None:
        async def add() -> None:
            self.rig.add(batch)

        if batch:
            queued = self.rig.intake.late_points
            self.run(add())
            self.sent += len(batch)
            if self.rig.intake.late_points > queued:
                # a merge doesn't wait for the journal: the store may have them after a kill that the journal lost them in
                self.run(self.rig.journal.synced())

    @rule(seconds=pauses)
    def wait(self, seconds: int) -> None:
        self.rig.now_s += seconds

    # -- what the flusher does -----------------------------------------------------------------

    @rule(step=st.integers(0, 12))
    def tick(self, step: int) -> None:
        self._try(lambda: self.rig.tick(), step)

    @rule(step=st.integers(0, 12))
    def flush(self, step: int) -> None:
        self._try(lambda: self.rig.flusher.flush_now(), step)

    @rule(step=st.integers(0, 12))
    def checkpoint(self, step: int) -> None:
        self._try(lambda: self.rig.flusher.checkpoint(), step)

    @rule(before_s=st.integers(-40, 700), step=st.integers(0, 12))
    def settle(self, before_s: int, step: int) -> None:
        self._try(lambda: self.rig.flusher.settle_until(self.rig.now_s - before_s), step)

    def _try(self, step: Callable[[], Any], fails_at: int) -> None:
        if not self.opened:
            return
        self.store.fail_at(fails_at, lost)
        try:
            self.run(step())
        except StoreUnavailable:
            assert self.store.away or fails_at
        finally:
            self.store.fail_at(0, lost)

    # -- faults --------------------------------------------------------------------------------

    @rule()
    def store_goes_or_comes_back(self) -> None:
        self.store.away = not self.store.away

    @rule(fails_at=st.integers(0, 12))
    def kill(self, fails_at: int) -> None:
        """A moment after a sync. ``fails_at``: the store's step of the start at which it is lost."""
        self.run(self.rig.journal.synced())
        self._restart(fails_at)

    @rule(step=steps, fails_at=st.integers(0, 12))
    def kill_in_the_start(self, step: int, fails_at: int) -> None:
        """After a kill the next start is killed, too, at this step of the store."""
        self.run(self.rig.journal.synced())
        on_disk: list[Path] = []

        def killed() -> Killed:
            on_disk.append(self._copy())
            return Killed()

        with contextlib.suppress(Killed):
            self._restart(step, fault=killed)
        if on_disk:
            self._restart(fails_at, on_disk[0])

    @rule(fails_at=st.integers(0, 12), torn=st.integers(0, 60))
    def kill_before_a_sync(self, fails_at: int, torn: int) -> None:
        """What came since the last one is lost; ``torn``: bytes that are there of the next record."""
        on_disk = self._copy()
        last = max(on_disk.glob("*.journal"))
        ids = np.arange(2, dtype=np.int32)
        record = Record(Kind.POINTS, ids, ids.astype(np.int64), np.ones(2), self.rig.now_s)
        with last.open("ab") as f:
            f.write(encode(record)[:torn])
        self._restart(fails_at, on_disk)

    @rule(step=steps, fails_at=st.integers(0, 12), what=st.sampled_from(["tick", "flush", "settle"]))
    def kill_at_a_step(self, step: int, fails_at: int, what: str) -> None:
        """In the middle of a round, at this step of the store; what the round didn't sync is lost."""
        flusher = self.rig.flusher
        ways: dict[str, Callable[[], Any]] = {
            "tick": self.rig.tick,
            "flush": flusher.flush_now,
            "settle": lambda: flusher.settle_until(self.rig.now_s),
        }
        if self.store.away or not self.opened:
            return
        on_disk: list[Path] = []

        def killed() -> Killed:
            # now: what handlers of the exception do isn't done by a process that is killed
            if self.rig.journal.syncs != self.syncs:
                self._note_sync()
            on_disk.append(self._copy())
            return Killed()

        self.store.fail_at(step, killed)
        with contextlib.suppress(Killed):
            self.run(ways[what]())
        self.store.fail_at(0, lost)
        if on_disk:
            self._restart(fails_at, on_disk[0])

    @rule(drawn=st.lists(points, min_size=1, max_size=6), data=st.data())
    def kill_and_damage(self, drawn: list[tuple[str, int, int]], data: st.DataObject) -> None:
        """A bit of one record of points flips, or of one copy of a floor, or of a file's header."""
        table, journal = self.rig.registry.table, self.rig.journal
        batches = [
            (name, self.rig.now_s - age_s, float(value))
            for name, age_s, value in drawn
            if table.get(name.encode()) >= 0 and not self._at_edge(name, self.rig.now_s - age_s)
        ]
        self.rig.intake.journal_names()
        self.run(journal.synced())
        last = max(self.rig.folder.glob("*.journal"))
        ends = [last.stat().st_size]
        for point in batches:
            self._add([point])
            self.run(journal.synced())
            ends.append(last.stat().st_size)
        hit = data.draw(st.integers(0, len(batches)))
        if hit < len(batches) and ends[hit] < ends[hit + 1]:
            at = data.draw(st.integers(ends[hit] + RECORD_HEADER.size, ends[hit + 1] - 1))
            del batches[hit]
        else:
            at = data.draw(st.sampled_from(self._spare_bytes(last)))
        for name, time_s, value in batches:
            self.models[name].add(time_s, value, self.rig.now_s)
        on_disk = self._copy()
        with (on_disk / last.name).open("r+b") as f:
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ 1 << data.draw(st.integers(0, 7))]))
        self._note_sync()
        self._restart(0, on_disk)

    def _spare_bytes(self, path: Path) -> list[int]:
        """Where bytes of a file begin that are there twice: headers and floors."""
        content = path.read_bytes()
        head = RECORD_MAGIC.to_bytes(4, "little") + bytes([Kind.FLOOR])
        places, at = [0, FILE_HEADER_BYTES // 2], content.find(head)
        while at >= 0:
            places.append(at)
            at = content.find(head, at + 1)
        return places

    def _copy(self) -> Path:
        """The journal as it is on disk, in a folder of its own."""
        folder = Path(tempfile.mkdtemp(prefix="tgres-machine-"))
        shutil.copytree(self.rig.folder, folder, dirs_exist_ok=True)
        return folder

    def _restart(
        self,
        fails_at: int,
        on_disk: Path | None = None,
        fault: Callable[[], BaseException] = lost,
    ) -> None:
        """Kills the rig, without what isn't in ``on_disk``, and starts it."""
        self.rig.journal.close()
        if on_disk is not None:
            shutil.rmtree(self.rig.folder)
            self.rig.folder = on_disk
        self.models = self.durable
        self.sent = self.too_far = 0
        self.rig.boot()
        self._note_sync()
        self._open(fails_at, fault)

    @precondition(lambda self: not self.opened)
    @rule(fails_at=st.integers(0, 12))
    def open(self, fails_at: int) -> None:
        self._open(fails_at)

    def _open(self, fails_at: int, fault: Callable[[], BaseException] = lost) -> None:
        """The start's second half, which waits for the store."""
        self.store.fail_at(fails_at, fault)
        try:
            self.run(self.rig.recover())
        except StoreUnavailable:
            assert self.store.away or fails_at
        finally:
            self.store.fail_at(0, lost)

    # -- what must hold ------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), data=st.data())
    def read(self, name: str, data: st.DataObject) -> None:
        archives = self.specs[name].archives
        number = data.draw(st.integers(0, len(archives) - 1))
        archive = archives[number]
        newest = (self.rig.now_s + 100) // archive.step_s
        oldest = (self.rig.now_s - archive.retention_s) // archive.step_s + 1
        low = data.draw(st.integers(oldest, newest))
        self._compare(name, number, low, data.draw(st.integers(low, newest)))

    def _compare(self, name: str, number: int, low: int, high: int) -> None:
        """Slots low <= slot <= high."""
        model = self.models[name]
        if not self.opened:
            return
        if self.rig.registry.table.get(name.encode()) < 0:
            assert not any(model.read(k) for k in range(len(model.rings)))
            return
        try:
            got = self.run(self.rig.read(name, number, low, high + 1))
        except StoreUnavailable:
            assert self.store.away
            return
        ring = model.rings[number]
        want = np.full(len(got), np.nan)
        for slot, value in model.read(number).items():
            if low <= slot <= high:
                want[slot - low] = value
        # a point from the future took the place of an old one; ours has room for both
        for slot in range(low, high + 1):
            if ring.cells.get(slot % ring.size, (slot, 0.0))[0] > slot:
                got[slot - low] = np.nan
        np.testing.assert_allclose(
            got, want, rtol=1e-12, atol=1e-9, err_msg=f"{name}, archive {number} from slot {low}"
        )

    @invariant()
    def ledger_balances(self) -> None:
        if hasattr(self, "rig"):
            ledger = self.rig.intake.ledger
            assert ledger.balance == 0
            assert sum(ledger.received.values()) - ledger.received["journal"] == self.sent
            assert ledger.rejected[Reason.FUTURE] == self.too_far

    def teardown(self) -> None:
        try:
            if hasattr(self, "rig"):
                self._compare_all()
        finally:
            if hasattr(self, "rig"):
                self.rig.journal.close()
                shutil.rmtree(self.rig.folder, ignore_errors=True)
            clock.replace_source(None)
            self.runner.close()

    def _compare_all(self) -> None:
        self.store.away = False
        for _ in range(2):
            if not self.opened:
                self._open(0)
            for name, spec in self.specs.items():
                for number, archive in enumerate(spec.archives):
                    newest = (self.rig.now_s + 100) // archive.step_s
                    oldest = (self.rig.now_s - archive.retention_s) // archive.step_s + 1
                    self._compare(name, number, oldest, newest)
            self.kill(0)
        assert self.rig.intake.ledger.balance == 0


def test_ring_journal_and_store_equal_dicts() -> None:
    def run(chosen: settings) -> None:
        run_state_machine_as_test(Ingest, settings=chosen)

    fuzz(run, examples=25, steps=30)
