"""Rounds of points as ready bytes: only the digits that change are written anew.

A round is one point of every series. All records (lines, or pickled points) have the same length, so a payload is
a matrix of bytes, one record a row, in which numpy overwrites the columns of value and timestamp:
some ten nanoseconds a record, where formatting takes a microsecond.
The points are known: ``name_of`` and ``value_of`` say what is sent.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

TIMESTAMP_MIN, TIMESTAMP_MAX = 1_000_000_000, 9_999_999_999  # ten digits
FRAME_POINTS = 500  # as carbon-relay sends
METRICS_PER_HOST = 100
SERIES_MAX = 100_000_000  # six digits of hosts

_HUNDREDTHS = range(1_000, 10_000)  # values are 10.00 to 99.99: five bytes each
_TEXT = np.frombuffer(b"".join(b"%.2f" % (h / 100) for h in _HUNDREDTHS), np.uint8).reshape(-1, 5)
_FLOAT8 = (np.array(_HUNDREDTHS) / 100).astype(">f8").view(np.uint8).reshape(-1, 8)


def value_of(series: int, round_number: int) -> float:
    return _HUNDREDTHS[(series * 7 + round_number * 13) % len(_HUNDREDTHS)] / 100


def name_of(series: int, prefix: str, name_bytes: int = 0) -> str:
    """``prefix.host000012.metric34``, with a node of x between if it is shorter than ``name_bytes``."""
    host, metric = divmod(series, METRICS_PER_HOST)
    head, tail = f"{prefix}.host{host:06d}", f".metric{metric:02d}"
    filler = name_bytes - len(head) - len(tail)
    return head + ("." + "x" * (filler - 1) if filler > 1 else "") + tail


class Payload:
    """The records of the series ``first_series``, ``first_series`` + 1, …: one per name, of equal length.

    ``data`` is the buffer that ``render`` rewrites; ``record_bytes`` the length of one record.
    """

    def __init__(self, first_series: int, data: bytes, record_bytes: int) -> None:
        self.first_series = first_series
        self.record_bytes = record_bytes
        buffer = bytearray(data)
        self.data = memoryview(buffer)
        self._buffer = np.frombuffer(buffer, np.uint8)

    def render(self, round_number: int, timestamp_s: int) -> None:
        """Writes values and timestamp of a round into ``data``."""
        raise NotImplementedError

    def _rows(self, at: int, count: int) -> Bytes:
        """View of ``count`` records from byte ``at``: uint8 (count, record_bytes)."""
        return self._buffer[at : at + count * self.record_bytes].reshape(count, self.record_bytes)

    def _values(self, table: Bytes, first: int, count: int, round_number: int) -> Bytes:
        series = np.arange(self.first_series + first, self.first_series + first + count)
        return table[(series * 7 + round_number * 13) % len(_HUNDREDTHS)]


class LinePayload(Payload):
    """``name 12.34 1700000000`` LF."""

    def __init__(self, first_series: int, names: Sequence[bytes]) -> None:
        data = b"".join(b"%b 00.00 0000000000\n" % name for name in names)
        super().__init__(first_series, data, len(data) // len(names))
        self._count = len(names)
        self._value_at = len(names[0]) + 1
        self._time_at = self._value_at + 6

    def render(self, round_number: int, timestamp_s: int) -> None:
        rows = self._rows(0, self._count)
        values = self._values(_TEXT, 0, self._count, round_number)
        rows[:, self._value_at : self._value_at + 5] = values
        rows[:, self._time_at : self._time_at + 10] = np.frombuffer(
            b"%010d" % timestamp_s, np.uint8
        )


class PicklePayload(Payload):
    """Frames of carbon-relay's shape: protocol 2, float timestamps, FRAME_POINTS points each."""

    _HEAD = b"\x80\x02]("
    _TAIL = b"e."

    def __init__(self, first_series: int, names: Sequence[bytes]) -> None:
        head = b"X" + struct.pack("<I", len(names[0]))
        tail = b"G" + bytes(8) + b"G" + bytes(8) + b"\x86\x86"
        frames = []
        self._frames: list[tuple[int, int, int]] = []  # first record, records, place of the first
        at = 0
        for first in range(0, len(names), FRAME_POINTS):
            points = names[first : first + FRAME_POINTS]
            body = self._HEAD + b"".join(head + name + tail for name in points) + self._TAIL
            frames.append(struct.pack(">I", len(body)) + body)
            self._frames.append((first, len(points), at + 4 + len(self._HEAD)))
            at += 4 + len(body)
        super().__init__(first_series, b"".join(frames), len(head) + len(names[0]) + len(tail))
        self._time_at = len(head) + len(names[0]) + 1
        self._value_at = self._time_at + 9

    def render(self, round_number: int, timestamp_s: int) -> None:
        time = np.frombuffer(struct.pack(">d", timestamp_s), np.uint8)
        for first, count, at in self._frames:
            rows = self._rows(at, count)
            values = self._values(_FLOAT8, first, count, round_number)
            rows[:, self._value_at : self._value_at + 8] = values
            rows[:, self._time_at : self._time_at + 8] = time
