"""statsd's wire and its flush: datagrams and streams to an Aggregator, on the grid of the wall clock into the sink.

    datagram  = line { LF line }       UTF-8; UDP, and a unix datagram socket beside it; the last line needs no LF
    stream    = { line LF }            TCP, ASCII: the eighth bit of each byte is dropped; what follows the last LF waits for
                                       the next read, and is dropped when the connection ends
    line      tgres_py/statsd/parser.py, up to LINE_BYTES_MAX; a longer one is a bad line

A datagram counts as a packet, and so does each read of a stream that ends at least one line. Rules: servers/udp.js and tcp.js
of npm statsd 0.9.0.

All values of a flush have the time of the grid point that ends their interval. Lines aren't points: the ledger counts what
a flush makes of them, under the receiver ``statsd``, and the lines that a full queue lost.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from receivers import tcp, udp
from receivers.sink import Data, NameRegistry, Sink, WireFormat
from receivers.sockets import bind_all
from tgres_py import clock
from tgres_py.errors import ConfigError
from tgres_py.model.points import Ids, Parsed, PointBlock, Reason, Times, Values, empty_block
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.parser import LINE_BYTES_MAX

NAME = "statsd"  # the receiver's label in metrics
_SEVEN_BITS = bytes(byte & 0x7F for byte in range(256))


class StatsdSink:
    """The sink as statsd's transports see it: what they read is aggregated, so it never has to wait."""

    paused = False

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    @property
    def registry(self) -> NameRegistry:
        return self._sink.registry

    def accept(self, receiver: str, parsed: Parsed, peer: str) -> None:
        self._sink.accept(receiver, parsed, peer)

    def on_room(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)


class _DatagramParser:
    """Gives buffers of one listener to the aggregator, and how many datagrams they were, empty ones too."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator
        self._counted = 0
        self.listener: udp.UdpListener | None = None

    def __call__(self, data: Data, now_s: int, registry: NameRegistry) -> Parsed:
        total = self.listener.datagrams if self.listener else self._counted
        self._aggregator.add(bytes(data), total - self._counted, now_s)
        self._counted = total
        return Parsed(empty_block())


class StatsdReceiver:
    """One Aggregator with its listeners; all of it belongs to the event loop's thread."""

    def __init__(self, aggregator: Aggregator, sink: Sink) -> None:
        self.aggregator = aggregator
        self._sink = sink
        self._ids: dict[str, int] = {}

    # -- wire --------------------------------------------------------------------------------

    async def listen_udp(
        self,
        name: str,
        host: str,
        port: int,
        limits: udp.UdpLimits,
        path: str = "",
        mode: str = "",
    ) -> udp.UdpListener:
        """Takes datagrams on an address, and on a unix socket if ``path`` is given; ``mode``: octal file mode."""
        sockets = bind_all(name, host, port, socket.SOCK_DGRAM)
        if path:
            try:
                sockets.append(_bind_unix(path, mode))
            except OSError as error:
                for sock in sockets:
                    sock.close()
                raise ConfigError(f"{name}: can't listen on {path}: {error.strerror}") from None
        parse = _DatagramParser(self.aggregator)
        listener = udp.UdpListener(name, parse, StatsdSink(self._sink), limits, sockets)
        parse.listener = listener
        return listener

    async def listen_tcp(
        self, name: str, host: str, port: int, limits: tcp.TcpLimits, totals: tcp.Totals
    ) -> tcp.TcpListener:
        wire = WireFormat(self._parse_stream, _drop, lambda rest: len(rest) + 1)
        return await tcp.start(name, host, port, wire, StatsdSink(self._sink), limits, totals)

    def _parse_stream(self, data: Data, now_s: int, registry: NameRegistry) -> Parsed:
        text = bytes(data).translate(_SEVEN_BITS)
        end = text.rfind(b"\n") + 1
        if end:
            self.aggregator.add(text[:end], 1, now_s)
        return Parsed(empty_block(), rest=text[end : end + LINE_BYTES_MAX + 1])

    # -- flush -------------------------------------------------------------------------------

    def flush(self, stamp_s: int) -> int:
        """Gives all that was aggregated to the sink, with this time; how many points that are."""
        aggregator = self.aggregator
        names, values = aggregator.flush_columns(stamp_s)
        times = np.full(len(values), stamp_s, np.int64)
        timed = aggregator.take_timed()
        if timed:
            names = names + [point.name for point in timed]
            times = np.concatenate([times, np.array([p.time_s for p in timed], np.int64)])
            values = np.concatenate([values, np.array([p.value for p in timed], np.float64)])
        parsed = self._parsed(names, times, values)
        self._sink.accept(NAME, parsed, "")
        return len(parsed.block)

    def _parsed(self, names: list[str], times: Times, values: Values) -> Parsed:
        ids, rejected = self._resolve(names)
        unknown = np.isnan(values)
        rejected[Reason.NAN] += int((unknown & (ids >= 0)).sum())
        taken = (ids >= 0) & ~unknown
        return Parsed(PointBlock(ids[taken], times[taken], values[taken]), +rejected)

    def _resolve(self, names: Sequence[str]) -> tuple[Ids, Counter[Reason]]:
        """Ids of names, remembered; -1 where refused."""
        get = self._ids.get
        ids = np.fromiter((get(name, -1) for name in names), np.int32, len(names))
        new = np.flatnonzero(ids < 0)
        rejected: Counter[Reason] = Counter()
        if len(new):
            wanted = [names[i] for i in new.tolist()]
            found, refused = self._sink.registry.resolve([name.encode() for name in wanted])
            ids[new] = found
            self._ids.update(
                (name, i) for name, i in zip(wanted, found.tolist(), strict=True) if i >= 0
            )
            rejected.update(refused.values())
        return ids, rejected

    async def run(self) -> None:
        """Flushes at each point of the grid, until it is cancelled."""
        interval_s = self.aggregator.settings.interval_s
        due = next_flush(clock.now(), interval_s)
        while True:
            now = clock.now()
            if now < due - interval_s:  # the clock was set back
                due = next_flush(now, interval_s)
            if now < due:
                await asyncio.sleep(due - now)
                continue
            due = next_flush(now, interval_s)
            self.flush(round(due - interval_s))

    def flush_last(self) -> None:
        """The end: what came since the last flush, with the time of the one that won't be."""
        self.flush(round(next_flush(clock.now(), self.aggregator.settings.interval_s)))


def next_flush(now: float, interval_s: float) -> float:
    """The first grid point after ``now``; the grid starts at 1970, as slots do."""
    return (math.floor(now / interval_s) + 1) * interval_s


def _drop(data: Data, now_s: int, registry: NameRegistry) -> Parsed:
    """The end of a stream: a line without its LF is lost, as it is with etsy."""
    return Parsed(empty_block())


def _bind_unix(path: str, mode: str) -> socket.socket:
    with suppress(FileNotFoundError):
        os.unlink(path)  # of a run before; a socket file can't be bound twice
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.bind(path)
        if mode:
            os.chmod(path, int(mode, 8))
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
