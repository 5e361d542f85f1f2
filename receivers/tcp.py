"""Streams over TCP: whole buffers go to the parser, an idle connection holds no buffer.

All connections of a listener are read into one shared buffer: the event loop fills it and hands it over
in one go, so only the unfinished tail of a connection has to be kept in between. A short
tail is put in front of the next bytes; a long one (a frame of the pickle format) grows apart until it
is complete. Nothing is parsed before the length that the wire format wants is there. This needs a loop that asks for the buffer when there is something to read (asyncio's
selector loops, uvloop), not one that holds on to it while it waits (Windows' proactor).
What is read at a time, and in one turn of the loop, is limited by the time that it takes (turns.py). What a connection has sent when the turn's
time is spent is kept unparsed, and the connection isn't read until its turn comes.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

from receivers.sink import Sink, WireFormat
from receivers.turns import PIECE_BYTES_MIN, Ahead, Piece, Turns
from tgres_py import clock
from tgres_py.accept import Acceptor, Handshakes, TlsShare
from tgres_py.measure import QUICK_S, Histogram
from tgres_py.model.networks import Networks
from tgres_py.model.points import Parsed, Reason, empty_block
from tgres_py.sockets import bind_all

TAIL_IN_FRONT_MAX = 32_768  # tails up to this length are copied in front of the next bytes
SAMPLE_BYTES_MAX = 120
DRAIN_QUIET_S = 0.05


@dataclass(frozen=True, slots=True)
class TcpLimits:
    """``connections_max`` (TLS handshakes included) and ``tail_bytes_max`` (unfinished lines and frames) hold for all
    listeners that share their Totals; ``idle_s``: a connection that is silent for longer is closed, 0 = never;
    ``allowed``: who may connect; ``tls``: None = plain."""

    connections_max: int = 5_000
    idle_s: float = 0.0
    buffer_bytes: int = 262_144
    tail_bytes_max: int = 67_108_864
    allowed: Networks = field(default_factory=Networks)
    tls: TlsShare | None = None


@dataclass(slots=True)
class Totals:
    """What the listeners that share it have open and hold at the moment."""

    connections: int = 0
    handshakes: Handshakes = field(default_factory=Handshakes)
    tail_bytes: int = 0
    turns: Turns = field(default_factory=Turns)


class TcpListener:
    """One listening address.

    ``accepted``, ``reads``, ``bytes`` count connections, reads and what was read since the start (those that were kept out are
    the ``acceptor``'s); ``busy``: seconds that the event loop was held by what was read at a time.
    """

    def __init__(
        self, name: str, wire: WireFormat, sink: Sink, limits: TcpLimits, totals: Totals
    ) -> None:
        self.name = name
        self.wire = wire
        self.sink = sink
        self.limits = limits
        self.totals = totals
        self.accepted = 0
        self.piece_bytes_max = limits.buffer_bytes + TAIL_IN_FRONT_MAX
        self.buffer = memoryview(bytearray(self.piece_bytes_max))
        self.reads = 0
        self.bytes = 0
        self.busy = Histogram(QUICK_S)
        self.connections: set[Connection] = set()
        self.acceptor = Acceptor(
            name,
            lambda: Connection(self),
            limits.allowed,
            limits.tls,
            lambda: limits.connections_max - totals.connections,
            totals.handshakes,
        )
        self._waiting = False
        self._idle_check: asyncio.TimerHandle | None = None

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) that it listens on; of a unix socket (path, 0)."""
        return self.acceptor.address

    @property
    def refused(self) -> int:
        """Connections beyond the limit."""
        return self.acceptor.refused

    async def listen(self, sockets: list[socket.socket]) -> None:
        """Takes the bound sockets over and accepts connections on them."""
        self.acceptor.listen(sockets)
        if self.limits.idle_s > 0:
            self._schedule_idle_check(asyncio.get_running_loop())

    def close(self) -> None:
        """Stops listening; open connections are read on, those that wait for being accepted as well."""
        self.acceptor.close()

    async def drain(self, timeout_s: float = 2.0) -> None:
        """Reads until nothing more comes (or the time is over), then closes the connections."""
        deadline = clock.monotonic() + timeout_s
        await self.acceptor.joined(timeout_s)
        seen = -1
        while self.connections and clock.monotonic() < deadline:
            if seen == self.reads and not self._waiting and not self.totals.turns.waiting:
                break
            seen = self.reads
            await asyncio.sleep(DRAIN_QUIET_S)
        if self._idle_check:
            self._idle_check.cancel()
        self.acceptor.abort()
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)

    def accept(self, parsed: Parsed, peer: str) -> None:
        """Gives points to the sink; all connections stop reading when it is full."""
        if parsed.received:
            self.sink.accept(self.name, parsed, peer)
        if self.sink.paused:
            self.wait_for_room()

    def wait_for_room(self) -> None:
        if self._waiting:
            return
        self._waiting = True
        for connection in self.connections:
            connection.pause()
        self.sink.on_room(self._resume)

    def _resume(self) -> None:
        self._waiting = False
        if self.sink.paused:
            self.wait_for_room()
            return
        for connection in self.connections:
            connection.resume()

    @property
    def waiting(self) -> bool:
        """True while the sink has no room."""
        return self._waiting

    def _schedule_idle_check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._idle_check = loop.call_later(self.limits.idle_s / 4, self._close_idle, loop)

    def _close_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._waiting:
            oldest = clock.monotonic() - self.limits.idle_s
            for connection in [c for c in self.connections if c.last_read < oldest]:
                connection.abort()
        self._schedule_idle_check(loop)


