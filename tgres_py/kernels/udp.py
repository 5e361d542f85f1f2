"""Reads all datagrams that a socket holds into one buffer: native (recvmmsg, ``_udp.pyx``), or this pure twin."""

from __future__ import annotations

import socket
from collections.abc import Callable, Container
from contextlib import suppress

from tgres_py.kernels import NATIVE

DATAGRAM_BYTES_MAX = (
    65_535  # what the length field of UDP can say; room for the line feed comes on top
)


def drain_pure(sock: socket.socket, buffer: memoryview, datagrams_max: int) -> tuple[int, int]:
    """(bytes used, datagrams read): all that is there, without waiting, as far as there is room.

    Each datagram is complete in itself: a line feed is added to one that lacks it. Reading stops while
    less than DATAGRAM_BYTES_MAX + 1 bytes of ``buffer`` are free, so that none is cut. ``sock`` must be
    non-blocking. OSError when it is closed.
    """
    used = datagrams = 0
    room = len(buffer) - DATAGRAM_BYTES_MAX - 1
    while datagrams < datagrams_max and used <= room:
        try:
            size = sock.recv_into(buffer[used:], DATAGRAM_BYTES_MAX)
        except (
            BlockingIOError,
            ConnectionRefusedError,
        ):  # the latter: an ICMP answer to nothing of ours
            break
        datagrams += 1
        used += size
        if size and buffer[used - 1] != 0x0A:
            buffer[used] = 0x0A
            used += 1
    return used, datagrams


def drain_named(
    sock: socket.socket, buffer: memoryview, datagrams_max: int
) -> tuple[int, int, str | None]:
    """As ``drain``, and the sender's address of the first datagram; None when there was none."""
    try:
        used, address = sock.recvfrom_into(buffer, DATAGRAM_BYTES_MAX)
    except (BlockingIOError, ConnectionRefusedError):
        return 0, 0, None
    if used and buffer[used - 1] != 0x0A:
        buffer[used] = 0x0A
        used += 1
    more, datagrams = drain(sock, buffer[used:], datagrams_max - 1)
    # a unix socket's peer has a path or no address at all
    host = str(address[0]) if isinstance(address, tuple) else "unix"
    return used + more, datagrams + 1, host


def drain_allowed(
    sock: socket.socket,
    buffer: memoryview,
    datagrams_max: int,
    allowed: Container[str],
    seen: Callable[[str], None],
) -> tuple[int, int, int]:
    """As ``drain_pure``, of senders in ``allowed`` only; the third number: datagrams thrown away.

    ``datagrams_max`` holds for both together. ``seen`` is told each allowed sender; a unix socket's is "".
    """
    used = taken = forbidden = 0
    room = len(buffer) - DATAGRAM_BYTES_MAX - 1
    while taken + forbidden < datagrams_max and used <= room:
        try:
            size, address = sock.recvfrom_into(buffer[used:], DATAGRAM_BYTES_MAX)
        except (BlockingIOError, ConnectionRefusedError):
            break
        host = address[0] if isinstance(address, tuple) else ""
        if host not in allowed:
            forbidden += 1
            continue
        seen(host)
        taken += 1
        used += size
        if size and buffer[used - 1] != 0x0A:
            buffer[used] = 0x0A
            used += 1
    return used, taken, forbidden


drain = drain_pure
if NATIVE:
    with suppress(ImportError):  # built on Linux only: recvmmsg
        from tgres_py.kernels._udp import drain as drain_native

        drain = drain_native
