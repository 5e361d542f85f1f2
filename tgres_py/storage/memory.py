"""A store in dicts: the model that the PostgreSQL store is tested against, and the store of fast tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from tgres_py.errors import StoreUnavailable
from tgres_py.model.event import Event, EventQuery, text_bytes
from tgres_py.model.retention import Archive, BundleSpec
from tgres_py.storage.port import (
    PING_TIMEOUT_S,
    ChunkRows,
    SeriesRows,
    ServerState,
    SettleRequest,
    beyond_s,
)

_Key = tuple[int, int, int]  # rrd_id, archive, n


def merge_slots(old: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
    """The merge rule of one lap: known slots of ``new`` replace, NaN never does. Shape (width,)."""
    if len(old) != len(new):
        return new.copy()
    return np.where(np.isnan(new), old, new)


def _series_rows(rows: list[tuple[int, int, str]]) -> SeriesRows:
    """Rows (rrd_id, bundle_id, name), by rrd_id."""
    rows.sort()
    return SeriesRows(
        np.array([rrd_id for rrd_id, _, _ in rows], np.int64),
        np.array([bundle_id for _, bundle_id, _ in rows], np.int32),
        [name for _, _, name in rows],
    )


class MemoryStore:
    """Implements ``port.Store``. Set ``away`` and every call raises StoreUnavailable, as when PostgreSQL is down."""

    def __init__(self) -> None:
        self.away = False
        self._bundles: dict[BundleSpec, int] = {}
        self._series: dict[str, tuple[int, int]] = {}
        self._chunks: dict[_Key, tuple[int, NDArray[np.float64]]] = {}
        self._state = ServerState("", 0)
        self._untagged: set[str] = set()
        self._events: list[Event] = []
        self._requests: set[asyncio.Queue[str]] = set()
        self._trash: dict[int, tuple[str, int]] = {}  # rrd_id: name, bundle_id
        self._last_id = 0
        self.last_s: dict[int, int] = {}  # by rrd_id
        self._listeners: set[asyncio.Queue[NDArray[np.int64] | None]] = set()

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")

    async def open(self) -> None:
        self._check()

    async def close(self) -> None:
        """Keeps the content, so that a test can "restart" on the same store."""

    async def ping(self, timeout_s: float = PING_TIMEOUT_S) -> None:
        self._check()

    async def ensure_bundles(self, specs: Sequence[BundleSpec]) -> list[int]:
        self._check()
        return [self._bundles.setdefault(spec, len(self._bundles) + 1) for spec in specs]

    async def load_bundles(self) -> list[tuple[int, BundleSpec]]:
        self._check()
        return [(bundle_id, spec) for spec, bundle_id in self._bundles.items()]

    async def load_series(self) -> SeriesRows:
        self._check()
        return _series_rows([(i, b, name) for name, (i, b) in self._series.items()])

    async def find_series(self, rrd_ids: NDArray[np.int64]) -> SeriesRows:
        self._check()
        wanted = set(rrd_ids.tolist())
        return _series_rows([(i, b, n) for n, (i, b) in self._series.items() if i in wanted])

    async def find_untagged(self, rrd_ids: NDArray[np.int64]) -> list[str]:
        return [name for name in (await self.find_series(rrd_ids)).names if name in self._untagged]

    async def load_trash(self, rrd_ids: NDArray[np.int64]) -> SeriesRows:
        self._check()
        wanted = self._trash.keys() & set(rrd_ids.tolist())
        return _series_rows([(i, self._trash[i][1], self._trash[i][0]) for i in wanted])

    async def touch_series(self, rrd_ids: NDArray[np.int64], last_s: NDArray[np.int64]) -> None:
        self._check()
        self.last_s.update(zip(rrd_ids.tolist(), last_s.tolist(), strict=True))

    # What operators do to series, as ``series_names.py`` does it in PostgreSQL.

    def trash(self, name: str) -> int:
        """Moves a series to the trash; its row."""
        rrd_id, bundle_id = self._series.pop(name)
        self._trash[rrd_id] = name, bundle_id
        self._tell(rrd_id)
        return rrd_id

    def restore(self, rrd_id: int) -> bool:
        """Moves a series back, unless its name lives again."""
        name, bundle_id = self._trash[rrd_id]
        if name in self._series:
            return False
        del self._trash[rrd_id]
        self._series[name] = rrd_id, bundle_id
        self._tell(rrd_id)
        return True

    def rename(self, names: dict[str, str]) -> None:
        """Gives series new names, which no others have."""
        moved = {new: self._series.pop(old) for old, new in names.items()}
        assert not moved.keys() & self._series.keys()
        self._series |= moved
        self._tell(*(rrd_id for rrd_id, _ in moved.values()))

    def purge(self, rrd_id: int) -> None:
        """Removes a series from the trash, and its points."""
        del self._trash[rrd_id]
        self._chunks = {key: row for key, row in self._chunks.items() if key[0] != rrd_id}
        self._tell(rrd_id)

    def _tell(self, *rrd_ids: int) -> None:
        for queue in self._listeners:
            queue.put_nowait(np.array(rrd_ids, np.int64))

    async def changes(self) -> AsyncIterator[NDArray[np.int64] | None]:
        queue: asyncio.Queue[NDArray[np.int64] | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield None
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    async def create_series(
        self, names: Sequence[str], bundle_ids: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        self._check()
        rows = []
        for name, bundle_id in zip(names, bundle_ids, strict=True):
            if name not in self._series:
                self._last_id += 1
                self._series[name] = (self._last_id, int(bundle_id))
            rows.append(self._series[name])
        return (
            np.array([rrd_id for rrd_id, _ in rows], np.int64),
            np.array([bundle_id for _, bundle_id in rows], np.int32),
        )

    async def write_chunks(self, rows: Sequence[ChunkRows], late_seq: int | None = None) -> None:
        self._check()
        for block in rows:
            for i in range(len(block)):
                key = (int(block.rrd_id[i]), block.archive, int(block.n[i]))
                self._upsert(key, int(block.start_s[i]), block.dp[i])
        if late_seq is not None:
            self._state.late_seq = late_seq

    def _upsert(self, key: _Key, start_s: int, dp: NDArray[np.float64]) -> None:
        old = self._chunks.get(key)
        if old is None or start_s > old[0] or (start_s < old[0] and old[0] > beyond_s()):
            self._chunks[key] = (start_s, dp.copy())
        elif start_s == old[0]:
            self._chunks[key] = (start_s, merge_slots(old[1], dp))

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
        self._check()
        wanted = set(rrd_ids.tolist())
        found = [
            (key, start_s, dp)
            for key, (start_s, dp) in self._chunks.items()
            if key[0] in wanted
            and key[1] == archive
            and len(dp) == width
            and from_s <= start_s < until_s
        ]
        return ChunkRows(
            archive,
            np.array([key[0] for key, _, _ in found], np.int64),
            np.array([key[2] for key, _, _ in found], np.int32),
            np.array([start_s for _, start_s, _ in found], np.int64),
            np.array([dp for _, _, dp in found], np.float64).reshape(len(found), width),
        )

    async def set_tagged(self, names: Sequence[str], tagged: bool) -> None:
        self._check()
        known = self._series.keys() & set(names)
        self._untagged = self._untagged - known if tagged else self._untagged | known

    async def load_untagged(self) -> list[str]:
        self._check()
        return sorted(self._untagged)

    async def add_event(self, event: Event) -> int:
        self._check()
        self._events.append(event._replace(id=len(self._events) + 1))
        return len(self._events)

    async def find_events(self, wanted: EventQuery) -> list[Event]:
        self._check()
        found = [event for event in self._events if wanted.matches(event)]
        found = sorted(found, key=lambda event: (event.at_s, event.id))[: wanted.limit]
        before = accumulate(map(text_bytes, found), initial=0)
        if wanted.times_only:
            return [Event("", event.at_s) for event in found]
        return [
            event for event, size in zip(found, before, strict=False) if size <= wanted.bytes_max
        ]

    async def get_event(self, id_: int) -> Event | None:
        self._check()
        return self._events[id_ - 1] if 1 <= id_ <= len(self._events) else None

    async def get_state(self) -> ServerState:
        self._check()
        return ServerState(self._state.journal_id, self._state.late_seq)

    async def set_journal_id(self, journal_id: str) -> None:
        self._check()
        self._state = ServerState(journal_id, 0)

    def request_flush(self, glob: str = "") -> None:
        """What ``NOTIFY tgres_flush, 'glob'`` is to PostgreSQL."""
        for queue in self._requests:
            queue.put_nowait(glob)

    async def settle_requests(self) -> AsyncIterator[SettleRequest]:
        """None come: nobody else has this store."""
        await asyncio.Event().wait()
        yield SettleRequest(0, "")

    async def answer_settle(self, request: SettleRequest) -> None:
        pass

    async def flush_requests(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._requests.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._requests.discard(queue)
