"""What the server asks of a store. Two stores exist: PostgreSQL and memory (tests, load tests of the rest)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.model.event import Event, EventQuery
from tgres_py.model.retention import Archive, BundleSpec

PING_TIMEOUT_S = 2.0
AHEAD_S = 600  # senders' clocks are ahead by seconds; what is further ahead is of a clock that was wrong


def beyond_s() -> int:
    """A row that begins later than this doesn't keep its place from rows of older laps."""
    return clock.now_s() + AHEAD_S


@dataclass(slots=True)
class ChunkRows:
    """Rows of ``ts`` of one archive number and one width, column by column.

    ``rrd_id``: int64 (k,); ``archive``: the archive's number in its retention, finest = 0;
    ``n``: int32 (k,), place of the chunk in the ring; ``start_s``: int64 (k,), time of slot 1;
    ``dp``: float64 (k, width), NaN = unknown.
    """

    archive: int
    rrd_id: NDArray[np.int64]
    n: NDArray[np.int32]
    start_s: NDArray[np.int64]
    dp: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rrd_id)


@dataclass(slots=True)
class SeriesRows:
    """All known series, column by column: ``rrd_id`` int64 (k,), ``bundle_id`` int32 (k,), names as text."""

    rrd_id: NDArray[np.int64]
    bundle_id: NDArray[np.int32]
    names: list[str]


@dataclass(slots=True)
class ServerState:
    """What survives in the store for the journal: which journal belongs to it, and up to which late record it is applied."""

    journal_id: str
    late_seq: int


class SettleRequest(NamedTuple):
    """Somebody who imports asks the servers to put what is older than ``time_s`` into the store."""

    time_s: int
    token: str


class Store(Protocol):
    """All methods raise StoreUnavailable when the store can't be reached; they may then be repeated."""

    async def open(self) -> None:
        """Connects and brings the schema up to date (under an advisory lock)."""

    async def close(self) -> None: ...

    async def ping(self, timeout_s: float = PING_TIMEOUT_S) -> None:
        """Returns when the store answers; it has this long. What other operations wait for doesn't keep it."""

    async def ensure_bundles(self, specs: Sequence[BundleSpec]) -> list[int]:
        """Ids of the bundles, created where missing, in the order of ``specs``, which may grow meanwhile."""

    async def load_bundles(self) -> list[tuple[int, BundleSpec]]: ...

    async def load_series(self) -> SeriesRows:
        """All series in the order of rrd_id (1,000,000 in some seconds)."""

    async def create_series(
        self, names: Sequence[str], bundle_ids: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Creates the series that are missing, in bulk; (rrd_id, bundle_id) of each name, in order.

        ``names`` are canonical (tags sorted); a series that exists keeps its bundle.
        """

    async def find_series(self, rrd_ids: NDArray[np.int64]) -> SeriesRows:
        """Those of the rows that exist, in the order of rrd_id."""

    async def find_untagged(self, rrd_ids: NDArray[np.int64]) -> list[str]:
        """As load_untagged, of some rows."""

    async def load_trash(self, rrd_ids: NDArray[np.int64]) -> SeriesRows:
        """Those of the rows that are in the trash, in the order of rrd_id."""

    async def touch_series(
        self, rrd_ids: NDArray[np.int64], last_s: NDArray[np.int64]
    ) -> None:
        """Notes when series last had a point (rrd.last_s), to some hours."""

    async def write_chunks(self, rows: Sequence[ChunkRows], late_seq: int | None = None) -> None:
        """One transaction: upserts all rows by the merge rule, and records ``late_seq`` when given.

        Merge rule, per slot: same lap (equal start_s): a known value replaces, NaN never does;
        newer lap: the row is replaced; older lap: the row is kept, unless it begins later than
        ``beyond_s()``. Idempotent.
        """

    async def read_chunks(
        self,
        rrd_ids: NDArray[np.int64],
        archive: int,
        width: int,
        from_s: int,
        until_s: int,
        *,
        ring: Archive | None = None,
    ) -> ChunkRows:
        """The rows of the series with from_s <= start_s < until_s and ``width`` slots; order unspecified.

        ``ring``: the archive's geometry, when known: the store then touches only the chunks of the
        window (one of 5 years of 10 minutes has 549), else it looks at all chunks of the archive.
        """

    async def set_tagged(self, names: Sequence[str], tagged: bool) -> None:
        """Whether series (canonical names with tags) are in the index of tags; unknown ones are ignored."""

    async def load_untagged(self) -> list[str]:
        """The names with tags that were taken out of the index of tags."""

    async def add_event(self, event: Event) -> int:
        """Stores an event; its id."""

    async def find_events(self, wanted: EventQuery) -> list[Event]:
        """The events that a query asks for, by time, those of one time by id."""

    async def get_event(self, id_: int) -> Event | None: ...

    async def get_state(self) -> ServerState:
        """The state; a fresh store answers ServerState("", 0)."""

    async def set_journal_id(self, journal_id: str) -> None:
        """Binds the store to a journal and resets late_seq to 0."""

    def flush_requests(self) -> AsyncIterator[str]:
        """Globs that SQL readers asked to be flushed (NOTIFY tgres_flush, 'glob'; empty = all), for ever.

        Reconnects by itself.
        """

    def changes(self) -> AsyncIterator[NDArray[np.int64] | None]:
        """Rows of ``rrd`` that others made, changed or removed, for ever; the values are in the store by then.

        None: any row may have changed. It comes first, when the listening begins, and whenever a
        connection was lost. Reconnects by itself.
        """

    def settle_requests(self) -> AsyncIterator[SettleRequest]:
        """Requests of imports (NOTIFY tgres_settle), for ever. Reconnects by itself.

        While it listens the store shows that a server is there.
        """

    async def answer_settle(self, request: SettleRequest) -> None:
        """Tells who asked that it is done."""
