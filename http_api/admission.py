"""How many queries are answered at a time: further ones wait in a queue with an end.

One that waits when the queue is full is answered at once with 503 and Retry-After, so that a herd of
dashboards costs a line each, not the memory of a plan each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tgres_py.errors import Overloaded


class Admission:
    """Turns for queries, in order of arrival. ``is_short``: whether there is no memory for further ones."""

    def __init__(
        self, concurrent_max: int, queue_max: int, is_short: Callable[[], bool] = lambda: False
    ) -> None:
        self._is_short = is_short
        self._turns = asyncio.Semaphore(concurrent_max)
        self._queue_max = queue_max
        self.waiting = 0

    @property
    def is_full(self) -> bool:
        """Whether the next one has to wait."""
        return self._turns.locked()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Runs the block when it is its turn. Overloaded: too many wait already, or memory is short."""
        if self._is_short():
            raise Overloaded("the server's memory is nearly full (memory_max)", "memory_max")
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
