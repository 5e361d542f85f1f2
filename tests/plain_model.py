"""The slow reference of the whole project: what one series holds after a stream of points.

Whisper's rules, point by point, with dicts and Python's own arithmetic; nothing here is shared with the
product but the dataclasses. tests/test_consolidation.py holds it equal to the real whisper package.

Differences from whisper that are meant:
* A point whose slot lies just outside its archive's ring (its age is within one step of the retention) is dropped.
  whisper lets it overwrite the newest slot. Streams for comparison avoid these ages (``at_edge``).
* NaN as the outcome of a rollup (inf - inf) is unknown and changes nothing.
* ``on_duplicate``; whisper has only "last". The rule holds in the finest archive; where a late point goes
  to a coarser archive it replaces what was rolled up, as in whisper.

A ring keeps, for each place slot % size, only the newest lap; so late points are rolled up with those of their
neighbours that whisper's file still holds.
"""

from __future__ import annotations

import math
import statistics
import struct

from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate


class Ring:
    """One archive: place in the ring -> (slot, value)."""

    def __init__(self, archive: Archive) -> None:
        self.step_s = archive.step_s
        self.size = archive.size
        self.retention_s = archive.retention_s
        self.cells: dict[int, tuple[int, float]] = {}

    def get(self, slot: int) -> float | None:
        held, value = self.cells.get(slot % self.size, (None, math.nan))
        return value if held == slot else None

    def times_s(self) -> list[int]:
        return [slot * self.step_s for slot, _ in self.cells.values()]

    def put(self, slot: int, value: float) -> bool:
        held, _ = self.cells.get(slot % self.size, (slot, math.nan))
        if held > slot:
            return False
        self.cells[slot % self.size] = (slot, value)
        return True


class PlainSeries:
    def __init__(self, spec: BundleSpec) -> None:
        self.spec = spec
        self.rings = [Ring(archive) for archive in spec.archives]
        self.stored_xff: float = struct.unpack("!f", struct.pack("!f", spec.xff))[0]
        self.met: dict[int, tuple[float, int]] = {}  # finest slot -> sum and count of its points

    def add(self, time_s: int, value: float, now_s: int) -> bool:
        """Takes one point; False when it is older than all archives or its slot has been reused."""
        if math.isnan(value):
            return False
        age_s = now_s - time_s
        number = sum(ring.retention_s < age_s for ring in self.rings)
        if number == len(self.rings):
            return False
        ring = self.rings[number]
        slot = time_s // ring.step_s
        if number == 0:
            value = self._meet(slot, value)
        if not ring.put(slot, value):
            return False
        for finer, coarser in zip(self.rings[number:], self.rings[number + 1 :], strict=False):
            if not self._roll_up(finer, coarser, time_s // coarser.step_s):
                break
        return True

    def read(self, archive: int) -> dict[int, float]:
        """The known slots of an archive."""
        return dict(sorted(self.rings[archive].cells.values()))

    def at_edge(self, time_s: int, now_s: int) -> bool:
        """Whether a point is too close to the end of a retention for a comparison with whisper."""
        age_s = now_s - time_s
        return any(
            ring.retention_s - ring.step_s <= age_s <= ring.retention_s for ring in self.rings
        )

    def _meet(self, slot: int, value: float) -> float:
        """The value of a slot of the finest archive after one more point."""
        held = self.rings[0].get(slot)
        if held is None:
            self.met[slot] = (value, 1)
            return value
        total, count = self.met[slot]
        self.met[slot] = (total + value, count + 1)
        match self.spec.on_duplicate:
            case OnDuplicate.LAST:
                return value
            case OnDuplicate.FIRST:
                return held
            case OnDuplicate.SUM:
                return held + value
            case OnDuplicate.MEAN:
                return (total + value) / (count + 1)
            case OnDuplicate.MIN:
                return min(held, value)
            case OnDuplicate.MAX:
                return max(held, value)

    def _roll_up(self, finer: Ring, coarser: Ring, slot: int) -> bool:
        factor = coarser.step_s // finer.step_s
        neighbours = [finer.get(slot * factor + i) for i in range(factor)]
        known = [value for value in neighbours if value is not None]
        if not known or len(known) / factor < self.stored_xff:
            return False
        value = consolidate(self.spec.cf, known, factor)
        return not math.isnan(value) and coarser.put(slot, value)


def naive_sum(values: list[float]) -> float:
    """One addition after the other, as sum() does up to Python 3.11; later ones compensate."""
    total = 0.0
    for value in values:
        total += value
    return total


def consolidate(cf: Cf, known: list[float], factor: int) -> float:
    match cf:
        case Cf.AVERAGE:
            return naive_sum(known) / len(known)
        case Cf.SUM:
            return naive_sum(known)
        case Cf.LAST:
            return known[-1]
        case Cf.MAX:
            return max(known)
        case Cf.MIN:
            return min(known)
        case Cf.AVG_ZERO:
            return naive_sum(known) / factor
        case Cf.ABSMAX:
            return max(known, key=abs)
        case Cf.ABSMIN:
            return min(known, key=abs)
        case Cf.MEDIAN:
            low, high = statistics.median_low(known), statistics.median_high(known)
            mean = (low + high) / 2
            return low / 2 + high / 2 if math.isinf(mean) else mean
