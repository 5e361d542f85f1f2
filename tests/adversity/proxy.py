"""A TCP proxy between server and PostgreSQL that makes trouble where it is told to.

It sits before a unix socket and listens on a port of its own, in the loop of the test. Bytes towards
PostgreSQL are matched against a mark (``COMMIT`` …), so that a fault can be put at a step of a flush.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from pathlib import Path
from types import TracebackType

READ_BYTES = 1 << 16


class Fault(Enum):
    CUT_BEFORE = "cut before"  # the marked bytes don't reach PostgreSQL
    CUT_AFTER = "cut after"  # PostgreSQL gets them, its answer is lost
    STALL = "stall"  # nothing passes any more, both sides stay open
    HALF_CLOSE = "half-close"  # PostgreSQL gets the marked bytes, then the end of the stream


class Proxy:
    """``async with Proxy(socket) as proxy``: ``proxy.port`` leads to the socket's PostgreSQL.

    ``connects``: connections taken or refused; ``hits``: faults that happened.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self.connects = 0
        self.hits = 0
        self.refuse = False  # new connections are closed at once
        self.bytes_per_s: float | None = None  # each direction of each connection
        self._fault: Fault | None = None
        self._mark = b""
        self._cut: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def arm(self, fault: Fault, mark: bytes) -> None:
        """The next bytes towards PostgreSQL that hold ``mark`` meet the fault, once."""
        self._fault, self._mark = fault, mark

    def cut_all(self) -> None:
        """All connections end at once."""
        for writer in self._cut:
            writer.transport.abort()
        self._cut.clear()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connects += 1
        if self.refuse:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_unix_connection(str(self._target))
        ends = {writer, there_writer}
        self._cut |= ends
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        stalled = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forth(reader, there_writer, ends, stalled))
                group.create_task(self._back(there_reader, writer, stalled))
        except* (OSError, asyncio.CancelledError):
            pass  # cut, or the end of the test
        finally:
            self._tasks.discard(task)
            for end in ends:
                end.transport.abort()
            self._cut -= ends

    async def _forth(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ends: set[asyncio.StreamWriter],
        stalled: asyncio.Event,
    ) -> None:
        while data := await reader.read(READ_BYTES):
            fault = self._fault if self._mark in data else None
            if fault is not None:
                self._fault = None
                self.hits += 1
                if fault is Fault.CUT_BEFORE:
                    raise ConnectionAbortedError
                stalled.set()  # the answer is not passed on
                if fault is Fault.STALL:
                    await reader.read()
                    return
            await self._pass(data, writer)
            if fault is Fault.HALF_CLOSE:
                writer.write_eof()
            if fault is Fault.CUT_AFTER:
                await asyncio.sleep(0.2)  # PostgreSQL does what it was told
            if fault is not None:
                raise ConnectionAbortedError
        raise ConnectionAbortedError

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stalled: asyncio.Event
    ) -> None:
        while data := await reader.read(READ_BYTES):
            if not stalled.is_set():
                await self._pass(data, writer)
        if not stalled.is_set():
            raise ConnectionAbortedError

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if self.bytes_per_s is not None:
            await asyncio.sleep(len(data) / self.bytes_per_s)
