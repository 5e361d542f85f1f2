"""The store in PostgreSQL. Statements are in ``sql/queries.sql``, bytes in ``copy_binary.py`` and FORMAT.md."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing

import asyncpg
import numpy as np
from numpy.typing import NDArray

from tgres_py.errors import ConfigError, StoreUnavailable
from tgres_py.model.event import Event, EventQuery
from tgres_py.model.retention import (
    Archive,
    BundleSpec,
    Cf,
    OnDuplicate,
    format_retention,
    pairs_of,
)
from tgres_py.storage import copy_binary
from tgres_py.storage.connection import CLIENT_ERRORS, Connector, Pool
from tgres_py.storage.migrate import migrate
from tgres_py.storage.port import (
    PING_TIMEOUT_S,
    ChunkRows,
    SeriesRows,
    ServerState,
    SettleRequest,
    beyond_s,
)
from tgres_py.storage.presence import Presence
from tgres_py.storage.queries import query
from tgres_py.storage.retention_jobs import RetentionJobs
from tgres_py.storage.series_names import CHANNEL, SeriesNames, parse_payload, tags_json

log = logging.getLogger(__name__)

Ids = NDArray[np.int64]

# Below this many rows one statement per row is quicker than COPY and an upsert (measured: 1 row 1.3
# against 3.8 ms, 10 rows 5.3 against 4.7 ms).
COPY_ROWS_MIN = 10
# Cells of more than this many bytes are parsed in a thread: 8 MiB take about 10 ms.
PARSE_INLINE_BYTES = 4 << 20
LOAD_TIMEOUT_S = 600.0
LISTEN_CHECK_S = 30.0
LISTEN_BACKOFF_S = (0.5, 30.0)
SETTLE_CHANNEL = "tgres_settle"
SETTLED_CHANNEL = "tgres_settled"
SERVER_LOCK = 0x746772657302  # shared by every server that listens on SETTLE_CHANNEL
NOTICES_MAX = 1_000
_SETTLE = re.compile(r"([0-9]{1,12}) ([0-9a-f]{1,64})")  # what ImportStore.settle sends
EVENT_TIMES_S = (-62_000_000_000.0, 253_000_000_000.0)  # the years 5 to 9987


class PostgresStore(SeriesNames, RetentionJobs):
    """Implements ``port.Store`` on any PostgreSQL from 14.

    Reads and new series share ``pool_size`` connections, chunks are written through one of their own, pings have one,
    flush requests, changes of series and settle requests are listened to on three others. A lost connection is made anew by the next call; the
    caller repeats what failed.
    """

    def __init__(
        self,
        dsn: str,
        *,
        pool_size: int = 4,
        connect_timeout_s: float = 5.0,
        command_timeout_s: float = 30.0,
    ) -> None:
        self._connector = Connector(dsn, connect_timeout_s, command_timeout_s)
        self._pool = Pool(self._connector, pool_size)
        self._writer = Pool(self._connector, 1, setup=_make_stage)
        pinging = Connector(dsn, connect_timeout_s, command_timeout_s)  # knows no ``gate``
        self._pinger = Pool(pinging, 1)
        self._on_trouble: Callable[[], None] = lambda: None
        self._command_timeout_s = command_timeout_s
        self._close_timeout_s = connect_timeout_s

    @property
    def pools(self) -> dict[str, Pool]:
        """The pools by name, for metrics."""
        return {"shared": self._pool, "writer": self._writer, "ping": self._pinger}

    def heed(self, presence: Presence) -> None:
        """From now on it hears of connections that fail; but for pings no new ones are made while nothing answers."""
        self._on_trouble = self._pool.on_failure = self._writer.on_failure = presence.doubt
        self._connector.gate = presence.expect_answer

    @property
    def masked_dsn(self) -> str:
        """Where the store is, without the password."""
        return self._connector.masked_dsn

    async def open(self) -> None:
        try:
            async with self._pool.use() as connection:
                await migrate(connection)
        except asyncpg.InsufficientPrivilegeError as error:
            raise ConfigError(
                f"the account of {self.masked_dsn} can't make tables ({error}): "
                "GRANT CREATE ON SCHEMA public to it, or give it a database of its own"
            ) from error

    async def close(self) -> None:
        await self._pool.close(self._close_timeout_s)
        await self._writer.close(self._close_timeout_s)
        await self._pinger.close(self._close_timeout_s)

    async def ping(self, timeout_s: float = PING_TIMEOUT_S) -> None:
        try:
            async with asyncio.timeout(timeout_s), self._pinger.use() as connection:
                await connection.execute("SELECT 1")
        except TimeoutError as error:
            raise StoreUnavailable(
                f"PostgreSQL at {self.masked_dsn}: no answer in {timeout_s:g} s"
            ) from error

    # Bundles and series

    async def ensure_bundles(self, specs: Sequence[BundleSpec]) -> list[int]:
        specs = tuple(specs)  # the registry's list grows when senders bring further ones
        known = {spec: bundle_id for bundle_id, spec in await self.load_bundles()}
        missing = [spec for spec in dict.fromkeys(specs) if spec not in known]
        if missing:
            async with self._pool.use() as connection:
                await connection.executemany(
                    query("insert_bundle"), [_bundle_row(spec) for spec in missing]
                )
            known = {spec: bundle_id for bundle_id, spec in await self.load_bundles()}
        return [known[spec] for spec in specs]

    async def load_bundles(self) -> list[tuple[int, BundleSpec]]:
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("load_bundles"))
        return [(row["id"], _bundle_spec(row)) for row in rows]

    async def load_series(self) -> SeriesRows:
        reader = _SeriesReader()
        async with self._pool.use() as connection:
            await connection.copy_from_query(
                query("load_series"), output=reader.feed, timeout=LOAD_TIMEOUT_S
            )
        return reader.rows()

    async def create_series(
        self, names: Sequence[str], bundle_ids: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        # of a name that comes twice, the first bundle; maps, as loops would be half of the work
        bundles = dict(zip(reversed(names), reversed(bundle_ids.tolist()), strict=True))
        if not bundles:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        # sorted, because two servers that create the same names in different orders would deadlock
        unique = sorted(bundles)
        wanted = np.fromiter(map(bundles.__getitem__, unique), np.int32, len(unique))
        async with self._pool.use() as connection:
            try:
                ids, found = await _insert_new_series(connection, unique, wanted)
            except asyncpg.UniqueViolationError:
                ids, found = await _insert_series(connection, unique, wanted)
        place = dict(zip(unique, range(len(unique)), strict=True))
        take = np.fromiter(map(place.__getitem__, names), np.intp, len(names))
        return ids[take], found[take]

    async def set_tagged(self, names: Sequence[str], tagged: bool) -> None:
        async with self._pool.use() as connection:
            if not tagged:
                await connection.execute(query("untag_series"), list(names))
                return
            tags = [(tags_json(name) or b"{}").decode() for name in names]
            await connection.execute(query("tag_series"), list(names), tags)

    async def load_untagged(self) -> list[str]:
        async with self._pool.use() as connection:
            rows = await connection.fetch(query("load_untagged"), timeout=LOAD_TIMEOUT_S)
        return [row["name"] for row in rows]

    # Events

    async def add_event(self, event: Event) -> int:
        async with self._pool.use() as connection:
            id_: int = await connection.fetchval(
                query("insert_event"), event.what, list(event.tags), event.data, event.at_s
            )
            return id_

    async def find_events(self, wanted: EventQuery) -> list[Event]:
        tags = None if wanted.tags is None else list(wanted.tags)
        ends = [min(max(end, EVENT_TIMES_S[0]), EVENT_TIMES_S[1]) for end in wanted[:2]]
        asked = *ends, tags, wanted.match_all, wanted.limit
        async with self._pool.use() as connection:
            if wanted.times_only:
                rows = await connection.fetch(query("find_event_times"), *asked)
                return [Event("", row["at_s"]) for row in rows]
            rows = await connection.fetch(query("find_events"), *asked, wanted.bytes_max)
        return [_event(row) for row in rows]

    async def get_event(self, id_: int) -> Event | None:
        async with self._pool.use() as connection:
            row = await connection.fetchrow(query("get_event"), id_)
        return _event(row) if row else None

    # Chunks

    async def write_chunks(self, rows: Sequence[ChunkRows], late_seq: int | None = None) -> None:
        parts = write_parts(rows)
        async with self._writer.use() as connection, connection.transaction():
            for i, (block, order) in enumerate(parts):
                if i:
                    await connection.execute(query("empty_stage"))
                await _write_part(connection, block, order)
            if late_seq is not None:
                await connection.execute(query("set_late_seq"), late_seq)

    async def fill_chunks(self, rows: Sequence[ChunkRows]) -> None:
        """One transaction: puts known slots where nothing is known.

        Same lap: a known slot of the store stays; newer lap: the row is replaced; older lap: the row is kept.
        Idempotent.
        """
        async with self._writer.use() as connection, connection.transaction():
            for i, (block, order) in enumerate(write_parts(rows)):
                if i:
                    await connection.execute(query("empty_stage"))
                await write_staged(connection, block, order, "fill_stage")

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
        fetched: list[asyncpg.Record] = []
        async with self._pool.use() as connection:
            window = (rrd_ids.tolist(), archive, from_s, until_s)
            if ring is None:
                fetched = await connection.fetch(query("read_chunks"), *window)
            else:
                for bounds in ring_places(ring, from_s, until_s):
                    fetched += await connection.fetch(
                        query("read_chunks_of_ring"), *window, *bounds
                    )
        if len(fetched) * width * 12 <= PARSE_INLINE_BYTES:
            return _chunk_rows(fetched, archive, width)
        return await asyncio.to_thread(_chunk_rows, fetched, archive, width)

    # The journal's state, and requests of SQL readers

    async def get_state(self) -> ServerState:
        async with self._pool.use() as connection:
            [row] = await connection.fetch(query("get_state"))
        return ServerState(row["journal_id"], row["late_seq"])

    async def set_journal_id(self, journal_id: str) -> None:
        async with self._pool.use() as connection:
            await connection.execute(query("set_journal_id"), journal_id)

    async def flush_requests(self) -> AsyncIterator[str]:
        async with aclosing(self._notices("tgres_flush")) as globs:
            async for glob in globs:
                if glob is not None:
                    yield glob

    async def changes(self) -> AsyncIterator[NDArray[np.int64] | None]:
        async with aclosing(self._notices(CHANNEL)) as texts:
            async for text in texts:
                yield None if text is None else parse_payload(text)

    async def settle_requests(self) -> AsyncIterator[SettleRequest]:
        async with aclosing(self._notices(SETTLE_CHANNEL, SERVER_LOCK)) as texts:
            async for text in texts:
                if match := _SETTLE.fullmatch(text or ""):
                    yield SettleRequest(int(match[1]), match[2])

    async def answer_settle(self, request: SettleRequest) -> None:
        async with self._pool.use() as connection:
            await connection.execute(query("notify"), SETTLED_CHANNEL, request.token)

    async def _notices(
        self, channel: str, lock: int | None = None
    ) -> AsyncGenerator[str | None, None]:
        """Payloads of a channel, for ever; None when a connection begins to listen, so that what came
        before may be unknown. ``lock``: an advisory lock to share while it listens."""
        delay_s = LISTEN_BACKOFF_S[0]
        while True:
            try:
                async with aclosing(self._listen(channel, lock)) as texts:
                    async for text in texts:
                        delay_s = LISTEN_BACKOFF_S[0]
                        yield text
            except StoreUnavailable as error:
                self._on_trouble()
                log.debug("%s: %s; next try in %.1f s", channel, error, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LISTEN_BACKOFF_S[1])

    async def _listen(self, channel: str, lock: int | None) -> AsyncGenerator[str | None, None]:
        """None, then what comes over one connection; StoreUnavailable when it is lost."""
        connection = await self._connector.connect()
        # A dict keeps order and holds each payload once, however often it comes.
        waiting: dict[str, None] = {}
        woken = asyncio.Event()

        def on_notify(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            if len(waiting) >= NOTICES_MAX:
                waiting.clear()
                payload = ""  # all of them is what so many ask for
            waiting[str(payload)] = None
            woken.set()

        try:
            await connection.add_listener(channel, on_notify)
            connection.add_termination_listener(lambda _connection: woken.set())
            if lock is not None:
                await connection.execute("SELECT pg_advisory_lock_shared($1)", lock)
            yield None
            while True:
                try:
                    await asyncio.wait_for(woken.wait(), LISTEN_CHECK_S)
                except TimeoutError:  # a half-open connection would be silent for ever
                    await connection.execute("SELECT 1")
                woken.clear()
                while waiting:
                    text = next(iter(waiting))
                    del waiting[text]
                    yield text
                if connection.is_closed():
                    raise StoreUnavailable(f"PostgreSQL at {self.masked_dsn}: connection lost")
        except CLIENT_ERRORS as error:
            unavailable = self._connector.unavailable(error, closed=connection.is_closed())
            raise unavailable or error from error
        finally:
            connection.terminate()


async def _make_stage(connection: asyncpg.Connection) -> None:
    await connection.execute(query("stage_table"))


def ring_places(ring: Archive, from_s: int, until_s: int) -> list[tuple[int, int]]:
    """Where the chunks with from_s <= start_s < until_s lie in the ring: ranges (first n, last n)."""
    first = -(-from_s // ring.chunk_s)
    last = -(-until_s // ring.chunk_s) - 1
    if last < first:
        return []
    if last - first + 1 >= ring.chunks:
        return [(0, ring.chunks - 1)]
    low, high = first % ring.chunks, last % ring.chunks
    return [(low, high)] if low <= high else [(low, ring.chunks - 1), (0, high)]


# Bundles


def _bundle_row(spec: BundleSpec) -> tuple[object, ...]:
    archives = spec.archives
    return (
        format_retention(pairs_of(spec)),
        spec.cf.value,
        spec.xff,
        spec.on_duplicate.value,
        [a.step_s for a in archives],
        [a.size for a in archives],
        [a.width for a in archives],
    )


def _bundle_spec(row: asyncpg.Record) -> BundleSpec:
    archives = zip(row["steps_s"], row["sizes"], row["widths"], strict=True)
    return BundleSpec(
        tuple(Archive(step_s, size, width) for step_s, size, width in archives),
        Cf(row["cf"]),
        row["xff"],
        OnDuplicate(row["on_duplicate"]),
    )


# Series


async def _copy_series(
    connection: asyncpg.Connection,
    table: str,
    ids: Ids,
    names: list[str],
    bundle_ids: NDArray[np.int32],
) -> None:
    tags = await asyncio.to_thread(lambda: [tags_json(name) for name in names])  # some 5 µs each
    pieces = copy_binary.series_pieces(ids, names, tags, bundle_ids)
    await connection.copy_to_table(
        table,
        columns=["id", "name", "tags", "bundle_id"],
        source=_stream(pieces),
        format="binary",
    )


async def _insert_new_series(
    connection: asyncpg.Connection, names: list[str], bundle_ids: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The quick way, for names that are all new; UniqueViolationError when one is not."""
    async with connection.transaction():
        cell = await connection.fetchval(query("series_ids"), len(names))
        ids = copy_binary.int64_cell(cell)
        await _copy_series(connection, "rrd", ids, names, bundle_ids)
    return ids, bundle_ids


