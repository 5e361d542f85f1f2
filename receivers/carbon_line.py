"""Carbon's plaintext format.

    stream    = { line LF }                 a last line without LF is taken when the stream ends
    line      = blanks name blanks value blanks timestamp blanks
    blanks    = SP | TAB | CR | VT | FF     any run of them; at both ends also none
    name      = UTF-8 without control characters, up to NAME_BYTES_MAX; may carry tags (;tag=value)
    value     = what Python's float() takes: 1, 1.5, 1e3, 1_000, inf; NaN is dropped (as carbon does)
    timestamp = Unix seconds, what float() takes, cut to whole seconds; -1 (-1.0, -1.9) = now

Rules from carbon 1.1.10 (MetricLineReceiver and MetricReceiver.metricReceived), with three differences:
a bad byte costs the line and not the connection, the last line of a TCP stream needs no LF, and a
line of blanks only is nothing (carbon logs it as invalid). Digits are ASCII.

The checks, in this order: LIMIT line longer than line_bytes_max (default LINE_BYTES_MAX); UTF8; MALFORMED not three fields;
LIMIT name longer than NAME_BYTES_MAX; NAME control character in the name; MALFORMED value or timestamp not a
number, timestamp not finite or beyond +-2**53; NAN.

An unfinished line is returned as ``rest`` and goes in front of the next bytes. Of one that is already too
long only the first line_bytes_max + 1 bytes are kept: enough to be refused, once, when its end is
seen. So the skipping of a long line needs no state besides ``rest`` itself.

A registry that can scan (the server's) reads plain lines by itself, with a native kernel where it is built; only
what is odd about a line comes here. The tests run over all ways and ask for the same outcome.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import numpy as np

from receivers.block import (
    TIMESTAMP_ABS_MAX,
    Rejects,
    check_name,
    count_refused,
    parsed,
    resolve_block,
)
from receivers.sink import Data, LineScanner, NameRegistry, WireFormat, scans_lines
from tgres_py.model.points import Parsed, PointBlock, Reason, lowest

LINE_BYTES_MAX = 16_384


def split_line(
    line: bytes, now_s: int, line_bytes_max: int = LINE_BYTES_MAX
) -> tuple[bytes, int, float] | Reason:
    """(name as sent, Unix seconds, value) of one line without its LF, or why it is refused."""
    if len(line) > line_bytes_max:
        return Reason.LIMIT
    if not line.isascii():
        try:
            line.decode()
        except UnicodeDecodeError:
            return Reason.UTF8
    fields = line.split()
    if len(fields) != 3:
        return Reason.MALFORMED
    name = fields[0]
    refused = check_name(name)
    if refused:
        return refused
    try:
        value = float(fields[1])
        timestamp = float(fields[2])
    except ValueError:
        return Reason.MALFORMED
    if not -TIMESTAMP_ABS_MAX <= timestamp <= TIMESTAMP_ABS_MAX:  # False for NaN, too
        return Reason.MALFORMED
    if math.isnan(value):
        return Reason.NAN
    time_s = int(timestamp)
    return name, now_s if time_s == -1 else time_s, value


def parse(
    data: Data, now_s: int, registry: NameRegistry, line_bytes_max: int = LINE_BYTES_MAX
) -> Parsed:
    """The points of all complete lines in ``data``; ``rest`` is the unfinished one at the end."""
    if scans_lines(registry):
        return _parse_scanned(data, now_s, registry, line_bytes_max)
    lines = bytes(data).split(b"\n")
    rest = lines.pop()[: line_bytes_max + 1]
    rejects = Rejects()
    names: list[bytes] = []
    times: list[int] = []
    values: list[float] = []
    for line in lines:
        point = split_line(line, now_s, line_bytes_max)
        if isinstance(point, tuple):
            names.append(point[0])
            times.append(point[1])
            values.append(point[2])
        elif not _is_blank(point, line):
            rejects.add(point, line)
    block = resolve_block(
        names, np.array(times, np.int64), np.array(values, np.float64), rejects, registry
    )
    return parsed(block, rejects, rest)


def _is_blank(refused: Reason, line: bytes) -> bool:
    return refused is Reason.MALFORMED and not line.strip()


def _parse_scanned(data: Data, now_s: int, registry: LineScanner, line_bytes_max: int) -> Parsed:
    """The same by way of the registry's scan: only odd lines are split here."""
    ids, times, values, odd, used = registry.scan(data, now_s)
    rest = bytes(data[used : used + line_bytes_max + 1])
    rejects = Rejects()
    at: list[int] = []
    names: list[bytes] = []
    for position, line in odd:
        point = split_line(line, now_s, line_bytes_max)
        if isinstance(point, tuple):
            name, times[position], values[position] = point
            at.append(position)
            names.append(name)
        elif not _is_blank(point, line):
            rejects.add(point, line)
    if names:
        ids[at], refused = registry.resolve(names)
        for position, reason in refused.items():
            rejects.add(reason, names[position])
    if lowest(ids) < 0:
        count_refused(ids, rejects, lambda at: bytes(data).split(b"\n", at + 1)[at])
        taken = ids >= 0
        ids, times, values = ids[taken], times[taken], values[taken]
    return parsed(PointBlock(ids, times, values), rejects, rest)


def finish(
    data: Data, now_s: int, registry: NameRegistry, line_bytes_max: int = LINE_BYTES_MAX
) -> Parsed:
    """The points of ``data`` when nothing follows: its last line needs no LF."""
    return parse(bytes(data) + b"\n", now_s, registry, line_bytes_max)


def encode(names: Iterable[bytes], times: Iterable[int], values: Iterable[float]) -> bytes:
    """Lines of points, column by column; values in their shortest exact form."""
    return b"".join(
        b"%b %a %d\n" % (name, float(value), time_s)
        for name, time_s, value in zip(names, times, values, strict=True)
    )


def _wanted(rest: bytes) -> int:
    return len(rest) + 1


def wire_format(line_bytes_max: int = LINE_BYTES_MAX) -> WireFormat:
    return WireFormat(
        partial(parse, line_bytes_max=line_bytes_max),
        partial(finish, line_bytes_max=line_bytes_max),
        _wanted,
    )


WIRE_FORMAT = wire_format()
