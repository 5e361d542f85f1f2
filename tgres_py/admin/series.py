"""``series.*``: the verbs that look."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tgres_py.admin.frame import Admin, Row, arg, verb
from tgres_py.admin.select import SelectArgs, select
from tgres_py.model.retention import format_retention, pairs_of


class LsArgs(SelectArgs):
    limit: int = arg(0, "at most so many; 0 = all", ge=0)


@verb("series.ls")
async def ls(admin: Admin, args: LsArgs) -> AsyncIterator[Row]:
    """List series with their retention, by globs, a regular expression or tag expressions."""
    found = await select(admin, args)
    texts: dict[int, Row] = {}
    end = args.limit or len(found)
    for name, spec in zip(found.names[:end], found.specs[:end], strict=True):
        shared = texts.get(id(spec))
        if shared is None:
            shared = texts[id(spec)] = {
                "retention": format_retention(pairs_of(spec)),
                "cf": str(spec.cf),
                "xff": spec.xff,
            }
        yield {"name": name, **shared}
