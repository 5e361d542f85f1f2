"""A TCP proxy between server and PostgreSQL that makes trouble where it is told to.

It sits before a unix socket and listens on a port of its own, in the loop of the test. Bytes towards
PostgreSQL are matched against a mark (``COMMIT`` …), so that a fault can be put at a step of a flush.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tests.adversity.loop_thread import LoopThread

READ_BYTES = 1 << 16

T = TypeVar("T")


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
        self.target = target  # of new connections
        self.connects = 0
        self.hits = 0
        self.refuse = False  # new connections are closed at once
        self.bytes_per_s: float | None = None  # each direction of each connection
        self.delay_s = 0.0  # of each piece, in each direction
        self._passing = asyncio.Event()
        self._passing.set()
        self._fault: Fault | None = None
        self._mark = b""
        self._cut: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.close()
        self.cut_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def arm(self, fault: Fault, mark: bytes) -> None:
        """The next bytes towards PostgreSQL that hold ``mark`` meet the fault, once."""
        self._fault, self._mark = fault, mark

    def freeze(self, frozen: bool) -> None:
        """While frozen, connections are taken and stay open, and nothing passes; then all goes on."""
        if frozen:
            self._passing.clear()
        else:
            self._passing.set()

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
        try:
            there_reader, there_writer = await asyncio.open_unix_connection(str(self.target))
        except OSError:  # nobody is there
            writer.transport.abort()
            return
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
        await self._passing.wait()
        await asyncio.sleep(self.delay_s)
        writer.write(data)
        await writer.drain()
        if self.bytes_per_s is not None:
            await asyncio.sleep(len(data) / self.bytes_per_s)


class ProxyThread:
    """A proxy with a loop of its own, for tests that block: ``do(lambda proxy: …)`` runs in that loop."""

    def __init__(self, proxy: Proxy, loop: LoopThread) -> None:
        self._proxy = proxy
        self._loop = loop

    @property
    def port(self) -> int:
        return self._proxy.port

    @property
    def connects(self) -> int:
        return self._proxy.connects

    def do(self, change: Callable[[Proxy], T]) -> T:
        async def run() -> T:
            return change(self._proxy)

        return self._loop.run(run())


@contextmanager
def proxy_thread(target: Path) -> Iterator[ProxyThread]:
    """A proxy before a unix socket, until the block ends."""

    async def start() -> Proxy:
        return await Proxy(target).__aenter__()

    with LoopThread() as loop:
        proxy = loop.run(start())
        try:
            yield ProxyThread(proxy, loop)
        finally:
            loop.run(proxy.__aexit__(None, None, None))
