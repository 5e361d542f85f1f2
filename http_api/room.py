"""The memory that queries share: each takes what it will need before it reads a value, and waits while others have it.

What can't be known exactly is estimated high, from the plan; a worker process has a limit of the system beside, so that
a query that needs more than that ends alone. Heavy queries leave a part to the light ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from tgres_py.errors import MemoryExceeded, Overloaded
from tgres_py.query.cost import Cost

POINT_BYTES = 8
CALL_COPIES = 8  # of a function's arguments, its result among them; measured: 1 to 8, few up to 12
SERIES_BYTES = 4_096  # labels and names at each stage
LIGHT_SHARE = 1 / 8


def working_bytes(cost: Cost, output_bytes: int) -> int:
    """What functions and output take beside the values that are read."""
    points = cost.leaf_points + CALL_COPIES * cost.largest_points + cost.points
    return points * POINT_BYTES + cost.series_seen * SERIES_BYTES + output_bytes


class Room:
    """Bytes for all queries."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self.shared_bytes = 0  # of files that worker processes read
        self._waiting: list[tuple[Share, int, asyncio.Future[None]]] = []

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @contextmanager
    def share(self, heavy: bool = False) -> Iterator[Share]:
        """What one query takes, given back at the end. ``heavy``: a part is left to others."""
        share = Share(self, int(self.total * (1 - LIGHT_SHARE)) if heavy else self.total)
        try:
            yield share
        finally:
            self.taken -= share.size
            share.size = 0
            self._wake()

    async def wait(self, share: Share, size: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        entry = share, size, turn
        self._waiting.append(entry)
        try:
            await turn
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def _wake(self) -> None:
        """Gives way to those that fit, in the order in which they came."""
        for entry in list(self._waiting):
            share, size, turn = entry
            if self.taken + size <= share.most and not turn.done():
                self._waiting.remove(entry)
                share.take(size)
                turn.set_result(None)


class Share:
    """``size``: bytes that a query has taken; ``most``: that all may have taken for it to get more."""

    def __init__(self, room: Room, most: int) -> None:
        self.room = room
        self.most = most
        self.size = 0

    def take(self, size: int) -> None:
        self.size += size
        self.room.taken += size

    async def grow(self, size: int) -> None:
        """Takes so many in all. The first time it waits until they are there; then others may wait for
        what this query has. MemoryExceeded: they can't be had; Overloaded: not now.
        """
        more = size - self.size
        if more <= 0:
            return
        if size > self.most:
            raise MemoryExceeded(size, self.most)
        if self.room.taken + more > self.most and not self.size:
            await self.room.wait(self, more)
        else:
            self.grow_now(size)

    def grow_now(self, size: int) -> None:
        """The same without waiting: for what comes bit by bit, like another node's answer."""
        more = size - self.size
        if more <= 0:
            return
        if size > self.most:
            raise MemoryExceeded(size, self.most)
        if self.room.taken + more > self.most:
            raise Overloaded(
                "other queries have the memory that this one needs (memory_max)", "memory_max"
            )
        self.take(more)
