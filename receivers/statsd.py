"""statsd's wire: datagrams and streams to an Aggregator (what becomes of it: statsd_flush.py).

    datagram  = line { LF line }       UTF-8; UDP, and a unix datagram socket beside it; the last line needs no LF
    stream    = { line LF }            TCP or a unix stream socket, ASCII: the eighth bit of each byte is dropped; what follows the last LF waits for
                                       the next read, and is dropped when the connection ends
    line      tgres_py/statsd/parser.py, up to LINE_BYTES_MAX; a longer one is a bad line

A datagram counts as a packet, and so does each read of a stream that ends at least one line. Rules: servers/udp.js and tcp.js
of npm statsd 0.9.0.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace

from receivers import tcp, udp
from receivers.sink import Data, NameRegistry, Sink, WireFormat
from tgres_py.errors import ConfigError
from tgres_py.model.points import Parsed, empty_block
from tgres_py.sockets import bind_all, bind_unix
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.parser import LINE_BYTES_MAX

STREAM_BUFFER_BYTES = 65_536  # a bad line costs microseconds: so much garbage at once is enough
_SEVEN_BITS = bytes(byte & 0x7F for byte in range(256))


class StatsdSink:
    """The sink as statsd's transports see it: what they read is aggregated, so it never has to wait."""

    paused = False
    piece_bytes_max = 1 << 30  # what lines make is bounded by keysMax and the like

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
                sockets.append(bind_unix(name, path, mode, socket.SOCK_DGRAM))
            except ConfigError:
                for sock in sockets:
                    sock.close()
                raise
        parse = _DatagramParser(self.aggregator)
        listener = udp.UdpListener(name, parse, StatsdSink(self._sink), limits, sockets)
        parse.listener = listener
        return listener

    async def listen_tcp(
        self, name: str, host: str, port: int, limits: tcp.TcpLimits, totals: tcp.Totals
    ) -> tcp.TcpListener:
        limits = replace(limits, buffer_bytes=STREAM_BUFFER_BYTES)
        return await tcp.start(
            name, host, port, self._wire(), StatsdSink(self._sink), limits, totals
        )

    async def listen_unix(
        self, name: str, path: str, mode: str, limits: tcp.TcpLimits, totals: tcp.Totals
    ) -> tcp.TcpListener:
        """Takes streams on a unix socket; ``mode``: octal file mode."""
        sock = bind_unix(name, path, mode, socket.SOCK_STREAM)
        limits = replace(limits, buffer_bytes=STREAM_BUFFER_BYTES)
        listener = tcp.TcpListener(name, self._wire(), StatsdSink(self._sink), limits, totals)
        await listener.listen([sock])
        return listener

    def _wire(self) -> WireFormat:
        return WireFormat(self._parse_stream, _drop, lambda rest: len(rest) + 1)

    def _parse_stream(self, data: Data, now_s: int, registry: NameRegistry) -> Parsed:
        text = bytes(data).translate(_SEVEN_BITS)
        end = text.rfind(b"\n") + 1
        if end:
            self.aggregator.add(text[:end], 1, now_s)
        return Parsed(empty_block(), rest=text[end : end + LINE_BYTES_MAX + 1])


def _drop(data: Data, now_s: int, registry: NameRegistry) -> Parsed:
    """The end of a stream: a line without its LF is lost, as it is with etsy."""
    return Parsed(empty_block())
