"""One query in a worker: its values go there, its answer comes back in chunks."""

from __future__ import annotations

import asyncio
import logging

import numpy as np

from http_api.answer import Task
from http_api.room import Room
from http_api.workers import job
from http_api.workers.process import WorkerGone, WorkerProcess
from http_api.workers.wire import Kind, MemoryFile, Place, pack, unpack
from tgres_py import errors
from tgres_py.errors import BadRequest, TgresError, WorkerFailed
from tgres_py.functions.reads import Further
from tgres_py.functions.series import SeriesBlock
from tgres_py.query.evaluate import FurtherNeeded, Pieces
from tgres_py.query.limits import QueryLimits
from tgres_py.query.plan import Fetch, Plan

log = logging.getLogger("tgres.render")

POINT_BYTES = 8
INLINE_BYTES_MAX = 256 << 10  # longer arrays are copied in a thread


class Session:
    """A context, which gives its memory back. Nothing is done at the same time but ``keep``."""

    def __init__(
        self, worker: WorkerProcess, plan: Plan, task: Task, limits: QueryLimits, room: Room
    ) -> None:
        self._worker = worker
        self._plan = plan
        self._task = task
        self._limits = limits
        self._rounds = job.Rounds()
        self._room = room
        self._shared_bytes = 0
        self._file = MemoryFile()
        self._is_begun = False
        self.is_whole = False
        self.is_gzipped = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._room.shared_bytes -= self._shared_bytes

    async def keep(self, fetch: Fetch, pieces: Pieces) -> Place:
        """Copies the values of a fetch to where the worker will see them."""
        rows, columns = len(fetch.ids), fetch.points // max(1, len(fetch.ids))
        start = self._file.place(fetch.points * POINT_BYTES)
        async for first, values in pieces:
            values = np.ascontiguousarray(values, np.float64)
            await self._write(start + first * columns * POINT_BYTES, values.data)
        return start, rows, columns

    async def _write(self, start: int, data: bytes | memoryview) -> None:
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        self._shared_bytes += size
        self._room.shared_bytes += size
        if size > INLINE_BYTES_MAX:
            await asyncio.to_thread(self._file.write, start, data)
        elif size:
            self._file.write(start, data)

    async def begin(self, places: list[Place], working_bytes: int) -> None:
        """Has the answer begun; the rest comes by ``chunk``. Work of in_rounds: FurtherNeeded.

        ``working_bytes``: memory that the worker may take for it. The worker's errors; WorkerGone.
        """
        self._task.watch.lap("fetch")
        message = {
            "round": self._rounds.data(self._plan, places, self._file),
            "working_bytes": working_bytes,
        }
        if not self._is_begun:
            message |= job.question(self._plan.request, self._task, self._limits)
        data = pack(message)
        start = self._file.place(len(data))
        await self._write(start, data)
        kind = Kind.FURTHER if self._is_begun else Kind.JOB
        self._worker.order(kind, self._file, start, len(data))
        # the worker has it now; a further round has memory of its own
        self._file.close()
        self._file = MemoryFile()
        self._is_begun = True
        kind, payload = await self._worker.receive()
        match kind:
            case Kind.HEAD:
                self.is_whole, self.is_gzipped, self._task.watch.laps = unpack(payload)
            case Kind.FURTHER:
                calls = self._plan.calls
                raise FurtherNeeded(
                    [(calls[n], Further(tuple(texts), _elsewhere)) for n, texts in unpack(payload)]
                )
            case _:
                raise _failure(kind, payload)

    async def chunk(self) -> bytearray | None:
        """The next piece of the body, None at its end. WorkerGone."""
        kind, payload = await self._worker.receive()
        if kind == Kind.CHUNK:
            return payload
        if kind == Kind.END:
            return None
        raise _failure(kind, payload)


def _elsewhere(blocks: list[SeriesBlock]) -> SeriesBlock:
    raise AssertionError("the worker finishes its functions itself")


def _failure(kind: Kind, payload: bytearray) -> Exception:
    """The error that a worker tells of."""
    if kind == Kind.FAULT:
        log.error("a render worker failed:\n%s", unpack(payload))
        return WorkerFailed("internal error; the log has the details")
    if kind != Kind.ERROR:
        return WorkerGone()
    told = unpack(payload)
    error_type = getattr(errors, told["kind"], BadRequest)
    error: TgresError = error_type.__new__(error_type)
    Exception.__init__(error, told["text"])
    for name, value in told["fields"].items():
        setattr(error, name, value)
    return error
