"""Whether PostgreSQL is there: the one place that knows it, and logs one line for each change.

Who meets trouble says so here and a ping decides: a query that got no answer in time or a connection that was lost is
doubt, no outage. Away it is when

- it is silent: two pings running got no answer, the second of them over a new connection, or
- it answers but refuses: two tries running to write what was due failed before anything was written (disk full,
  read-only, no connections left), or five that wrote only a part of it.

Back it is when it has taken a write after its silence, or has taken all that was due, which may be nothing; an answer
alone isn't enough, since it may go on refusing. Pings have a connection of their own, so that slow queries don't
keep them, and there is one at a time, ``GAP_S`` after the last at the earliest, whoever wants one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tgres_py import clock
from tgres_py.errors import StoreUnavailable

log = logging.getLogger(__name__)

EVERY_S = 5.0  # also when nobody doubts: a silence is noticed within this and both tries
GAP_S = 1.0
TRIES_S = 1.5, 2.0  # together less than probes of /readyz wait
AWAY_TRY_S = 5.0  # while it is away: connecting may take longer than asking
REFUSED_MAX = 1  # one write may fail: a connection was cut, a lock was held too long
PARTIAL_MAX = 4  # and more that only take too long in their turn, as after an outage


class Presence:
    """``ping(timeout_s)`` raises StoreUnavailable. Belongs to the event loop.

    ``available``: what was logged last; ``why``: the reason when it is away; ``answers``: the last ping's outcome;
    ``pings``: how many were sent. ``on_answer`` is called when it answers again.
    """

    def __init__(
        self,
        ping: Callable[[float], Awaitable[None]],
        *,
        every_s: float = EVERY_S,
        gap_s: float = GAP_S,
        tries_s: tuple[float, ...] = TRIES_S,
    ) -> None:
        self.available = True
        self.answers = True
        self.why = ""
        self.pings = 0
        self.on_answer: Callable[[], None] = lambda: None
        self._ping = ping
        self._every_s = every_s
        self._gap_s = gap_s
        self._tries_s = tries_s
        self._failed = 0  # tries to write that failed running, while it answered
        self._refused = 0  # the last of them, those that wrote nothing
        self._wrote = False  # since the last of them
        self._doubted = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._asked = float("-inf")  # when the last ping ended
        self._away_since = 0.0

    async def run(self) -> None:
        """Pings until cancelled: every ``every_s``, sooner after a doubt and when an outage begins."""
        pause = self._gap_s
        try:
            while True:
                pause = self._every_s if self.answers else min(self._every_s, pause * 2)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._doubted.wait()
                await asyncio.sleep(self._asked + self._gap_s - clock.monotonic())
                self._doubted.clear()
                if await self.check():
                    pause = self._gap_s
        finally:
            if self._asking is not None:
                self._asking.cancel()

    # -- what others saw ---------------------------------------------------------------------

    def doubt(self) -> None:
        """Something got no answer. While it is known to be silent that is nothing new."""
        if self.answers:
            self._doubted.set()

    def written(self) -> None:
        """It has taken a write."""
        self._heard()
        self._wrote = True
        if not self._failed:
            self._tell_back()

    def all_written(self) -> None:
        """All that was due is written, or nothing was."""
        if self.answers:
            self._failed = self._refused = 0
            self._wrote = False
            self._tell_back()

    async def refused(self, error: StoreUnavailable) -> None:
        """It didn't take all that was due to be written; more than once running, with pings answered: it is away."""
        if await self.check():
            self._failed += 1
            self._refused = 0 if self._wrote else self._refused + 1
            self._wrote = False
            if self._refused > REFUSED_MAX or self._failed > PARTIAL_MAX:
                self._tell_away(str(error))

    def expect_answer(self) -> None:
        """StoreUnavailable while it is silent: who wants something of it needn't wait for that."""
        if not self.answers:
            raise StoreUnavailable(self.why)

    # -- pings -------------------------------------------------------------------------------

    async def check(self) -> bool:
        """Whether it answers, as of the last second."""
        if self._asking is None:
            if clock.monotonic() - self._asked < self._gap_s:
                return self.answers
            self._asking = asyncio.create_task(self._ask(), name="store-ping")
        await asyncio.shield(self._asking)
        return self.answers

    async def _ask(self) -> None:
        why = ""
        try:
            for seconds in self._tries_s if self.answers else (AWAY_TRY_S,):
                self.pings += 1
                try:
                    await self._ping(seconds)
                except StoreUnavailable as error:
                    why = str(error)
                else:
                    self._heard()
                    return
            self.answers = False
            self._failed = self._refused = 0  # that was its silence
            self._tell_away(why)
        finally:
            self._asked = clock.monotonic()
            self._asking = None

    def _heard(self) -> None:
        if not self.answers:
            self.answers = True
            self.on_answer()

    # -- the log -----------------------------------------------------------------------------

    def _tell_away(self, why: str) -> None:
        self.why = why
        if self.available:
            self.available = False
            self._away_since = clock.monotonic()
            log.error("PostgreSQL is away (%s); points wait in memory and journal", why)

    def _tell_back(self) -> None:
        if not self.available:
            self.available = True
            self.why = ""
            seconds = clock.monotonic() - self._away_since
            log.info("PostgreSQL is back after %.0f s; writing goes on", seconds)
