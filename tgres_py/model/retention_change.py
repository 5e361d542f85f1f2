"""What a change of retention means for a series: archives that get shorter, coarser, longer; slots and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tgres_py.model.retention import (
    ROW_DISK_BYTES,
    Archive,
    BundleSpec,
    format_retention,
    pairs_of,
)


class Held(NamedTuple):
    """What some series hold of one archive, on average: chunks, bytes of their arrays, age of the oldest slot."""

    chunks: float
    bytes: float
    age_s: int


@dataclass(frozen=True, slots=True)
class Change:
    """From one bundle to another; slots are those of one series, texts are for people."""

    lost: tuple[str, ...]
    gained: tuple[str, ...]
    slots_lost: int
    slots_gained: int


def differs(old: BundleSpec, new: BundleSpec) -> bool:
    """Whether a series has to move. Widths of chunks alone are no reason: they are ours to choose."""
    return _what(old) != _what(new)


def _what(spec: BundleSpec) -> tuple[object, ...]:
    return pairs_of(spec), spec.cf, float(np.float32(spec.xff)), spec.on_duplicate


def describe_spec(spec: BundleSpec) -> str:
    """Retention, CF, xFilesFactor; the rule for two points in a slot where it isn't the usual one."""
    rule = "" if spec.on_duplicate == "last" else f", {spec.on_duplicate} of a slot's points"
    return f"{format_retention(pairs_of(spec))} {spec.cf} {spec.xff:g}{rule}"


def change_of(old: BundleSpec, new: BundleSpec, held: Mapping[int, Held] | None = None) -> Change:
    """``held``: what there is of each old archive, by number; without, full archives are counted."""
    lost: list[str] = []
    gained: list[str] = []
    slots_lost = slots_gained = 0
    sizes = {archive.step_s: archive for archive in new.archives}
    for number, archive in enumerate(old.archives):
        kept = sizes.pop(archive.step_s, None)
        here = _known_slots(archive, held, number)
        if kept is None:
            lost.append(f"{_one(archive)} gone")
            slots_lost += here
        elif kept.size < archive.size:
            lost.append(f"{_one(archive)} now {_length(kept)}")
            slots_lost += max(0, here - kept.size)
        elif kept.size > archive.size:
            gained.append(f"{_one(archive)} now {_length(kept)}")
            slots_gained += kept.size - archive.size
    for archive in sizes.values():
        gained.append(f"{_one(archive)} new")
        slots_gained += archive.size
    for name in ("cf", "xff", "on_duplicate"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            word = {"cf": "roll-up", "xff": "xFilesFactor", "on_duplicate": "two points in a slot"}
            gained.append(f"{word[name]} {before} now {after}")
    return Change(tuple(lost), tuple(gained), slots_lost, slots_gained)


def bytes_held(held: Mapping[int, Held]) -> float:
    """On disk, with the rows' own bytes, of one series."""
    return sum(one.bytes + one.chunks * ROW_DISK_BYTES for one in held.values())


def bytes_after(old: BundleSpec, new: BundleSpec, held: Mapping[int, Held]) -> float:
    """What the series will take after the change: its slots as old as now, as well compressed as now."""
    slots = sum(held[n].chunks * old.archives[n].width for n in held if n < len(old.archives))
    per_slot = sum(one.bytes for one in held.values()) / slots if slots else 8.0
    age_s = max((one.age_s for one in held.values()), default=0)
    total = 0.0
    for archive in new.archives:
        chunks = min(archive.chunks, -(-min(age_s, archive.retention_s) // archive.chunk_s) + 1)
        total += chunks * (ROW_DISK_BYTES + per_slot * archive.width) if age_s else 0.0
    return total


def _known_slots(archive: Archive, held: Mapping[int, Held] | None, number: int) -> int:
    if held is None:
        return archive.size
    return min(archive.size, held[number].age_s // archive.step_s) if number in held else 0


def _one(archive: Archive) -> str:
    return format_retention([(archive.step_s, archive.size)])


def _length(archive: Archive) -> str:
    return _one(archive).partition(":")[2]


def held_of(
    samples: Sequence[tuple[int, int, int, int]], series: int, now_s: int
) -> dict[int, Held]:
    """From sums over some series, (archive, chunks, bytes, oldest start_s) each: the average one."""
    return {
        archive: Held(chunks / series, total / series, max(0, now_s - first_s))
        for archive, chunks, total, first_s in samples
    }
