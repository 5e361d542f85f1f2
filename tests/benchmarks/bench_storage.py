"""Prints what the PostgreSQL store takes: flushes, new series, start, reads.

    python -m tests.benchmarks.bench_storage [--series 1000000] [--dsn DSN]

Without a DSN an embedded PostgreSQL is started in a temporary directory. CPU of PostgreSQL is that of
the store's own sessions (without background writers and vacuum).
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import numpy as np

from tgres_py.model.retention import Archive, BundleSpec
from tgres_py.storage.embedded import EmbeddedPostgres
from tgres_py.storage.port import ChunkRows
from tgres_py.storage.postgres import PostgresStore

WIDTH = 480
RING = Archive(step_s=10, size=8_640, width=WIDTH)
FLUSH_ROWS = 2_500
READ_SERIES = 1_000
TICKS_PER_S = 100


@asynccontextmanager
async def dsn_or_embedded(dsn: str | None) -> AsyncIterator[str]:
    if dsn is not None:
        yield dsn
        return
    with tempfile.TemporaryDirectory(prefix="tgres-bench-") as folder:
        server = EmbeddedPostgres(
            Path(folder) / "pg", {"shared_buffers": "512MB", "max_wal_size": "4GB"}
        )
        yield await server.start()
        await server.stop()


def cpu_s(store: PostgresStore) -> tuple[float, float]:
    """CPU seconds so far of this process and of the store's idle sessions."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    backend_s = 0.0
    for connection in (*store._pool._idle, *store._writer._idle):
        stat = Path(f"/proc/{connection.get_server_pid()}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        backend_s += (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return usage.ru_utime + usage.ru_stime, backend_s


async def measure(
    store: PostgresStore, what: str, unit: str, count: float, work: Callable[[], Awaitable[object]]
) -> None:
    """Prints wall and CPU time of ``work`` and how many ``unit`` it does in a second."""
    ours, theirs = cpu_s(store)
    started = time.perf_counter()
    await work()
    wall_s = time.perf_counter() - started
    ours_after, theirs_after = cpu_s(store)
    print(
        f"{what:34} {wall_s * 1_000:9.1f} ms  {count / wall_s:12,.1f} {unit}/s  "
        f"CPU-s per {unit}: {(ours_after - ours) / count:.2e} + {(theirs_after - theirs) / count:.2e}"
    )


def gauges(series: np.ndarray, chunk: int, seed: int) -> ChunkRows:
    """One full chunk of each series: random walks of two decimals."""
    steps = np.random.default_rng(seed).normal(size=(len(series), WIDTH))
    return ChunkRows(
        0,
        series,
        np.full(len(series), chunk % RING.chunks, np.int32),
        np.full(len(series), chunk * RING.chunk_s, np.int64),
        np.round(100 + steps.cumsum(axis=1), 2),
    )


async def bench_writes(store: PostgresStore) -> None:
    series = np.arange(FLUSH_ROWS, dtype=np.int64) + 10_000_000
    new, newer = gauges(series, 0, 1), gauges(series, RING.chunks, 2)
    part = gauges(series, 2 * RING.chunks, 3)
    part.dp[:, WIDTH // 2 :] = np.nan
    full = gauges(series, 2 * RING.chunks, 3)
    scattered = gauges(series, 2 * RING.chunks, 4)
    scattered.dp[np.random.default_rng(5).random(scattered.dp.shape) < 0.9] = np.nan
    await store.write_chunks([gauges(series[:20] - 1_000, 0, 0)])  # connection, staging table
    millions = FLUSH_ROWS * WIDTH / 1e6
    for what, rows in (
        ("write: new rows", new),
        ("write: newer lap", newer),
        ("write: half a chunk, newer lap", part),
        ("write: the same lap, now full", full),
        ("write: scattered slots, same lap", scattered),
    ):
        await measure(store, what, "Mpoint", millions, lambda rows=rows: store.write_chunks([rows]))


async def bench_series(store: PostgresStore, count: int) -> None:
    [bundle] = await store.ensure_bundles([BundleSpec((RING,))])
    names = [
        f"datacenter{i % 7}.servers.web{i // 100:06}.cpu.core{i % 100:02}.user"
        for i in range(count)
    ]
    batch = 50_000

    async def create() -> None:
        for first in range(0, count, batch):
            part = names[first : first + batch]
            await store.create_series(part, np.full(len(part), bundle, np.int32))

    await measure(store, f"create {count:,} series", "series", count, create)
    await measure(store, f"load {count:,} series", "series", count, store.load_series)
    known = names[:batch]
    await measure(
        store,
        f"create {len(known):,} that exist",
        "series",
        len(known),
        lambda: store.create_series(known, np.full(len(known), bundle, np.int32)),
    )


async def bench_reads(store: PostgresStore, dsn: str) -> None:
    series = np.arange(READ_SERIES, dtype=np.int64) + 20_000_000
    for chunk in range(RING.chunks):
        await store.write_chunks([gauges(series, chunk, chunk)])
    connection = await asyncpg.connect(dsn)
    await connection.execute("VACUUM ANALYZE ts")
    await connection.close()
    day_s, hour_s = 86_400, 3_600
    for what, ids, window_s in (
        ("read: 1 series x 1 day", series[:1], day_s),
        (f"read: {READ_SERIES:,} series x 1 hour", series, hour_s),
        (f"read: {READ_SERIES:,} series x 1 day", series, day_s),
    ):
        until_s = RING.chunks * RING.chunk_s
        window = (ids, 0, WIDTH, until_s - max(window_s, RING.chunk_s), until_s)
        await store.read_chunks(*window, ring=RING)
        for _ in range(3):
            await measure(
                store,
                what,
                "Mpoint",
                len(ids) * window_s / RING.step_s / 1e6,
                lambda window=window: store.read_chunks(*window, ring=RING),
            )


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--series", type=int, default=1_000_000)
    arguments.add_argument("--dsn")
    options = arguments.parse_args()
    async with dsn_or_embedded(options.dsn) as dsn:
        store = PostgresStore(dsn, command_timeout_s=300)
        await store.open()
        await bench_writes(store)
        await bench_reads(store, dsn)
        await bench_series(store, options.series)
        await store.close()


if __name__ == "__main__":
    asyncio.run(main())
