"""The composition root: makes every part, starts them in order, stops them in the other.

Start: embedded PostgreSQL (unless there is a DSN), journal, receivers, HTTP; then the store's series and the
journal's points, as soon as PostgreSQL can be reached. Points that come before that wait in the late queue.
Stop: no new connections, what was received is parsed, the store gets what is in memory (as far as time
allows), the journal is synced, PostgreSQL stops.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from http_api.admin import Admin as AdminApi
from http_api.app import make_app
from http_api.cluster import Cluster
from http_api.gate import GateLimits
from http_api.guard import Access
from http_api.listen import HttpListener
from http_api.meters import Meters
from http_api.queries import Queries
from http_api.tokens import TokenCheck
from receivers import carbon_line, carbon_pickle, tcp, udp
from receivers.statsd_service import StatsdService, StreamLimits
from tgres_py import clock, config_sources, metrics
from tgres_py.admin.frame import Admin, AdminVerbs
from tgres_py.admin.housekeeping import keep_house
from tgres_py.config import Settings
from tgres_py.errors import BadRequest, ConfigError, LimitExceeded, StoreUnavailable, TgresError
from tgres_py.ingest.flusher import Flusher, Pace
from tgres_py.ingest.follow import Follower
from tgres_py.ingest.footprint import index_bytes
from tgres_py.ingest.intake import Intake, Limits
from tgres_py.ingest.journal import Journal
from tgres_py.ingest.pressure import MemoryWatch
from tgres_py.ingest.reader import Floats, Reader
from tgres_py.ingest.recover import Recovered, recover
from tgres_py.ingest.registry import Registry
from tgres_py.ingest.retention_job import RetentionWorker
from tgres_py.kernels import Budget, RingStore
from tgres_py.kernels.arrays import count_arrays
from tgres_py.machine import calm_allocator
from tgres_py.memory import MIB, Shares
from tgres_py.metrics.agents import OwnPoints, prefix_of
from tgres_py.metrics.runtime import Runtime
from tgres_py.model.event import Event, EventQuery
from tgres_py.model.networks import Networks
from tgres_py.model.points import Ids, Reason
from tgres_py.model.retention import BundleSpec
from tgres_py.model.tagindex import TagIndex
from tgres_py.places import OWN_FILES, Places, places, raise_open_files
from tgres_py.query.source import FindNode
from tgres_py.statsd.steps import StepCheck
from tgres_py.storage.embedded import EmbeddedPostgres
from tgres_py.storage.port import Store
from tgres_py.storage.postgres import PostgresStore
from tgres_py.storage.retention_jobs import LiveLock
from tgres_py.tls import Tls

log = logging.getLogger("tgres")

RETRY_S = (0.5, 10.0)
INDEX_EVERY_S = 1.0
ROOM_EVERY_S = 0.1
END_S = (
    10.0  # of the time for stopping: what is kept for closing journal, connections and PostgreSQL
)
STORE_CLOSE_S = 3.0
GC_THRESHOLDS = (10_000, 10, 10)
YOUNG_S = 30.0  # beyond late_grace_s: until a pass over the ring's chunks has come by
SETTLE_S = 2.0  # a query waits this long for late points to be merged
SETTLE_AGAIN_S = 5.0  # after a wait in vain the next queries don't wait at all
READ_TIMEOUT_S = 4.0
CLOCKS_APART_S = 60  # of servers and imports, at most
DROPS_EVERY_S = 5.0
STATSD_EVENTS_EVERY_S = 0.5
PING_TIMEOUT_S = 2.0
LIVE_LOCK_EVERY_S = 2.0
FIRST_HOUSEKEEPING_S = 300.0  # the start is over, and senders had their time
HOUSEKEEPING_S = 3_600.0


class Listener(Protocol):
    """What the receivers' transports have in common."""

    @property
    def address(self) -> tuple[str, int]: ...

    def close(self) -> None: ...

    async def drain(self, timeout_s: float = 2.0) -> None: ...


