"""Retentions: which archives a series has, and how finer ones are rolled up into coarser ones."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cf(StrEnum):
    """Consolidation functions: whisper's aggregation methods, and median."""

    AVERAGE = "average"
    SUM = "sum"
    LAST = "last"
    MAX = "max"
    MIN = "min"
    AVG_ZERO = "avg_zero"
    ABSMAX = "absmax"
    ABSMIN = "absmin"
    MEDIAN = "median"


class OnDuplicate(StrEnum):
    """What happens when two points meet in one slot of the finest archive."""

    LAST = "last"
    FIRST = "first"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Archive:
    """A ring of ``size`` slots of ``step_s`` seconds; stored in rows of ``width`` slots."""

    step_s: int
    size: int
    width: int

    @property
    def retention_s(self) -> int:
        return self.step_s * self.size

    @property
    def chunk_s(self) -> int:
        """Seconds that one chunk spans."""
        return self.step_s * self.width

    @property
    def chunks(self) -> int:
        """Chunks of the ring: one more than ``size`` needs, so that the newest never costs the oldest slot in reach."""
        return -(-self.size // self.width) + 1


@dataclass(frozen=True, slots=True)
class BundleSpec:
    """What the series of a bundle share. ``archives``: finest first."""

    archives: tuple[Archive, ...]
    cf: Cf = Cf.AVERAGE
    xff: float = 0.5
    on_duplicate: OnDuplicate = OnDuplicate.LAST
