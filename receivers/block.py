"""From names, times and values to a block: what all wire formats do after they have split their bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from receivers.sink import NameRegistry
from tgres_py.model.points import (
    REFUSED_IDS,
    Ids,
    Parsed,
    PointBlock,
    Reason,
    Times,
    Values,
    empty_block,
    lowest,
)

NAME_BYTES_MAX = 2_048  # the unique index on names takes rows of at most 2,704 bytes
TIMESTAMP_ABS_MAX = 2**53  # beyond it a float no longer tells one second from the next
SAMPLES_MAX = 8  # refused lines that one buffer gives to the log
SAMPLE_BYTES_MAX = 120

# ASCII control characters; those that separate fields in carbon's line can't be in its names anyway.
CONTROLS = bytes(range(0x20)) + b"\x7f"


@dataclass(slots=True)
class Rejects:
    """Refused points: all are counted, a few are kept for the log."""

    counts: Counter[Reason] = field(default_factory=Counter)
    samples: list[tuple[Reason, bytes]] = field(default_factory=list)

    def add(self, reason: Reason, what: bytes) -> None:
        self.counts[reason] += 1
        if len(self.samples) < SAMPLES_MAX:
            self.samples.append((reason, bytes(what[:SAMPLE_BYTES_MAX])))


def check_name(name: bytes) -> Reason | None:
    """Why no series can have this name, as far as that shows without the registry; None if it may."""
    if len(name) > NAME_BYTES_MAX:
        return Reason.LIMIT
    if not name or len(name.translate(None, CONTROLS)) != len(name):
        return Reason.NAME
    return None


def count_refused(ids: Ids, rejects: Rejects, sample: Callable[[int], bytes]) -> None:
    """Counts the new series that a scan refused. ``sample``: the bytes of a point by its position, asked for one of each
    reason.
    """
    if lowest(ids) >= -2:
        return
    for code, reason in REFUSED_IDS.items():
        at = np.flatnonzero(ids == code)
        if len(at):
            rejects.add(reason, sample(int(at[0])))
            rejects.counts[reason] += len(at) - 1


def resolve_block(
    names: Sequence[bytes], times: Times, values: Values, rejects: Rejects, registry: NameRegistry
) -> PointBlock:
    """The block of the points whose names the registry takes; the others go to ``rejects``.

    ``times`` int64 (n,) and ``values`` float64 (n,) become the block's own.
    """
    if not names:
        return empty_block()
    ids, refused = registry.resolve(names)
    if not refused:
        return PointBlock(ids, times, values)
    for position, reason in refused.items():
        rejects.add(reason, names[position])
    keep = np.ones(len(names), np.bool_)
    keep[list(refused)] = False
    return PointBlock(ids[keep], times[keep], values[keep])


def parsed(block: PointBlock, rejects: Rejects, rest: bytes = b"") -> Parsed:
    return Parsed(block, rejects.counts, rejects.samples, rest)
