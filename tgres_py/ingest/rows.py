"""From slots to rows of ``ts``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgres_py.model.retention import Archive
from tgres_py.storage.port import ChunkRows

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]


def rows_of_block(
    number: int, archive: Archive, rrd_ids: Longs, first_slot: int, block: Floats
) -> Iterator[ChunkRows]:
    """Rows of a slot-major block (n_slots, n_series), one ChunkRows for each chunk that it touches.

    A series without a known value in the chunk, or without a row in ``rrd`` (rrd_id 0), gets none.
    """
    width = archive.width
    slot, end = first_slot, first_slot + len(block)
    while slot < end:
        chunk = slot // width
        until = min(end, (chunk + 1) * width)
        part = block[slot - first_slot : until - first_slot]
        chosen = np.flatnonzero((~np.isnan(part)).any(axis=0) & (rrd_ids > 0))
        if len(chosen):
            offset = slot - chunk * width
            if len(part) == width and len(chosen) == part.shape[1]:
                dp = np.ascontiguousarray(part.T)
            else:
                dp = np.full((len(chosen), width), np.nan)
                dp[:, offset : offset + len(part)] = part[:, chosen].T
            yield _rows(number, archive, rrd_ids[chosen], np.full(len(chosen), chunk, np.int64), dp)
        slot = until


def rows_of_slots(
    number: int, archive: Archive, rrd_ids: Longs, slots: Longs, values: Floats
) -> ChunkRows:
    """Rows that hold single slots, all else unknown. A (rrd_id, slot) stands once."""
    first, where = unique_pairs(slots // archive.width, rrd_ids)
    dp = np.full((len(first), archive.width), np.nan)
    dp[where, slots % archive.width] = values
    return _rows(number, archive, rrd_ids[first], slots[first] // archive.width, dp)


def unique_pairs(
    major: NDArray[np.integer[Any]], minor: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(where each pair stands first, which of them each place has), pairs in ascending order.

    Sorts two columns of numbers; np.unique of a table compares rows as bytes, which takes ten times as long.
    """
    order = np.lexsort((minor, major))
    a, b = major[order], minor[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    which = np.empty(len(order), np.intp)
    which[order] = np.cumsum(begins) - 1
    return order[begins], which


def joined(rows: list[ChunkRows], more: list[ChunkRows]) -> list[ChunkRows]:
    """All rows, each (rrd_id, archive, n) once: one statement can't write a row twice."""
    out = [r for r in rows if not any(r.archive == m.archive for m in more)]
    for number in sorted({m.archive for m in more}):
        parts = [r for r in [*rows, *more] if r.archive == number]
        start_s = np.concatenate([p.start_s for p in parts])
        rrd_ids = np.concatenate([p.rrd_id for p in parts])
        n = np.concatenate([p.n for p in parts])  # follows from start_s
        first, where = unique_pairs(start_s, rrd_ids)
        dp = np.full((len(first), parts[0].dp.shape[1]), np.nan)
        for row, values in zip(where, np.concatenate([p.dp for p in parts]), strict=True):
            known = ~np.isnan(values)
            dp[row, known] = values[known]
        out.append(ChunkRows(number, rrd_ids[first], n[first], start_s[first], dp))
    return out


def _rows(number: int, archive: Archive, rrd_ids: Longs, chunks: Longs, dp: Floats) -> ChunkRows:
    return ChunkRows(
        number,
        np.ascontiguousarray(rrd_ids),
        (chunks % archive.chunks).astype(np.int32),
        chunks * archive.chunk_s,
        dp,
    )
