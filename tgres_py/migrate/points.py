"""Points that come one by one (CSV, carbon lines) into the store.

A point goes to the finest archive that reaches back to its time; several of one slot are consolidated as the
archive's series is (in the finest one the last counts, as with a sender's). Then all coarser slots that they touch
are rolled up from what the store knew and the points together. Known slots of the store stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tgres_py.migrate.chunks import Collector, points_by_series
from tgres_py.migrate.mixed import NONE, Points, all_slots
from tgres_py.model.consolidation import rollup
from tgres_py.model.points import PointBlock
from tgres_py.model.retention import Archive, BundleSpec, Cf
from tgres_py.storage.importing import ImportStore

POINTS_TOGETHER = 10_000_000  # 20 bytes each
SERIES_TOGETHER = 2_000
SLOTS_TOGETHER = 4_000_000  # read back at once

MatchMany = Callable[[Sequence[str]], Sequence[BundleSpec]]
NamesOf = Callable[[NDArray[np.int32]], list[str]]


@dataclass(slots=True)
class PointsReport:
    """``slots``: slots of any archive that points fell into; ``outside``: points older than the longest
    retention of their series, or from the future."""

    points: int = 0
    series: set[str] = field(default_factory=set)
    slots: int = 0
    outside: int = 0

    def as_data(self) -> dict[str, int]:
        """For JSON."""
        return {
            "points": self.points,
            "series": len(self.series),
            "slots": self.slots,
            "outside": self.outside,
        }


def place_points(
    spec: BundleSpec, times: NDArray[np.int64], values: NDArray[np.float64], now_s: int
) -> tuple[list[Points], int]:
    """The slots of each archive that points of one series go to, in order of arrival; and how many fit nowhere."""
    out: list[Points] = []
    newest = times <= now_s
    left = newest.copy()
    for number, archive in enumerate(spec.archives):
        mine = left & (times >= _oldest_s(archive, now_s))
        left &= ~mine
        cf = Cf.LAST if number == 0 else spec.cf
        out.append(_consolidated(times[mine] // archive.step_s, values[mine], cf))
    return out, int(left.sum()) + int((~newest).sum())


def _oldest_s(archive: Archive, now_s: int) -> int:
    """Where the oldest slot that the archive keeps begins."""
    return (now_s // archive.step_s - archive.size + 1) * archive.step_s


def _consolidated(slots: NDArray[np.int64], values: NDArray[np.float64], cf: Cf) -> Points:
    """Each slot once: the points of a slot make one value, in their order."""
    if len(slots) == 0:
        return NONE
    order = np.argsort(slots, kind="stable")
    slots, values = slots[order], values[order]
    found, first, count = np.unique(slots, return_index=True, return_counts=True)
    if cf == Cf.LAST:
        return found, values[first + count - 1]
    if len(found) == len(slots):
        return found, values
    # avg_zero counts slots that are unknown, and of points none are
    cf = Cf.AVERAGE if cf == Cf.AVG_ZERO else cf
    widest = int(count.max())
    block = np.full((len(found), widest), np.nan)
    row = np.repeat(np.arange(len(found)), count)
    block[row, np.arange(len(slots)) - first[row]] = values
    return found, rollup(block.reshape(-1, 1), widest, cf, 0.0)[:, 0]


def count_points(
    blocks: Iterable[PointBlock], match_many: MatchMany, names: NamesOf, now_s: int
) -> PointsReport:
    """What the blocks hold, without any store: series have the archives of ``match_many``. ``slots`` stays 0."""
    report = PointsReport()
    oldest_s: dict[int, int] = {}  # by id
    for block in blocks:
        fresh = np.array([i for i in np.unique(block.ids).tolist() if i not in oldest_s], np.int32)
        named = names(fresh)
        report.series.update(named)
        for id_, spec in zip(fresh.tolist(), match_many(named) if named else [], strict=True):
            oldest_s[id_] = min(_oldest_s(archive, now_s) for archive in spec.archives)
        oldest = np.array([oldest_s[id_] for id_ in block.ids.tolist()], np.int64)
        report.points += len(block)
        report.outside += int(((block.times < oldest) | (block.times > now_s)).sum())
    return report


class PointLoader:
    """Gathers points and writes them, about ten million at a time.

    Points of one coarse slot that are further apart in the file than that don't meet: sort such files by series.
    """

    def __init__(
        self,
        store: ImportStore,
        match_many: MatchMany,
        names: NamesOf,
        now_s: int,
    ) -> None:
        """``match_many``: archives of new series by name; ``names``: of the ids in blocks."""
        self.report = PointsReport()
        self._store = store
        self._match_many = match_many
        self._names = names
        self._now_s = now_s
        self._blocks: list[PointBlock] = []
        self._held = 0

    async def add(self, block: PointBlock) -> None:
        """Takes points over. StoreUnavailable."""
        self._blocks.append(block)
        self._held += len(block)
        if self._held >= POINTS_TOGETHER:
            await self.flush()

    async def flush(self) -> None:
        """Writes what it holds."""
        blocks, self._blocks, self._held = self._blocks, [], 0
        if not blocks:
            return
        ids = np.concatenate([block.ids for block in blocks])
        times = np.concatenate([block.times for block in blocks])
        values = np.concatenate([block.values for block in blocks])
        order = np.argsort(ids, kind="stable")
        found, first = np.unique(ids[order], return_index=True)
        parts = np.split(order, first[1:])
        self.report.points += len(ids)
        for at in range(0, len(found), SERIES_TOGETHER):
            mine = slice(at, at + SERIES_TOGETHER)
            points = [(times[part], values[part]) for part in parts[mine]]
            await self._write(self._names(found[mine]), points)

    async def _write(self, names: list[str], points: list[Points]) -> None:
        store = self._store
        specs = self._match_many(names)
        bundles = await store.ensure_bundles(list(dict.fromkeys(specs)))
        number_of = dict(zip(dict.fromkeys(specs), bundles, strict=True))
        wanted = np.array([number_of[spec] for spec in specs], np.int32)
        lived = await store.series_of(names)
        rrd_ids, bundle_ids = await store.create_series(names, wanted)
        fresh = [number for number, name in enumerate(names) if name not in lived]
        await store.announce(rrd_ids[fresh])
        known = dict(await store.load_bundles())
        filling, replacing = Collector(), Collector()
        for bundle_id in np.unique(bundle_ids).tolist():
            mine = np.flatnonzero(bundle_ids == bundle_id)
            await self._bundle(known[bundle_id], mine, rrd_ids, points, filling, replacing)
        await store.fill_chunks(filling.take(rrd_ids), (), replacing.take(rrd_ids))
        self.report.series.update(names)

    async def _bundle(
        self,
        spec: BundleSpec,
        numbers: NDArray[np.intp],
        rrd_ids: NDArray[np.int64],
        points: list[Points],
        filling: Collector,
        replacing: Collector,
    ) -> None:
        finer = list(enumerate(spec.archives[:-1]))
        together = max(1, SLOTS_TOGETHER // max((a.size for _, a in finer), default=1))
        for at in range(0, len(numbers), together):
            part = numbers[at : at + together]
            before = [
                points_by_series(
                    await self._store.read_window(rrd_ids[part], number, archive, self._now_s),
                    archive,
                )
                for number, archive in finer
            ]
            for number in part.tolist():
                rrd_id = int(rrd_ids[number])
                times, values = points[number]
                direct, outside = place_points(spec, times, values, self._now_s)
                self.report.outside += outside
                self.report.slots += sum(len(slots) for slots, _ in direct)
                known = [archive.get(rrd_id, NONE) for archive in before]
                rolled = all_slots(spec, known, direct, self._now_s)
                for place, archive in enumerate(spec.archives):
                    replaced, filled = rolled[place]
                    filling.add(number, place, archive, *direct[place])
                    filling.add(number, place, archive, *filled)
                    replacing.add(number, place, archive, *replaced)