class Connection(asyncio.BufferedProtocol):
    """One sender: its unfinished tail and whether it is read."""

    def __init__(self, listener: TcpListener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._tail = bytearray()
        self._wanted = 1
        self._in_front = 0
        self._piece = Piece(listener.piece_bytes_max)
        self._at_once = 0  # bytes of the next read that are parsed when it comes
        self._put_off = b""  # what follows the tail and isn't parsed before its turn
        self._ahead: Ahead | None = None  # time of its own for the next reads
        self._resume_soon: asyncio.Handle | None = None
        self.last_read = clock.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's class isn't derived from asyncio's
        listener = self._listener
        if listener.totals.connections >= listener.limits.connections_max:
            listener.acceptor.refused += 1
            stream.abort()
            return
        self._transport = stream
        self._peer = _text_of(stream.get_extra_info("peername"))
        listener.accepted += 1
        listener.totals.connections += 1
        listener.connections.add(self)
        if listener.sink.paused:
            listener.wait_for_room()
        if listener.waiting:
            # uvloop starts to read after this call, whatever was asked for in it.
            asyncio.get_running_loop().call_soon(self._pause_if_waiting)
            self.pause()

    def get_buffer(self, sizehint: int) -> memoryview:
        """The shared buffer, behind this connection's tail if that is short; as much of it as may be read now."""
        listener = self._listener
        buffer = listener.buffer
        self._in_front = len(self._tail) if len(self._tail) <= TAIL_IN_FRONT_MAX else 0
        if self._in_front:
            buffer[: self._in_front] = self._tail
        turns = listener.totals.turns
        if self._ahead is not None and not turns.holds(self._ahead):
            self._ahead = None
        too_late = turns.over and self._ahead is None
        most = min(self._piece.bytes, listener.sink.piece_bytes_max)
        if too_late:
            most = PIECE_BYTES_MIN
        offered = buffer[self._in_front : self._in_front + most]
        self._at_once = 0 if too_late else len(offered)
        return offered

    def buffer_updated(self, nbytes: int) -> None:
        if self._transport is None:
            return
        self._listener.reads += 1
        self._listener.bytes += nbytes
        size = min(nbytes, self._at_once)
        begin, begin_cpu = _now(size)
        self.last_read = begin
        data = self._listener.buffer[: self._in_front + size]
        if size < nbytes:
            self._keep_for_later(self._listener.buffer[self._in_front :][size:nbytes])
        if not size:
            pass
        elif self._in_front == len(self._tail) and len(data) >= self._wanted:
            self._parse(data)
        else:
            self._grow(data[self._in_front :])
        if self._put_off:
            self._wait_for_turn()
        elif size == self._at_once and not self._listener.waiting:
            self._let_others_read()
        self._spend(size, begin, begin_cpu)

    def _spend(self, size: int, begin: float, begin_cpu: float) -> None:
        if begin_cpu:
            self._piece.took(size, time.thread_time() - begin_cpu)
        seconds = clock.monotonic() - begin
        self._listener.totals.turns.spend(seconds, self._ahead)
        self._listener.busy.observe(seconds)

    def _keep_for_later(self, data: memoryview) -> None:
        self._listener.totals.tail_bytes += len(data)
        self._put_off += data

    def _wait_for_turn(self) -> None:
        """Reads on when the turn of what is kept for later has come."""
        self.pause()
        self._listener.totals.turns.put_off(self._take_turn)
        self._check_tails()

    def _take_turn(self) -> None:
        listener = self._listener
        if listener.waiting or self._transport is None:  # else ``resume`` puts it off again
            return
        if self._put_off:
            begin, begin_cpu = _now(len(self._put_off))
            self._spend(self._parse_put_off(), begin, begin_cpu)
        if not listener.waiting:
            if not self._put_off:
                self._ahead = listener.totals.turns.give()
            self.resume()

    def _parse_put_off(self) -> int:
        """Parses a piece of what was kept for later; its size."""
        most = min(self._piece.bytes, self._listener.sink.piece_bytes_max)
        piece, self._put_off = self._put_off[:most], self._put_off[most:]
        self._listener.totals.tail_bytes -= len(piece)
        self._grow(memoryview(piece))
        return len(piece)

    def eof_received(self) -> None:
        """The sender is done: what it sent last is complete, even without its line feed."""
        while self._put_off:
            self._parse_put_off()
        if self._tail and self._transport is not None:
            tail = bytes(self._tail)
            self._keep(b"")
            listener = self._listener
            listener.accept(
                listener.wire.finish(tail, clock.now_s(), listener.sink.registry), self._peer
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that broke in mid-line may have cut it: the torn line is counted, not taken."""
        while self._put_off:
            self._parse_put_off()
        if self._tail:
            self._reject(Reason.MALFORMED)
        if self._resume_soon:
            self._resume_soon.cancel()
        if self._transport is not None:
            self._listener.connections.discard(self)
            self._listener.totals.connections -= 1
        self._transport = None

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        self._resume_soon = None
        self.last_read = clock.monotonic()
        if self._put_off:
            self._listener.totals.turns.put_off(self._take_turn)
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _pause_if_waiting(self) -> None:
        if self._listener.waiting:
            self.pause()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _let_others_read(self) -> None:
        """uvloop reads one socket up to 32 times in a row while it fills the buffer: not at others' cost."""
        self.pause()
        turns = self._listener.totals.turns
        if turns.waiting:
            turns.put_off(self._take_turn)
        else:
            loop = asyncio.get_running_loop()
            self._resume_soon = loop.call_soon(self._resume_unless_waiting)

    def _resume_unless_waiting(self) -> None:
        self._resume_soon = None
        if not self._listener.waiting:
            self.resume()

    def _grow(self, data: memoryview) -> None:
        """Adds to a tail that is long or lacks much, and parses it once it is long enough."""
        self._add(data)
        if len(self._tail) >= self._wanted:
            self._parse(self._tail)
        else:
            self._check_tails()

    def _add(self, data: memoryview) -> None:
        self._listener.totals.tail_bytes += len(data)
        self._tail += data

    def _parse(self, data: memoryview | bytearray) -> None:
        listener = self._listener
        parsed = listener.wire.parse(data, clock.now_s(), listener.sink.registry)
        self._keep(parsed.rest)
        self._wanted = listener.wire.wanted(parsed.rest)
        listener.accept(parsed, self._peer)
        if self._wanted < 0:
            self._keep(b"")
            self._drop_put_off()
            self.abort()
        else:
            self._check_tails()

    def _keep(self, rest: bytes) -> None:
        self._listener.totals.tail_bytes += len(rest) - len(self._tail)
        self._tail = bytearray(rest)

    def _check_tails(self) -> None:
        if self._listener.totals.tail_bytes > self._listener.limits.tail_bytes_max:
            self._reject(Reason.LIMIT)
            self._drop_put_off()
            self.abort()

    def _drop_put_off(self) -> None:
        self._listener.totals.tail_bytes -= len(self._put_off)
        self._put_off = b""

    def _reject(self, reason: Reason) -> None:
        """Counts the unfinished tail as one refused point and forgets it."""
        sample = bytes(self._tail[:SAMPLE_BYTES_MAX])
        self._keep(b"")
        parsed = Parsed(empty_block(), Counter({reason: 1}), [(reason, sample)])
        self._listener.sink.accept(self._listener.name, parsed, self._peer)


def _now(size: int) -> tuple[float, float]:
    """(clock, CPU time of the thread) before ``size`` bytes are parsed; no CPU time of less than any piece: it takes
    a system call, and says nothing of a piece's size.
    """
    return clock.monotonic(), time.thread_time() if size >= PIECE_BYTES_MIN else 0.0


def _text_of(peername: object) -> str:
    if isinstance(peername, tuple) and len(peername) >= 2:
        return f"{peername[0]}:{peername[1]}"
    return ""


async def start(
    name: str,
    host: str,
    port: int,
    wire: WireFormat,
    sink: Sink,
    limits: TcpLimits | None = None,
    totals: Totals | None = None,
) -> TcpListener:
    """Listens on ``host``:``port`` (port 0 = any free one); ConfigError when that can't be bound.

    ``name`` is the receiver's label in metrics; listeners given the same ``totals`` share their limits.
    """
    listener = TcpListener(name, wire, sink, limits or TcpLimits(), totals or Totals())
    await listener.listen(bind_all(name, host, port, socket.SOCK_STREAM))
    return listener
