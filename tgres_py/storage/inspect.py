"""What PostgreSQL says of itself and of our tables, for the doctor and for ``stats storage``."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tgres_py.model.retention import BundleSpec
from tgres_py.storage import copy_binary
from tgres_py.storage.postgres import PostgresStore
from tgres_py.storage.queries import query

STATS_TIMEOUT_S = 300.0
SAMPLE_ROWS = 100_000  # chunks whose bytes are looked at; of more a sample
POINTS_ROWS = 1_000  # chunks whose points are counted


@dataclass(frozen=True, slots=True)
class TableFacts:
    """Sizes and statistics of a table; ``age``: transactions since it was frozen."""

    name: str
    live: int
    dead: int
    table_bytes: int
    index_bytes: int
    age: int


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """``settings``: as SHOW gives them in base units (bytes, seconds, on/off); times in seconds."""

    version: str
    now_s: float
    settings: dict[str, str] = field(default_factory=dict)
    tables: tuple[TableFacts, ...] = ()
    lz4: bool = True
    connections: int = 0
    oldest_transaction_s: float = 0.0
    database_bytes: int = 0


async def postgres_facts(store: PostgresStore) -> PostgresFacts:
    """StoreUnavailable."""
    async with store.pools["shared"].use() as connection:
        settings = await connection.fetch(query("inspect_settings"))
        tables = await connection.fetch(query("inspect_tables"))
        [server] = await connection.fetch(query("inspect_server"))
    return PostgresFacts(
        version=server["version"],
        now_s=server["now_s"],
        settings={row["name"]: row["value"] for row in settings},
        tables=tuple(TableFacts(**dict(row)) for row in tables),
        lz4=server["lz4"],
        connections=server["connections"],
        oldest_transaction_s=server["oldest_transaction_s"],
        database_bytes=server["database_bytes"],
    )


@dataclass(frozen=True, slots=True)
class ArchiveStats:
    """One archive of one bundle. ``stored_bytes``: of the arrays as they are on disk; ``known_share``: of the
    slots of some of its chunks, NaN without any."""

    bundle_id: int
    archive: int
    series: int
    chunks: int
    stored_bytes: int
    known_share: float


async def archive_stats(store: PostgresStore, bundles: dict[int, BundleSpec]) -> list[ArchiveStats]:
    """Statistics of all archives, from all chunks or, of many, from a sample of pages, counted up.

    StoreUnavailable.
    """
    out: list[ArchiveStats] = []
    async with store.pools["shared"].use() as connection:
        total = await connection.fetchval(query("inspect_chunks_about"))
        percent = min(100.0, 100.0 * SAMPLE_ROWS / max(1, total))
        rows = await connection.fetch(query("inspect_archives"), percent, timeout=STATS_TIMEOUT_S)
        counted = await connection.fetch(query("inspect_series"))
        series = {row["bundle_id"]: row["series"] for row in counted}
        for row in rows:
            spec = bundles.get(row["bundle_id"])
            if spec is None or not 0 <= row["archive"] < len(spec.archives):
                continue
            cells = await connection.fetch(
                query("inspect_points"),
                row["bundle_id"],
                row["archive"],
                percent,
                POINTS_ROWS,
                timeout=STATS_TIMEOUT_S,
            )
            values, _ = copy_binary.parse_cells(
                tuple(cell[0] for cell in cells), spec.archives[row["archive"]].width
            )
            known = float(np.mean(~np.isnan(values))) if values.size else float("nan")
            scale = 100.0 / percent
            out.append(
                ArchiveStats(
                    row["bundle_id"],
                    row["archive"],
                    series.get(row["bundle_id"], 0),
                    round(row["chunks"] * scale),
                    round(row["stored_bytes"] * scale),
                    known,
                )
            )
    return out
