"""How late the event loop is and how long garbage collection holds everything up, measured all the time."""

from __future__ import annotations

import asyncio
import gc
from typing import Literal

from tgres_py import clock
from tgres_py.measure import QUICK_S, Histogram

LAG_EVERY_S = 0.25


class Runtime:
    """``lag_seconds``: how much later than asked a timer of the loop fires; ``gc_seconds``: pauses, by
    generation."""

    def __init__(self) -> None:
        self.started_s = clock.now()
        self.lag_seconds = Histogram((*QUICK_S, 3.0))
        self.gc_seconds = [Histogram(QUICK_S) for _ in range(3)]
        self._gc_begin = 0.0

    async def watch_loop(self) -> None:
        """Measures until cancelled: four timers a second."""
        while True:
            begin = clock.monotonic()
            await asyncio.sleep(LAG_EVERY_S)
            self.lag_seconds.observe(max(0.0, clock.monotonic() - begin - LAG_EVERY_S))

    def start(self) -> None:
        gc.callbacks.append(self._collected)

    def stop(self) -> None:
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)

    def _collected(self, phase: Literal["start", "stop"], info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_begin = clock.monotonic()
        else:
            self.gc_seconds[info["generation"]].observe(clock.monotonic() - self._gc_begin)
