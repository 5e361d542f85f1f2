"""Listening sockets: every address a host name has, one port for all of them."""

from __future__ import annotations

import socket
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


def address_of(sock: socket.socket) -> tuple[str, int]:
    """(host, port) that a socket is bound to."""
    host, port = sock.getsockname()[:2]
    return str(host), int(port)
