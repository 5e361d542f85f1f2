"""Carbon's pickle format, as carbon-relay, etsy's statsd and graphitesend send it.

    stream = { frame }
    frame  = length:uint32 big-endian, pickle of `length` bytes (protocol 0 to 5)
    pickle = list of (name, (timestamp, value))
    name   = text or bytes (Python 2); timestamp and value: numbers, or text that float() takes

Real senders: carbon-relay writes protocol 2 with float timestamps, up to 500 points a frame; etsy's statsd writes
protocol 0 by hand, with `L` timestamps and values as text; graphitesend writes protocol 4 with values as text.

A bad point costs itself; a pickle that can't be read costs its frame (one MALFORMED). A length beyond
the limit can't be skipped with confidence (it is most often text sent to the wrong port), so it ends the
connection: counted as LIMIT, ``rest`` is the length, and the format's ``wanted(rest)`` is -1.
Timestamps and NaN as in carbon's plaintext. Blanks in names are let through, as carbon does.

For a registry that finds names by itself (the server's), frames of plain points are read by a native kernel where
it is built; what it finds odd about a frame or a name comes here. The tests run over all ways and ask for the same outcome.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from receivers.block import (
    CONTROLS,
    NAME_BYTES_MAX,
    TIMESTAMP_ABS_MAX,
    Rejects,
    check_name,
    count_refused,
    parsed,
)
from receivers.pickle_reader import PickleRefused, load
from receivers.sink import Data, NameRegistry, WireFormat, scans_names
from tgres_py.kernels.names_py import ODD
from tgres_py.kernels.pickle_frames import LENGTH_BYTES, Sizes, Starts, cut_frames, read_frames
from tgres_py.model.points import (
    Ids,
    Parsed,
    PointBlock,
    Reason,
    Times,
    Values,
    empty_block,
)

FRAME_BYTES_MAX = 1_048_576

# Of a frame: names, and float64 (n, 2) of timestamps and values.
Columns = tuple[list[bytes], Values]

# A point behind its name, as the picklers of CPython write it in protocols 2 to 5: (memo) timestamp value
# TUPLE2 (memo) TUPLE2 (memo); numbers as BINFLOAT or BININT.
_MEMO = rb"(?:q.|r.{4}|\x94)?"
# Protocols 4 and 5 cut a long pickle into frames, between any two objects.
_FRAME = rb"(?:\x95.{8})?"
_NUMBER = _FRAME + rb"(?:G(.{8})|J(.{4}))"
_TUPLES = rb"\x86" + _MEMO + rb"\x86" + _MEMO + _FRAME
_TWO_FLOATS = _FRAME + rb"G(.{8})" + _FRAME + rb"G(.{8})"
_FLOATS = re.compile(_MEMO + _TWO_FLOATS + _TUPLES, re.DOTALL).match
_NUMBERS = re.compile(_MEMO + _NUMBER + _NUMBER + _TUPLES, re.DOTALL).match
_HEAD = re.compile(rb"\x80[\x02-\x05]" + _FRAME + rb"\]" + _MEMO, re.DOTALL).match
# etsy's statsd, protocol 0.
_STATSD_POINT = rb"\(S'%s'\n\(L%sL\nS'%s'\ntta"
_STATSD_FRAME = re.compile(
    rb"\(l(?:" + _STATSD_POINT % (rb"[^'\\\n]*", rb"\d{1,15}", rb"[^'\\\n]*") + rb")*\."
).fullmatch
_STATSD_POINTS = re.compile(_STATSD_POINT % (rb"([^'\\\n]*)", rb"(\d+)", rb"([^'\\\n]*)")).findall
_NAMES_ODD = CONTROLS.replace(b"\n", b"")

_int4 = struct.Struct("<i").unpack
_uint4 = struct.Struct("<I").unpack_from
_length = struct.Struct(">I").unpack_from


def parse(
    data: Data, now_s: int, registry: NameRegistry, frame_bytes_max: int = FRAME_BYTES_MAX
) -> Parsed:
    """The points of all complete frames in ``data``; ``rest`` is the unfinished one at the end."""
    scanner = registry if scans_names(registry) else None
    read = read_frames if scanner else cut_frames
    starts, sizes, times, values, odd, used = read(data, now_s, frame_bytes_max)
    view = memoryview(data)
    rejects = Rejects()
    named: dict[int, bytes] = {}  # names that are left to resolve(), by position in the columns
    if odd:
        points, at = _read_odd(view, odd, now_s, rejects)
        named = dict(zip((at + np.arange(len(at))).tolist(), points.names, strict=True))
        odd_times, odd_values = points.arrays()
        starts, sizes = np.insert(starts, at, 0), np.insert(sizes, at, -1)
        times, values = np.insert(times, at, odd_times), np.insert(values, at, odd_values)
    ids = np.full(len(times), -1, np.int32)
    if scanner and len(ids) > len(named):
        _drop_nan(view, starts, sizes, values, rejects)
        ids = scanner.scan_names(data, starts, sizes)
        count_refused(
            ids, rejects, lambda i: b"point " + bytes(view[starts[i] : starts[i] + sizes[i]])
        )
        named |= _odd_names(view, starts, sizes, ids, rejects)
    _resolve(named, ids, registry, rejects)
    block = PointBlock(ids, times, values)
    if ids.min(initial=0) < 0:
        taken = ids >= 0
        block = PointBlock(ids[taken], times[taken], values[taken])
    return parsed(block, rejects, _rest(view[used:], frame_bytes_max, rejects))


def _read_odd(
    view: memoryview, odd: list[tuple[int, int, int]], now_s: int, rejects: Rejects
) -> tuple[_Points, NDArray[np.int64]]:
    """The points of odd frames, and in front of which position of the columns each belongs, int64 (n,)."""
    points = _Points(now_s, rejects)
    at: list[int] = []
    for position, start, end in odd:
        points.add_frame(bytes(view[start:end]))
        at += [position] * (len(points.names) - len(at))
    return points, np.array(at, np.int64)


def _drop_nan(
    view: memoryview, starts: Starts, sizes: Sizes, values: Values, rejects: Rejects
) -> None:
    """Counts points without a value; their sizes become -1, so that they make no series."""
    for i in np.flatnonzero(np.isnan(values)).tolist():
        name = bytes(view[starts[i] : starts[i] + sizes[i]])
        rejects.add(check_name(name) or Reason.NAN, b"point " + name)
        sizes[i] = -1


def _odd_names(
    view: memoryview, starts: Starts, sizes: Sizes, ids: Ids, rejects: Rejects
) -> dict[int, bytes]:
    """Names that the scan left over and that may be good, by position."""
    names = {}
    for i in np.flatnonzero(ids == ODD).tolist():
        name = bytes(view[starts[i] : starts[i] + sizes[i]])
        refused = check_name(name)
        if refused:
            rejects.add(refused, b"point " + name)
        else:
            names[i] = name
    return names


def _resolve(named: dict[int, bytes], ids: Ids, registry: NameRegistry, rejects: Rejects) -> None:
    """Fills in the ids of names that need the registry's rules, and counts what is refused."""
    if named:
        names = list(named.values())
        ids[list(named)], refused = registry.resolve(names)
        for position, reason in refused.items():
            rejects.add(reason, names[position])


