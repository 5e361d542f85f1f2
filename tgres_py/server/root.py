"""The composition root: makes every part, starts them in order, stops them in the other.

Start: embedded PostgreSQL (unless there is a DSN), journal, receivers, HTTP; then the store's series and the
journal's points, as soon as PostgreSQL can be reached. Points that come before that wait in the late queue.
Stop: no new connections, what was received is parsed, the store gets what is in memory (as far as time
allows), the journal is synced, PostgreSQL stops.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from http_api.admin import Admin as AdminApi
from http_api.app import make_app
from http_api.cluster import Cluster
from http_api.guard import Access
from http_api.listen import HttpListener
from http_api.meters import Meters
from http_api.queries import Queries
from http_api.tokens import TokenCheck
from receivers import tcp
from receivers.statsd_service import StatsdService
from tgres_py import clock, config_sources
from tgres_py.admin.frame import Admin, AdminVerbs
from tgres_py.config import Settings
from tgres_py.errors import ConfigError, TgresError
from tgres_py.ingest.flusher import Flusher, Pace
from tgres_py.ingest.follow import Follower
from tgres_py.ingest.intake import Intake, Limits
from tgres_py.ingest.journal import Journal
from tgres_py.ingest.pressure import MemoryWatch
from tgres_py.ingest.reader import Reader
from tgres_py.ingest.recover import Recovered
from tgres_py.ingest.registry import Registry
from tgres_py.ingest.retention_job import RetentionWorker
from tgres_py.kernels import Budget, RingStore
from tgres_py.memory import MIB, Shares
from tgres_py.metrics.agents import OwnPoints, prefix_of
from tgres_py.metrics.runtime import Runtime
from tgres_py.places import Places
from tgres_py.server import chores, opening
from tgres_py.server.doors import Doors, Listener, find_places
from tgres_py.server.opening import LiveLockKeeper
from tgres_py.server.source import ServerSource
from tgres_py.server.statsd import ServerStatsd
from tgres_py.server.status import ServerStatus
from tgres_py.server.tasks import Tasks
from tgres_py.storage.embedded import EmbeddedPostgres
from tgres_py.storage.postgres import PostgresStore
from tgres_py.storage.presence import Presence

log = logging.getLogger("tgres")

END_S = (
    10.0  # of the time for stopping: what is kept for closing journal, connections and PostgreSQL
)
STORE_CLOSE_S = 3.0
YOUNG_S = 30.0  # beyond late_grace_s: until a pass over the ring's chunks has come by


class Server:
    """One server; ``start`` once, ``stop`` once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.shares: Shares = settings.memory_shares()
        self.queries: Queries = Queries.of(settings, self.shares.queries, lambda: self.memory.tight)
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
        self.live_lock: LiveLockKeeper
        self.source: ServerSource
        self.places: Places
        self.doors: Doors = Doors(settings, self.shares)
        self.listeners: dict[str, Listener] = self.doors.receivers
        self.tcp_totals: tcp.Totals = self.doors.tcp_totals
        self.kernel_drops: chores.KernelDrops
        self.statsd: StatsdService | None = None
        self._statsd: ServerStatsd | None = None
        self.recovered: Recovered | None = None
        self.http: HttpListener | None = None
        self.cluster: Cluster | None = None
        self.meters: Meters = Meters()
        self.tokens: TokenCheck = TokenCheck()
        self.runtime: Runtime = Runtime()
        self.ended = asyncio.Event()  # somebody wants the server to stop
        self.failure: ConfigError | None = None  # why it ended by itself
        self._tasks = Tasks()

    @property
    def ready(self) -> bool:
        """Whether the store's series are loaded and PostgreSQL is there, as far as that is known."""
        return self.registry.opened and self.flusher.presence.available

    # -- start -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when all listeners are open; ConfigError when one of them can't be."""
        settings = self.settings
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.places = find_places(settings)
        self.journal = Journal(settings.data_dir / "journal", settings.journal_sync_s)
        self.journal.start()
        try:
            await self._start_store()
            self._wire()
            await self._open_doors()
        except BaseException:
            await self.stop()
            raise
        self._tasks.spawn(self._open_store(), "recover")
        self._tasks.spawn(self.flusher.run(), "flusher")
        self._tasks.spawn(chores.keep_index(self.source), "index")
        self._tasks.spawn(chores.watch_room(self.intake), "room")
        self._tasks.spawn(self.memory.run(), "memory")
        self._tasks.spawn(self.kernel_drops.watch(), "udp-drops")
        self.runtime.start()
        self._tasks.spawn(self.runtime.watch_loop(), "loop-lag")
        if settings.self_metrics_s:
            own = OwnPoints(self, prefix_of(settings.self_metrics_prefix))
            self._tasks.spawn(own.run(settings.self_metrics_s), "own-points")

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
        presence = Presence(self.store.ping)
        self.store.heed(presence)
        self.flusher = Flusher(self.intake, self.store, reader, self.journal, pace, presence)
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
        self.live_lock = LiveLockKeeper(self.store)
        self.source = ServerSource(
            self.registry, reader, self.flusher, self.store, settings.store_read_timeout_s
        )
        self.kernel_drops = chores.KernelDrops(self.listeners, self.intake)

    async def _open_doors(self) -> None:
        settings, doors = self.settings, self.doors
        doors.prepare(self.places)
        if settings.carbon:
            await doors.open_carbon(*settings.carbon, self.intake)
        if settings.pickle:
            await doors.open_pickle(*settings.pickle, self.intake)
        if settings.statsd_servers:
            await self._open_statsd()
        if settings.http:
            await self._open_http(*settings.http)
        doors.tell_receivers()

    async def _open_statsd(self) -> None:
        self._statsd = ServerStatsd(
            self.settings, self.intake, self.registry, self.store, self.shares.statsd
        )
        self.statsd = self._statsd.service
        aggregator = self.statsd.aggregator
        self.registry.beside["statsd"] = lambda: aggregator.bytes_used
        await self.doors.open_statsd(self.statsd)
        for name, task in self.statsd.tasks().items():
            self._tasks.spawn(task, name)
        self._tasks.spawn(self._statsd.watch_events(), "statsd-events")

    async def _open_http(self, host: str, port: int) -> None:
        settings = self.settings
        if settings.cluster_peers:
            self.cluster = Cluster(
                settings.cluster_peers,
                settings.cluster_timeout_s,
                settings.response_bytes_max,
                self.queries.room,
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
        self.http = HttpListener(app, *self.doors.gate())
        await self.http.start(host, port)
        log.info("http listens on %s:%d", *self.http.address)

    def _access(self) -> Access:
        settings = self.settings
        return Access(
            settings.http_secret,
            settings.admin_secret,
            settings.cors_origins,
            settings.http_read_timeout_s,
        )

    async def _open_store(self) -> None:
        """Until the store's series are here; then begins what needs them."""
        changes, store = self.store.changes(), self.store
        try:
            opened = await opening.open_store(
                store, self.live_lock, changes, self.intake, self.journal
            )
        except ConfigError as e:
            self.failure = e
            self.ended.set()
            return
        self.recovered = opened.recovered
        await asyncio.to_thread(self.source.sync_index)
        await self.source.drop_tags(opened.untagged)
        opening.tell(opened.recovered, self.registry, self.shares.index)
        flush_requests = chores.serve_flush_requests(store, self.source, self.flusher)
        housekeeping = chores.keep_house_hourly(
            Admin(store, self), lambda: self.settings.rule_set()
        )
        self._tasks.spawn(self.flusher.presence.run(), "store-presence")
        self._tasks.spawn(flush_requests, "flush-requests")
        self._tasks.spawn(self.live_lock.keep(), "live-lock")
        self._tasks.spawn(self.retention.run(), "retention")
        self._tasks.spawn(chores.follow_changes(changes, self.follow), "follow")
        self._tasks.spawn(housekeeping, "housekeeping")
        self._tasks.spawn(chores.serve_settle_requests(store, self.flusher), "settle-requests")

    # -- while it runs -----------------------------------------------------------------------

    async def follow(self, rrd_ids: NDArray[np.int64] | None) -> None:
        """Brings names and index in line with these rows of rrd (None: all). StoreUnavailable."""
        done = await self.follower.apply(rrd_ids)
        await self.source.drop_tags(done.untagged)

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
        self.doors.reload(settings)
        if self.statsd is not None:
            table, given = settings.statsd_table, settings.statsd_given_table
            self._tasks.spawn(self.statsd.reconfigure(table, given), "statsd-reload")
        if settings.log_level != self.settings.log_level:
            logging.getLogger().setLevel(settings.log_level.upper())
        if _budget_settings(settings) != _budget_settings(self.settings):
            self.registry.budget = _budget(settings)
        self.settings = settings
        self.registry.match_many = rules.match_many
        log.info("reloaded: retention rules, budget of new series, tokens, networks, certificate")
        if waiting:
            log.warning("these settings changed but need a restart: %s", ", ".join(waiting))

    # -- stop --------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stops in order, within ``shutdown_s``; what can't be written stays in the journal."""
        deadline = clock.monotonic() + self.settings.shutdown_s
        self.runtime.stop()
        await self.doors.close_receivers()
        if self.statsd is not None:
            await self.statsd.flush.last()
        if self.http is not None:
            await self.http.close()
        await self._tasks.cancel()
        if self._statsd is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(STORE_CLOSE_S):
                    await self._statsd.store_events()
        if self.registry.opened:
            await self._last_flush(deadline - clock.monotonic() - END_S)
        await asyncio.to_thread(self.journal.close)
        if hasattr(self, "live_lock"):
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
