"""The worker processes of a server: started when they are needed, kept for a while, replaced when they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from http_api.workers.process import WorkerGone, WorkerProcess
from http_api.workers.wire import Kind
from tgres_py import clock
from tgres_py.errors import WorkerFailed
from tgres_py.machine import cpus, private_bytes

log = logging.getLogger("tgres.render")

START_TIMEOUT_S = 30.0
WORKERS_USUAL_MAX = 4
WORKER_BYTES = 64 << 20  # of a process that has nothing to do; 45 to 85 MB measured, libraries included
IDLE_S = 300.0  # a worker without work ends after this time
TEND_EVERY_S = 10.0
REST_S = 5.0  # after a start that failed none is tried for this long


def worker_count(setting: int, memory_bytes: int) -> int:
    """How many worker processes there are for heavy queries, at most; ``memory_bytes``: that all queries may take."""
    return setting or max(1, min(WORKERS_USUAL_MAX, cpus(), memory_bytes // (2 * WORKER_BYTES)))


def room_bytes(memory_bytes: int, workers: int) -> int:
    """What is left to queries beside the processes themselves. In a very small server these are watched only."""
    return max(memory_bytes // 2, memory_bytes - (workers + 1) * WORKER_BYTES)


class Workers:
    """Who takes a worker has it alone. How many there are is up to those who take them.

    ``started``, ``stopped`` (ended because their query was), ``died`` (by themselves): counts since the start.
    """

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self.idle_s = idle_s
        self.started = 0
        self.stopped = 0
        self.died = 0
        self._idle: list[WorkerProcess] = []
        self._all: set[WorkerProcess] = set()
        self._ends: set[asyncio.Task[None]] = set()
        self._rests_until_s = 0.0
        self._failing = False
        self._draws = False  # pictures have been asked for: workers load what they need at their start

    @property
    def processes(self) -> list[int]:
        """Process ids."""
        return [worker.pid for worker in self._all]

    @property
    def busy(self) -> int:
        """How many have an order."""
        return sum(not worker.is_done for worker in self._all)

    def resident_bytes(self) -> int:
        """Memory of all, without what they share with this process."""
        return sum(private_bytes(pid) for pid in self.processes)

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        """For the application's cleanup_ctx."""
        tending = asyncio.create_task(self._tend(), name="render-workers")
        yield
        tending.cancel()
        with suppress(asyncio.CancelledError):
            await tending
        await self.close()

    async def close(self) -> None:
        """Ends all of them."""
        for worker in list(self._all):
            self._end(worker)
        self._idle.clear()
        await asyncio.gather(*self._ends, return_exceptions=True)

    @asynccontextmanager
    async def worker(self, draws: bool = False) -> AsyncIterator[WorkerProcess]:
        """A worker for one query. One whose query didn't come to its end is ended with it: what it does
        can't be stopped otherwise. WorkerFailed: there is none, or it died.
        """
        self._draws |= draws
        worker = await self._take()
        try:
            yield worker
        finally:
            if worker not in self._all:
                pass  # all were ended
            elif worker.is_done and not worker.is_gone:
                worker.idle_since_s = clock.monotonic()
                self._idle.append(worker)
            else:
                self._count_end(worker)
                self._end(worker)

    async def _take(self) -> WorkerProcess:
        while self._idle:
            worker = self._idle.pop()
            if not worker.is_gone:
                return worker
            self._count_end(worker)
            self._end(worker)
        return await self._start()

    def _count_end(self, worker: WorkerProcess) -> None:
        if worker.is_gone:
            self.died += 1
            log.warning("render worker %d ended by itself", worker.pid)
        else:
            self.stopped += 1

    async def _start(self) -> WorkerProcess:
        if clock.monotonic() < self._rests_until_s:
            raise WorkerFailed("render workers can't be started at the moment")
        try:
            worker = await WorkerProcess.start(*(["pictures"] if self._draws else []))
        except OSError as error:
            raise self._not_started(str(error)) from None
        self._all.add(worker)
        self.started += 1
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                kind, _ = await worker.receive()
            if kind != Kind.READY:
                raise WorkerGone
        except BaseException as error:
            self._end(worker)
            if isinstance(error, WorkerGone | TimeoutError):
                raise self._not_started("it ended, or didn't answer") from None
            raise
        if self._failing:
            log.warning("render workers can be started again")
            self._failing = False
        return worker

    def _not_started(self, reason: str) -> WorkerFailed:
        if not self._failing:
            log.error("a render worker can't be started: %s; tried again every %g s", reason, REST_S)
            self._failing = True
        self._rests_until_s = clock.monotonic() + REST_S
        return WorkerFailed(f"a render worker can't be started: {reason}")

    def _end(self, worker: WorkerProcess) -> None:
        """Kills a worker at once; its remains are cleared away meanwhile."""
        self._all.discard(worker)
        worker.kill()

        async def end() -> None:
            await worker.end()

        task = asyncio.create_task(end(), name=f"render-worker-end-{worker.pid}")
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def _tend(self) -> None:
        """Ends workers that were idle for long, or that died idly."""
        while True:
            await asyncio.sleep(TEND_EVERY_S)
            oldest_s = clock.monotonic() - self.idle_s
            for worker in list(self._idle):
                if worker.idle_since_s < oldest_s or worker.is_gone:
                    self._idle.remove(worker)
                    self._end(worker)
