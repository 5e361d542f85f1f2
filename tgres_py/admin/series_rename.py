"""``series.rename`` and ``series.merge``: other names for the same points, or one series of several.

Renaming moves no points: only the row's name and tags change. Senders that go on with the old name make a new series.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import numpy as np

from tgres_py.admin.frame import Admin, Args, Row, arg, note, progress, verb
from tgres_py.admin.merge import merge_into, prepare
from tgres_py.admin.select import SelectArgs, Series, select_with_rows
from tgres_py.admin.series import first_names
from tgres_py.admin.series_trash import BATCH, DRY, MERGED, trash
from tgres_py.errors import BadRequest
from tgres_py.model.ident import canonical
from tgres_py.model.name_regex import NameRegex

SHOWN = 20


class RenameArgs(Args):
    old: str = arg(..., "the name, or with --regex what is found in names", positional=True)
    new: str = arg(..., r"the new name; with --regex \1 … \9 are its groups", positional=True)
    regex: bool = arg(False, "OLD is a regular expression (RE2)")
    glob: list[str] = arg([], "only names that match this glob; repeatable")
    tag: list[str] = arg([], "only series that fulfil this tag expression; repeatable")
    merge: bool = arg(False, "where the new name is taken, that series gets the points")
    yes: bool = arg(False, "do it; without, only say what would be done")


@verb("series.rename", changes=True)
async def rename(admin: Admin, args: RenameArgs) -> AsyncIterator[Row]:
    """Rename a series, or all in whose names a regular expression is found.

    No points are moved. A new name that another series has is refused, or merged into with --merge.
    """
    found = await _chosen(admin, args)
    new_names = await asyncio.to_thread(_new_names, admin, found, args)
    changed = np.array([i for i, name in enumerate(found.names) if name != new_names[i]], np.intp)
    if len(changed) == 0:
        return
    found, new_names = found.take(changed), [new_names[i] for i in changed.tolist()]
    meeting = await _meeting(admin, found, new_names)
    if meeting and not args.merge:
        shown = ", ".join(first_names(meeting, 5))
        raise BadRequest(f"these names are taken (--merge joins the points): {shown}")
    if not args.yes:
        for old, new in list(zip(found.names, new_names, strict=True))[:SHOWN]:
            yield {"old": old, "new": new, "merged": new in meeting}
        yield note(f"{len(found):,} series would be renamed, {len(meeting):,} names meet")
        yield note(DRY)
        return
    apart = np.array([i for i, name in enumerate(new_names) if name not in meeting], np.intp)
    # all at once where names are handed on, so that none is missing in between
    size = BATCH if not set(new_names) & set(found.names) else len(found)
    for at in range(0, len(apart), size):
        part = apart[at : at + size]
        rows = found.rrd_id[part]
        await admin.store.rename_series(rows, [new_names[i] for i in part.tolist()])
        await admin.changed(rows)
        yield progress(at + len(part), len(found), "series renamed")
    joined = np.array([i for i, name in enumerate(new_names) if name in meeting], np.intp)
    if len(joined):
        targets = [new_names[i] for i in joined.tolist()]
        async for row in _join(admin, found.take(joined), targets):
            yield row
    for old, new in list(zip(found.names, new_names, strict=True))[:SHOWN]:
        yield {"old": old, "new": new, "merged": new in meeting}
    yield note(f"{len(apart):,} series renamed, {len(joined):,} merged")


async def _chosen(admin: Admin, args: RenameArgs) -> Series:
    if args.regex:
        return await select_with_rows(
            admin, SelectArgs(glob=args.glob, regex=args.old, tag=args.tag)
        )
    found = await select_with_rows(admin, SelectArgs(glob=args.glob, tag=args.tag))
    name = _canonical(admin, args.old)
    return found.take(np.array([i for i, have in enumerate(found.names) if have == name], np.intp))


def _new_names(admin: Admin, found: Series, args: RenameArgs) -> list[str]:
    """Canonical. BadRequest: a name that no series can have, or a bad replacement."""
    if not args.regex:
        return [_canonical(admin, args.new)] * len(found)
    pattern = NameRegex(args.old)
    return [_canonical(admin, pattern.replaced(name, args.new)) for name in found.names]


def _canonical(admin: Admin, name: str) -> str:
    return canonical(name, admin.settings.name_bytes_max, admin.settings.tags_max)


async def _meeting(admin: Admin, found: Series, new_names: list[str]) -> list[str]:
    """New names that another series has, or that several would get."""
    taken = set(await admin.store.names_taken(new_names, found.rrd_id))
    several = {name for name, count in Counter(new_names).items() if count > 1}
    return sorted(taken | several)


async def _join(admin: Admin, sources: Series, targets: list[str]) -> AsyncIterator[Row]:
    """Each source goes to the trash, and its points to the series of its new name; the first of several
    whose new name nobody has takes it."""
    living = await select_with_rows(admin, SelectArgs())
    wanted = set(targets)
    places = [i for i, name in enumerate(living.names) if name in wanted]
    series = {living.names[i]: living.take(np.array([i])) for i in places}
    pairs: list[tuple[Series, Series]] = []
    for at, name in enumerate(targets):
        source = sources.take(np.array([at]))
        if name not in series:
            await admin.store.rename_series(source.rrd_id, [name])
            await admin.changed(source.rrd_id)
            series[name] = source
        elif series[name].rrd_id[0] != source.rrd_id[0]:
            pairs.append((source, series[name]))
    batch = await admin.store.next_batch()
    async for row in _merge_pairs(admin, pairs, batch, "merged under the new name"):
        yield row
    yield note(f"what was merged is in the trash as batch {batch}")


async def _merge_pairs(
    admin: Admin, pairs: list[tuple[Series, Series]], batch: int, why: str
) -> AsyncIterator[Row]:
    """The sources go to the trash, then the points of each to its target."""
    gone = np.array([int(source.rrd_id[0]) for source, _ in pairs], np.int64)
    async for _ in trash(admin, gone, batch, why):
        pass
    async for row in prepare(admin):
        yield row
    for at, (source, target) in enumerate(pairs):
        await merge_into(admin, source, target)
        yield progress(at + 1, len(pairs), MERGED)


class MergeArgs(SelectArgs):
    into: str = arg(..., "name of the series that gets the points")
    yes: bool = arg(False, "do it; without, only say what would be done")


@verb("series.merge", changes=True)
async def merge(admin: Admin, args: MergeArgs) -> AsyncIterator[Row]:
    """Give the points of series to another one, where it knows none; they go to the trash.

    Archive by archive where retentions are equal, else re-bucketed as `retention apply` does it.
    """
    args.need_choice()
    target_name = _canonical(admin, args.into)
    target = await select_with_rows(admin, SelectArgs())
    target = target.take(
        np.array([i for i, name in enumerate(target.names) if name == target_name], np.intp)
    )
    if len(target) == 0:
        raise BadRequest(f"--into {target_name}: there is no such series (rename it instead)")
    found = await select_with_rows(admin, args)
    found = found.take(
        np.array([i for i, name in enumerate(found.names) if name != target_name], np.intp)
    )
    if len(found) == 0:
        return
    batch = None
    if args.yes:
        batch = await admin.store.next_batch()
        pairs = [(found.take(np.array([at])), target) for at in range(len(found))]
        async for row in _merge_pairs(admin, pairs, batch, f"merged into {target_name}"):
            yield row
    yield {
        "dry_run": not args.yes,
        "into": target_name,
        "series": len(found),
        "batch": batch,
        "names": first_names(found.names),
    }
    if not args.yes:
        yield note(DRY)
