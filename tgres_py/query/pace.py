"""How long queries hold the event loop: all together TURN_S of a turn, whoever comes later goes on in a later one.

A plan, a piece of a fetch, a small answer take milliseconds each. Two hundred queries that arrive together would otherwise do one
after the other within one turn, and nothing else is answered before its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tgres_py import clock

TURN_S = 0.01
PLAN_S = 0.01  # a plan that takes longer is begun anew in a thread
THREADS = 2  # more that plan at the same time would only take Python's lock from each other, and from the loop

T = TypeVar("T")


class TooLong(Exception):
    """For the event loop."""


class Pace:
    """Of one event loop."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._threads = asyncio.Semaphore(THREADS)

    async def turn(self) -> None:
        """Goes on at once, or in the first later turn of the loop that has time left; in order."""
        while True:
            now_s = clock.monotonic()
            if self._began_s is None:
                self._began_s = now_s
                asyncio.get_running_loop().call_soon(self._end_turn)
            elif now_s - self._began_s >= TURN_S:
                # behind _end_turn
                await asyncio.sleep(0)
                continue
            return

    def _end_turn(self) -> None:
        self._began_s = None

    async def run(self, work: Callable[[float | None], T], is_long: bool) -> T:
        """``work(until_s)`` on the loop, or in a thread when it is, or turns out to be, too long; its error TooLong says
        that ``until_s`` of the monotonic clock has passed.
        """
        if not is_long:
            await self.turn()
            try:
                return work(clock.monotonic() + PLAN_S)
            except TooLong:
                pass
        async with self._threads:
            return await asyncio.to_thread(work, None)
