"""Which series a verb works on: globs, a regular expression, tag expressions; all given ones must hold."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tgres_py.admin.frame import Admin, Args, Live, arg
from tgres_py.errors import BadRequest
from tgres_py.kernels import NameTree
from tgres_py.model.name_regex import NameRegex
from tgres_py.model.points import Ids
from tgres_py.model.retention import BundleSpec
from tgres_py.model.tagindex import TagIndex
from tgres_py.storage.port import SeriesRows

EVERYTHING = "**"  # as a glob: series with tags, too, which no other glob reaches


class SelectArgs(Args):
    """What verbs on series have in common."""

    glob: list[str] = arg(
        [], "names, or path globs, as in Graphite; '**' is all series", positional=True
    )
    regex: str = arg("", "regular expression (RE2) that is found in the name, tags included")
    tag: list[str] = arg([], "tag expression such as host=web1, dc!=x or host=~web.*; repeatable")

    @property
    def chosen(self) -> bool:
        """Whether anything is asked for; else it is all series."""
        return bool(self.glob or self.regex or self.tag)

    def need_choice(self) -> None:
        """BadRequest when nothing is asked for: a verb that changes things wants to be told."""
        if not self.chosen:
            raise BadRequest("say which series: a glob ('**' is all), --regex or --tag")


@dataclass(slots=True)
class Series:
    """Series in the order of their names, column by column.

    ``rrd_id``: int64 (k,), 0: its row isn't made yet; ``specs``: bundle of each, equal ones are one object;
    ``ids``: int32 (k,), the running server's, None with the store alone.
    """

    names: list[str]
    rrd_id: NDArray[np.int64]
    specs: list[BundleSpec]
    ids: Ids | None = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, places: NDArray[np.intp]) -> Series:
        at = places.tolist()
        return Series(
            [self.names[i] for i in at],
            self.rrd_id[places],
            [self.specs[i] for i in at],
            None if self.ids is None else self.ids[places],
        )


async def select_with_rows(admin: Admin, args: SelectArgs) -> Series:
    """As ``select``; in a running server, rows that are missing are made first."""
    await admin.make_rows()
    return await select(admin, args)


async def select(admin: Admin, args: SelectArgs) -> Series:
    """The series asked for. BadRequest: a bad pattern or expression; StoreUnavailable."""
    if admin.live is not None:
        return await _of_server(admin.live, args)
    rows = await admin.store.load_series()
    bundles = dict(await admin.store.load_bundles())
    untagged = set(await admin.store.load_untagged()) if args.tag else set()
    return await asyncio.to_thread(_of_rows, rows, bundles, untagged, args)


async def _of_server(live: Live, args: SelectArgs) -> Series:
    registry = live.registry
    if not registry.opened:
        raise BadRequest("the server is starting: its series are not loaded yet")

    def find() -> tuple[Ids, list[str]]:
        size = registry.table.size
        living = (registry.bundle_of[:size] >= 0) & ~registry.retired[:size]
        everything = np.flatnonzero(living).astype(np.int32)
        tags = live.source.tags()  # brings the tree up to date, too
        ids = _found(registry.tree, tags, everything, args)
        return _ordered(ids, registry.names(ids), args.regex)

    ids, names = await asyncio.to_thread(find)
    return Series(names, registry.rrd_id[ids], registry.specs(ids), ids)


def _of_rows(
    rows: SeriesRows, bundles: dict[int, BundleSpec], untagged: set[str], args: SelectArgs
) -> Series:
    tree, tags = NameTree(), TagIndex()
    tree.add_many(rows.names, 0)
    if args.tag:
        known = [i for i, name in enumerate(rows.names) if ";" in name and name not in untagged]
        tags.add([rows.names[i] for i in known], np.array(known, np.int32))
    found = _found(tree, tags, np.arange(len(rows.names), dtype=np.int32), args)
    places, names = _ordered(found, [rows.names[i] for i in found.tolist()], args.regex)
    specs = [bundles[number] for number in rows.bundle_id[places].tolist()]
    return Series(names, rows.rrd_id[places], specs)


def _found(tree: NameTree, tags: TagIndex, everything: Ids, args: SelectArgs) -> Ids:
    """Ids, ascending, of the series that globs and tag expressions ask for."""
    found = everything
    if args.glob and EVERYTHING not in args.glob:
        found = np.unique(np.concatenate([tree.expand(glob) for glob in args.glob]))
    if args.tag:
        found = np.intersect1d(found, tags.find(args.tag))
    return found.astype(np.int32)


def _ordered(ids: Ids, names: list[str], regex: str) -> tuple[Ids, list[str]]:
    """Ids and names in the order of the names, those only in which ``regex`` is found."""
    order = np.array(sorted(range(len(names)), key=names.__getitem__), np.intp)
    if regex:
        order = order[NameRegex(regex).found_in(names)[order]]
    return ids[order], [names[i] for i in order.tolist()]
