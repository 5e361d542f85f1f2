"""Datagrams over UDP: emptied from the kernel first, parsed later.

A thread per listener does nothing but read: what is lost in UDP is lost because the kernel's buffer
was full while nobody read. It hands whole buffers to the event loop through a queue with a limit in bytes.
When the queue is full it reads on and counts the lines it throws away (OVERLOAD), so the ledger
stays exact; what the kernel itself dropped is read from /proc/net/udp and udp6. The queue is full, too, when parsing what it
holds would take longer than ``queue_s_max``: garbage costs a hundred times as much a byte as points do.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np

from receivers.sink import Parse, Sink
from receivers.turns import Piece
from tgres_py import clock
from tgres_py.kernels import udp as kernel
from tgres_py.measure import QUICK_S, Histogram
from tgres_py.model.networks import Networks
from tgres_py.model.points import Parsed, Reason, empty_block
from tgres_py.sockets import address_of, bind_all

SO_RCVBUFFORCE = 33  # Linux; lets root exceed net.core.rmem_max
# What one small datagram takes of the receive buffer (skb and its bookkeeping), and the rate to hold out.
DATAGRAM_COST_BYTES = 768
DATAGRAMS_PER_S = 400_000
POLL_MS = 1_000
ROUNDS_MAX = 256
S_PER_BYTE_FIRST = 1e-7  # before anything is known: ten times what points cost
SENDERS_MAX = 10_000  # addresses that are told apart while somebody watches
FULL_PAUSE_S = 0.05  # of the reader while its queue is full: it only counts, and the loop needs the interpreter's lock more
PIECE_BYTES_MAX = 131_072  # garbage may follow good lines: the first piece of it is as large
PROC_TABLES = ("/proc/net/udp", "/proc/net/udp6")


@dataclass(frozen=True, slots=True)
class UdpLimits:
    """``rcvbuf_bytes``: asked of the kernel, which may give less; ``queue_bytes_max``: read but not
    yet parsed; ``queue_s_max``: CPU-seconds that parsing it would take; ``gather_s``: longest time that datagrams gather
    in the kernel between two reads; ``allowed``: whose datagrams are taken."""

    rcvbuf_bytes: int = 33_554_432
    buffer_bytes: int = 4_194_304
    datagrams_max: int = 8_192
    queue_bytes_max: int = 67_108_864
    queue_s_max: float = 2.0
    gather_s: float = 0.005
    allowed: Networks = field(default_factory=Networks)


class UdpListener:
    """One listening address.

    ``datagrams`` and ``bytes`` count what was read since the start; ``busy``: seconds that the event loop
    was held by one buffer.
    """

    def __init__(
        self, name: str, parse: Parse, sink: Sink, limits: UdpLimits, sockets: list[socket.socket]
    ) -> None:
        self.name = name
        self.parse = parse
        self.sink = sink
        self.limits = limits
        self.address = address_of(sockets[0])
        self.datagrams = 0
        self.bytes = 0
        self.forbidden = 0  # datagrams that the allow-list kept out
        self.busy = Histogram(QUICK_S)
        self.rcvbuf_bytes = min(_enlarge(sock, limits.rcvbuf_bytes) for sock in sockets)
        self._sockets = sockets
        self._inodes = {os.fstat(sock.fileno()).st_ino for sock in sockets}
        self._kernel_drops = 0
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # guards the four below
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0  # those of the buffer that is being parsed included
        self._overload = 0
        self._scheduled = False
        self._full = False  # what was read last found no room in the queue
        self._data = b""  # of the queue, in pieces
        self._at = 0
        self._piece = Piece(PIECE_BYTES_MAX)
        self._s_per_byte = S_PER_BYTE_FIRST  # of CPU, in the latest pieces
        self._senders: Counter[str] = Counter()
        self._watchers = 0
        self._stop, self._stopper = socket.socketpair()
        self._thread = threading.Thread(target=self._read, name=f"udp-{name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Reads what the kernel holds, then stops listening; what was read is still parsed."""
        if self._thread.is_alive():
            self._stopper.send(b"x")
            self._thread.join()
        self._kernel_drops = self.kernel_drops()
        for sock in (*self._sockets, self._stop, self._stopper):
            sock.close()
        self._sockets = []

    async def drain(self, timeout_s: float = 2.0) -> None:
        """Waits until what was read is parsed; counts what a full sink kept from it as OVERLOAD."""
        deadline = clock.monotonic() + timeout_s
        while self._queued_bytes and clock.monotonic() < deadline:
            if not self.sink.paused:
                self._parse_one()
            await asyncio.sleep(0.005 if self.sink.paused else 0)
        with self._lock:
            self._overload += sum(data.count(b"\n") for data in self._queue)
            self._overload += self._data.count(b"\n", self._at)
            self._data, self._at = b"", 0
            self._queue.clear()
            self._queued_bytes = 0
        self._report_overload()

    def kernel_drops(self) -> int:
        """Datagrams that the kernel dropped because this listener's buffer was full; 0 without /proc."""
        if not self._sockets:
            return self._kernel_drops
        return sum(_drops_in(table, self._inodes) for table in PROC_TABLES)

    @contextmanager
    def watched_senders(self) -> Iterator[Callable[[], Counter[str]]]:
        """While the block runs senders are told apart: all datagrams of one emptying of the socket are
        counted for the sender of the first. The function gives datagrams by address since its last call.
        """
        self._watchers += 1
        before: Counter[str] = Counter(self._senders)

        def since() -> Counter[str]:
            nonlocal before
            now = Counter(self._senders)
            grown, before = now - before, now
            return grown

        try:
            yield since
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._senders = Counter()

    @property
    def queued_bytes(self) -> int:
        """Read, not yet parsed."""
        return self._queued_bytes

    # The reading thread

    def _read(self) -> None:
        buffer = memoryview(bytearray(self.limits.buffer_bytes + kernel.DATAGRAM_BYTES_MAX + 1))
        poll = select.poll()
        for readable in (*self._sockets, self._stop):
            poll.register(readable, select.POLLIN)
        pause_s = min(
            self.limits.gather_s, self.rcvbuf_bytes / DATAGRAM_COST_BYTES / DATAGRAMS_PER_S
        )
        stopping = False
        while not stopping:
            ready = {fd for fd, _ in poll.poll(POLL_MS)}
            stopping = self._stop.fileno() in ready
            for sock in self._sockets:
                if stopping or sock.fileno() in ready:
                    self._empty(sock, buffer)
            if not stopping:  # one wake-up for many datagrams
                time.sleep(FULL_PAUSE_S if self._full else pause_s)

    def _empty(self, sock: socket.socket, buffer: memoryview) -> None:
        """Reads until nothing is left, at most ROUNDS_MAX buffers: a flood can't keep close() waiting."""
        with suppress(OSError):  # the network is down or has no memory: the next poll tries again
            for _ in range(ROUNDS_MAX):
                used, datagrams = self._drain(sock, buffer)
                self.datagrams += datagrams
                self.bytes += used
                if used:
                    self._hand_over(buffer[:used])
                if used < self.limits.buffer_bytes and datagrams < self.limits.datagrams_max:
                    return

    def _drain(self, sock: socket.socket, buffer: memoryview) -> tuple[int, int]:
        if not self.limits.allowed.open:
            return self._drain_allowed(sock, buffer)
        if not self._watchers:
            return kernel.drain(sock, buffer, self.limits.datagrams_max)
        used, datagrams, host = kernel.drain_named(sock, buffer, self.limits.datagrams_max)
        if host is not None:
            known = host in self._senders or len(self._senders) < SENDERS_MAX
            self._senders[host if known else "(others)"] += datagrams
        return used, datagrams

    def _drain_allowed(self, sock: socket.socket, buffer: memoryview) -> tuple[int, int]:
        """One datagram at a time: the native reader gives no senders."""
        used, datagrams, forbidden = kernel.drain_allowed(
            sock, buffer, self.limits.datagrams_max, self.limits.allowed, self._count_sender
        )
        self.forbidden += forbidden
        return used, datagrams

    def _count_sender(self, host: str) -> None:
        if self._watchers:
            known = host in self._senders or len(self._senders) < SENDERS_MAX
            self._senders[host if known else "(others)"] += 1

    def _hand_over(self, data: memoryview) -> None:
        self._full = self._is_full(self._queued_bytes + len(data))
        lost = _lines_in(data) if self._full else 0
        kept = b"" if self._full else bytes(data)
        with self._lock:
            self._overload += lost
            if kept:
                self._queue.append(kept)
                self._queued_bytes += len(kept)
            schedule = not self._scheduled
            self._scheduled = True
        with suppress(RuntimeError):  # the loop is closed: the server is gone
            if schedule:
                self._loop.call_soon_threadsafe(self._parse_next)
            elif lost:  # nothing may be parsed for long
                self._loop.call_soon_threadsafe(self._report_overload)

    def _is_full(self, queued_bytes: int) -> bool:
        """Whether so many bytes are too many, as their count or as the time that they will take."""
        if queued_bytes > self.limits.queue_bytes_max:
            return True
        waits = self._queued_bytes > 0  # one buffer is always taken: what it costs is seen then
        return waits and queued_bytes * self._s_per_byte > self.limits.queue_s_max

    # The event loop

    def _parse_next(self) -> None:
        """Parses one piece, then lets others run."""
        self._report_overload()
        if self.sink.paused:
            self.sink.on_room(self._parse_next)
        elif self._parse_one():
            self._loop.call_soon(self._parse_next)

    def _parse_one(self) -> bool:
        """False when nothing was left to parse: the thread calls again when there is."""
        if self._at == len(self._data):
            with self._lock:
                if not self._queue:
                    self._scheduled = False
                    self._data, self._at = b"", 0
                    return False
                self._data, self._at = self._queue.popleft(), 0
        data = self._next_piece()
        begin, begin_cpu = clock.monotonic(), time.thread_time()
        parsed = self.parse(data, clock.now_s(), self.sink.registry)
        if parsed.received:
            self.sink.accept(self.name, parsed, "")
        self.busy.observe(clock.monotonic() - begin)
        seconds = time.thread_time() - begin_cpu
        self._piece.took(len(data), seconds)
        self._s_per_byte += 0.2 * (seconds / len(data) - self._s_per_byte)
        with self._lock:
            self._queued_bytes -= len(data)
        return True

    def _next_piece(self) -> memoryview:
        """Whole lines of the current buffer, about as many as the piece says, one at least."""
        data, first = self._data, self._at
        end = len(data)
        most = min(self._piece.bytes, self.sink.piece_bytes_max)
        if first + most < end:
            end = data.rfind(b"\n", first, first + most) + 1
            if not end:  # a line that is longer
                end = data.find(b"\n", first) + 1 or len(data)
        self._at = end
        return memoryview(data)[first:end]

    def _report_overload(self) -> None:
        with self._lock:
            lost, self._overload = self._overload, 0
        if lost:
            self.sink.accept(self.name, Parsed(empty_block(), Counter({Reason.OVERLOAD: lost})), "")


def _lines_in(data: memoryview) -> int:
    """How many line feeds; in numpy, which lets the event loop run meanwhile."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == 0x0A))


def _enlarge(sock: socket.socket, size: int) -> int:
    """Sets the receive buffer as near to ``size`` as allowed; what the kernel accounts to it, bytes."""
    for option in (SO_RCVBUFFORCE, socket.SO_RCVBUF):
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, size)
            break
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _drops_in(table: str, inodes: set[int]) -> int:
    """Sum of column drops of the sockets in one of the kernel's tables."""
    drops = 0
    with suppress(OSError), open(table, encoding="ascii") as rows:
        next(rows, None)
        for row in rows:
            fields = row.split()
            if int(fields[9]) in inodes:
                drops += int(fields[12])
    return drops


async def start(
    name: str, host: str, port: int, parse: Parse, sink: Sink, limits: UdpLimits | None = None
) -> UdpListener:
    """Listens on ``host``:``port`` (port 0 = any free one); ConfigError when that can't be bound.

    ``name`` is the receiver's label in metrics.
    """
    sockets = bind_all(name, host, port, socket.SOCK_DGRAM)
    return UdpListener(name, parse, sink, limits or UdpLimits(), sockets)
