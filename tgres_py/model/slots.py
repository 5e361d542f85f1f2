"""Slot arithmetic: which slot and chunk a time belongs to, and which slots a query reads.

slot = time_s // step_s; a chunk is ``width`` consecutive slots that start at a multiple of ``width``;
n = (slot // width) % chunks is its place in the ring, start_s the time of its first slot.
All functions take plain integers or int64 arrays where it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tgres_py.errors import BadRequest
from tgres_py.model.retention import Archive

IntOrArray = TypeVar("IntOrArray", int, NDArray[np.int64])


class Window(NamedTuple):
    """Slots from_slot <= slot < until_slot of archive number ``archive`` (finest = 0)."""

    archive: int
    from_slot: int
    until_slot: int


def slot_of(time_s: IntOrArray, step_s: int) -> IntOrArray:
    """The slot that a time falls into."""
    return time_s // step_s


def slot_start_s(slot: IntOrArray, step_s: int) -> IntOrArray:
    return slot * step_s


def chunk_n(slot: IntOrArray, archive: Archive) -> IntOrArray:
    """The place in the ring (column ``n``) of the chunk that holds ``slot``."""
    return slot // archive.width % archive.chunks


def chunk_start_s(slot: IntOrArray, archive: Archive) -> IntOrArray:
    """The time of the first slot (column ``start_s``) of the chunk that holds ``slot``."""
    return slot // archive.width * archive.chunk_s


def slot_in_chunk(slot: IntOrArray, archive: Archive) -> IntOrArray:
    """The place of ``slot`` in its chunk, 0..width-1."""
    return slot % archive.width


def chunk_starts_s(from_slot: int, until_slot: int, archive: Archive) -> NDArray[np.int64]:
    """start_s of the chunks that hold from_slot <= slot < until_slot: int64 (k,), ascending."""
    first = from_slot // archive.width
    last = -(-until_slot // archive.width)
    return np.arange(first, max(first, last), dtype=np.int64) * archive.chunk_s


def align_out(from_slot: int, until_slot: int, factor: int) -> tuple[int, int]:
    """The smallest range of whole groups of ``factor`` slots that holds from_slot <= slot < until_slot."""
    return from_slot // factor * factor, -(-until_slot // factor) * factor


def align_in(from_slot: int, until_slot: int, factor: int) -> tuple[int, int]:
    """The largest range of whole groups of ``factor`` slots inside from_slot <= slot < until_slot.

    May be empty; then both ends are equal.
    """
    start = -(-from_slot // factor) * factor
    return start, max(start, until_slot // factor * factor)


def choose_window(
    archives: Sequence[Archive], from_s: int, until_s: int, now_s: int
) -> Window | None:
    """What whisper's fetch would read for the range (from_s, until_s]; None when nothing is in reach.

    The finest archive whose retention is at least now - from, whatever until is. ``until`` is cut to
    now and ``from`` raised to the longest retention; None when from > now or until is older than all.
    The slot of ``from`` isn't read, that of ``until`` is; a range within one slot reads the next one.
    BadRequest when from > until.
    """
    if from_s > until_s:
        raise BadRequest(f"from ({from_s}) is later than until ({until_s})")
    oldest_s = now_s - max(archive.retention_s for archive in archives)
    if from_s > now_s or until_s < oldest_s:
        return None
    from_s = max(from_s, oldest_s)
    until_s = min(until_s, now_s)
    number, archive = next(
        (number, archive)
        for number, archive in enumerate(archives)
        if archive.retention_s >= now_s - from_s
    )
    from_slot = from_s // archive.step_s + 1
    until_slot = until_s // archive.step_s + 1
    if from_slot == until_slot:
        until_slot += 1
    return Window(number, from_slot, until_slot)
