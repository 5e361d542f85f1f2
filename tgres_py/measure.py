"""Histograms that cost a fraction of a microsecond for each value: counts by upper bound, and a sum."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tgres_py import clock

# Upper bounds in seconds. QUICK: what the event loop does and waits for; SLOW: disk, network, queries.
QUICK_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SLOW_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Histogram:
    """Counts of values by bucket; ``bounds`` rise, the last bucket has no bound. One thread writes,
    any may read."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SLOW_S) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value in the first bucket whose bound is not below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Observes the seconds that the block takes, also when it fails."""
        begin = clock.monotonic()
        try:
            yield
        finally:
            self.observe(clock.monotonic() - begin)

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulated(self) -> list[tuple[str, int]]:
        """Buckets as Prometheus writes them: (upper bound, values up to it); the last one is ``+Inf``."""
        total = 0
        out = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            out.append((bound, total))
        return out
