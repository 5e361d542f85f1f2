"""The arrays that flow from a receiver to the ring cache, and the reasons for refusing a point."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Times = NDArray[np.int64]
Values = NDArray[np.float64]


class Reason(StrEnum):
    """Why a point was refused: the ``reason`` label of ``tgres_points_dropped_total``."""

    MALFORMED = "malformed"  # not a line (frame, tuple) of the protocol
    UTF8 = "utf8"  # bytes of the name are not UTF-8
    NAME = "name"  # a name that no series can have (control characters, bad tags)
    NAN = "nan"  # NaN carries no value; carbon drops it too
    LIMIT = "limit"  # line, name or frame longer than its setting allows; more series than series_max
    NEW_SERIES = "new_series"  # of a new series beyond what series_new_… allow
    MEMORY = "memory"  # of a new series that memory_max has no room for
    TOO_OLD = "too_old"  # older than the longest retention of its series
    FUTURE = "future"  # further ahead of the clock than future_s_max
    UDP_KERNEL = "udp_kernel"  # dropped by the kernel: the socket's buffer was full
    UNMATCHED = "unmatched"  # no retention rule takes the name
    OVERLOAD = "overload"  # no room: the store is away and all buffers are full


# Ids that stand for refused names: why there is no new series.
REFUSED_IDS = {-3: Reason.LIMIT, -4: Reason.NEW_SERIES, -5: Reason.MEMORY}


@dataclass(slots=True)
class PointBlock:
    """Points in order of arrival, column by column.

    ``ids``: int32 (n,), the registry's ids; ``times``: int64 (n,), Unix seconds;
    ``values``: float64 (n,), never NaN. The receiver of the block owns the arrays.
    """

    ids: Ids
    times: Times
    values: Values

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(slots=True)
class Parsed:
    """What a wire-format module makes of a buffer.

    ``rejected`` counts refused points by reason, ``samples`` holds a few of them for the log
    (reason, first bytes), ``rest`` the bytes of an unfinished line or frame at the end.
    """

    block: PointBlock
    rejected: Counter[Reason] = field(default_factory=Counter)
    samples: list[tuple[Reason, bytes]] = field(default_factory=list)
    rest: bytes = b""

    @property
    def received(self) -> int:
        taken = len(self.block.ids)
        return taken + sum(self.rejected.values()) if self.rejected else taken


def lowest(ids: Ids) -> int:
    """The lowest id, at most 0; quicker than the array's method."""
    return int(np.minimum.reduce(ids, initial=0))


def empty_block() -> PointBlock:
    return PointBlock(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.float64))