def _rest(unused: memoryview, frame_bytes_max: int, rejects: Rejects) -> bytes:
    """What is kept for the next time: an unfinished frame, or the length of one that is too long."""
    if len(unused) >= LENGTH_BYTES and _length(unused)[0] > frame_bytes_max:
        rejects.add(Reason.LIMIT, bytes(unused[:32]))
        return bytes(unused[:LENGTH_BYTES])
    return bytes(unused)


def finish(data: Data, now_s: int, registry: NameRegistry) -> Parsed:
    """What is left at the end of a stream is a torn frame: counted, not taken."""
    rejects = Rejects()
    rejects.add(Reason.MALFORMED, bytes(data[:32]))
    return parsed(empty_block(), rejects)


class _Points:
    """Good points of one buffer, column by column."""

    def __init__(self, now_s: int, rejects: Rejects) -> None:
        self.now_s = now_s
        self.rejects = rejects
        self.names: list[bytes] = []
        self.times: list[Times] = [np.empty(0, np.int64)]
        self.values: list[Values] = [np.empty(0, np.float64)]

    def arrays(self) -> tuple[Times, Values]:
        return np.concatenate(self.times), np.concatenate(self.values)

    def add_frame(self, frame: bytes) -> None:
        columns = _common_shape(frame) or _statsd_shape(frame)
        if columns is not None and self._add_columns(columns):
            return
        try:
            value = load(frame)
        except PickleRefused as error:
            self.rejects.add(Reason.MALFORMED, str(error).encode())
            return
        if not isinstance(value, list | tuple):
            self.rejects.add(Reason.MALFORMED, b"a pickle that is not a list of points")
            return
        self._add_one_by_one(value)

    def _add_one_by_one(self, raw_points: Iterable[Any]) -> None:
        good: list[tuple[bytes, float, float]] = []
        for raw in raw_points:
            point = _point(raw)
            if isinstance(point, Reason):
                self.rejects.add(point, _sample(raw))
            else:
                good.append(point)
        numbers = np.array([point[1:] for point in good], np.float64).reshape(-1, 2)
        self._append(([point[0] for point in good], numbers))

    def _add_columns(self, columns: Columns) -> bool:
        """Takes a frame's points at once if all are good; False leaves them to be looked at one by one."""
        names, numbers = columns
        if (
            not _all_good(names)
            or not np.all(np.abs(numbers[:, 0]) <= TIMESTAMP_ABS_MAX)
            or np.any(np.isnan(numbers[:, 1]))
        ):
            return False
        self._append(columns)
        return True

    def _append(self, columns: Columns) -> None:
        names, numbers = columns
        times = numbers[:, 0].astype(np.int64)  # cuts towards zero, as int() does
        times[times == -1] = self.now_s
        self.names += names
        self.times.append(times)
        self.values.append(numbers[:, 1])


