"""A flush of an Aggregator, worked out where it is: names and values without ids."""

from __future__ import annotations

from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.flush import FlushNumbers


class Flushes:
    """Of one Aggregator, one after the other."""

    def __init__(self, aggregator: Aggregator) -> None:
        self.aggregator = aggregator
        self.numbers = FlushNumbers(aggregator.settings)

    def __call__(self, now_s: int) -> dict[str, float]:
        """Names and values; what has no value isn't there."""
        return dict(self.numbers.named(self.aggregator.take(now_s)))
