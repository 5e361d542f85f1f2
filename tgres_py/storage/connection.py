"""Connections to PostgreSQL: opening them, keeping a few, and saying what their errors mean.

A small pool of our own instead of asyncpg's: after a time-out or a cut the connection is thrown away at
once (asyncpg's pool first waits for its cancel request, which a frozen server never answers).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from tgres_py import clock
from tgres_py.errors import ConfigError, StoreUnavailable
from tgres_py.masks import masked
from tgres_py.measure import Histogram

SERVER_VERSION_MIN = 14

# What asyncpg raises, OSError and TimeoutError of the transport included.
CLIENT_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

# PostgreSQL ends a session whose client is gone without a word after a minute, not after two hours.
KEEPALIVE = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}

Setup = Callable[[asyncpg.Connection], Awaitable[object]]

# SQLSTATE classes and codes of states that pass: connection, resources (disk full, too many
# connections), operator intervention (shutdown, starting up), system error; read-only (a standby
# before its promotion), serialization, deadlock, lock not available.
_PASSING_CLASSES = ("08", "53", "57", "58")
_PASSING_CODES = frozenset({"25006", "40001", "40P01", "55P03"})


class Connector:
    """Knows where PostgreSQL is and how long to wait for it. ``gate`` may refuse new connections: StoreUnavailable."""

    def __init__(self, dsn: str, connect_timeout_s: float, command_timeout_s: float) -> None:
        self._dsn = dsn
        self.masked_dsn = masked(dsn)
        self.gate: Callable[[], None] = lambda: None
        self._connect_timeout_s = connect_timeout_s
        self._command_timeout_s = command_timeout_s
        self._server_settings = {
            "application_name": "tgres",
            "jit": "off",  # compiling costs more than any of our statements takes
            # a connection that the network lost would keep its locks from the next one for hours
            "idle_in_transaction_session_timeout": str(max(1, int(command_timeout_s * 1000))),
            **KEEPALIVE,
        }

    async def connect(self) -> asyncpg.Connection:
        """A new connection. StoreUnavailable; ConfigError for a DSN that is none or an old server."""
        self.gate()
        try:
            connection: asyncpg.Connection = await asyncpg.connect(
                self._dsn,
                timeout=self._connect_timeout_s,
                command_timeout=self._command_timeout_s,
                server_settings=self._server_settings,
            )
        except ValueError as error:  # ClientConfigurationError is one too
            # asyncpg's text can quote the DSN, password and all
            raise ConfigError(
                f"dsn {self.masked_dsn} is not understood; write postgresql://user@host:port/database"
            ) from error
        except CLIENT_ERRORS as error:
            raise self.unavailable(error, connecting=True) or error from error
        if connection.get_server_version().major < SERVER_VERSION_MIN:
            version = connection.get_server_version()
            connection.terminate()
            raise ConfigError(
                f"PostgreSQL at {self.masked_dsn} has version {version.major}.{version.minor}; "
                f"tgres needs {SERVER_VERSION_MIN} or newer"
            )
        return connection

    def unavailable(
        self, error: BaseException, *, closed: bool = False, connecting: bool = False
    ) -> StoreUnavailable | None:
        """StoreUnavailable when ``error`` is a state that passes, else None.

        ``closed``: the connection is closed, so whatever asyncpg says about it follows from that.
        """
        if isinstance(error, asyncpg.PostgresError):
            state = error.sqlstate or ""
            # While connecting all of them pass: a wrong password, a database that isn't there yet or takes
            # no connections; whoever runs the database mends that while we go on taking points.
            passing = connecting or state.startswith(_PASSING_CLASSES) or state in _PASSING_CODES
        else:
            # asyncpg reports use of a connection that PostgreSQL is just closing as InternalClientError
            passing = isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError) or (
                isinstance(error, asyncpg.InterfaceError) and (closed or connecting)
            )
        if not passing:
            return None
        if isinstance(error, asyncpg.InterfaceError) and error.__context__ is not None:
            error = error.__context__  # "connection is closed" came while handling the reason
        text = str(error).partition("\n")[0] or "no answer in time"
        return StoreUnavailable(f"PostgreSQL at {self.masked_dsn}: {text}")


class Pool:
    """At most ``size`` connections, opened when needed; the one used last is used next.

    ``in_use`` and ``waiting`` are of the moment, ``opened`` and ``failures`` since the start;
    ``used_seconds``: how long each use held a connection. ``on_failure`` is called at each failure.
    """

    def __init__(self, connector: Connector, size: int, setup: Setup | None = None) -> None:
        self._connector = connector
        self._setup = setup
        self.on_failure: Callable[[], None] = lambda: None
        self.size = size
        self.in_use = 0
        self.waiting = 0
        self.opened = 0
        self.failures = 0
        self.used_seconds = Histogram()
        self._room = asyncio.Semaphore(size)
        self._idle: list[asyncpg.Connection] = []

    @asynccontextmanager
    async def use(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection for the ``async with`` block; states that pass become StoreUnavailable."""
        async with self._place():
            connection = self._take_idle() or await self._open()
            try:
                yield connection
            except BaseException as error:
                in_step = isinstance(error, asyncpg.PostgresError)
                unavailable = self._connector.unavailable(error, closed=connection.is_closed())
                if in_step and unavailable is None and not connection.is_in_transaction():
                    self._idle.append(connection)
                else:  # cut, timed out or cancelled: what it would answer next is unknown
                    connection.terminate()
                if unavailable is not None:
                    self._failed()
                    raise unavailable from error
                raise
            self._idle.append(connection)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the pool's places, counted while it is waited for and while it is held."""
        self.waiting += 1
        try:
            await self._room.acquire()
        finally:
            self.waiting -= 1
        self.in_use += 1
        begin = clock.monotonic()
        try:
            yield
        finally:
            self.used_seconds.observe(clock.monotonic() - begin)
            self.in_use -= 1
            self._room.release()

    def _failed(self) -> None:
        self.failures += 1
        self.on_failure()

    def _take_idle(self) -> asyncpg.Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def _open(self) -> asyncpg.Connection:
        try:
            connection = await self._connector.connect()
        except StoreUnavailable:
            self._failed()
            raise
        self.opened += 1
        try:
            if self._setup is not None:
                await self._setup(connection)
        except BaseException as error:
            connection.terminate()
            unavailable = self._connector.unavailable(error, closed=True)
            raise unavailable or error from error
        return connection

    async def close(self, timeout_s: float) -> None:
        """Closes the idle connections; one that doesn't answer is cut."""
        while (connection := self._take_idle()) is not None:
            try:
                await connection.close(timeout=timeout_s)
            except CLIENT_ERRORS:
                connection.terminate()
