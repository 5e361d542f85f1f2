"""Re-bucketing against a slow plain model, and against files that the real whisper package re-bucketed."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st

from tgres_py.model.consolidation import rollup
from tgres_py.model.rebucket import Slots, oldest_slot, rebucket
from tgres_py.model.retention import BundleSpec, Cf, make_bundle

NOW_S = 1_700_000_000
Cells = dict[int, float]  # known slots of one archive: by time

RETENTIONS = [
    [(10, 30)],
    [(10, 60)],
    [(15, 40)],
    [(60, 10)],
    [(10, 30), (60, 20)],
    [(10, 60), (60, 12), (300, 10)],
    [(10, 12), (30, 20), (120, 30)],
    [(60, 10), (300, 30)],
    [(20, 12), (60, 30), (600, 20)],
    [(300, 20)],
    [(7, 50), (70, 30)],
]


def spec_of(pairs: list[tuple[int, int]], cf: Cf, xff: float) -> BundleSpec:
    return make_bundle(pairs, cf, xff)


def one(cells: Cells, step_s: int) -> Slots:
    """The window of a series' known slots."""
    if not cells:
        return Slots(0, np.empty((0, 1)))
    slots = [t // step_s for t in cells]
    first, end = min(slots), max(slots) + 1
    values = np.full((end - first, 1), np.nan)
    for t, value in cells.items():
        values[t // step_s - first] = value
    return Slots(first, values)


def known(slots: Slots, step_s: int, column: int = 0) -> Cells:
    return {
        (slots.first + i) * step_s: float(value)
        for i, value in enumerate(slots.values[:, column])
        if not math.isnan(value)
    }


# -- the plain model: one slot after the other ---------------------------------------------------


class Plain:
    def __init__(self, old: BundleSpec, new: BundleSpec, cells: list[Cells]) -> None:
        self.old, self.new = old, new
        self.cells = [
            {t: v for t, v in c.items() if t >= oldest_slot(a, NOW_S) * a.step_s}
            for a, c in zip(old.archives, cells, strict=True)
        ]

    def says(self, j: int, number: int, t: int) -> tuple[bool, float]:
        """(whether old archive j knows a part of the new slot at t, its value)."""
        step_s, target_s = self.old.archives[j].step_s, self.new.archives[number].step_s
        cells = self.cells[j]
        if target_s == step_s:
            return t in cells, cells.get(t, math.nan)
        if target_s < step_s:
            at = next((u for u in range(t, t + target_s) if u % step_s == 0), None)
            if at is None or self.known_finer(j, at):
                return False, math.nan
            return at in cells, cells.get(at, math.nan)
        if number and self.new.archives[number - 1].step_s >= step_s:
            finer = self.new.archives[number - 1].step_s
            parts = [self.says(j, number - 1, u) for u in range(t, t + target_s, finer)]
        else:
            starts = range(-(-t // step_s) * step_s, t + target_s, step_s)
            parts = [(u in cells, cells.get(u, math.nan)) for u in starts]
        block = np.array([[value] for _, value in parts])
        return any(k for k, _ in parts), float(
            rollup(block, len(block), self.new.cf, self.new.xff)[0, 0]
        )

    def known_finer(self, j: int, t: int) -> bool:
        """Whether an archive finer than j knows any part of its slot at t."""
        end = t + self.old.archives[j].step_s
        return any(t <= u < end for cells in self.cells[:j] for u in cells)

    def slot(self, number: int, t: int) -> float:
        order = list(range(len(self.old.archives)))
        target = self.new.archives[number]
        if number == 0 or (self.old.cf, self.old.xff) == (self.new.cf, self.new.xff):
            order.sort(key=lambda j: self.old.archives[j].step_s != target.step_s)
        for whole in (True, False):
            for j in order:
                archive = self.old.archives[j]
                if whole and t < oldest_slot(archive, NOW_S) * archive.step_s:
                    continue
                found, value = self.says(j, number, t)
                if found:
                    return value
        return math.nan

    def archive(self, number: int) -> Cells:
        archive = self.new.archives[number]
        oldest = oldest_slot(archive, NOW_S)
        newest = (NOW_S + 1000) // archive.step_s
        cells = {
            s * archive.step_s: self.slot(number, s * archive.step_s)
            for s in range(oldest, newest + 1)
        }
        return {t: v for t, v in cells.items() if not math.isnan(v)}


@st.composite
def changes(draw: st.DrawFn) -> tuple[BundleSpec, BundleSpec, list[Cells]]:
    cfs = st.sampled_from([Cf.AVERAGE, Cf.SUM, Cf.MAX, Cf.LAST, Cf.AVG_ZERO])
    xffs = st.sampled_from([0.0, 0.3, 0.5, 1.0])
    old = spec_of(draw(st.sampled_from(RETENTIONS)), draw(cfs), draw(xffs))
    same_rules = draw(st.booleans())
    new = spec_of(
        draw(st.sampled_from(RETENTIONS)),
        old.cf if same_rules else draw(cfs),
        old.xff if same_rules else draw(xffs),
    )
    cells: list[Cells] = []
    for archive in old.archives:
        newest = NOW_S // archive.step_s
        ages = draw(st.sets(st.integers(-1, archive.size + 3), max_size=archive.size))
        cells.append(
            {
                (newest - age) * archive.step_s: float(draw(st.integers(-9, 9)))
                for age in sorted(ages)
            }
        )
    return old, new, cells


@settings(max_examples=150, deadline=None)
@given(changes())
def test_equals_the_plain_model(change: tuple[BundleSpec, BundleSpec, list[Cells]]) -> None:
    old, new, cells = change
    sources = [one(c, a.step_s) for c, a in zip(cells, old.archives, strict=True)]
    got = rebucket(old, new, sources, NOW_S)
    plain = Plain(old, new, cells)
    for number, archive in enumerate(new.archives):
        assert known(got[number], archive.step_s) == plain.archive(number), archive


def test_many_series_at_once_equal_each_alone() -> None:
    old = make_bundle([(10, 60), (60, 30)], Cf.AVERAGE, 0.5)
    new = make_bundle([(20, 60), (300, 30)], Cf.MAX, 0.2)
    random = np.random.default_rng(1)
    sources = []
    for archive in old.archives:
        values = random.normal(size=(archive.size, 7))
        values[random.random(values.shape) < 0.6] = np.nan
        sources.append(Slots(oldest_slot(archive, NOW_S), values))
    together = rebucket(old, new, sources, NOW_S)
    for column in range(7):
        alone = rebucket(old, new, [Slots(s.first, s.values[:, [column]]) for s in sources], NOW_S)
        for a, b, archive in zip(together, alone, new.archives, strict=True):
            assert known(a, archive.step_s, column) == known(b, archive.step_s)


def test_what_a_change_of_rules_keeps_and_what_it_loses() -> None:
    old = make_bundle([(10, 30), (60, 10)], Cf.AVERAGE, 0.5)
    new = make_bundle([(10, 30), (60, 10)], Cf.MAX, 0.0)
    newest = NOW_S // 60 * 60
    fine = {newest - 120 + 10 * i: float(i) for i in range(6)}
    coarse = {newest - 120: 2.5, newest - 300: 7.0}
    got = rebucket(old, new, [one(fine, 10), one(coarse, 60)], NOW_S)
    # the finer slots are in reach: the new CF; those of five minutes ago keep the old consolidation
    assert known(got[1], 60) == {newest - 120: 5.0, newest - 300: 7.0}
    assert known(got[0], 10) == fine


def test_no_known_slot_at_all() -> None:
    old, new = make_bundle([(10, 12)]), make_bundle([(60, 10), (300, 10)])
    got = rebucket(old, new, [Slots(0, np.empty((0, 3)))], NOW_S)
    assert [s.values.shape for s in got] == [(0, 3), (0, 3)]


# -- against whisper-resize, where it keeps what there is ------------------------------------------


def whisper_cells(path: Path, archive: int) -> Cells:
    """Known slots of one archive as fetch answers them."""
    info = whisper.info(str(path))["archives"][archive]
    step_s = info["secondsPerPoint"]
    (start, _, _), values = whisper.fetch(
        str(path), NOW_S - info["retention"] + step_s, NOW_S, now=NOW_S, archiveToSelect=step_s
    )
    return {start + i * step_s: v for i, v in enumerate(values) if v is not None}


def resized(folder: Path, source: Path, new: BundleSpec) -> Path:
    """What whisper-resize.py does without --aggregate: the points of all archives, coarsest first, go into
    a new file, each at its own time."""
    target = folder / "new.wsp"
    pairs = [(a.step_s, a.size) for a in new.archives]
    whisper.create(str(target), pairs, xFilesFactor=new.xff, aggregationMethod=new.cf.value)
    for number in reversed(range(len(whisper.info(str(source))["archives"]))):
        whisper.update_many(str(target), sorted(whisper_cells(source, number).items()), now=NOW_S)
    return target


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_equals_whisper_resize_where_it_copies(data: st.DataObject) -> None:
    """Archives that get longer, or shorter under ``last``, from files without gaps: elsewhere it puts coarse
    values between finer ones and rolls these up again, or lets one finer slot stand for a coarse one."""
    pairs = data.draw(st.sampled_from([[(10, 60), (60, 40)], [(10, 36)], [(60, 20), (300, 30)]]))
    shorter = data.draw(st.booleans())
    cf = Cf.LAST if shorter else data.draw(st.sampled_from([Cf.AVERAGE, Cf.SUM, Cf.MAX, Cf.MIN]))
    change = data.draw(st.integers(0, 6 if shorter else 20))
    sizes = [size - change // 2 if shorter else size + change for _, size in pairs]
    old = make_bundle(pairs, cf, 0.0)
    new = make_bundle([(s, n) for (s, _), n in zip(pairs, sizes, strict=True)], cf, 0.0)
    step_s, coarse_s = pairs[0][0], pairs[-1][0]
    begin = NOW_S // coarse_s * coarse_s - data.draw(st.integers(0, 2)) * coarse_s
    end = data.draw(st.integers(begin, NOW_S))
    ages = range(pairs[0][1] * step_s // coarse_s + 2, min(sizes[-1], pairs[-1][1]) - 1)
    direct = data.draw(st.sets(st.sampled_from(ages))) if len(pairs) > 1 else set()
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "old.wsp"
        whisper.create(str(source), pairs, xFilesFactor=0.0, aggregationMethod=cf.value)
        times = [NOW_S // coarse_s * coarse_s - age * coarse_s for age in direct]
        for i, time_s in enumerate([*sorted(times), *range(begin, end + 1, step_s)]):
            whisper.update(str(source), float(i % 7), time_s, now=NOW_S)
        cells = [whisper_cells(source, number) for number in range(len(pairs))]
        got = rebucket(
            old, new, [one(c, a.step_s) for c, a in zip(cells, old.archives, strict=True)], NOW_S
        )
        target = resized(Path(name), source, new)
        for number, archive in enumerate(new.archives):
            # of the oldest two slots whisper's fetch doesn't tell
            first_s = NOW_S - archive.retention_s + 2 * archive.step_s
            mine = known(got[number], archive.step_s)
            assert {t: v for t, v in mine.items() if t >= first_s} == {
                t: v for t, v in whisper_cells(target, number).items() if t >= first_s
            }


def test_equals_whisper_resize_to_a_finer_step(tmp_path: Path) -> None:
    """A coarse value stands at its slot's own time."""
    source = tmp_path / "old.wsp"
    whisper.create(str(source), [(60, 30)], xFilesFactor=0.0, aggregationMethod="average")
    for i in range(0, 25, 2):
        whisper.update(str(source), float(i), NOW_S - i * 60, now=NOW_S)
    old, new = make_bundle([(60, 30)], xff=0.0), make_bundle([(10, 240), (120, 30)], xff=0.0)
    cells = whisper_cells(source, 0)
    got = rebucket(old, new, [one(cells, 60)], NOW_S)
    target = resized(tmp_path, source, new)
    assert known(got[0], 10) == whisper_cells(target, 0) == cells
    assert known(got[1], 120) == whisper_cells(target, 1)
