"""One worker process, as the server sees it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress

from http_api.workers.wire import HEAD, PAYLOAD_BYTES_MAX, Kind, MemoryFile, frame, pack
from tgres_py import clock
from tgres_py.errors import WorkerFailed

BUFFER_BYTES = 1 << 20
FRAMES_WAITING = 2
# a worker has one thread's share of the machine
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

LAST = (Kind.READY, Kind.END, Kind.ERROR, Kind.FAULT)

Frame = tuple[Kind, bytearray]


class WorkerGone(WorkerFailed):
    """The process ended by itself, or says what it mustn't."""

    def __init__(self) -> None:
        super().__init__(
            "the process that made this answer ended, perhaps for want of memory; "
            "the log of the server has more"
        )


class WorkerProcess:
    """A running process; ``end`` ends it. Frames are read as they are asked for, but two.

    ``is_done``: it waits for an order; ``is_gone``: nothing comes from it any more.
    """

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.process = process
        self.sock = sock
        self.idle_since_s = clock.monotonic()
        self.is_done = False
        self.is_gone = False
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue(FRAMES_WAITING)
        self._reading = asyncio.create_task(self._read(), name=f"render-worker-{process.pid}")

    @classmethod
    async def start(cls, *arguments: str) -> WorkerProcess:
        """A process that says READY once it has its modules. OSError: it can't be started."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        try:
            process = await asyncio.to_thread(_spawn, theirs.fileno(), arguments)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours)

    @property
    def pid(self) -> int:
        return self.process.pid

    async def _read(self) -> None:
        try:
            while True:
                length, kind = HEAD.unpack(await self._exactly(HEAD.size))
                if length > PAYLOAD_BYTES_MAX:
                    break
                await self._frames.put((Kind(kind), await self._exactly(length)))
        except (OSError, ValueError, WorkerGone):
            pass
        self.is_gone = True
        await self._frames.put(None)

    async def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        loop = asyncio.get_running_loop()
        done = 0
        while done < size:
            got = await loop.sock_recv_into(self.sock, view[done:])
            if not got:
                raise WorkerGone
            done += got
        return data

    async def receive(self) -> Frame:
        """The next frame. WorkerGone."""
        frame_ = await self._frames.get()
        if frame_ is None:
            self._frames.put_nowait(None)
            raise WorkerGone
        self.is_done = frame_[0] in LAST
        return frame_

    def order(self, kind: Kind, file: MemoryFile, start: int, size: int) -> None:
        """Sends a job or a round whose message is in ``file``. WorkerGone."""
        payload = pack([start, size])
        self.is_done = False
        try:
            # a worker that waits for an order has an empty socket: it goes out at once
            socket.send_fds(self.sock, [frame(kind, payload)], [file.fd])
        except OSError as error:
            raise WorkerGone from error

    def kill(self) -> None:
        """Ends the process now."""
        self.process.kill()

    async def end(self) -> int:
        """Kills the process and waits for its end; its exit code."""
        self.kill()
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading
        self.sock.close()
        return await asyncio.to_thread(self.process.wait)


def _spawn(fd: int, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Not asyncio's: its loops may fork, which takes long in a process of many gigabytes."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "http_api.workers.worker", str(fd), *arguments],
        stdin=subprocess.DEVNULL,
        pass_fds=(fd,),
        env=_environment(os.environ),
    )


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """The modules are found where the server found them, and nowhere else."""
    return {**given, **THREADS, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
