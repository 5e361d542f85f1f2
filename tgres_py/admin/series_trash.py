"""``series.rm``, ``series.trash``, ``series.undo``, ``series.purge``: removal with a way back.

A removed series loses its name at once; its row goes to the table rrd_trash and its points stay where they are,
until setting ``trash_keep_s`` has passed or ``series purge`` is called. A name whose points keep arriving is made
anew, as carbon does.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.admin.frame import Admin, Args, Duration, Row, arg, note, progress, verb
from tgres_py.admin.merge import merge_into, prepare
from tgres_py.admin.select import SelectArgs, Series, select_with_rows
from tgres_py.admin.series import chunked, first_names, series_of, without_points
from tgres_py.errors import BadRequest

BATCH = 2_000  # series that one transaction moves
PURGE_BATCH = 200  # series whose points one transaction removes: up to some hundred chunks each

MERGED = "series merged"
DRY = "nothing was changed; repeat with --yes"


class RmArgs(SelectArgs):
    stale_for: Duration = arg(0.0, "only series without a point for so long: 30d, 12h")
    why: str = arg("", "a remark that is kept with the batch")
    yes: bool = arg(False, "do it; without, only say what would be done")


@verb("series.rm", changes=True)
async def rm(admin: Admin, args: RmArgs) -> AsyncIterator[Row]:
    """Move series to the trash.

    Without --yes it only counts. Their points stay until the trash is purged; until then undo brings them back.
    """
    if not args.stale_for:
        args.need_choice()
    found = await select_with_rows(admin, args)
    if args.stale_for:
        found, _ = await without_points(admin, found, args.stale_for)
    if len(found) == 0:
        return
    if not args.yes:
        yield _outcome(True, len(found), found.names, None)
        yield note(DRY)
        return
    batch = await admin.store.next_batch()
    done = 0
    async for moved in trash(admin, found.rrd_id, batch, args.why):
        done += moved
        yield progress(done, len(found), "series")
    yield _outcome(False, done, found.names, batch)
    yield note(f"`tgres series undo {batch}` brings them back")


def _outcome(dry_run: bool, count: int, names: list[str], batch: int | None) -> Row:
    return {"dry_run": dry_run, "series": count, "batch": batch, "names": first_names(names)}


async def trash(
    admin: Admin, rrd_ids: NDArray[np.int64], batch: int, why: str
) -> AsyncIterator[int]:
    """Moves series to the trash, part by part; how many each part was. StoreUnavailable."""
    for part in chunked(rrd_ids, BATCH):
        moved = await admin.store.trash_series(part, batch, why)
        await admin.changed(moved)
        yield len(moved)


@verb("series.trash")
async def show_trash(admin: Admin, args: Args) -> AsyncIterator[Row]:
    """List the batches in the trash: what was removed when, and when it will be purged."""
    for one in await admin.store.batches(admin.settings.trash_keep_s):
        yield {
            "batch": one.batch,
            "series": one.series,
            "first_name": one.first_name,
            "why": one.why,
            "removed_at_s": one.deleted_at_s,
            "purged_at_s": one.purged_at_s,
        }


class UndoArgs(Args):
    batch: int = arg(..., "number of the batch, as rm said it", positional=True)
    merge: bool = arg(
        False, "series whose names live again get the old points where they know none"
    )
    yes: bool = arg(False, "do it; without, only say what would be done")


@verb("series.undo", changes=True)
async def undo(admin: Admin, args: UndoArgs) -> AsyncIterator[Row]:
    """Bring a batch back from the trash.

    A series whose name lives again stays in the trash, or with --merge gives its points to the living one. To bring a
    part back is no failure (exit code 0): what stays is listed.
    """
    await admin.make_rows()
    rows = await admin.store.trash_of_batch(args.batch)
    if not rows.names:
        raise BadRequest(f"there is no batch {args.batch} in the trash: see `tgres series trash`")
    old = series_of(rows, dict(await admin.store.load_bundles()))
    taken = set(await admin.store.names_taken(old.names, np.empty(0, np.int64)))
    free = np.array([i for i, name in enumerate(old.names) if name not in taken], np.intp)
    met = np.array([i for i, name in enumerate(old.names) if name in taken], np.intp)
    back, merged = len(free), len(met) if args.merge else 0
    if args.yes and not back and not merged:
        raise BadRequest(
            f"all {len(met):,} names of batch {args.batch} live again: --merge joins the points"
        )
    if args.yes:
        back = 0
        for part in chunked(old.rrd_id[free], BATCH):
            restored = await admin.store.restore_series(part)
            await admin.changed(restored)
            back += len(restored)
            yield progress(back, len(old), "series")
        if args.merge and len(met):
            merged = 0
            async for row in _merge_living(admin, old.take(met)):
                merged += is_merged(row)
                yield row
    yield {
        "dry_run": not args.yes,
        "batch": args.batch,
        "series": back,
        "merged": merged,
        "names_that_live_again": first_names([old.names[i] for i in met.tolist()]),
    }
    if len(met) and not args.merge:
        yield note(
            f"names that live again stay in the trash ({len(met):,}); --merge joins the points"
        )
    if not args.yes:
        yield note(DRY)


async def _merge_living(admin: Admin, old: Series) -> AsyncIterator[Row]:
    """Points of series in the trash go to those that have their names now."""
    async for row in prepare(admin):
        yield row
    living = await select_with_rows(admin, SelectArgs())
    place = {name: at for at, name in enumerate(living.names)}
    for at, name in enumerate(old.names):
        if name in place:
            target = living.take(np.array([place[name]]))
            await merge_into(admin, old.take(np.array([at])), target)
            yield progress(at + 1, len(old), MERGED)


def is_merged(row: Row) -> bool:
    return bool(row.get("progress", {}).get("what") == MERGED)


class PurgeArgs(Args):
    batch: int | None = arg(None, "only this batch", positional=True)
    older_than: Duration = arg(0.0, "only what was removed so long ago: 2d, 12h")
    yes: bool = arg(False, "do it; without, only say what would be done")


@verb("series.purge", changes=True)
async def purge(admin: Admin, args: PurgeArgs) -> AsyncIterator[Row]:
    """Remove what is in the trash, and its points, for good."""
    # Of any age means all, though PostgreSQL's clock, which says when they went, may be ahead of ours.
    due_at_s = clock.now_s() - args.older_than if args.older_than else math.inf
    batches = [
        one for one in await admin.store.batches(0, args.batch) if one.deleted_at_s <= due_at_s
    ]
    total = sum(one.series for one in batches)
    if not total:
        return
    done = chunks = 0
    if args.yes:
        async for series, removed in purge_due(admin, args.older_than, args.batch):
            done, chunks = done + series, chunks + removed
            yield progress(done, total, "series")
    yield {
        "dry_run": not args.yes,
        "series": done if args.yes else total,
        "chunks": chunks if args.yes else None,
        "batches": [one.batch for one in batches],
    }
    if not args.yes:
        yield note(DRY)


async def purge_due(
    admin: Admin, age_s: float, batch: int | None = None
) -> AsyncIterator[tuple[int, int]]:
    """Removes what was in the trash for ``age_s``, part by part: (series, chunks) of each."""
    while len(due := await admin.store.trash_due(age_s, batch, PURGE_BATCH)):
        chunks = await admin.store.purge_series(due)
        await admin.changed(due)
        yield len(due), chunks
