"""A whole server while PostgreSQL can't be used, for each way in which that happens.

/healthz within a second throughout; what is in memory is rendered on, what needs PostgreSQL is answered
503 within five seconds; one line in the log for each change, few tries; afterwards all points exactly.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from tests.acceptance.process import START_TIMEOUT_S, ServerProcess, wait_for
from tests.acceptance.test_crash import HASTE
from tests.adversity.health_watch import HealthWatch
from tests.adversity.outage import AWAY, BACK, Traffic, check_end
from tests.adversity.proxy import Proxy, ProxyThread, proxy_thread
from tests.adversity.test_postgres_away import real_socket

DISK_FULL = """
CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
END $$;
CREATE TRIGGER disk_full BEFORE INSERT OR UPDATE ON ts EXECUTE FUNCTION disk_full();
"""


class Outage(NamedTuple):
    """``begin`` and ``end`` get the proxy and the database's DSN. ``reads``: PostgreSQL answers reads."""

    begin: Callable[[ProxyThread, str], object]
    end: Callable[[ProxyThread, str], object]
    reads: bool = False


def stop(proxy: Proxy) -> None:
    proxy.refuse = True
    proxy.cut_all()


def go_on(proxy: Proxy) -> None:
    proxy.refuse = False


def slow(delay_s: float) -> Callable[[ProxyThread, str], None]:
    def delay(proxy: Proxy) -> None:
        proxy.delay_s = delay_s

    return lambda proxy, dsn: proxy.do(delay)


def read_only(proxy: ProxyThread, dsn: str, value: str) -> None:
    """A standby that isn't promoted yet takes reads only."""
    script(
        dsn,
        "SET default_transaction_read_only = off",
        f"ALTER DATABASE {name_of(dsn)} SET default_transaction_read_only = {value}",
    )
    proxy.do(Proxy.cut_all)


OUTAGES = {
    "stopped": Outage(lambda proxy, dsn: proxy.do(stop), lambda proxy, dsn: proxy.do(go_on)),
    "frozen": Outage(
        lambda proxy, dsn: proxy.do(lambda p: p.freeze(True)),
        lambda proxy, dsn: proxy.do(lambda p: p.freeze(False)),
    ),
    "slow": Outage(slow(1.5), slow(0.0)),
    "disk full": Outage(
        lambda proxy, dsn: script(dsn, DISK_FULL),
        lambda proxy, dsn: script(dsn, "DROP FUNCTION disk_full CASCADE"),
        reads=True,
    ),
    "read only": Outage(
        lambda proxy, dsn: read_only(proxy, dsn, "on"),
        lambda proxy, dsn: read_only(proxy, dsn, "DEFAULT"),
        reads=True,
    ),
}
SLOW_TESTS = {"stopped", "read only", "slow"}


def script(dsn: str, *texts: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            for text in texts:
                await connection.execute(text)
        finally:
            await connection.close()

    asyncio.run(run())


def name_of(dsn: str) -> str:
    return dsn.partition("?")[0].rpartition("/")[2]


def through(proxy: ProxyThread, dsn: str) -> str:
    user = dsn.partition("://")[2].partition("@")[0]
    return f"postgresql://{user}@127.0.0.1:{proxy.port}/{name_of(dsn)}?sslmode=disable"


@contextmanager
def served(
    folder: Path, dsn: str, ready: bool = True, options: Sequence[str] = ()
) -> Iterator[tuple[ServerProcess, ProxyThread]]:
    """A server whose PostgreSQL is behind a proxy. ``ready``: waits until it is."""
    with proxy_thread(real_socket(dsn)) as proxy:
        away = "--store-timeout-s=3", "--dsn", through(proxy, dsn)
        server = ServerProcess(folder, *HASTE, *away, *options)
        try:
            server.launch()
            if ready:
                wait_for(server.is_ready, "ready", START_TIMEOUT_S)
            yield server, proxy
        finally:
            server.close()


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow if k in SLOW_TESTS else ()) for k in OUTAGES]
)
def test_an_outage(tmp_path: Path, database: str, kind: str) -> None:
    outage = OUTAGES[kind]
    with served(tmp_path, database) as (server, proxy):
        traffic = Traffic(server)
        assert server.sum_of("tgres_store_available") == 1
        with HealthWatch(server) as watch:
            outage.begin(proxy, database)
            before, begin = proxy.connects, time.monotonic()
            traffic.check_memory()
            traffic.check_store_needed(200, 503)
            wait_for(lambda: AWAY in server.log, "the log says so", 20)
            assert server.sum_of("tgres_store_available") == 0
            for _ in range(2):
                traffic.check_memory()
                traffic.check_store_needed(200 if outage.reads else 503)
                assert server.imbalance() == 0
            tried, seconds = proxy.connects - before, time.monotonic() - begin
            assert tried <= 20 + 5 * seconds, "a storm of tries"
            outage.end(proxy, database)
            check_end(server, traffic)
        watch.check()
        assert (server.log.count(AWAY), server.log.count(BACK)) == (1, 1)
        assert not re.search(r"ERROR(?!.*is away)", server.log), server.log
