"""How much memory a server may take, and the parts that it is divided into. Pure arithmetic, bytes.

    memory_max = process + tls + cache + index + queries + free

``process`` is what a server takes before it has a series, and for its work: interpreter, numpy, buffers of sockets, blocks
on their way to the store. ``cache`` holds the ring, late points and records that wait for the journal; ``index`` all that is kept for each series: names, ids, tree,
tags; ``tls`` what encrypted connections take, if there are listeners for them; ``queries`` the arrays and answers of all queries together, with the processes that make them. ``free`` belongs to
nobody: larger blocks, and what the allocator can't give back at once.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
MEMORY_MAX_LEAST = 256 * MIB  # with less there is hardly room for anything but the process
MACHINE_SHARE = 0.6  # of the cgroup or machine, when memory_max is 0: PostgreSQL and the page cache want the rest
PROCESS_BYTES = (
    160 * MIB
)  # measured: 85 MB after the start, 63 MB for a full segment's chunk on its way to the store
HARD = 1.25  # beyond its limit times this, senders that can't wait (UDP) are refused; the cache's share is that level
REQUESTS_PART, TAILS_PART = 64, 32  # of the bound: 5 and 10 MB of 320 MB
TAILS_BYTES_MAX = 64 * MIB
TLS_PART = 16  # of the bound, where there is TLS: 20 MB of 320 MB
TLS_CONNECTION_BYTES = 81_920  # measured: 19 kB when idle, 50 to 72 after it sent much, 81 in a handshake that is made long
CACHE_SHARE, INDEX_SHARE, QUERIES_SHARE = 0.5, 0.2, 0.2  # of what is left; the rest stays free


@dataclass(frozen=True, slots=True)
class Shares:
    """Bytes of each part. ``total``: of all of them, and of ``process`` and ``free``."""

    total: int
    cache: int
    index: int
    queries: int
    tls: int = 0

    @property
    def cache_pause(self) -> int:
        """Bytes of the cache from which senders that can wait do."""
        return int(self.cache / HARD)

    @property
    def requests(self) -> int:
        """Bytes of HTTP requests that aren't answered yet; read, they take some times as much."""
        return self.total // REQUESTS_PART

    @property
    def statsd(self) -> int:
        """Bytes of statsd's keys, and as many of what one interval brings for them: together the index at most."""
        return self.index // 2

    @property
    def tails(self) -> int:
        """Bytes of lines and frames of senders that aren't complete yet."""
        return min(TAILS_BYTES_MAX, self.total // TAILS_PART)

    @property
    def tls_connections(self) -> int:
        """Encrypted connections that there is room for at a time, handshakes included."""
        return self.tls // TLS_CONNECTION_BYTES


def memory_max_bytes(setting: int, machine: int) -> int:
    """The bound: ``setting``, or its share of what the cgroup or machine has (``machine``) when that is 0."""
    return setting or max(MEMORY_MAX_LEAST, int(machine * MACHINE_SHARE))


def shares(total: int, cache: int = 0, tls: bool = False) -> Shares:
    """The parts of ``total``. ``cache``: bytes that somebody chose for the cache, 0 for its usual share; ``tls``: whether any listener
    speaks it.

    What a chosen cache takes or leaves, index and queries have less or more. ValueError: it leaves them
    less than half of what they would have.
    """
    encrypted = total // TLS_PART if tls else 0
    room = total - PROCESS_BYTES - encrypted
    usual = int(room * CACHE_SHARE)
    rest = (room - (cache or usual)) / (room - usual)
    if rest < 0.5:
        raise ValueError(f"a cache of {cache} bytes leaves too little of {total} bytes")
    index, queries = int(room * INDEX_SHARE * rest), int(room * QUERIES_SHARE * rest)
    return Shares(total, cache or usual, index, queries, encrypted)
