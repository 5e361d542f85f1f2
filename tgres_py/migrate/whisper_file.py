"""Whisper's files, read and written as arrays.

    file     = metadata archive-info* points*                    all big endian
    metadata = aggregation uint32  max-retention uint32 (s)  xFilesFactor float32  archives uint32
    info     = offset uint32 (bytes)  step uint32 (s)  points uint32
    point    = timestamp uint32 (s)  value float64

An archive is a ring: point number i belongs to the times base + (i + k * points) * step, where base is the
timestamp of point 0; base 0 = nothing was ever written. A point counts only where its timestamp is the one that its
place has in the window that is asked for; else it is left from an earlier lap (whisper 1.1.10, ``file_fetch``).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tgres_py.errors import ConfigError, TgresError
from tgres_py.model.retention import ARCHIVES_MAX, BundleSpec, Cf, make_bundle

METADATA = struct.Struct(">LLfL")
INFO = struct.Struct(">LLL")
POINT = np.dtype([("time_s", ">u4"), ("value", ">f8")])

COMPRESSED = b"whisper_compressed"
FILE_BYTES_MAX = 1 << 30  # two years of seconds have 760 MB; a sparse file may claim to have any size

METHODS = {
    1: Cf.AVERAGE,
    2: Cf.SUM,
    3: Cf.LAST,
    4: Cf.MAX,
    5: Cf.MIN,
    6: Cf.AVG_ZERO,
    7: Cf.ABSMAX,
    8: Cf.ABSMIN,
}
CODES = {cf: code for code, cf in METHODS.items()}


class WhisperCorrupt(TgresError):
    """A file that is no whisper file, or only part of one; the text says what is wrong, without its path."""

    counter = "corrupt"


@dataclass(frozen=True, slots=True)
class Header:
    """``archives``: (offset_bytes, step_s, points) of each, finest first."""

    cf: Cf
    xff: float
    archives: tuple[tuple[int, int, int], ...]

    @property
    def size_bytes(self) -> int:
        return max(offset + points * POINT.itemsize for offset, _, points in self.archives)

    def spec(self) -> BundleSpec:
        """The bundle with the file's retention. WhisperCorrupt when no server would make such a file."""
        try:
            return make_bundle(
                [(step, points) for _, step, points in self.archives], self.cf, self.xff
            )
        except ConfigError as error:
            raise WhisperCorrupt(f"its retention is refused: {error}") from error


class Known(NamedTuple):
    """Known slots of one archive: ``slots`` int64 (k,) in the order of the file, ``values`` float64 (k,).

    ``outside``: how many more the file holds that are older than the retention, or from the future.
    """

    slots: NDArray[np.int64]
    values: NDArray[np.float64]
    outside: int


def parse_header(data: bytes | memoryview) -> Header:
    """The header of a file's bytes. WhisperCorrupt."""
    if len(data) == 0:
        raise WhisperCorrupt("it is empty")
    if bytes(data[: len(COMPRESSED)]) == COMPRESSED:
        raise WhisperCorrupt("it is in go-carbon's compressed format, which is another one")
    if len(data) < METADATA.size:
        raise WhisperCorrupt(f"it has {len(data)} bytes, fewer than the header")
    code, _, xff, count = METADATA.unpack_from(data)
    if code not in METHODS:
        raise WhisperCorrupt(f"its aggregation method {code} is unknown")
    if not 1 <= count <= ARCHIVES_MAX:
        raise WhisperCorrupt(f"it claims to have {count} archives")
    if not 0 <= xff <= 1:
        raise WhisperCorrupt(f"its xFilesFactor {xff:g} is not between 0 and 1")
    end = METADATA.size + count * INFO.size
    if len(data) < end:
        raise WhisperCorrupt(f"it has {len(data)} bytes, fewer than the header")
    infos = [INFO.unpack_from(data, METADATA.size + i * INFO.size) for i in range(count)]
    if any(step < 1 or points < 1 or offset < end for offset, step, points in infos):
        raise WhisperCorrupt("an archive has no step, no points or no place")
    # the file keeps 32 bits of 0.3; the shortest text that means them is what was meant
    return Header(
        METHODS[code], float(str(np.float32(xff))), tuple(sorted(infos, key=lambda i: i[1]))
    )


def read_file(path: str | Path) -> tuple[Header, NDArray[np.uint8]]:
    """Header and all bytes of a file. WhisperCorrupt; OSError when it can't be read."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # one read into memory of our own: a map would fault on each page of it
        size = os.fstat(descriptor).st_size
        if size > FILE_BYTES_MAX:
            raise WhisperCorrupt(f"it has {size:,} bytes; files of up to 1 GiB are read")
        data = np.empty(size, np.uint8)
        got = os.readv(descriptor, [data.data]) if len(data) else 0
    finally:
        os.close(descriptor)
    data = data[:got]
    header = parse_header(data.data)
    if header.size_bytes > len(data):
        raise WhisperCorrupt(f"it has {len(data)} bytes of {header.size_bytes}: cut off")
    return header, data


def known_slots(
    header: Header, data: NDArray[np.uint8], number: int, now_s: int, since_s: int = 0
) -> Known:
    """What archive ``number`` holds for the slots that now - retention < time <= now and time >= since."""
    offset, step_s, size = header.archives[number]
    points = data[offset : offset + size * POINT.itemsize].view(POINT)
    base_s = int(points["time_s"][0])
    times = points["time_s"]
    place = np.flatnonzero(times)
    if base_s == 0 or len(place) == 0:
        return Known(np.empty(0, np.int64), np.empty(0), 0)
    written = times[place].astype(np.int64)
    values = points["value"][place].astype(np.float64)
    slots, rest = np.divmod(written, step_s)
    good = (rest == 0) & ((written - base_s) // step_s % size == place) & ~np.isnan(values)
    newest = now_s // step_s
    inside = good & (slots <= newest) & (slots > newest - size)
    outside = int(good.sum()) - int(inside.sum())
    if since_s:
        inside &= written >= since_s
    if not inside.all():
        slots, values = slots[inside], values[inside]
    return Known(slots, values, outside)


def encode_file(
    spec: BundleSpec, archives: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]
) -> bytes:
    """The bytes of a whisper file with the given (slots, values) of each archive.

    Of slots that share a place of the ring the one given last stays. ConfigError for a bundle that whisper can't keep.
    """
    if spec.cf not in CODES:
        raise ConfigError(f"whisper has no aggregation method {spec.cf}")
    offset = METADATA.size + INFO.size * len(spec.archives)
    longest_s = max(archive.retention_s for archive in spec.archives)
    head = METADATA.pack(CODES[spec.cf], longest_s, spec.xff, len(spec.archives))
    body = []
    for archive, (slots, values) in zip(spec.archives, archives, strict=True):
        head += INFO.pack(offset, archive.step_s, archive.size)
        offset += archive.size * POINT.itemsize
        points = np.zeros(archive.size, POINT)
        if len(slots):
            # the oldest slot is the base: it is written at place 0
            place = (slots - slots.min()) % archive.size
            points["time_s"][place] = slots * archive.step_s
            points["value"][place] = values
        body.append(points.tobytes())
    return head + b"".join(body)
