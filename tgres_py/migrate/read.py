"""Series out of the store: what all archives know within their retention, some series at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import numpy as np

from tgres_py.admin.select import Series
from tgres_py.migrate.chunks import points_by_series
from tgres_py.migrate.mixed import NONE, Points
from tgres_py.model.retention import BundleSpec
from tgres_py.storage.importing import ImportStore

SLOTS_TOGETHER = 4_000_000


class Stored(NamedTuple):
    """A series with the known slots of each archive, in order of time."""

    name: str
    spec: BundleSpec
    archives: list[Points]


async def read_series(
    store: ImportStore, series: Series, now_s: int, from_s: int = 0
) -> AsyncIterator[Stored]:
    """All series, those of equal archives after each other; slots that end by ``from_s`` are left out.

    A slot that an archive no longer reaches back to isn't there. StoreUnavailable.
    """
    by_spec: dict[BundleSpec, list[int]] = {}
    for place, spec in enumerate(series.specs):
        by_spec.setdefault(spec, []).append(place)
    for spec, places in by_spec.items():
        together = max(1, SLOTS_TOGETHER // sum(archive.size for archive in spec.archives))
        for at in range(0, len(places), together):
            part = places[at : at + together]
            rrd_ids = series.rrd_id[part]
            known = []
            for number, archive in enumerate(spec.archives):
                begin_s = max(from_s, now_s - archive.retention_s)
                rows = await store.read_window(rrd_ids, number, archive, now_s, begin_s)
                known.append(points_by_series(rows, archive))
            for place, rrd_id in zip(part, rrd_ids.tolist(), strict=True):
                archives = [
                    _within(points.get(rrd_id, NONE), archive.step_s, archive.size, now_s, from_s)
                    for points, archive in zip(known, spec.archives, strict=True)
                ]
                yield Stored(series.names[place], spec, archives)


def _within(points: Points, step_s: int, size: int, now_s: int, from_s: int) -> Points:
    slots, values = points
    newest = now_s // step_s
    good = (slots <= newest) & (slots > max(newest - size, from_s // step_s - 1))
    slots, values = slots[good], values[good]
    order = np.argsort(slots, kind="stable")
    return slots[order], values[order]


def finest_points(stored: Stored, now_s: int, from_s: int, until_s: int) -> Iterator[Points]:
    """Times and values, oldest first: of each time what the finest archive that reaches back to it knows.

    Times from_s <= time < until_s.
    """
    covered_s = until_s
    parts: list[Points] = []
    for archive, (slots, values) in zip(stored.spec.archives, stored.archives, strict=True):
        times = slots * archive.step_s
        good = (times >= from_s) & (times < covered_s)
        parts.append((times[good], values[good]))
        covered_s = min(covered_s, (now_s // archive.step_s - archive.size + 1) * archive.step_s)
    yield from reversed(parts)
