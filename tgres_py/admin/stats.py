"""``stats.storage``: what is stored and how many bytes it takes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

from tgres_py.admin.frame import Admin, Args, Row, arg, note, verb
from tgres_py.model.retention import BundleSpec, format_retention, pairs_of
from tgres_py.storage.inspect import ArchiveStats, archive_stats, postgres_facts

SLOT_BYTES = 8


class StorageArgs(Args):
    tables: bool = arg(False, "tables with their indexes instead of archives")


@verb("stats.storage")
async def storage(admin: Admin, args: StorageArgs) -> AsyncIterator[Row]:
    """Show what archives take on disk: series, chunks, bytes, compression, bytes for each series and point.

    Of more than 100,000 chunks a sample is looked at. Chunks that are still in memory don't count.
    """
    facts = await postgres_facts(admin.store)
    if args.tables:
        for table in facts.tables:
            yield {
                "table": table.name,
                "live_rows": table.live,
                "dead_rows": table.dead,
                "table_bytes": table.table_bytes,
                "index_bytes": table.index_bytes,
                "unfrozen_transactions": table.age,
            }
        return
    bundles = dict(await admin.store.load_bundles())
    stats = await archive_stats(admin.store, bundles)
    for one in stats:
        yield archive_row(one, bundles[one.bundle_id])
    stored = sum(one.stored_bytes for one in stats)
    series = sum({one.bundle_id: one.series for one in stats}.values())
    whole = sum(table.table_bytes + table.index_bytes for table in facts.tables)
    if series:
        yield note(
            f"tables and indexes take {whole / 1e6:,.1f} MB, {stored / 1e6:,.1f} MB of that are points; "
            f"{whole / series:,.0f} bytes a series"
        )


def archive_row(one: ArchiveStats, spec: BundleSpec) -> dict[str, Any]:
    """One archive of one bundle; ``compression``: how many times smaller than 8 bytes a slot."""
    archive = spec.archives[one.archive]
    slots = one.chunks * archive.width
    known = None if math.isnan(one.known_share) else round(one.known_share, 4)
    points = slots * (known or 0)
    return {
        "retention": format_retention(pairs_of(spec)),
        "cf": spec.cf.value,
        "archive": format_retention([(archive.step_s, archive.size)]),
        "series": one.series,
        "chunks": one.chunks,
        "stored_bytes": one.stored_bytes,
        "compression": _ratio(slots * SLOT_BYTES, one.stored_bytes),
        "known_share": known,
        "bytes_per_series": _ratio(one.stored_bytes, one.series),
        "bytes_per_point": _ratio(one.stored_bytes, points),
    }


def _ratio(value: float, by: float) -> float | None:
    return round(value / by, 2) if by else None
