"""Ring, journal and store together against the plain model (dicts), whatever is done to them in which order.

Points of several retentions and rules for duplicates, late ones and ones from the future; the clock, up to several laps
of the rings at a time; the flusher's rounds, flushes and checkpoints; kills; the store away and back. After each step the
ledger's equation holds, and what the rig counted is what was sent. A normal run takes the same ways every time;
``TGRES_FUZZ_SECONDS=60`` tries new ones for a minute.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Sequence
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

from tests.fuzz.effort import fuzz
from tests.plain_model import PlainSeries
from tests.rig import Point, Rig
from tgres_py import clock
from tgres_py.errors import StoreUnavailable
from tgres_py.ingest.intake import Limits
from tgres_py.model.points import Reason
from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate
from tgres_py.storage.memory import MemoryStore

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


class Ingest(RuleBasedStateMachine):
    """``sent``: points given to the rig since it was last started."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="tgres-machine-"))
        self.store = MemoryStore()
        self.sent = self.too_far = 0

    @initialize(chosen=st.tuples(specs, specs, specs), offset=st.integers(0, 10_000))
    def begin(self, chosen: Sequence[BundleSpec], offset: int) -> None:
        by_group = dict(zip(GROUPS, chosen, strict=True))
        self.specs = {name: by_group[name[0]] for name in NAMES}
        self.models = {name: PlainSeries(self.specs[name]) for name in NAMES}
        self.rig = Rig(
            self.store,
            self.folder,
            lambda names: [self.specs[name] for name in names],
            now_s=1_700_000_000 + offset,
            limits=Limits(1 << 30, future_s_max=FUTURE_S_MAX),
            journal_sync_s=0.002,
        )
        self.run(self.rig.start())

    def run(self, step: Any) -> Any:
        return self.runner.run(step)

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
        self._add([(name, self.rig.now_s + FUTURE_S_MAX + ahead_s, 1.0)])
        self.too_far += 1

    def _add(self, batch: list[Point]) -> None:
        async def add() -> None:
            self.rig.add(batch)

        if batch:
            self.run(add())
            self.sent += len(batch)

    @rule(seconds=pauses)
    def wait(self, seconds: int) -> None:
        self.rig.now_s += seconds

    # -- what the flusher does -----------------------------------------------------------------

    @rule()
    def tick(self) -> None:
        self._may_be_away(self.rig.tick())

    @rule()
    def flush(self) -> None:
        self._may_be_away(self.rig.flusher.flush_now())

    @rule()
    def checkpoint(self) -> None:
        self._may_be_away(self.rig.flusher.checkpoint())

    def _may_be_away(self, step: Any) -> None:
        try:
            self.run(step)
        except StoreUnavailable:
            assert self.store.away

    # -- faults --------------------------------------------------------------------------------

    @rule()
    def store_goes_or_comes_back(self) -> None:
        self.store.away = not self.store.away

    @precondition(lambda self: not self.store.away)
    @rule()
    def kill_and_recover(self) -> None:
        async def again() -> None:
            await self.rig.kill()
            await self.rig.start()

        self.run(again())
        self.sent = sum(self.rig.intake.ledger.received.values())
        self.too_far = self.rig.intake.ledger.rejected[Reason.FUTURE]

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
            assert sum(ledger.received.values()) == self.sent
            assert ledger.rejected[Reason.FUTURE] == self.too_far

    def teardown(self) -> None:
        try:
            if hasattr(self, "rig"):
                self._compare_all()
        finally:
            if hasattr(self, "rig"):
                self.rig.journal.close()
            clock.replace_source(None)
            self.runner.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _compare_all(self) -> None:
        self.store.away = False
        for _ in range(2):
            for name, spec in self.specs.items():
                for number, archive in enumerate(spec.archives):
                    newest = (self.rig.now_s + 100) // archive.step_s
                    oldest = (self.rig.now_s - archive.retention_s) // archive.step_s + 1
                    self._compare(name, number, oldest, newest)
            self.kill_and_recover()
        assert self.rig.intake.ledger.balance == 0


def test_ring_journal_and_store_equal_dicts() -> None:
    def run(chosen: settings) -> None:
        run_state_machine_as_test(Ingest, settings=chosen)

    fuzz(run, examples=25, steps=30)