class ServerSource:
    """What queries see: names and tags from the registry, points from the reader, events from the store.

    StoreUnavailable while the series aren't loaded yet, and when the store is needed and doesn't answer
    within ``read_timeout_s``.
    """

    def __init__(
        self,
        registry: Registry,
        reader: Reader,
        flusher: Flusher,
        store: Store,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._flusher = flusher
        self._store = store
        self._read_timeout_s = read_timeout_s
        self._settle_from = float("-inf")
        self._index_lock = threading.Lock()

    def sync_index(self) -> None:
        """Brings the index of names up to date; in any thread."""
        with self._index_lock:
            self._registry.sync_index()

    def _sync_loaded(self) -> None:
        """Brings the index up to date for a question, which no half of the series must answer."""
        if not self._registry.opened:
            raise StoreUnavailable("starting: the series are not loaded yet")
        self.sync_index()

    def count(self) -> int:
        return len(self._registry)

    def expand(self, pattern: str, limit: int | None = None) -> Ids:
        self._sync_loaded()
        return self._registry.tree.expand(pattern, limit, "query_series_max")

    def find(self, pattern: str) -> list[FindNode]:
        self._sync_loaded()
        return self._registry.tree.find(pattern)

    def by_tags(self, expressions: Sequence[str], limit: int | None = None) -> Ids:
        ids = self.tags().find(expressions)
        if limit is not None and len(ids) > limit:
            raise LimitExceeded(
                "series that fulfil the tag expressions", len(ids), limit, "query_series_max"
            )
        names = self.names(ids)
        order = sorted(range(len(names)), key=names.__getitem__)
        return ids[order]

    def tags(self) -> TagIndex:
        self._sync_loaded()
        return self._registry.tags

    async def tag_series(self, names: Sequence[str]) -> list[str]:
        registry = self._registry
        wanted = [registry.canonical(name) for name in names]
        ids, refused = registry.resolve([name.encode() for name in wanted])
        for position, reason in refused.items():
            raise BadRequest(f"{wanted[position]}: this series can't be made: {reason.value}")
        with self._index_lock:
            registry.sync_index()
            missing = np.flatnonzero(~registry.tags.holds(ids)).tolist()
            registry.tags.add([wanted[place] for place in missing], ids[missing])
        # those that were taken out once; new ones come into the store with their tags
        if back := [wanted[place] for place in missing if ";" in wanted[place]]:
            async with self._answer_in_time():
                await self._store.set_tagged(back, True)
        return wanted

    async def untag_series(self, names: Sequence[str]) -> None:
        known = [self._registry.canonical(name) for name in names]
        async with self._answer_in_time():
            await self._store.set_tagged(known, False)
        await self.drop_tags(known)

    async def drop_tags(self, names: Sequence[str]) -> None:
        """Takes series out of the index in memory."""
        if not names:
            return
        ids = np.array([self._registry.table.get(name.encode()) for name in names], np.int32)

        def drop() -> None:
            with self._index_lock:
                self._registry.sync_index()
                self._registry.tags.discard(ids)

        await asyncio.to_thread(drop)

    def names(self, ids: Ids) -> list[str]:
        return self._registry.names(ids)

    def bundles(self, ids: Ids) -> list[BundleSpec]:
        return self._registry.specs(ids)

    async def fetch(
        self, ids: Ids, bundle: BundleSpec, archive: int, from_slot: int, until_slot: int
    ) -> Floats:
        async with self._answer_in_time():
            await self._settle()
            return await self._reader.fetch(ids, archive, from_slot, until_slot, bundle)

    async def _settle(self) -> None:
        """Merges queued late points first, unless the store is away: what is in memory can be read on."""
        if clock.monotonic() < self._settle_from or not await self._flusher.reachable():
            return
        try:
            async with asyncio.timeout(SETTLE_S):
                await self._flusher.settle()
        except StoreUnavailable:
            pass
        except TimeoutError:
            self._settle_from = clock.monotonic() + SETTLE_AGAIN_S

    # -- events ------------------------------------------------------------------------------

    async def add_event(self, event: Event) -> int:
        async with self._answer_in_time():
            return await self._store.add_event(event)

    async def find_events(self, wanted: EventQuery) -> list[Event]:
        async with self._answer_in_time():
            return await self._store.find_events(wanted)

    async def get_event(self, id_: int) -> Event | None:
        async with self._answer_in_time():
            return await self._store.get_event(id_)

    @asynccontextmanager
    async def _answer_in_time(self) -> AsyncIterator[None]:
        """Whoever asks hears soon that the store doesn't answer, whatever keeps it."""
        try:
            async with asyncio.timeout(self._read_timeout_s):
                yield
        except TimeoutError:
            raise StoreUnavailable(
                f"PostgreSQL didn't answer within {self._read_timeout_s:g} s (store_read_timeout_s)"
            ) from None


class ServerStatus:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._export = metrics.exporter(server)

    async def ready(self) -> None:
        server = self._server
        if not server.registry.opened:
            raise StoreUnavailable("starting: the series are not loaded yet")
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await server.store.ping()
        except TimeoutError:
            raise StoreUnavailable(
                f"PostgreSQL doesn't answer within {PING_TIMEOUT_S:g} s"
            ) from None

    def metrics(self) -> bytes:
        self._server.count_kernel_drops()
        return self._export()


class Server:
    """One server; ``start`` once, ``stop`` once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.shares: Shares = settings.memory_shares()
        self.queries: Queries = Queries.of(
            settings, self.shares.queries, lambda: self.memory.tight
        )
        self.embedded: EmbeddedPostgres | None = None
        self.ring: RingStore = RingStore()
        self.registry: Registry = Registry(
            settings.rule_set().match_many,
            self.ring,
            series_max=settings.series_max,
            name_bytes_max=settings.name_bytes_max,
            tags_max=settings.tags_max,
            budget=_budget(settings),
        )
        self.store: PostgresStore
        self.journal: Journal
        self.intake: Intake
        self.flusher: Flusher
        self.memory: MemoryWatch
        self.follower: Follower
        self.retention: RetentionWorker
        self.live_lock: LiveLock | None = None
        self.source: ServerSource
        self.listeners: dict[str, Listener] = {}
        self.statsd: StatsdService | None = None
        self._statsd_steps: StepCheck
        self._statsd_unchecked: list[Ids] = []
        self.recovered: Recovered | None = None
        self.http: HttpListener | None = None
        self.cluster: Cluster | None = None
        self.tcp_totals: tcp.Totals = tcp.Totals()
        self.places: Places
        self.tls: Tls | None = None
        self.allowed: dict[str, Networks] = {
            name: Networks(texts) for name, texts in _allow_lists(settings).items()
        }
        self.meters: Meters = Meters()
        self.tokens: TokenCheck = TokenCheck()
        self.runtime: Runtime = Runtime()
        self.ended = asyncio.Event()  # somebody wants the server to stop
        self.failure: ConfigError | None = None  # why it ended by itself
        self._tasks: set[asyncio.Task[None]] = set()
        self._drops: dict[str, int] = {}

    # -- start -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when all listeners are open; ConfigError when one of them can't be."""
        settings = self.settings
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._find_places()
        self.journal = Journal(settings.data_dir / "journal", settings.journal_sync_s)
        self.journal.start()
        try:
            await self._start_store()
            self._wire()
            await self._start_listeners()
        except BaseException:
            await self.stop()
            raise
        self._spawn(self._open(), "recover")
        self._spawn(self.flusher.run(), "flusher")
        self._spawn(self._index(), "index")
        self._spawn(self._watch_room(), "room")
        self._spawn(self.memory.run(), "memory")
        self._spawn(self._watch_drops(), "udp-drops")
        self.runtime.start()
        self._spawn(self.runtime.watch_loop(), "loop-lag")
        if self.settings.self_metrics_s:
            own = OwnPoints(self, prefix_of(self.settings.self_metrics_prefix))
            self._spawn(own.run(self.settings.self_metrics_s), "own-points")

    async def _start_store(self) -> None:
        settings = self.settings
        dsn = settings.dsn
        if dsn is None:
            self.embedded = EmbeddedPostgres(settings.data_dir / "pg")
            dsn = await self.embedded.start()
        self.store = PostgresStore(dsn, command_timeout_s=settings.store_timeout_s)

    def _wire(self) -> None:
        settings = self.settings
        limits = Limits(
            cache_bytes_max=self.shares.cache,
            late_points_max=settings.late_points_max,
            journal_bytes_max=settings.journal_bytes_max,
            future_s_max=settings.future_s_max,
        )
        self.intake = Intake(self.registry, self.journal, limits)
        reader = Reader(self.registry, self.store)
        pace = Pace(
            settings.late_grace_s,
            settings.flush_pace_s,
            settings.sql_freshness_s,
            settings.checkpoint_s,
        )
        self.flusher = Flusher(self.intake, self.store, reader, self.journal, pace)
        parts = self.shares
        log.info(
            "memory: %d MB at most; cache %d, index %d, queries %d",
            parts.total // MIB,
            parts.cache // MIB,
            parts.index // MIB,
            parts.queries // MIB,
        )
        self.memory = MemoryWatch(
            self.intake,
            parts,
            settings.late_grace_s + YOUNG_S,
            self.queries.child_bytes,
        )
        self.follower = Follower(self.intake, self.store, self.flusher.lock)
        self.retention = RetentionWorker(self.flusher, self.store, self.store)
        self.source = ServerSource(
            self.registry, reader, self.flusher, self.store, settings.store_read_timeout_s
        )

    async def _start_listeners(self) -> None:
        settings, sink = self.settings, self.intake
        if settings.tls_cert is not None:
            self.tls = Tls(settings.tls_cert, settings.tls_key)
        totals = self.tcp_totals
        line_format = carbon_line.wire_format(settings.line_bytes_max)
        if settings.carbon:
            host, port = settings.carbon
            self.listeners["carbon"] = await tcp.start(
                "carbon", host, port, line_format, sink, self._tcp_limits("carbon"), totals
            )
            self.listeners["carbon_udp"] = await udp.start(
                "carbon_udp",
                host,
                self.listeners["carbon"].address[1],
                line_format.parse,
                sink,
                self._udp_limits("carbon"),
            )
        if settings.pickle:
            self.listeners["pickle"] = await tcp.start(
                "pickle",
                *settings.pickle,
                carbon_pickle.wire_format(settings.frame_bytes_max),
                sink,
                self._tcp_limits("pickle"),
                totals,
            )
        if settings.statsd_servers:
            await self._start_statsd(self._tcp_limits("statsd"), totals)
        if settings.http:
            if settings.cluster_peers:
                self.cluster = Cluster(
                    settings.cluster_peers, settings.cluster_timeout_s, settings.response_bytes_max
                )
            verbs = AdminVerbs(Admin(self.store, self))
            app = make_app(
                self.source,
                ServerStatus(self),
                settings,
                self.cluster,
                AdminApi(verbs),
                self.meters,
                self._access,
                self.tokens,
                self.queries,
            )
            self.http = HttpListener(app, self._gate_limits(), self._tls_of("http"))
            await self.http.start(*settings.http)
            log.info("http listens on %s:%d", *self.http.address)
        for name, opened in self.listeners.items():
            where, port = opened.address  # a unix socket has a path and no port
            log.info("%s listens on %s", name, f"{where}:{port}" if port else where)

    def _tls_of(self, listener: str) -> ssl.SSLContext | None:
        wanted = self.tls is not None and listener in self.settings.tls_listeners
        return self.tls.context if self.tls is not None and wanted else None

    def _find_places(self) -> None:
        settings = self.settings
        asked = Places(
            settings.connections_max, settings.http_connections_max, raise_open_files()
        )
        self.places = places(asked)
        if asked.missing:
            log.warning(
                "%d files may be open, connections_max and http_connections_max need %d: %d connections of senders and "
                "%d of HTTP are accepted; raise the limit (LimitNOFILE, ulimit -Hn) or lower the settings",
                asked.files,
                asked.tcp + asked.http + OWN_FILES,
                self.places.tcp,
                self.places.http,
            )

    def _tcp_limits(self, listener: str) -> tcp.TcpLimits:
        return tcp.TcpLimits(
            connections_max=self.places.tcp,
            allowed=self.allowed[listener],
            tls=self._tls_of(listener),
        )

    def _udp_limits(self, listener: str) -> udp.UdpLimits:
        return udp.UdpLimits(
            rcvbuf_bytes=self.settings.udp_buffer_bytes, allowed=self.allowed[listener]
        )

    def _gate_limits(self) -> GateLimits:
        settings = self.settings
        return GateLimits(
            self.places.http,
            settings.http_read_timeout_s,
            settings.http_idle_s,
            self.allowed["http"],
        )

    def _access(self) -> Access:
        settings = self.settings
        return Access(
            settings.http_secret,
            settings.admin_secret,
            settings.cors_origins,
            settings.http_read_timeout_s,
        )

    async def _start_statsd(self, tcp_limits: tcp.TcpLimits, totals: tcp.Totals) -> None:
        settings, table = self.settings, self.settings.statsd_table
        self.statsd = StatsdService(
            table, settings.statsd_given_table, self.intake, self._check_statsd_steps
        )
        self._statsd_steps = StepCheck(table.interval_s)
        self.listeners |= await self.statsd.listen(
            settings.statsd_servers,
            settings.statsd_mgmt,
            StreamLimits(tcp_limits, totals),
            self._udp_limits("statsd"),
            self._tls_of("statsd_mgmt"),
        )
        for name, task in self.statsd.tasks().items():
            self._spawn(task, name)
        self._spawn(self._watch_statsd_events(), "statsd-events")

    def _check_statsd_steps(self, ids: Ids) -> None:
        """Looks at the archives of series that statsd flushes for the first time."""
        self._statsd_unchecked.append(ids)
        if not self.registry.opened:
            return  # they have no archives yet
        for ids in self._statsd_unchecked:
            bundles, first = np.unique(self.registry.bundle_of[ids], return_index=True)
            for bundle, place in zip(bundles.tolist(), first.tolist(), strict=True):
                name = self.registry.names(ids[place : place + 1])[0]
                self._statsd_steps.check(self.registry.bundle_specs[bundle], name)
        self._statsd_unchecked = []

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s ended", task.get_name(), exc_info=error)

    async def _open(self) -> None:
        """Loads the store's series and replays the journal; tries until the store is there."""
        pause = RETRY_S[0]
        told = ""
        changes = self.store.changes()
        while True:
            try:
                await self.store.open()
                await self._take_live_lock()
                await anext(changes)  # it listens: no change after the series are loaded is missed
                untagged = await self.store.load_untagged()
                self.recovered = await recover(self.intake, self.journal, self.store)
                break
            except (StoreUnavailable, ConfigError) as e:
                if isinstance(e, ConfigError) and pause == RETRY_S[0]:
                    self.failure = e  # the first try: nobody relies on this server yet
                    self.ended.set()
                    return
                if str(e) != told:
                    told = str(e)
                    log.error("%s; points are accepted meanwhile, trying again", e)
                await asyncio.sleep(pause)
                pause = min(RETRY_S[1], pause * 2)
        await self.source.drop_tags(untagged)
        r = self.recovered
        log.info(
            "ready: %d series, %d points and %d late points from the journal in %.1f s",
            r.series,
            r.points,
            r.late,
            r.seconds,
        )
        if (used := index_bytes(self.registry)) > self.shares.index:
            log.error(
                "memory_max has too little for the store's series: they take %d MB, their share is %d MB; there are "
                "no new series until memory_max is raised",
                used // MIB,
                self.shares.index // MIB,
            )
        if r.damage.records:
            log.error(
                "journal: %d damaged places, %d bytes skipped", r.damage.records, r.damage.bytes
            )
        self._spawn(self._serve_flush_requests(), "flush-requests")
        self._spawn(self._keep_live_lock(), "live-lock")
        self._spawn(self.retention.run(), "retention")
        self._spawn(self._follow(changes), "follow")
        self._spawn(self._keep_house(), "housekeeping")
        self._spawn(self._serve_settle_requests(), "settle-requests")

    async def _take_live_lock(self) -> None:
        """Says that this server has the store's series in memory. StoreUnavailable: somebody changes them."""
        if self.live_lock is not None and self.live_lock.held:
            return
        self.live_lock = await self.store.live_lock(shared=True)
        if self.live_lock is None:
            raise StoreUnavailable("a command changes the retention of series in this database")

    # -- tasks -------------------------------------------------------------------------------

    async def _keep_live_lock(self) -> None:
        while True:
            await asyncio.sleep(LIVE_LOCK_EVERY_S)
            try:
                await self._take_live_lock()
            except StoreUnavailable as e:
                log.debug("live lock: %s", e)

    async def _index(self) -> None:
        """Keeps the index of names up to date, so that the first query after many new names is quick."""
        while True:
            await asyncio.sleep(INDEX_EVERY_S)
            await asyncio.to_thread(self.source.sync_index)

    async def _watch_room(self) -> None:
        """Lets waiting senders go on when the journal's disk has caught up."""
        while True:
            await asyncio.sleep(ROOM_EVERY_S)
            self.intake.room()

    async def _watch_statsd_events(self) -> None:
        while True:
            await asyncio.sleep(STATSD_EVENTS_EVERY_S)
            await self._store_statsd_events()

    async def _store_statsd_events(self) -> None:
        """Puts statsd's events into the store, in order; with the store away they wait."""
        waiting = self.statsd.aggregator.inbox.events if self.statsd else []
        while waiting and self.registry.opened:
            try:
                await self.store.add_event(waiting[0])
            except StoreUnavailable:
                return
            except TgresError as e:
                log.warning("statsd: event %r is not stored: %s", waiting[0].what, e)
            del waiting[0]

    async def _serve_flush_requests(self) -> None:
        """NOTIFY tgres_flush, 'glob': SQL readers ask for what is in memory."""
        async for glob in self.store.flush_requests():
            try:
                ids = await asyncio.to_thread(self.source.expand, glob) if glob else None
                await self.flusher.flush_now(ids)
            except TgresError as e:
                log.warning("flush of %r: %s", glob, e)

    async def _serve_settle_requests(self) -> None:
        """NOTIFY tgres_settle: an import wants all that came before it in the store."""
        async for request in self.store.settle_requests():
            try:
                # a time ahead would make late points of all that comes until then
                until_s = min(request.time_s, clock.now_s() + CLOCKS_APART_S)
                await self.flusher.settle_until(until_s)
                await self.store.answer_settle(request)
            except StoreUnavailable as e:
                log.warning("an import waits for what is in memory: %s", e)

    async def _keep_house(self) -> None:
        """Series expire and old trash is purged, every hour."""
        admin = Admin(self.store, self)
        pause = FIRST_HOUSEKEEPING_S
        while True:
            await asyncio.sleep(pause)
            pause = HOUSEKEEPING_S
            try:
                await keep_house(admin, self.settings.rule_set())
            except TgresError as e:
                log.warning("housekeeping: %s; once more in an hour", e)

    async def _follow(self, changes: AsyncIterator[NDArray[np.int64] | None]) -> None:
        """What others do to rows of rrd: new, renamed and removed series are noticed at once."""
        async for rrd_ids in changes:
            told = False
            while True:
                try:
                    await self.follow(rrd_ids)
                    break
                except StoreUnavailable as e:
                    if not told:
                        told = True
                        log.warning(
                            "changes of series: %s; looking at all of them when it is back", e
                        )
                    rrd_ids = None
                    await asyncio.sleep(RETRY_S[1])

    async def follow(self, rrd_ids: NDArray[np.int64] | None) -> None:
        """Brings names and index in line with these rows of rrd (None: all). StoreUnavailable."""
        done = await self.follower.apply(rrd_ids)
        await self.source.drop_tags(done.untagged)

    def count_kernel_drops(self) -> None:
        """Counts what the kernel dropped since the last call."""
        for name, listener in self.listeners.items():
            if isinstance(listener, udp.UdpListener):
                drops = listener.kernel_drops()
                fresh = drops - self._drops.get(name, 0)
                if fresh > 0:
                    self._drops[name] = drops
                    self.intake.refuse(name, Reason.UDP_KERNEL, fresh)

    async def _watch_drops(self) -> None:
        while True:
            await asyncio.sleep(DROPS_EVERY_S)
            before = sum(self._drops.values())
            self.count_kernel_drops()
            lost = sum(self._drops.values()) - before
            if lost:
                log.warning("the kernel dropped %d datagrams: the socket's buffer was full", lost)

    def reload(self) -> None:
        """SIGHUP: reads the settings again and takes over those that may change: rules (for new series), tokens,
        allow-lists, origins, certificate, log level, statsd's. Open connections go on.
        """
        try:
            settings, waiting = config_sources.reload(self.settings)
            rules = settings.rule_set()
        except ConfigError as e:
            log.error("reload: %s; going on as before", e)
            return
        self._reload_doors(settings)
        if self.statsd is not None:
            table, given = settings.statsd_table, settings.statsd_given_table
            self._spawn(self.statsd.reconfigure(table, given), "statsd-reload")
        if settings.log_level != self.settings.log_level:
            logging.getLogger().setLevel(settings.log_level.upper())
        if _budget_settings(settings) != _budget_settings(self.settings):
            self.registry.budget = _budget(settings)
        self.settings = settings
        self.registry.match_many = rules.match_many
        log.info("reloaded: retention rules, budget of new series, tokens, networks, certificate")
        if waiting:
            log.warning("these settings changed but need a restart: %s", ", ".join(waiting))

    def _reload_doors(self, settings: Settings) -> None:
        """Certificate and allow-lists hold for new connections and datagrams; open ones go on."""
        for name, texts in _allow_lists(settings).items():
            self.allowed[name].change(texts)
        if self.tls is None:
            if settings.tls_cert is not None:
                log.warning("reload: tls_cert is new; TLS begins with a restart")
        elif settings.tls_cert is None:
            log.warning("reload: tls_cert is gone; TLS goes on with the old certificate")
        else:
            try:
                self.tls.reload(settings.tls_cert, settings.tls_key)
            except ConfigError as e:
                log.error("reload: %s; going on with the old certificate", e)

    # -- stop --------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stops in order, within ``shutdown_s``; what can't be written stays in the journal."""
        deadline = clock.monotonic() + self.settings.shutdown_s
        self.runtime.stop()
        for listener in self.listeners.values():
            listener.close()
        for listener in self.listeners.values():
            await listener.drain()
        if self.statsd is not None:
            await self.statsd.flush.last()
        if self.http is not None:
            await self.http.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(STORE_CLOSE_S):
                await self._store_statsd_events()
        if self.registry.opened:
            await self._last_flush(deadline - clock.monotonic() - END_S)
        await asyncio.to_thread(self.journal.close)
        if self.live_lock is not None:
            self.live_lock.release()
        if hasattr(self, "store"):
            with suppress(TimeoutError):
                async with asyncio.timeout(STORE_CLOSE_S):
                    await self.store.close()
        if self.embedded is not None:
            await self.embedded.stop(max(1.0, deadline - clock.monotonic() - 1))

    async def _last_flush(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(1.0, seconds)):
                await self.flusher.flush_now()
        except (TimeoutError, TgresError) as e:
            log.warning("not all could be written (%s); the rest is in the journal", e or "no time")
        except Exception:
            log.exception("not all could be written; the rest is in the journal")


def _budget_settings(settings: Settings) -> tuple[float, float, float, float, int]:
    return (
        settings.series_new_per_s,
        settings.series_new_burst,
        settings.series_new_prefix_per_s,
        settings.series_new_prefix_burst,
        settings.series_new_prefix_depth,
    )


def _budget(settings: Settings) -> Budget:
    return Budget(*_budget_settings(settings))


def _allow_lists(settings: Settings) -> dict[str, tuple[str, ...]]:
    """The networks that each listener talks to, by the listeners' names in settings."""
    return {
        "http": settings.http_allow,
        "carbon": settings.carbon_allow,
        "pickle": settings.pickle_allow,
        "statsd": settings.statsd_allow,
    }


async def serve(settings: Settings, started: Callable[[Server], None] | None = None) -> None:
    """Runs a server until SIGTERM or SIGINT. ConfigError when its database can't be used as it is."""
    server = Server(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.ended.set)
    await server.start()
    _calm_collector()
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    if started:
        started(server)
    await server.ended.wait()
    log.info("stopping")
    await server.stop()
    log.info("stopped")
    if server.failure:
        raise server.failure


def _calm_collector() -> None:
    """Garbage collection leaves alone what was made until now (modules, settings, functions: it stays),
    and comes after more new objects: a pass over all of it stopped everything for up to 90 ms, at every
    other answer with some thousand entries.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def run(settings: Settings) -> None:
    """Runs a server in a loop of its own, uvloop's where it is installed."""
    calm_allocator()
    count_arrays()
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(settings))
        return
    uvloop.run(serve(settings))
