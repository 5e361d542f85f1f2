"""From slots to rows of ``ts``."""

from __future__ import annotations

from collections.abc import Iterator

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
    chunks = slots // archive.width
    keys, where = np.unique(np.stack([chunks, rrd_ids]), axis=1, return_inverse=True)
    dp = np.full((keys.shape[1], archive.width), np.nan)
    dp[where.reshape(-1), slots % archive.width] = values
    return _rows(number, archive, keys[1], keys[0], dp)


def joined(rows: list[ChunkRows], more: list[ChunkRows]) -> list[ChunkRows]:
    """All rows, each (rrd_id, archive, n) once: one statement can't write a row twice."""
    out = [r for r in rows if not any(r.archive == m.archive for m in more)]
    for number in sorted({m.archive for m in more}):
        parts = [r for r in [*rows, *more] if r.archive == number]
        keys = np.stack(
            [
                np.concatenate([p.start_s for p in parts]),
                np.concatenate([p.rrd_id for p in parts]),
                np.concatenate([p.n for p in parts]).astype(np.int64),
            ]
        )
        unique, where = np.unique(keys, axis=1, return_inverse=True)
        dp = np.full((unique.shape[1], parts[0].dp.shape[1]), np.nan)
        for row, values in zip(
            where.reshape(-1), np.concatenate([p.dp for p in parts]), strict=True
        ):
            known = ~np.isnan(values)
            dp[row, known] = values[known]
        out.append(ChunkRows(number, unique[1], unique[2].astype(np.int32), unique[0], dp))
    return out


def _rows(number: int, archive: Archive, rrd_ids: Longs, chunks: Longs, dp: Floats) -> ChunkRows:
    return ChunkRows(
        number,
        np.ascontiguousarray(rrd_ids),
        (chunks % archive.chunks).astype(np.int32),
        chunks * archive.chunk_s,
        dp,
    )
