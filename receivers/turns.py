"""How long receivers may hold the event loop, and in which pieces they read.

What a byte costs differs a thousandfold: a known series' line takes nanoseconds, a refused one or a new name microseconds.
So pieces are measured in time. Each reader adapts the size of its pieces to what its own bytes cost
(``Piece``), and all streams together have TURN_S of a turn of the loop; who comes later is put off to the next one (``Turns``), in order.
Whose turn it is has all of it for what it reads: else a hundred quick senders would be read in the small
pieces of those that come too late, at ten times the cost. Whatever is sent, HTTP and everything else on the loop wait for one turn's share, not for all that was sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

PIECE_S = 0.004
TURN_S = 0.01
PIECE_BYTES_MIN = 4_096
PIECE_BYTES_FIRST = 16_384  # nothing is known of a reader's bytes yet


class Piece:
    """The size of one reader's next piece, PIECE_BYTES_MIN to ``bytes_max``: what takes PIECE_S at most."""

    __slots__ = ("bytes", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = min(PIECE_BYTES_FIRST, bytes_max)

    def took(self, size: int, seconds: float) -> None:
        """Tells how long ``size`` bytes took, of CPU: a machine that was busy elsewhere says nothing of what bytes cost."""
        if seconds > PIECE_S:
            self.bytes = max(
                min(PIECE_BYTES_MIN, self.bytes_max),
                min(self.bytes, int(size * PIECE_S / seconds)),
            )
        elif size >= self.bytes and seconds < PIECE_S / 2:
            self.bytes = min(self.bytes_max, 2 * self.bytes)


@dataclass(slots=True)
class Ahead:
    """Time of turn number ``turn`` that one stream was given, for that one and the next."""

    seconds: float
    turn: int


class Turns:
    """The share of the loop, ``turn_s``, that all streams have between two looks at everything else."""

    __slots__ = ("_number", "_scheduled", "_spent_s", "_turn_s", "_waiting")

    def __init__(self, turn_s: float = TURN_S) -> None:
        self._turn_s = turn_s
        self._spent_s = 0.0
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False
        self._number = 0

    @property
    def over(self) -> bool:
        """True when this turn's time is spent: what comes now is for a later one."""
        return self._spent_s >= self._turn_s

    @property
    def waiting(self) -> int:
        """Streams that were put off."""
        return len(self._waiting)

    def spend(self, seconds: float, ahead: Ahead | None = None) -> None:
        """``ahead`` pays first, as far as it goes."""
        if ahead is not None:
            paid = min(seconds, ahead.seconds)
            ahead.seconds -= paid
            seconds -= paid
        self._spent_s += seconds
        if self.over:
            self._schedule()

    def give(self) -> Ahead:
        """The turn's time to one stream, for what it will read: it needn't ask whether the turn is over.

        To one at a time: nothing is known of what comes, so two might hold the loop twice as long.
        """
        self.spend(self._turn_s)
        return Ahead(self._turn_s, self._number)

    def holds(self, ahead: Ahead) -> bool:
        """Whether there is something left of it and it is in time."""
        return ahead.seconds > 0 and self._number - ahead.turn <= 1

    def put_off(self, callback: Callable[[], None]) -> None:
        """Has ``callback`` called in a later turn."""
        self._waiting.append(callback)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._scheduled = False
        self._spent_s = 0.0
        self._number += 1
        while self._waiting and not self.over:
            self._waiting.popleft()()
        if self._waiting:
            self._schedule()
