"""Retentions: which archives a series has, and how finer ones are rolled up into coarser ones.

    retention = archive { "," archive }          finest first after parsing
    archive   = step ":" length
    step      = number [ unit ]                  seconds without a unit
    length    = number                           slots
              | number unit                      time; divided by step, rounded down
    unit      = any beginning of seconds, minutes, hours, days, weeks, years (365 days)

Grammar and refusals are whisper's (``parseRetentionDef``, ``validateArchiveList`` of whisper 1.1.10).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tgres_py.errors import ConfigError

DEFAULT_RETENTION = "10s:6h,1m:7d,10m:5y"
ARCHIVES_MAX = 16
RETENTION_S_MAX = 2**32 - 1  # whisper's file keeps it in 32 bits

WIDTH_BEST = 480  # measured: best size on disk and in the WAL of rows of a float8[]
WIDTH_MIN, WIDTH_MAX = 360, 720  # how far from it a finest archive may go to meet coarser steps
WIDTH_COARSE_MIN = 48
CHUNK_S_MAX = 86_400  # a finest chunk spans at most a day

# What a series costs beside its slots; measured, rounded up.
SERIES_MEMORY_BYTES = 400  # name, its places in registry (160) and tree of names (60..250)
SLOT_MEMORY_BYTES = 9
ROW_DISK_BYTES = 140  # headers of tuple and array, columns, line pointer, index entry
SLOT_DISK_BYTES = 8

_UNITS = {
    "seconds": 1,
    "minutes": 60,
    "hours": 3_600,
    "days": 86_400,
    "weeks": 604_800,
    "years": 31_536_000,
}
_QUANTITY = re.compile(r"([0-9]+)([a-z]*)")

Pairs = tuple[tuple[int, int], ...]
"""(step_s, size) of each archive, finest first."""


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


class SeriesBytes(NamedTuple):
    """What one series costs once all its archives are full."""

    memory: int
    disk: int


def parse_retention(text: str) -> Pairs:
    """(step_s, size) of each archive of ``10s:6h,1m:7d,10m:5y``, finest first.

    ConfigError when it doesn't parse or when whisper would refuse it.
    """
    return validate_retention([_parse_archive(part.strip()) for part in text.split(",")])


def validate_retention(pairs: Iterable[tuple[int, int]]) -> Pairs:
    """The archives sorted finest first, if whisper would create a file with them; else ConfigError.

    Beyond whisper: steps and sizes below 1 are refused, and retentions that don't fit its file's
    32 bits (it fails on these later).
    """
    archives = tuple(sorted(pairs, key=lambda pair: pair[0]))
    if not archives:
        raise ConfigError("a retention needs at least one archive, for example 10s:6h")
    if len(archives) > ARCHIVES_MAX:
        raise ConfigError(f"{len(archives)} archives in one retention; at most {ARCHIVES_MAX} work")
    for step_s, size in archives:
        if step_s < 1 or size < 1:
            raise ConfigError(
                f"archive {step_s}:{size} has no slots: its step must be at least 1 s and its length at least one step"
            )
        if step_s * size > RETENTION_S_MAX:
            raise ConfigError(
                f"archive {step_s}:{size} is longer than {RETENTION_S_MAX} s (136 years)"
            )
    for fine, coarse in itertools.pairwise(archives):
        _check_neighbours(fine, coarse)
    return archives


def format_retention(pairs: Iterable[tuple[int, int]]) -> str:
    """A text that parses to ``pairs``, each time in the largest unit that divides it (7d, not 1w)."""
    return ",".join(f"{_format_s(step_s)}:{_format_s(step_s * size)}" for step_s, size in pairs)


def pairs_of(spec: BundleSpec) -> Pairs:
    return tuple((archive.step_s, archive.size) for archive in spec.archives)


def choose_widths(pairs: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Slots of a chunk for each archive of a valid retention; (480, 80, 48) for the default one.

    Finest: the width nearest to 480 (within 360..720) whose span is a multiple of as many coarser
    steps as possible, the next coarser first, so that a full chunk is a whole number of coarser
    slots; at most a day and never more than the archive.
    Coarser: what the finest chunk's span holds, so that all archives complete chunks at the same
    pace, but 48..480 slots: rows of fewer cost more in headers than in values.
    """
    (step_s, size), *coarser = pairs
    most = min(size, WIDTH_MAX, max(1, CHUNK_S_MAX // step_s))
    best = min(WIDTH_BEST, most)
    least = -(-best * WIDTH_MIN // WIDTH_BEST)

    def merit(width: int) -> tuple[int, int]:
        span_s = width * step_s
        met = 0
        while met < len(coarser) and span_s % coarser[met][0] == 0:
            met += 1
        return met, -abs(width - best)

    finest = max(range(least, most + 1), key=merit)
    span_s = finest * step_s
    return (
        finest,
        *(
            min(max(min(span_s // step, WIDTH_BEST), WIDTH_COARSE_MIN), slots)
            for step, slots in coarser
        ),
    )


def make_bundle(
    pairs: Iterable[tuple[int, int]],
    cf: Cf = Cf.AVERAGE,
    xff: float = 0.5,
    on_duplicate: OnDuplicate = OnDuplicate.LAST,
) -> BundleSpec:
    """The bundle of a retention, with the chosen widths. ConfigError as in validate_retention."""
    checked = validate_retention(pairs)
    if not 0 <= xff <= 1:
        raise ConfigError(f"xFilesFactor {xff} is not between 0 and 1")
    archives = tuple(
        Archive(step_s, size, width)
        for (step_s, size), width in zip(checked, choose_widths(checked), strict=True)
    )
    return BundleSpec(archives, Cf(cf), float(xff), OnDuplicate(on_duplicate))


def bytes_per_series(spec: BundleSpec) -> SeriesBytes:
    """Bytes in memory and on disk (uncompressed) of one series whose archives are full.

    memory = 400 + 9 * width of the finest archive: the ring holds its newest chunk, 8 bytes a slot, and
    an eighth more while full chunks wait for their moment to be written; coarser archives are
    rolled up from it when they are read or written.
    disk = sum over the archives of chunks * (140 + 8 * width); compression takes this to
    40..75 % on gauges with two decimals.
    """
    disk = sum(
        archive.chunks * (ROW_DISK_BYTES + SLOT_DISK_BYTES * archive.width)
        for archive in spec.archives
    )
    memory = SERIES_MEMORY_BYTES + SLOT_MEMORY_BYTES * spec.archives[0].width
    return SeriesBytes(memory, disk)


def _parse_archive(text: str) -> tuple[int, int]:
    step, separator, length = text.partition(":")
    if not separator:
        raise ConfigError(f"archive '{text}' is not STEP:LENGTH, for example 10s:6h")
    step_s, _ = _parse_quantity(step, text)
    amount, has_unit = _parse_quantity(length, text)
    if not has_unit:
        return step_s, amount
    return step_s, amount // step_s if step_s else 0


def _parse_quantity(text: str, archive: str) -> tuple[int, bool]:
    """The number, times its unit if it has one; and whether it has one."""
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise ConfigError(
            f"'{text}' in archive '{archive}' is not a number with a unit of s, m, h, d, w or y"
        )
    number, unit = match.groups()
    if len(number) > 12:
        raise ConfigError(f"{number} in archive '{archive}' is too large")
    if not unit:
        return int(number), False
    for name, seconds in _UNITS.items():
        if name.startswith(unit):
            return int(number) * seconds, True
    raise ConfigError(f"unknown unit '{unit}' in archive '{archive}': use s, m, h, d, w or y")


def _check_neighbours(fine: tuple[int, int], coarse: tuple[int, int]) -> None:
    pair = f"{format_retention([fine])} and {format_retention([coarse])}"
    if fine[0] == coarse[0]:
        raise ConfigError(f"two archives have the same step of {fine[0]} s: {pair}")
    if coarse[0] % fine[0]:
        raise ConfigError(
            f"the step of {coarse[0]} s is no multiple of the next finer one of {fine[0]} s: {pair}"
        )
    if coarse[0] * coarse[1] <= fine[0] * fine[1]:
        raise ConfigError(f"the coarser archive must reach further back than the finer one: {pair}")
    factor = coarse[0] // fine[0]
    if fine[1] < factor:
        raise ConfigError(
            f"the finer archive has {fine[1]} slots, but one coarser slot is made of {factor}: {pair}"
        )


def _format_s(seconds: int) -> str:
    name = max(
        (name for name, unit in _UNITS.items() if name != "weeks" and seconds % unit == 0),
        key=_UNITS.__getitem__,
    )
    return f"{seconds // _UNITS[name]}{name[0]}"