def _point(raw: Any) -> tuple[bytes, float, float] | Reason:
    """Name, timestamp and value of one (name, (timestamp, value)), or why it is refused."""
    try:
        raw_name, (raw_timestamp, raw_value) = raw
        name = raw_name if isinstance(raw_name, bytes) else _encode_name(raw_name)
        timestamp, value = float(raw_timestamp), float(raw_value)
    except (TypeError, ValueError):  # load() lets no integer through that is too large for float()
        return Reason.MALFORMED
    refused = check_name(name)
    if refused:
        return refused
    if not -TIMESTAMP_ABS_MAX <= timestamp <= TIMESTAMP_ABS_MAX:
        return Reason.MALFORMED
    return Reason.NAN if math.isnan(value) else (name, timestamp, value)


def _all_good(names: list[bytes]) -> bool:
    """Whether no name of a frame needs a closer look: check_name() of all in one go."""
    joined = b"\n".join(names)
    return (
        len(joined.translate(None, _NAMES_ODD)) == len(joined)
        and joined.count(b"\n") == len(names) - 1
        and all(names)
        and len(max(names, key=len)) <= NAME_BYTES_MAX
    )


def _encode_name(name: Any) -> bytes:
    if not isinstance(name, str):
        raise TypeError("a name is text")
    return name.encode("utf-8", "surrogatepass")


def _sample(point: Any) -> bytes:
    """A short text of a point without following deep or large values."""
    if isinstance(point, list | tuple):
        parts = [str(part)[:60] for part in point[:3] if isinstance(part, str | bytes | float)]
        return ("point " + " ".join(parts)).encode("utf-8", "backslashreplace")
    return type(point).__name__.encode()


def _common_shape(frame: bytes) -> Columns | None:
    """Columns of a frame in the shape that carbon-relay sends; None if it isn't exactly that.

    Several times faster than load(): one match a point, and no tuples.
    """
    head = _HEAD(frame)
    if head is None:
        return None
    names: list[bytes] = []
    numbers: list[bytes] = []
    at = head.end()
    try:
        while frame[at] == 0x28:  # MARK: the picklers append up to 1,000 points at a time
            at += 1
            while frame[at] != 0x65:  # APPENDS
                if frame[at] == 0x58:  # BINUNICODE
                    start = at + 5
                    end = start + _uint4(frame, at + 1)[0]
                elif frame[at] in (0x8C, 0x55):  # SHORT_BINUNICODE, SHORT_BINSTRING
                    start = at + 2
                    end = start + frame[at + 1]
                else:
                    return None
                behind = _FLOATS(frame, end)
                if behind:
                    numbers += behind.groups()
                else:
                    behind = _NUMBERS(frame, end)
                    if behind is None:
                        return None
                    numbers += _as_floats(*behind.groups())
                names.append(frame[start:end])
                at = behind.end()
            at += 1
    except (IndexError, struct.error):
        return None
    if frame[at] != 0x2E or not names:
        return None
    return names, np.frombuffer(b"".join(numbers), ">f8").reshape(-1, 2).astype(np.float64)


def _as_floats(
    f_time: bytes | None, i_time: bytes, f_value: bytes | None, i_value: bytes
) -> tuple[bytes, bytes]:
    """Timestamp and value as BINFLOATs, of which each may have been a BININT."""
    return (
        f_time or struct.pack(">d", *_int4(i_time)),
        f_value or struct.pack(">d", *_int4(i_value)),
    )


def _statsd_shape(frame: bytes) -> Columns | None:
    """Columns of a frame as etsy's statsd writes it; None if it isn't exactly that."""
    if not _STATSD_FRAME(frame):
        return None
    rows = _STATSD_POINTS(frame)
    try:
        numbers = [(float(timestamp), float(value)) for _, timestamp, value in rows]
    except ValueError:
        return None
    return [name for name, _, _ in rows], np.array(numbers, np.float64).reshape(-1, 2)


def encode(names: Sequence[bytes], times: Sequence[float], values: Sequence[float]) -> bytes:
    """One frame of points, column by column, in carbon-relay's shape: protocol 2, float timestamps."""
    body = [b"\x80\x02]("]
    for name, time_s, value in zip(names, times, values, strict=True):
        head = struct.pack("<cI", b"X", len(name))
        body.append(head + name + struct.pack(">cdcd2s", b"G", time_s, b"G", value, b"\x86\x86"))
    body.append(b"e.")
    frame = b"".join(body)
    return struct.pack(">I", len(frame)) + frame


def _wanted(rest: bytes, frame_bytes_max: int) -> int:
    if len(rest) < LENGTH_BYTES:
        return LENGTH_BYTES
    size: int = _length(rest)[0]
    return LENGTH_BYTES + size if size <= frame_bytes_max else -1


def wire_format(frame_bytes_max: int = FRAME_BYTES_MAX) -> WireFormat:
    return WireFormat(
        partial(parse, frame_bytes_max=frame_bytes_max),
        finish,
        partial(_wanted, frame_bytes_max=frame_bytes_max),
    )
