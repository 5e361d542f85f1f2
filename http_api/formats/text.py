"""format=raw and format=csv.

    raw   name,start,end,step|v,v,None,…\n        end exclusive, numbers as Python writes them
    csv   name,2026-05-12 14:46:30,33.29\r\n      Excel's quoting; the time in the request's tz; unknown = empty

Unlike in JSON, infinities are written (``inf``). Neither knows maxDataPoints (as graphite-web).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial

import numpy as np
from numpy.typing import NDArray

from http_api.formats.look import Look
from http_api.formats.points import NAME, Points, python_numbers
from tgres_py.functions.series import SeriesBlock

OFFSET_S = 900  # zones change their offset at multiples of this
YEAR_9999_S = 253_402_300_799


def write_raw(blocks: Sequence[SeriesBlock], look: Look) -> Iterator[bytes]:
    for block in blocks:
        for label, grid, values in block.rows():
            head = f"{label.name},{grid.start_s},{grid.end_s},{grid.step_s}|"
            yield head.encode("utf-8", "replace") + python_numbers(values, b"None") + b"\n"


def write_csv(blocks: Sequence[SeriesBlock], look: Look) -> Iterator[bytes]:
    def texts(times: range) -> bytes:
        seconds = np.arange(times.start, times.stop, times.step, dtype=np.int64)
        return ",".join(local_times(seconds, look.zone)).encode()

    write = partial(python_numbers, unknown=b"")
    points = Points(NAME + b",", b",%b\r\n", b"", texts, write)
    for block in blocks:
        for label, grid, values in block.rows():
            stop = grid.start_s + grid.step_s * len(values)
            times = range(grid.start_s, stop, grid.step_s)
            yield points.text(times, values, _csv_field(label.name))


def _csv_field(text: str) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow((text, ""))
    return out.getvalue()[:-3].encode("utf-8", "replace")


def local_times(seconds: NDArray[np.int64], zone: tzinfo) -> list[str]:
    """``2026-05-12 14:46:30`` in a zone, of Unix seconds; by offsets, not by a datetime a point."""
    seconds = np.clip(seconds, 0, YEAR_9999_S)
    parts, place = np.unique(seconds // OFFSET_S, return_inverse=True)
    offsets = np.array([_offset_s(part * OFFSET_S, zone) for part in parts.tolist()], np.int64)
    texts = np.datetime_as_string((seconds + offsets[place]).astype("datetime64[s]"))
    return [text.replace("T", " ") for text in texts.tolist()]


def _offset_s(second: int, zone: tzinfo) -> int:
    offset = datetime.fromtimestamp(second, UTC).astimezone(zone).utcoffset()
    return int(offset.total_seconds()) if offset else 0
