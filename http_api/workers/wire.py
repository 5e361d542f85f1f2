"""Frames between the main process and a worker, and the memory that jobs come in.

    frame   = length (uint32, of the payload)  kind (uint8)  payload
    payload = msgpack, of CHUNK raw bytes

A job's values and its message lie in a file of shared memory that has no name; the frame says where its message is.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from enum import IntEnum
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct("=IB")
ALIGN_BYTES = 64
PAYLOAD_BYTES_MAX = 64 << 20
WRITE_BYTES = 16 << 20  # at a time, so that a thread that writes a lot can be left

Place = tuple[int, int, int]  # of an array: first byte, rows, columns


class Kind(IntEnum):
    READY = 1
    JOB = 2
    FURTHER = 3
    HEAD = 4
    CHUNK = 5
    END = 6
    ERROR = 7
    FAULT = 8


def pack(message: Any) -> bytes:
    """Lone surrogates, which a target may hold, survive."""
    packed: bytes = msgpack.packb(message, unicode_errors="surrogatepass")
    return packed


def unpack(data: Any) -> Any:
    return msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass")


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    return HEAD.pack(len(payload), kind) + payload


class MemoryFile:
    """Shared memory that grows as it is written; its owner closes it."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("tgres-render")
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        self.size = 0

    def place(self, size: int) -> int:
        """The first byte of room for so many."""
        start = self.size
        self.size += -(-size // ALIGN_BYTES) * ALIGN_BYTES
        return start

    def write(self, start: int, data: bytes | memoryview) -> None:
        """In any thread. OSError: there is no memory."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += os.pwrite(self.fd, view[done : done + WRITE_BYTES], start + done)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class MappedFile:
    """A MemoryFile as its reader sees it. The descriptor is closed here; arrays keep the memory."""

    def __init__(self, fd: int) -> None:
        self.map = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        os.close(fd)

    def message(self, start: int, size: int) -> Any:
        with memoryview(self.map) as view:
            return unpack(view[start : start + size])

    def array(self, place: Place) -> NDArray[np.float64]:
        """float64 (rows, columns), read-only."""
        start, rows, columns = place
        if not rows * columns:
            return np.empty((rows, columns))
        return np.frombuffer(self.map, np.float64, rows * columns, start).reshape(rows, columns)
