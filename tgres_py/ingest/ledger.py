"""Where every point went: received = stored + overwritten + rejected{reason} + held, at every moment."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from tgres_py import clock
from tgres_py.model.points import Reason
from tgres_py.sparing import FREELY, Allowance

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
        self._allowances: dict[Reason, Allowance] = {}

    def show(self, receiver: str, peer: str, samples: list[tuple[Reason, bytes]]) -> None:
        for reason, sample in samples:
            self.last[reason] = RejectSample(receiver, peer, sample, clock.now())
            allowance = self._allowances.get(reason)
            if allowance is None:
                allowance = self._allowances[reason] = Allowance(SAMPLES_PER_S, SAMPLES_BURST)
            if allowance.take():
                log.warning(
                    "%s%s: refused (%s): %r%s",
                    receiver,
                    f" from {peer}" if peer else "",
                    reason.value,
                    sample,
                    allowance.told(),
                    extra=FREELY,
                )
