"""From known slots to rows of ``ts``: a collector that takes series one by one and gives blocks for the store."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tgres_py.model.retention import Archive
from tgres_py.storage.port import ChunkRows

Slots = NDArray[np.int64]
Floats = NDArray[np.float64]


def chunks_of_slots(archive: Archive, slots: Slots, values: Floats) -> tuple[Slots, Floats]:
    """The chunks that hold the slots: their numbers (slot // width) int64 (k,), ascending, and their
    slots float64 (k, width), NaN where none was given. Of equal slots the last one counts."""
    if len(slots) == 0:
        return np.empty(0, np.int64), np.empty((0, archive.width))
    chunk, place = np.divmod(slots, archive.width)
    first = int(chunk.min())
    chunk -= first
    present = np.zeros(int(chunk.max()) + 1, np.bool_)
    present[chunk] = True
    row = np.cumsum(present) - 1
    dp = np.full((int(row[-1]) + 1, archive.width), np.nan)
    dp[row[chunk], place] = values
    return np.flatnonzero(present) + first, dp


class Collector:
    """Chunks of many series, gathered for one write. ``slots``: how many known ones it holds."""

    def __init__(self) -> None:
        self.slots = 0
        self._parts: dict[tuple[int, Archive], list[tuple[int, Slots, Floats]]] = {}

    def add(self, series: int, number: int, archive: Archive, slots: Slots, values: Floats) -> None:
        """Known slots of archive ``number``; ``series``: a number of the caller's."""
        if len(slots) == 0:
            return
        chunks, dp = chunks_of_slots(archive, slots, values)
        self._parts.setdefault((number, archive), []).append((series, chunks, dp))
        self.slots += len(slots)

    def take(self, rrd_ids: NDArray[np.int64]) -> list[ChunkRows]:
        """All rows, and the collector is empty again. ``rrd_ids``: by number of the series; 0: left out."""
        parts, self._parts, self.slots = self._parts, {}, 0
        blocks = [
            _rows(number, archive, held, rrd_ids) for (number, archive), held in parts.items()
        ]
        return [block for block in blocks if len(block)]


def _rows(
    number: int,
    archive: Archive,
    parts: list[tuple[int, Slots, Floats]],
    rrd_ids: NDArray[np.int64],
) -> ChunkRows:
    parts = [part for part in parts if rrd_ids[part[0]] > 0]
    if not parts:
        empty = np.empty(0, np.int64)
        return ChunkRows(number, empty, empty.astype(np.int32), empty, np.empty((0, archive.width)))
    lengths = [len(chunks) for _, chunks, _ in parts]
    chunks = np.concatenate([chunks for _, chunks, _ in parts])
    return ChunkRows(
        number,
        np.repeat(rrd_ids[[series for series, _, _ in parts]], lengths),
        (chunks % archive.chunks).astype(np.int32),
        chunks * archive.chunk_s,
        np.concatenate([dp for _, _, dp in parts]),
    )


def points_by_series(
    rows: ChunkRows, archive: Archive
) -> dict[int, tuple[NDArray[np.int64], Floats]]:
    """(slots, values) of the known slots of each series that has any, by rrd_id."""
    rrd_ids, slots, values = slots_of_rows(rows, archive)
    order = np.argsort(rrd_ids, kind="stable")
    rrd_ids, slots, values = rrd_ids[order], slots[order], values[order]
    found, first = np.unique(rrd_ids, return_index=True)
    ends = np.append(first, len(rrd_ids))[1:].tolist()
    return {
        rrd_id: (slots[a:b], values[a:b])
        for rrd_id, a, b in zip(found.tolist(), first.tolist(), ends, strict=True)
    }


def slots_of_rows(rows: ChunkRows, archive: Archive) -> tuple[NDArray[np.int64], Slots, Floats]:
    """The known slots of chunk rows: rrd_id, slot and value of each, by row and then by time."""
    row, place = np.nonzero(~np.isnan(rows.dp))
    slots = rows.start_s[row] // archive.step_s + place
    return rows.rrd_id[row], slots, rows.dp[row, place]
