"""Pure twin of ``_ring.pyx``: used where the extension isn't built, and the model it is tested against."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

RULE_LAST, RULE_FIRST, RULE_SUM, RULE_MEAN, RULE_MIN, RULE_MAX = range(6)
FLOOR_NONE = -(1 << 62)

_LATE, _TOO_OLD, _FUTURE, _UNPLACED = 1, 2, 3, 4

Ids = NDArray[np.int32]
Stored = tuple[int, int, Ids, Ids, Ids, Ids]


@dataclass(slots=True)
class _Segment:
    step: int
    retention_s: int
    reach_s: int
    capacity: int
    rule: int
    floor: int
    seal: int
    used: int = 0
    written: int = 0
    rows: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    counts: dict[int, NDArray[np.uint32]] = field(default_factory=dict)


class RingStore:
    """The finest archives of all series, newest slots, by segments of up to 4,096 series of one bundle.

    A segment's slots at or above its ``floor`` live here and nowhere else; slots below live in the
    store. While a chunk is being written its slots are sealed: they can be read, but take no points.
    """

    def __init__(self) -> None:
        self._segs: list[_Segment] = []
        self._seg_of = np.full(1024, -1, np.int32)
        self._col_of = np.full(1024, -1, np.int32)
        self.row_bytes = 0

    @property
    def segments(self) -> int:
        return len(self._segs)

    def add_segment(
        self,
        step_s: int,
        retention_s: int,
        reach_s: int,
        capacity: int,
        rule: int,
        floor: int = FLOOR_NONE,
    ) -> int:
        """A new segment's number. ``retention_s``: of the finest archive, ``reach_s``: of the longest."""
        self._segs.append(_Segment(step_s, retention_s, reach_s, capacity, rule, floor, floor))
        return len(self._segs) - 1

    def place(self, ids: Ids, segment: int) -> None:
        """Gives the series the next columns of a segment."""
        ids = np.asarray(ids, np.int32)
        g = self._segs[segment]
        if g.used + len(ids) > g.capacity:
            raise ValueError("segment is full")
        if len(ids) == 0:
            return
        if ids.min() < 0:
            raise ValueError("negative id")
        top = int(ids.max())
        if top >= len(self._seg_of):
            room = max(top + 1, 2 * len(self._seg_of))
            for name in ("_seg_of", "_col_of"):
                known = getattr(self, name)
                grown = np.full(room, -1, np.int32)
                grown[: len(known)] = known
                setattr(self, name, grown)
        for i in ids.tolist():
            self._seg_of[i] = segment
            self._col_of[i] = g.used
            g.used += 1

    def locate(self, ids: Ids) -> tuple[Ids, Ids]:
        """(segment, column) of each series, -1 where it has no place."""
        ids = np.asarray(ids, np.int32)
        known = (ids >= 0) & (ids < len(self._seg_of))
        at = np.where(known, ids, 0)
        segs = np.where(known, self._seg_of[at], -1).astype(np.int32)
        return segs, np.where(segs >= 0, self._col_of[at], -1).astype(np.int32)

    def used(self, s: int) -> int:
        """Columns given."""
        return self._segs[s].used

    def capacity(self, s: int) -> int:
        return self._segs[s].capacity

    def floor(self, s: int) -> int:
        """First slot that lives here; FLOOR_NONE: all do."""
        return self._segs[s].floor

    def seal(self, s: int) -> int:
        """First slot that takes points."""
        return self._segs[s].seal

    def set_seal(self, s: int, slot: int) -> None:
        g = self._segs[s]
        g.seal = max(slot, g.floor)

    def span(self, s: int) -> tuple[int, int]:
        """(lowest, highest + 1) slot that has a row; equal when there is none."""
        rows = self._segs[s].rows
        return (min(rows), max(rows) + 1) if rows else (0, 0)

    def written(self, s: int) -> int:
        """Points stored since the segment was made; tells whether anything changed."""
        return self._segs[s].written

    def _row(self, g: _Segment, slot: int) -> NDArray[np.float64]:
        row = g.rows.get(slot)
        if row is None:
            row = g.rows[slot] = np.full(g.capacity, np.nan)
            self.row_bytes += row.nbytes
            if g.rule == RULE_MEAN:
                g.counts[slot] = np.zeros(g.capacity, np.uint32)
                self.row_bytes += g.counts[slot].nbytes
        return row

    def store(
        self,
        ids: Ids,
        times: NDArray[np.int64],
        values: NDArray[np.float64],
        now_s: int,
        future_s_max: int,
    ) -> Stored:
        """Puts points into their slots.

        Returns (stored, overwritten, late, too_old, future, unplaced): two counts, then int32 arrays
        of the positions in the block of the points that were not taken: late = below the seal or
        older than the finest archive reaches, too_old = older than the longest archive reaches.
        """
        segs, cols = self.locate(ids)
        kind = np.zeros(len(ids), np.int8)
        slots = np.zeros(len(ids), np.int64)
        stored = overwritten = 0
        for s in np.unique(segs).tolist():
            mine = segs == s
            if s < 0:
                kind[mine] = _UNPLACED
                continue
            g = self._segs[s]
            slots[mine] = times[mine] // g.step
            late = mine & ((slots < g.seal) | (times < now_s - g.retention_s))
            kind[late] = _LATE
            kind[mine & (times > now_s + future_s_max)] = _FUTURE
            kind[mine & ((times < now_s - g.reach_s) | (times < 0))] = _TOO_OLD
            taken = mine & (kind == 0)
            g.written += int(taken.sum())
            for slot in np.unique(slots[taken]).tolist():
                at = np.flatnonzero(taken & (slots == slot))
                new = self._merge(g, slot, cols[at], values[at])
                stored += new
                overwritten += len(at) - new
        at_of = [np.flatnonzero(kind == k).astype(np.int32) for k in range(1, 5)]
        return stored, overwritten, at_of[0], at_of[1], at_of[2], at_of[3]

    def _merge(self, g: _Segment, slot: int, cols: Ids, values: NDArray[np.float64]) -> int:
        """Merges points of one slot in order; returns how many met an empty place."""
        row = self._row(g, slot)
        unique, first = np.unique(cols, return_index=True)
        new = int(np.isnan(row[unique]).sum())
        if g.rule == RULE_LAST:
            row[cols] = values
            return new
        if g.rule == RULE_FIRST:
            empty = np.isnan(row[unique])
            row[unique[empty]] = values[first[empty]]
            return new
        for col, value in zip(cols.tolist(), values.tolist(), strict=True):
            old = row[col]
            if np.isnan(old):
                row[col] = value
                if g.rule == RULE_MEAN:
                    g.counts[slot][col] = 1
            elif g.rule == RULE_SUM:
                row[col] = old + value
            elif g.rule == RULE_MEAN:
                g.counts[slot][col] += 1
                row[col] = old + (value - old) / int(g.counts[slot][col])
            elif g.rule == RULE_MIN:
                row[col] = min(old, value)
            elif g.rule == RULE_MAX:
                row[col] = max(old, value)
        return new

    def assign(
        self,
        ids: Ids,
        times: NDArray[np.int64],
        values: NDArray[np.float64],
        counts: NDArray[np.uint32] | None = None,
    ) -> None:
        """Sets slots to values (journal images), whatever they held. Points below the seal are skipped."""
        segs, cols = self.locate(ids)
        for i, (s, col) in enumerate(zip(segs.tolist(), cols.tolist(), strict=True)):
            if s < 0:
                continue
            g = self._segs[s]
            slot = int(times[i]) // g.step
            if times[i] < 0 or slot < g.seal:
                continue
            self._row(g, slot)[col] = values[i]
            if g.rule == RULE_MEAN:
                g.counts[slot][col] = 1 if counts is None else counts[i]
            g.written += 1

    def gather(self, s: int, cols: Ids, from_slot: int, until_slot: int) -> NDArray[np.float64]:
        """float64 (len(cols), until_slot - from_slot), NaN where nothing is known."""
        return np.ascontiguousarray(self.block(s, from_slot, until_slot)[:, np.asarray(cols)].T)

    def block(self, s: int, from_slot: int, until_slot: int) -> NDArray[np.float64]:
        """float64 (until_slot - from_slot, used), slot-major copy."""
        g = self._segs[s]
        out = np.full((max(0, until_slot - from_slot), g.used), np.nan)
        for i in range(len(out)):
            row = g.rows.get(from_slot + i)
            if row is not None:
                out[i] = row[: g.used]
        return out

    def count_block(self, s: int, from_slot: int, until_slot: int) -> NDArray[np.float64]:
        """Points of each slot, float64 like ``block`` (0 = none); only for the rule mean."""
        g = self._segs[s]
        out = np.zeros((max(0, until_slot - from_slot), g.used))
        for i in range(len(out)):
            row = g.counts.get(from_slot + i)
            if row is not None:
                out[i] = row[: g.used]
        return out

    def drop(self, s: int, until_slot: int) -> None:
        """Frees all rows below ``until_slot``, which becomes floor and seal."""
        g = self._segs[s]
        for slot in [slot for slot in g.rows if slot < until_slot]:
            self.row_bytes -= g.rows.pop(slot).nbytes
            if slot in g.counts:
                self.row_bytes -= g.counts.pop(slot).nbytes
        g.floor = g.seal = until_slot
