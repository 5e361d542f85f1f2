"""Accepting TCP connections: who may connect, TLS, and the moment in which listening ends.

asyncio's own server drops connections that it has accepted in the turn of the loop in which it is closed, though their
senders may have sent all they had and gone; it shakes hands before anybody asks who is there, with as many as come.
So the listeners accept here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tgres_py.model.networks import Networks, host_of
from tgres_py.sockets import BACKLOG, address_of
from tgres_py.tls import FAREWELL_S, HANDSHAKE_S

log = logging.getLogger("tgres.tcp")

AT_ONCE = 16  # connections between two turns of the loop; they are open files before anybody can refuse them
AGAIN_S = 1.0  # after the system refused one
HANDSHAKES_MAX = (
    512  # that go on; of more the oldest ends, which is the one that nobody means to finish
)


class Acceptor:
    """The listening sockets of one listener; ``make`` gives each connection its protocol.

    ``address``: (host, port) that was got. Since the start, ``forbidden`` counts connections that the allow-list kept
    out, ``failed`` those whose TLS handshake failed, was given up, or took longer than HANDSHAKE_S.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], asyncio.BaseProtocol],
        allowed: Networks,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.address: tuple[str, int] = ("", 0)
        self.forbidden = 0
        self.failed = 0
        self._make = make
        self._allowed = allowed
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._failing = False  # the system refuses connections
        self._joining: set[asyncio.Task[None]] = set()  # accepted, on their way to a protocol
        self._uncut: dict[asyncio.Task[None], socket.socket] = {}  # theirs, in order of coming

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
            self._cut_oldest()

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
            connection.setblocking(False)
            if len(self._uncut) >= HANDSHAKES_MAX and self._tls is not None:
                self._cut_oldest()
            task = loop.create_task(self._join(loop, connection))
            self._joining.add(task)
            self._uncut[task] = connection
            task.add_done_callback(self._forget)

    async def _join(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        tls: dict[str, Any] = {}
        if self._tls is not None and connection.family != socket.AF_UNIX:
            tls = {
                "ssl": self._tls,
                "ssl_handshake_timeout": HANDSHAKE_S,
                "ssl_shutdown_timeout": FAREWELL_S,
            }
        try:
            await loop.connect_accepted_socket(self._make, connection, **tls)
        except OSError as error:  # a failed handshake, mostly
            self.failed += bool(tls)
            log.debug("%s: connection refused: %s", self.name, error)
            connection.close()

    def _cut_oldest(self) -> None:
        """Its transport sees the end of the connection, and closes it."""
        task = next(iter(self._uncut))
        with suppress(OSError):
            self._uncut.pop(task).shutdown(socket.SHUT_RDWR)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._joining.discard(task)
        self._uncut.pop(task, None)