async def _insert_series(
    connection: asyncpg.Connection, names: list[str], bundle_ids: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The safe way: through a staging table, existing series are left as they are."""
    async with connection.transaction():
        await connection.execute(query("series_stage"))
        cell = await connection.fetchval(query("series_ids"), len(names))
        ids = copy_binary.int64_cell(cell)
        await _copy_series(connection, "tgres_series_stage", ids, names, bundle_ids)
        await connection.execute(query("insert_missing_series"))
        [found] = await connection.fetch(query("select_staged_series"))
    found_bundles = copy_binary.int64_cell(found["bundle_ids"]).astype(np.int32)
    return copy_binary.int64_cell(found["ids"]), found_bundles


class _SeriesReader:
    """Reads ``COPY (SELECT id, bundle_id, name) TO STDOUT`` (text) with one Python object per field.

    Names hold no tab and no newline; a backslash comes doubled.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._ids: list[NDArray[np.int64]] = []
        self._bundles: list[NDArray[np.int32]] = []
        self._names: list[str] = []

    async def feed(self, data: bytes) -> None:
        lines, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if not newline:
            return
        fields = lines.replace(b"\n", b"\t").decode().split("\t")
        self._ids.append(np.array(fields[0::3]).astype(np.int64))
        self._bundles.append(np.array(fields[1::3]).astype(np.int32))
        names = fields[2::3]
        if b"\\" in lines:
            names = [name.replace("\\\\", "\\") for name in names]
        self._names += names

    def rows(self) -> SeriesRows:
        return SeriesRows(
            np.concatenate([np.empty(0, np.int64), *self._ids]),
            np.concatenate([np.empty(0, np.int32), *self._bundles]),
            self._names,
        )


# Events


def _event(row: asyncpg.Record) -> Event:
    return Event(row["what"], row["at_s"], tuple(row["tags"]), row["data"], row["id"])


# Chunks


def write_parts(rows: Sequence[ChunkRows]) -> list[tuple[ChunkRows, NDArray[np.intp]]]:
    """Sorts all rows by (archive, width, rrd_id, n) and splits them into parts: rows, and their order.

    ON CONFLICT DO UPDATE refuses to touch a row twice, so no part holds a key twice; a later part
    does what a second call would. The fixed order keeps two writers from a deadlock.
    """
    groups: dict[tuple[int, int], list[ChunkRows]] = {}
    for block in rows:
        if len(block):
            groups.setdefault((block.archive, block.dp.shape[1]), []).append(block)
    parts = []
    for _, blocks in sorted(groups.items(), key=lambda item: item[0]):
        block = blocks[0] if len(blocks) == 1 else _concatenate(blocks)
        order = np.lexsort((block.n, block.rrd_id))  # stable: equal keys keep their order
        turn = _turns(block.rrd_id[order], block.n[order])
        parts += [(block, order[turn == i]) for i in range(int(turn.max()) + 1)]
    return parts


def _turns(rrd_id: NDArray[np.int64], n: NDArray[np.int32]) -> NDArray[np.intp]:
    """How often the key of each row of a sorted list came before: int (k,)."""
    place = np.arange(len(n))
    first = np.ones(len(n), np.bool_)
    first[1:] = (rrd_id[1:] != rrd_id[:-1]) | (n[1:] != n[:-1])
    return place - np.maximum.accumulate(np.where(first, place, 0))


def _concatenate(blocks: list[ChunkRows]) -> ChunkRows:
    return ChunkRows(
        blocks[0].archive,
        np.concatenate([block.rrd_id for block in blocks]),
        np.concatenate([block.n for block in blocks]),
        np.concatenate([block.start_s for block in blocks]),
        np.concatenate([block.dp for block in blocks]),
    )


async def _write_part(
    connection: asyncpg.Connection, block: ChunkRows, order: NDArray[np.intp]
) -> None:
    if len(order) < COPY_ROWS_MIN:
        await connection.executemany(
            query("upsert_chunk"), [(*row, beyond_s()) for row in _tuples(block, order)]
        )
        return
    await write_staged(connection, block, order, "upsert_stage", beyond_s())


async def write_staged(
    connection: asyncpg.Connection,
    block: ChunkRows,
    order: NDArray[np.intp],
    statement: str,
    *args: int,
) -> None:
    """Copies ``block[order]`` into the empty staging table and runs ``statement`` on it."""
    pieces = copy_binary.chunk_pieces(block, order)
    await connection.copy_to_table("tgres_stage", source=_stream(pieces), format="binary")
    await connection.execute(query(statement), *args)


def _tuples(block: ChunkRows, order: NDArray[np.intp]) -> list[tuple[object, ...]]:
    return [
        (rrd_id, block.archive, n, start_s, dp)
        for rrd_id, n, start_s, dp in zip(
            block.rrd_id[order].tolist(),
            block.n[order].tolist(),
            block.start_s[order].tolist(),
            block.dp[order].tolist(),
            strict=True,
        )
    ]


async def _stream(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    yield copy_binary.HEADER
    for piece in pieces:
        yield piece
    yield copy_binary.TRAILER


def _chunk_rows(fetched: list[asyncpg.Record], archive: int, width: int) -> ChunkRows:
    if not fetched:
        empty = np.empty(0, np.int64)
        return ChunkRows(archive, empty, empty.astype(np.int32), empty, np.empty((0, width)))
    rrd_id, n, start_s, cells = zip(*fetched, strict=True)
    dp, fits = copy_binary.parse_cells(cells, width)
    return ChunkRows(
        archive,
        np.array(rrd_id, np.int64)[fits],
        np.array(n, np.int32)[fits],
        np.array(start_s, np.int64)[fits],
        dp,
    )
