"""A SeriesSource in memory for the tests of the read side, with whisper's rollups and a log of its fetches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tests import graphite_dataset as dataset
from tgres_py.errors import LimitExceeded
from tgres_py.model.consolidation import rollup
from tgres_py.model.event import Event, EventQuery
from tgres_py.model.ident import canonical
from tgres_py.model.nametree import NameTree
from tgres_py.model.nodes import NodeTable
from tgres_py.model.points import Ids
from tgres_py.model.retention import Archive, BundleSpec, Cf
from tgres_py.model.tagindex import TagIndex
from tgres_py.storage.memory import MemoryStore

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "y": 365 * 86_400}


def archives(text: str) -> tuple[Archive, ...]:
    """``10s:6h,1m:7d`` as archives."""
    out = []
    for part in text.split(","):
        step_s, span_s = (int(x[:-1]) * UNITS_S[x[-1]] for x in part.split(":"))
        out.append(Archive(step_s, span_s // step_s, 480))
    return tuple(out)


DEFAULT = BundleSpec(archives("10s:6h,1m:7d,10m:5y"))


class FakeSource:
    """``fetched``: each fetch as (names, archive, from_slot, until_slot)."""

    def __init__(self) -> None:
        self.tree = NameTree()
        self.tag_index = TagIndex()
        self.store = MemoryStore()  # of events
        self.by_id: list[tuple[str, BundleSpec, list[tuple[int, NDArray[np.float64]]]]] = []
        self.fetched: list[tuple[list[str], int, int, int]] = []

    def add(
        self, name: str, points: Iterable[tuple[int, float]], bundle: BundleSpec = DEFAULT
    ) -> None:
        """``points``: (time, value); the last one in a slot counts."""
        step_s = bundle.archives[0].step_s
        slots = {time // step_s: float(value) for time, value in points}
        rings = []
        if slots:
            coarsest_s = bundle.archives[-1].step_s
            first = min(slots) * step_s // coarsest_s * coarsest_s // step_s
            last = (max(slots) * step_s // coarsest_s + 1) * coarsest_s // step_s
            values = np.full(last - first, np.nan)
            values[np.fromiter(slots, np.int64) - first] = list(slots.values())
            rings.append((first, values))
            for fine, coarse in zip(bundle.archives, bundle.archives[1:], strict=False):
                factor = coarse.step_s // fine.step_s
                values = rollup(values[:, None], factor, bundle.cf, bundle.xff)[:, 0]
                first //= factor
                rings.append((first, values))
        self.tree.add_many([name], len(self.by_id))
        self.tag_index.add_lines(f"{name}\n".encode(), len(self.by_id))
        self.by_id.append((name, bundle, rings))

    def count(self) -> int:
        return len(self.by_id)

    def expand(self, pattern: str, limit: int | None = None) -> Ids:
        return self.tree.expand(pattern, limit, "query_series_max")

    def find(self, pattern: str) -> NodeTable:
        return self.tree.find(pattern)

    def by_tags(self, expressions: Sequence[str], limit: int | None = None) -> Ids:
        ids = self.tag_index.find(expressions)
        if limit is not None and len(ids) > limit:
            raise LimitExceeded("series", len(ids), limit, "query_series_max")
        return np.array(sorted(ids.tolist(), key=lambda i: self.by_id[i][0]), np.int32)

    def tags(self) -> TagIndex:
        return self.tag_index

    async def tag_series(self, names: Sequence[str]) -> list[str]:
        wanted = [canonical(name) for name in names]
        for name in wanted:
            if self.tree.get(name) < 0:
                self.add(name, [])
        self.tag_index.add(wanted, np.array([self.tree.get(name) for name in wanted], np.int32))
        return wanted

    async def untag_series(self, names: Sequence[str]) -> None:
        known = [self.tree.get(canonical(name)) for name in names]
        self.tag_index.discard(np.array(known, np.int32))

    async def find_events(self, wanted: EventQuery) -> list[Event]:
        return await self.store.find_events(wanted)

    async def add_event(self, event: Event) -> int:
        return await self.store.add_event(event)

    async def get_event(self, id_: int) -> Event | None:
        return await self.store.get_event(id_)

    def names(self, ids: Ids) -> list[str]:
        return [self.by_id[i][0] for i in ids.tolist()]

    def bundles(self, ids: Ids) -> list[BundleSpec]:
        return [self.by_id[i][1] for i in ids.tolist()]

    async def fetch(
        self, ids: Ids, bundle: BundleSpec, archive: int, from_slot: int, until_slot: int
    ) -> NDArray[np.float64]:
        self.fetched.append((self.names(ids), archive, from_slot, until_slot))
        out = np.full((len(ids), until_slot - from_slot), np.nan)
        for row, i in enumerate(ids.tolist()):
            rings = self.by_id[i][2]
            if rings:
                first, values = rings[archive]
                low, high = max(first, from_slot), min(first + len(values), until_slot)
                if low < high:
                    out[row, low - from_slot : high - from_slot] = values[
                        low - first : high - first
                    ]
        return out


def of_values(
    series: Mapping[str, list[float]], start_s: int, bundle: BundleSpec = DEFAULT
) -> FakeSource:
    """Series with one value each step from ``start_s`` on."""
    source = FakeSource()
    step_s = bundle.archives[0].step_s
    for name, values in series.items():
        source.add(name, [(start_s + i * step_s, v) for i, v in enumerate(values)], bundle)
    return source


def of_dataset(now_s: int = dataset.BASE_NOW) -> FakeSource:
    """The data set behind the recorded answers of graphite-web."""
    source = FakeSource()
    bundles: dict[tuple[str, float, str], BundleSpec] = {}
    for series in dataset.build():
        retention = next(r for _, pattern, r in dataset.SCHEMAS if re.search(pattern, series.name))
        xff, cf = next(
            (x, c) for _, pattern, x, c in dataset.AGGREGATION if re.search(pattern, series.name)
        )
        key = (retention, xff, cf)
        if key not in bundles:
            bundles[key] = BundleSpec(archives(retention), Cf(cf), xff)
        source.add(series.name, series.points(now_s), bundles[key])
    return source
