"""How many new series may be made: token buckets, one for all and one for each prefix of names.

    prefix = the first ``depth`` parts of a name's path (what stands before its tags), at most PREFIX_BYTES_MAX bytes;
             a first part "stats" doesn't count: it is statsd's for all there is

A bucket holds ``burst`` series at first and fills by ``rate`` a second; a rate of 0 is no limit. A series takes one from both
buckets. Of prefixes at most ``prefixes_max`` are told apart, all others share one bucket, OTHERS; those that have been full
and without refusals for a while make room for new ones.

Pure twin of ``Budget`` in ``_names.pyx``: used where the extension isn't built, and the model it is tested against.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX_BYTES_MAX = 255
PREFIXES_MAX = 32_768
OTHERS = b"(others)"
SWEEP_EVERY_S = 10.0
FORGET_S = 600.0  # refusals of a prefix are told at least this long
_STATSD = b"stats."


@dataclass(slots=True)
class _Bucket:
    tokens: float
    since: float
    refused: int = 0
    refused_at: float = 0.0


class Budget:
    """Belongs to the thread of the names' writer. ``refused``: points of new series that were refused since the start.

    ``rate`` and ``burst`` of all new series, ``prefix_rate`` and ``prefix_burst`` of those of a prefix.
    """

    def __init__(
        self,
        rate: float,
        burst: float,
        prefix_rate: float,
        prefix_burst: float,
        depth: int = 2,
        prefixes_max: int = PREFIXES_MAX,
    ) -> None:
        self.refused = 0
        self._rate, self._burst = rate, burst
        self._prefix_rate, self._prefix_burst = prefix_rate, prefix_burst
        self._depth = depth
        self._prefixes_max = prefixes_max
        self._now = self._swept = 0.0
        self._tokens = burst
        self._others = _Bucket(prefix_burst, 0.0)
        self._buckets: dict[bytes, _Bucket] = {}

    def at(self, now: float) -> None:
        """The time of what comes next, seconds of a clock that never goes back."""
        self._tokens = min(self._burst, self._tokens + (now - self._now) * self._rate)
        self._now = now
        if len(self._buckets) >= self._prefixes_max and now - self._swept >= SWEEP_EVERY_S:
            self._sweep()

    def take(self, name: bytes) -> bool:
        """Whether a series of this name may be made now."""
        bucket = self._bucket(name)
        bucket.tokens = min(
            self._prefix_burst, bucket.tokens + (self._now - bucket.since) * self._prefix_rate
        )
        bucket.since = self._now
        if (self._rate > 0 and self._tokens < 1) or (self._prefix_rate > 0 and bucket.tokens < 1):
            self.refused += 1
            bucket.refused += 1
            bucket.refused_at = self._now
            return False
        self._tokens -= 1
        bucket.tokens -= 1
        return True

    def prefixes(self) -> list[tuple[bytes, int]]:
        """(prefix, points refused) of all that are remembered, the most refused first."""
        found = [(prefix, one.refused) for prefix, one in self._buckets.items() if one.refused]
        if self._others.refused:
            found.append((OTHERS, self._others.refused))
        return sorted(found, key=lambda one: (-one[1], one[0]))

    @property
    def bytes_used(self) -> int:
        return 400 * len(self._buckets)

    def _bucket(self, name: bytes) -> _Bucket:
        prefix = prefix_of(name, self._depth)
        bucket = self._buckets.get(prefix)
        if bucket is None:
            if len(self._buckets) >= self._prefixes_max:
                return self._others
            bucket = self._buckets[prefix] = _Bucket(self._prefix_burst, self._now)
        return bucket

    def _sweep(self) -> None:
        """Forgets the prefixes whose buckets are full again; what they refused goes to OTHERS."""
        self._swept = self._now
        kept: dict[bytes, _Bucket] = {}
        for prefix, one in self._buckets.items():
            tokens = one.tokens + (self._now - one.since) * self._prefix_rate
            told = one.refused and self._now - one.refused_at < FORGET_S
            if told or (self._prefix_rate > 0 and tokens < self._prefix_burst):
                kept[prefix] = one
            else:
                self._others.refused += one.refused
        self._buckets = kept


def prefix_of(name: bytes, depth: int) -> bytes:
    """The first parts of a name's path."""
    path = name.partition(b";")[0][:PREFIX_BYTES_MAX]
    parts = path.split(b".", depth + path.startswith(_STATSD))
    return b".".join(parts[: depth + path.startswith(_STATSD)])
