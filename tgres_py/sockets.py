"""Listening sockets: every address a host name has, one port for all of them."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

from tgres_py.errors import ConfigError

BACKLOG = 1_024


def bind_all(what: str, host: str, port: int, kind: socket.SocketKind) -> list[socket.socket]:
    """Bound, non-blocking sockets on all addresses of ``host`` (TCP ones listen).

    ``kind``: SOCK_STREAM or SOCK_DGRAM; port 0 takes one free port for all. An IPv6 wildcard takes IPv4,
    too. ConfigError with the address and the reason when one can't be bound; then none is left open.
    """
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in socket.getaddrinfo(
            host or "::", port, type=kind, flags=socket.AI_PASSIVE
        ):
            if family in (socket.AF_INET, socket.AF_INET6):
                sockets.append(_bind(family, kind, str(address[0]), port))
                port = sockets[0].getsockname()[1]
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ConfigError(f"{what}: can't listen on {host}:{port}: {error.strerror}") from None
    return sockets


def _bind(family: int, kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def bind_unix(what: str, path: str, mode: str, kind: socket.SocketKind) -> socket.socket:
    """A bound, non-blocking unix socket (a stream one listens); ``mode``: octal file mode, empty = the umask decides.

    A socket file that nobody listens on any more is replaced. ConfigError when it can't be bound, or somebody does.
    """
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        _remove_stale(path, kind)
        sock.bind(path)
        if mode:
            os.chmod(path, int(mode, 8))
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(f"{what}: can't listen on {path}: {error.strerror or error}") from None
    return sock


def _remove_stale(path: str, kind: socket.SocketKind) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError("a file of that name is there, and is no socket")
        with socket.socket(socket.AF_UNIX, kind) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            else:
                raise OSError("another process listens there")


def address_of(sock: socket.socket) -> tuple[str, int]:
    """(host, port) that a socket is bound to; of a unix socket (path, 0)."""
    if sock.family == socket.AF_UNIX:
        return str(sock.getsockname()), 0
    host, port = sock.getsockname()[:2]
    return str(host), int(port)
