"""TLS between a socket and a listener's protocol, with little memory.

The event loops' own TLS holds 256 KiB and more for each connection that once sent much, until it ends (190 kB each were measured).
Here all connections of a listener are read into one buffer, PIECE_BYTES at a time; what of it isn't deciphered yet is all that a
connection holds: a part of a record, or what its protocol doesn't want to read now, while its socket isn't read either.
What was sent before the end, with a farewell (close_notify) or without, is read before the protocol is told of the end.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast

log = logging.getLogger("tgres.tcp")

PIECE_BYTES = 16_384  # that are read at a time; with 32,768 a connection that sent much keeps 16 kB more, and costs as much CPU
RECORD_BYTES = 16_384  # that are enciphered at a time
HANDSHAKE_BYTES_MAX = (
    16_384  # of a client that hasn't finished it; a usual one sends less than 3,000
)


class TlsStream(asyncio.Transport, asyncio.BufferedProtocol):
    """The protocol of a plain transport, and the transport of the protocol that ``make`` gives when the handshake is done.

    ``buffer``: (PIECE_BYTES,) of bytes, for all connections of one event loop. ``shaken`` is done with the handshake; OSError: it
    failed, or took longer than ``handshake_s``. ``opened`` and ``closed`` are called then and at the end, in pairs.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.BaseProtocol],
        buffer: memoryview,
        handshake_s: float,
        opened: Callable[[], None],
        closed: Callable[[], None],
    ) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.shaken: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._make = make
        self._buffer = buffer
        self._opened, self._closed = opened, closed
        self._timer = loop.call_later(handshake_s, self._give_up)
        self._received = 0  # bytes of the handshake
        self._plain: asyncio.Transport | None = None
        self._protocol: asyncio.BaseProtocol | None = None
        self._buffered = False  # its kind
        self._soon: asyncio.Handle | None = None
        self._paused = False
        self._ended = False  # the peer has nothing more to say
        self._told = False  # and the protocol knows it
        self._broken: ssl.SSLError | None = None
        self._closing = False
        self._lost = False

    # -- towards the socket ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._plain = cast(asyncio.Transport, transport)  # uvloop's class isn't derived from it

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing or self._ended:
            return
        self._incoming.write(self._buffer[:nbytes])
        if self._protocol is None:
            self._received += nbytes
            self._shake()
        else:
            self._decipher()

    def eof_received(self) -> bool:
        self._ended = True
        if self._protocol is None:
            self._fail(ConnectionResetError("the client hung up"))
        else:
            self._decipher()
        return True  # what is left to do ends with ``close``

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing:  # a farewell that nobody takes is no error
            exc = self._broken
        self._closing = self._lost = True
        self._timer.cancel()
        if self._soon is not None:
            self._soon.cancel()
        if self._protocol is not None:
            self._closed()
            self._protocol.connection_lost(exc)
        elif not self.shaken.done():
            self.shaken.set_exception(exc or ConnectionResetError("the connection is lost"))

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            if self._received >= HANDSHAKE_BYTES_MAX:
                self._fail(ConnectionResetError("a handshake without end"))
            return
        except ssl.SSLError as error:
            self._send()  # says why
            self._fail(error)
            return
        self._send()
        self._timer.cancel()
        self._opened()
        if not self.shaken.done():
            self.shaken.set_result(None)
        self.set_protocol(self._make())
        self.get_protocol().connection_made(self)
        self._decipher()

    def _give_up(self) -> None:
        self._fail(TimeoutError("a handshake took too long"))

    def _fail(self, error: OSError) -> None:
        if not self.shaken.done():
            self.shaken.set_exception(error)
        self._closing = True
        if self._plain is not None:
            self._plain.close()

    def _decipher(self) -> None:
        """Gives the protocol what is there, as long as it wants to read."""
        while True:
            if self._paused or self._closing:
                return
            if not self._take():
                break
        if self._broken:
            log.debug("TLS is broken: %s", self._broken)
            self.abort()
        elif self._ended and not self._told and not self._paused and not self._closing:
            self._told = True
            if not cast(asyncio.Protocol, self._protocol).eof_received():
                self.close()

    def _take(self) -> bool:
        """As much as a buffer holds; False: that is all for now."""
        if not self._incoming.pending and not self._tls.pending():
            return False
        if self._buffered:
            of = cast(asyncio.BufferedProtocol, self._protocol)
            size, more = self._read(cast(memoryview, of.get_buffer(-1)))
            if size:
                of.buffer_updated(size)
        else:
            size, more = self._read(self._buffer)
            if size:
                cast(asyncio.Protocol, self._protocol).data_received(bytes(self._buffer[:size]))
        return more

    def _read(self, buffer: memoryview) -> tuple[int, bool]:
        """(bytes that were put into it, whether there may be more)."""
        size = 0
        while size < len(buffer):
            try:
                got = cast(int, self._tls.read(len(buffer) - size, buffer[size:]))
            except ssl.SSLWantReadError:
                return size, False
            except ssl.SSLError as error:
                self._broken = error
                return size, False
            if not got:
                self._ended = True
                return size, False
            size += got
        return size, True

    def _send(self) -> None:
        data = self._outgoing.read()
        if data and self._plain is not None:
            self._plain.write(data)

    # -- towards the protocol ----------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self._tls.context
        if name == "ssl_object":
            return self._tls
        return self._plain.get_extra_info(name, default) if self._plain is not None else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None, "the handshake comes first"
        return self._protocol

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        self._paused = True
        if self._plain is not None and not self._closing:
            self._plain.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            if self._soon is None:
                self._soon = self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self._soon = None
        try:
            self._decipher()
        except BaseException:
            self.abort()
            raise
        if self._plain is not None and self.is_reading():
            self._plain.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        try:
            while view and not self._closing:
                view = view[self._tls.write(view[:RECORD_BYTES]) :]
                self._send()
        except ssl.SSLError as error:
            self._broken = error
            self.abort()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._plain is not None:
            self._plain.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._plain.get_write_buffer_limits() if self._plain is not None else (0, 0)

    def get_write_buffer_size(self) -> int:
        return self._plain.get_write_buffer_size() if self._plain is not None else 0

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """What was written is sent, then a farewell; nobody waits for the peer's."""
        if self._closing:
            return
        self._closing = True
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._send()
        if self._plain is not None:
            self._plain.close()

    def abort(self) -> None:
        self._closing = True
        if self._plain is not None and not self._lost:
            self._plain.abort()
