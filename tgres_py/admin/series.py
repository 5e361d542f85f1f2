"""``series.ls``, ``series.show``, ``series.stale``: the verbs that look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.admin.frame import Admin, Duration, Live, Row, arg, parts, progress, verb
from tgres_py.admin.select import SelectArgs, Series, select, select_with_rows
from tgres_py.model.ident import parse_tags
from tgres_py.model.points import Ids
from tgres_py.model.retention import BundleSpec, format_retention, pairs_of
from tgres_py.storage.port import SeriesRows

ROWS = 10_000  # rows that one statement asks for
RING_SLOTS = 32  # slots of a segment that are looked at together, from the newest back
SHOW_MAX = 1_000

Longs = NDArray[np.int64]


class LsArgs(SelectArgs):
    limit: int = arg(0, "at most so many; 0 = all", ge=0)


@verb("series.ls")
async def ls(admin: Admin, args: LsArgs) -> AsyncIterator[Row]:
    """List series with their retention, by globs, a regular expression or tag expressions."""
    found = await select(admin, args)
    shared: dict[int, Row] = {}
    end = args.limit or len(found)
    for name, spec in zip(found.names[:end], found.specs[:end], strict=True):
        rule = shared.get(id(spec))
        if rule is None:
            rule = shared[id(spec)] = rule_of(spec)
        yield {"name": name, **rule}


def rule_of(spec: BundleSpec) -> Row:
    return {
        "retention": format_retention(pairs_of(spec)),
        "cf": str(spec.cf),
        "xff": spec.xff,
    }


# -- one series after the other ----------------------------------------------------------------


@verb("series.show")
async def show(admin: Admin, args: SelectArgs) -> AsyncIterator[Row]:
    """Show all that is known of series: tags, retention, age, last point, bytes in the store."""
    args.need_choice()
    found = await select_with_rows(admin, args)
    now_s = clock.now_s()
    for at in range(min(len(found), SHOW_MAX)):
        one = found.take(np.array([at]))
        last_s, created_s = await last_points(admin, one)
        tags = parse_tags(one.names[0]) if ";" in one.names[0] else {}
        tags.pop("name", None)
        spec = one.specs[0]
        yield {
            "name": one.names[0],
            "tags": tags or None,
            "row": int(one.rrd_id[0]),
            **rule_of(spec),
            "on_duplicate": str(spec.on_duplicate),
            "created_at_s": int(created_s[0]) or None,
            "last_point_at_s": int(last_s[0]) or None,
            "age_s": now_s - int(last_s[0]) if last_s[0] else None,
            **await _stored(admin, int(one.rrd_id[0]), spec),
        }
    if len(found) > SHOW_MAX:
        yield {"note": f"{len(found) - SHOW_MAX:,} more series are not shown"}


async def _stored(admin: Admin, rrd_id: int, spec: BundleSpec) -> Row:
    """What the store holds of a series."""
    archives = []
    total = 0
    for held in await admin.store.sizes_of_series(rrd_id):
        total += held.bytes
        if held.archive >= 0:
            archive = spec.archives[held.archive]
            archives.append(
                {
                    "archive": format_retention([(archive.step_s, archive.size)]),
                    "chunks": held.chunks,
                    "stored_bytes": held.bytes,
                    "from_at_s": held.first_s,
                    "until_at_s": held.last_s + archive.chunk_s,
                }
            )
    return {"stored_bytes": total, "archives": archives}


# -- series that get no points any more --------------------------------------------------------


class StaleArgs(SelectArgs):
    for_: Duration = arg(30 * 86_400, "without a point for so long: 30d, 12h", name="for", gt=0)


@verb("series.stale")
async def stale(admin: Admin, args: StaleArgs) -> AsyncIterator[Row]:
    """List series that got no point for some time, the longest first.

    With the store alone the answer may be some hours behind.
    """
    found = await select_with_rows(admin, args)
    yield progress(0, len(found), "series")
    old, last_s = await without_points(admin, found, args.for_)
    now_s = clock.now_s()
    for at in np.argsort(last_s, kind="stable").tolist():
        yield {
            "name": old.names[at],
            "last_point_at_s": int(last_s[at]),
            "age_s": now_s - int(last_s[at]),
        }


async def without_points(admin: Admin, found: Series, age_s: float) -> tuple[Series, Longs]:
    """Those of the series that had no point for ``age_s``, and when they had their last (or were made)."""
    last_s, created_s = await last_points(admin, found)
    since = np.where(last_s > 0, last_s, created_s)
    places = np.flatnonzero((since > 0) & (since < clock.now_s() - age_s))
    return found.take(places), since[places]


async def last_points(admin: Admin, found: Series) -> tuple[Longs, Longs]:
    """When each series had its last point, and when it was made: int64 (k,) each, 0 = unknown.

    From memory where a server runs; else what the store noted, which may be hours behind.
    """
    last_s = np.zeros(len(found), np.int64)
    created_s = np.zeros(len(found), np.int64)
    for part in parts(len(found), ROWS):
        rows = found.rrd_id[part]
        last_s[part], created_s[part] = await admin.store.last_of_series(rows)
        unknown = np.flatnonzero((last_s[part] == 0) & (rows > 0)) + part.start
        if len(unknown):
            last_s[unknown] = await _look_up_last(admin, found.take(unknown))
    if admin.live is not None and found.ids is not None:
        last_s = np.maximum(last_s, await last_in_memory(admin.live, found.ids))
    return last_s, created_s


async def _look_up_last(admin: Admin, found: Series) -> Longs:
    """From the chunks, where nothing was noted (no chunk was complete yet, or an older version wrote them);
    it is noted then."""
    newest = await admin.store.last_slot_of_series(found.rrd_id)
    last_s = np.zeros(len(found), np.int64)
    for at, row in enumerate(found.rrd_id.tolist()):
        if row in newest:
            start_s, place = newest[row]
            last_s[at] = start_s + (place - 1) * found.specs[at].archives[0].step_s
    known = np.flatnonzero(last_s)
    await admin.store.touch_series(found.rrd_id[known], last_s[known])
    return last_s


async def last_in_memory(live: Live, ids: Ids) -> Longs:
    """Time of the newest known slot of each series in the ring: int64 (k,), 0 where there is none."""
    ring, registry = live.registry.ring, live.registry
    last_s = np.zeros(len(ids), np.int64)
    segments, columns = ring.locate(ids)
    for segment in np.unique(segments[segments >= 0]).tolist():
        step_s = registry.bundle_specs[registry.segment_bundle[segment]].archives[0].step_s
        waiting = np.flatnonzero(segments == segment)
        low, high = ring.span(segment)
        while high > low and len(waiting):
            first = max(low, high - RING_SLOTS)
            values = ring.gather(segment, columns[waiting], first, high)
            known = ~np.isnan(values)
            has = known.any(axis=1)
            newest = high - 1 - known[:, ::-1].argmax(axis=1)
            last_s[waiting[has]] = newest[has] * step_s
            waiting, high = waiting[~has], first
            await asyncio.sleep(0)
    return last_s


def series_of(rows: SeriesRows, bundles: dict[int, BundleSpec]) -> Series:
    """Rows of the store, of the trash for example, as series without ids."""
    return Series(rows.names, rows.rrd_id, [bundles[b] for b in rows.bundle_id.tolist()])


def first_names(names: list[str], most: int = 20) -> list[str]:
    """Some names for people, and how many there are beyond."""
    rest = len(names) - most
    return [*names[:most], *([f"… and {rest:,} more"] if rest > 0 else [])]


def chunked(values: Longs, size: int) -> Iterator[Longs]:
    for part in parts(len(values), size):
        yield values[part]
