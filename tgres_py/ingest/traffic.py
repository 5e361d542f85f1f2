"""What arrives, looked at while somebody looks: taps on the intake, and what they gather.

A tap is called with each parsed buffer before it is stored, in the event loop's thread, so it has to be
quick; its arrays stay as they are, so it may keep them. Without taps a buffer costs one test. Points are
counted by sender and, as a bounded sample, by series; names are looked up when the gathering ends.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from tgres_py.ingest.intake import Intake
from tgres_py.model.points import Ids, Parsed, PointBlock

SENDERS_MAX = 10_000  # addresses that are told apart
OTHERS = "(others)"
SAMPLE_MAX = 65_536  # points by which series are told apart

Tap = Callable[[str, Parsed, str], None]


@contextmanager
def tapped(intake: Intake, tap: Tap) -> Iterator[None]:
    """``tap`` gets (receiver, parsed, peer) of each buffer while the block runs."""
    intake.taps.append(tap)
    try:
        yield
    finally:
        intake.taps.remove(tap)


def host_of(peer: str, receiver: str) -> str:
    """The sender's address without its port; the receiver's name in brackets where nobody knows it."""
    host, _, port = peer.rpartition(":")
    return host if host and port.isdecimal() else f"({receiver})"


class IdSample:
    """A sample of points' series: each of them stands for ``stride`` points.

    All points until there are more than SAMPLE_MAX, then every second, fourth … one.
    """

    def __init__(self, most: int = SAMPLE_MAX) -> None:
        self.stride = 1
        self._most = most
        self._parts: list[Ids] = []
        self._held = 0
        self._skip = 0  # points until the next one that is taken

    def add(self, ids: Ids) -> None:
        part = ids[self._skip :: self.stride]
        self._skip = (self._skip - len(ids)) % self.stride
        if len(part):
            self._parts.append(part.copy())
            self._held += len(part)
        while self._held > self._most:
            self._parts = [np.concatenate(self._parts)[::2]]
            self._held = len(self._parts[0])
            self.stride *= 2
            self._skip %= self.stride

    def ids(self) -> Ids:
        """int32 (n,), n <= most; a series once for each point of it that was taken."""
        return np.concatenate(self._parts) if self._parts else np.empty(0, np.int32)


@dataclass(slots=True)
class Traffic:
    """A tap that counts: points by receiver and by (sender, receiver), and samples their series."""

    received: Counter[str] = field(default_factory=Counter)
    senders: Counter[tuple[str, str]] = field(default_factory=Counter)
    sample: IdSample = field(default_factory=IdSample)

    def __call__(self, receiver: str, parsed: Parsed, peer: str) -> None:
        count = parsed.received
        self.received[receiver] += count
        key = host_of(peer, receiver), receiver
        if key not in self.senders and len(self.senders) >= SENDERS_MAX:
            key = OTHERS, receiver
        self.senders[key] += count
        self.sample.add(parsed.block.ids)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A block as it came. ``sender``: see host_of."""

    receiver: str
    sender: str
    block: PointBlock


class Recent:
    """A tap that keeps blocks until they are taken, of at most ``points_max`` points; ``skipped`` counts the
    points of those that found no room."""

    def __init__(self, points_max: int) -> None:
        self.skipped = 0
        self._points_max = points_max
        self._points = 0
        self._blocks: deque[Arrived] = deque()

    def __call__(self, receiver: str, parsed: Parsed, peer: str) -> None:
        count = len(parsed.block)
        if not count:
            return
        if self._points and self._points + count > self._points_max:
            self.skipped += count
            return
        self._points += count
        self._blocks.append(Arrived(receiver, host_of(peer, receiver), parsed.block))

    def take(self) -> list[Arrived]:
        taken = list(self._blocks)
        self._blocks.clear()
        self._points = 0
        return taken
