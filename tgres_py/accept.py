"""Accepting TCP connections: who may connect, TLS, and the moment in which listening ends.

asyncio's own server drops connections that it has accepted in the turn of the loop in which it is closed, though their
senders may have sent all they had and gone; it shakes hands before anybody asks who is there, with as many as come.
So the listeners accept here.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tgres_py.model.networks import Networks, host_of
from tgres_py.sockets import BACKLOG, address_of
from tgres_py.tls import HANDSHAKE_S
from tgres_py.tls_stream import PIECE_BYTES, TlsStream

log = logging.getLogger("tgres.tcp")

AT_ONCE = 16  # connections between two turns of the loop; they are open files before anybody can refuse them
AGAIN_S = 1.0  # after the system refused one
HANDSHAKES_MAX = (
    512  # that go on at most; of more the oldest ends, which is the one that nobody means to finish
)


class Handshakes:
    """TLS connections that have no protocol yet, of all listeners that share a limit of connections.

    They are open files like others, so they take places of that limit; but whoever comes next, with TLS or without, gets the place of
    the oldest of them. Silent clients shut nobody out.
    """

    def __init__(self) -> None:
        self._going: dict[socket.socket, None] = {}  # in order of coming

    def __len__(self) -> int:
        return len(self._going)

    def make_place(self, free: int, tls: bool) -> bool:
        """For one more connection. ``free``: places that open connections leave; False when that is none."""
        if free <= 0:
            return False
        if len(self._going) >= (min(free, HANDSHAKES_MAX) if tls else free):
            oldest = next(iter(self._going))
            del self._going[oldest]
            hang_up(oldest)
        return True

    def add(self, connection: socket.socket) -> None:
        self._going[connection] = None

    def discard(self, connection: socket.socket) -> None:
        """It is done, one way or the other. At once: from now on it counts among the open ones, and must not give way."""
        self._going.pop(connection, None)


@dataclass(slots=True)
class TlsShare:
    """What all listeners with TLS have in common: certificate, and places, because each connection takes memory.

    ``open`` connections have a protocol, ``handshakes`` are those on their way; together at most ``connections_max``, of which
    the listener's own limits may allow less.
    """

    context: ssl.SSLContext
    connections_max: int = 5_000
    open: int = 0
    handshakes: Handshakes = field(default_factory=Handshakes)

    @property
    def free(self) -> int:
        """Places that open connections leave."""
        return self.connections_max - self.open


class Acceptor:
    """The listening sockets of one listener; ``make`` gives each connection its protocol.

    ``free`` tells how many further connections may be open; ``handshakes`` is shared by listeners for which that is one number.
    ``handshake_s``: what a handshake may take, if that is less than HANDSHAKE_S.
    ``address``: (host, port) that was got. Since the start, ``forbidden`` counts connections that the allow-list kept
    out, ``refused`` those for which there was no place, ``failed`` those whose TLS handshake failed, was given up, or took too long.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], asyncio.BaseProtocol],
        allowed: Networks,
        tls: TlsShare | None,
        free: Callable[[], int],
        handshakes: Handshakes | None = None,
        handshake_s: float = math.inf,
    ) -> None:
        self.name = name
        self.address: tuple[str, int] = ("", 0)
        self.forbidden = 0
        self.refused = 0
        self.failed = 0
        self._make = make
        self._allowed = allowed
        self._tls = tls
        self._free = free
        self._handshakes = Handshakes() if handshakes is None else handshakes
        self._handshake_s = handshake_s
        self._piece = memoryview(bytearray(PIECE_BYTES if tls is not None else 0))
        self._sockets: list[socket.socket] = []
        self._failing = False  # the system refuses connections
        self._joining: set[asyncio.Task[None]] = set()  # accepted, on their way to a protocol
        self._uncut: dict[asyncio.Task[None], socket.socket] = {}  # theirs

    def listen(self, sockets: list[socket.socket]) -> None:
        """Takes the bound sockets over and accepts connections on them."""
        self.address = address_of(sockets[0])
        self._sockets = sockets
        loop = asyncio.get_running_loop()
        for sock in sockets:
            self._listen_on(loop, sock)

    def close(self) -> None:
        """Stops listening; those that wait for being accepted are accepted."""
        loop = asyncio.get_running_loop()
        while self._sockets:
            sock = self._sockets.pop()
            self._accept(loop, sock, BACKLOG)
            loop.remove_reader(sock)
            sock.close()
        if self.address[0] and self.address[1] == 0:  # a unix socket's file
            with suppress(OSError):
                os.unlink(self.address[0])

    async def joined(self, timeout_s: float) -> None:
        """Waits until all that were accepted have their protocol, or the time is over."""
        if self._joining:
            await asyncio.wait(self._joining, timeout=timeout_s)

    def abort(self) -> None:
        """Ends those that have no protocol yet."""
        while self._uncut:
            hang_up(self._uncut.popitem()[1])

    def _listen_on(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            loop.add_reader(sock, self._accept, loop, sock, AT_ONCE)

    def _accept(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, most: int) -> None:
        for _ in range(most):
            try:
                connection, peer = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no file descriptors, no memory: not better at once
                if not self._failing:
                    log.error("%s can't accept connections: %s", self.name, error.strerror)
                self._failing = True
                loop.remove_reader(sock)
                loop.call_later(AGAIN_S, self._listen_on, loop, sock)
                return
            if self._failing:
                log.warning("%s accepts connections again", self.name)
                self._failing = False
            if host_of(peer) not in self._allowed:
                self.forbidden += 1
                connection.close()
                continue
            tls = self._tls if connection.family != socket.AF_UNIX else None
            if not self._make_place(tls):
                self.refused += 1
                connection.close()
                continue
            connection.setblocking(False)
            task = loop.create_task(self._join(loop, connection, tls))
            self._joining.add(task)
            self._uncut[task] = connection
            if tls is not None:
                self._handshakes.add(connection)
                tls.handshakes.add(connection)
            task.add_done_callback(self._forget)

    def _make_place(self, tls: TlsShare | None) -> bool:
        if tls is not None and tls.free <= 0:
            return False
        if not self._handshakes.make_place(self._free(), tls is not None):
            return False
        return tls is None or tls.handshakes.make_place(tls.free, True)

    async def _join(
        self, loop: asyncio.AbstractEventLoop, connection: socket.socket, tls: TlsShare | None
    ) -> None:
        try:
            if tls is None:
                await loop.connect_accepted_socket(self._make, connection)
            else:
                await self._shake_hands(loop, connection, tls)
        except OSError as error:  # a failed handshake, mostly
            self.failed += tls is not None
            log.debug("%s: connection refused: %s", self.name, error)
            connection.close()

    async def _shake_hands(
        self, loop: asyncio.AbstractEventLoop, connection: socket.socket, tls: TlsShare
    ) -> None:
        def opened() -> None:
            self._forget_handshake(connection, tls)
            tls.open += 1

        def closed() -> None:
            tls.open -= 1

        handshake_s = min(HANDSHAKE_S, self._handshake_s)
        stream = TlsStream(tls.context, self._make, self._piece, handshake_s, opened, closed)
        try:
            await loop.connect_accepted_socket(lambda: stream, connection)
            await stream.shaken
        finally:
            self._forget_handshake(connection, tls)

    def _forget_handshake(self, connection: socket.socket, tls: TlsShare) -> None:
        self._handshakes.discard(connection)
        tls.handshakes.discard(connection)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._joining.discard(task)
        self._uncut.pop(task, None)


def hang_up(connection: socket.socket) -> None:
    """Its transport sees the end of the connection, and closes it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
