"""How many queries are answered at a time: further ones wait in a queue with an end.

One that waits when the queue is full is answered at once with 503 and Retry-After, so that a herd of
dashboards costs a line each, not the memory of a plan each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tgres_py.errors import Overloaded


class Admission:
    """Turns for queries, in order of arrival."""

    def __init__(self, concurrent_max: int, queue_max: int) -> None:
        self._turns = asyncio.Semaphore(concurrent_max)
        self._queue_max = queue_max
        self.waiting = 0

    @property
    def is_full(self) -> bool:
        """Whether the next one has to wait."""
        return self._turns.locked()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Runs the block when it is its turn. Overloaded: too many wait already."""
        if self._turns.locked():
            if self.waiting >= self._queue_max:
                raise Overloaded(
                    f"{self.waiting} queries wait already, as many as setting query_queue_max allows",
                    "query_queue_max",
                )
            self.waiting += 1
            try:
                await self._turns.acquire()
            finally:
                self.waiting -= 1
        else:
            await self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()
