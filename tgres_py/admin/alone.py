"""Changes of retention without a server: the same worker, over a registry of its own and an empty ring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tgres_py.admin.frame import Row, note
from tgres_py.errors import StoreUnavailable
from tgres_py.ingest.flusher import Flusher, Pace
from tgres_py.ingest.intake import Intake, Limits
from tgres_py.ingest.reader import Reader
from tgres_py.ingest.recover import recover
from tgres_py.ingest.registry import Registry
from tgres_py.ingest.retention_job import RetentionWorker
from tgres_py.kernels import RingStore
from tgres_py.storage.postgres import PostgresStore

RING_BYTES_MAX = 1 << 30


async def worked_alone(
    store: PostgresStore, settings: Any, job: int, follow: AsyncIterator[Row]
) -> AsyncIterator[Row]:
    """Works on a job here, while no server has the series in memory; else a server does, and its way is told.

    ``follow``: tells how far the job is until it ends. StoreUnavailable: the job can be resumed.
    """
    lock = await store.live_lock(shared=False)
    if lock is None:
        yield note("a server runs on this database: it does the work")
        async for row in follow:
            yield row
        return
    try:
        registry = Registry(settings.rule_set().match_many, RingStore())
        intake = Intake(registry, None, Limits(RING_BYTES_MAX))
        flusher = Flusher(intake, store, Reader(registry, store), None, Pace())
        await recover(intake, None, store)
        task = asyncio.create_task(RetentionWorker(flusher, store, store).work(job))
        try:
            async for row in follow:
                if task.done():
                    task.result()
                if not lock.held:
                    raise StoreUnavailable("the connection was lost; `retention resume` goes on")
                yield row
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    finally:
        lock.release()
