"""Where every point went: received = stored + overwritten + rejected{reason} + held, at every moment."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from tgres_py import clock
from tgres_py.model.points import Reason

log = logging.getLogger(__name__)

SAMPLES_PER_S = 1.0  # refused lines that the log shows, for each reason
SAMPLES_BURST = 5.0


@dataclass(slots=True)
class Ledger:
    """Counts of points since the start. ``received`` is by receiver; late points that a former run left
    behind count as received by ``journal``."""

    received: Counter[str] = field(default_factory=Counter)
    rejected: Counter[Reason] = field(default_factory=Counter)
    stored: int = 0
    overwritten: int = 0
    held: int = 0
    flushed: int = 0  # slots of the finest archive written to the store
    late: int = 0  # points that took the way of a merge

    @property
    def balance(self) -> int:
        """0, always."""
        return (
            sum(self.received.values())
            - self.stored
            - self.overwritten
            - sum(self.rejected.values())
            - self.held
        )


@dataclass(frozen=True, slots=True)
class RejectSample:
    """One refused line. ``peer`` is empty where the sender isn't known."""

    receiver: str
    peer: str
    line: bytes
    at_s: float


class RejectLog:
    """Shows some of what was refused, at a bounded rate for each reason; ``last``: the latest of each."""

    def __init__(self) -> None:
        self.last: dict[Reason, RejectSample] = {}
        self._tokens: dict[Reason, tuple[float, float]] = {}
        self._unshown: Counter[Reason] = Counter()

    def show(self, receiver: str, peer: str, samples: list[tuple[Reason, bytes]]) -> None:
        now = clock.monotonic()
        for reason, sample in samples:
            self.last[reason] = RejectSample(receiver, peer, sample, clock.now())
            tokens, since = self._tokens.get(reason, (SAMPLES_BURST, now))
            tokens = min(SAMPLES_BURST, tokens + (now - since) * SAMPLES_PER_S)
            if tokens < 1:
                self._tokens[reason] = tokens, now
                self._unshown[reason] += 1
                continue
            self._tokens[reason] = tokens - 1, now
            hidden = self._unshown.pop(reason, 0)
            log.warning(
                "%s%s: refused (%s): %r%s",
                receiver,
                f" from {peer}" if peer else "",
                reason.value,
                sample,
                f" ({hidden} others not shown)" if hidden else "",
            )
