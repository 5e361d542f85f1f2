"""A PostgreSQL that answers nothing while nothing is to be written: whoever meets it, one line says so, and one that it is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from tests.acceptance.process import ServerProcess, wait_for
from tests.adversity.loop_thread import LoopThread
from tests.adversity.outage import AWAY, BACK, ask
from tests.adversity.proxy import Proxy
from tests.adversity.test_outages import served

NOTICED_S = 30.0  # 9 are promised, to a machine with nothing else to do


def stored_series(server: ServerProcess) -> str:
    """The path of a render that needs the store; nothing waits to be written any more."""
    old_s = int(time.time()) - 5_000
    server.send("".join(f"load.a {slot} {old_s + slot}\n" for slot in range(0, 1_500, 100)))
    path = f"/render?target=load.a&from={old_s - 1}&until={old_s + 50}&format=json"
    wait_for(lambda: server.sum_of("tgres_flushes_total") > 0, "a chunk is stored")
    seen = [0.0, -1.0]
    while seen[-1] != seen[-2]:  # partial chunks, too
        time.sleep(1.2)
        seen.append(server.sum_of('tgres_postgres_duration_seconds_count{pool="writer"}'))
    assert server.sum_of("tgres_points_held") == 0
    return path


def check_state(server: ServerProcess, away: int, back: int) -> None:
    """Log, gauge and /readyz say the same."""
    assert (server.log.count(AWAY), server.log.count(BACK)) == (away, back), server.log
    there = away == back
    assert server.sum_of("tgres_store_available") == there
    status, text = server.get("/readyz")
    assert (status, AWAY.encode() in text) == ((200, False) if there else (503, True))


TOUCHES: dict[str, Callable[[ServerProcess, str], object]] = {
    "nothing": lambda server, path: None,
    "readyz": lambda server, path: server.get("/readyz"),
    "render": lambda server, path: ask(server, path),
    "all": lambda server, path: [server.get("/readyz"), ask(server, path), server.metrics()],
}
SLOW_TESTS = {"render", "all"}


@pytest.mark.parametrize(
    "touch", [pytest.param(t, marks=pytest.mark.slow if t in SLOW_TESTS else ()) for t in TOUCHES]
)
def test_a_silence_without_a_write(tmp_path: Path, database: str, touch: str) -> None:
    with served(tmp_path, database) as (server, proxy):
        path = stored_series(server)
        check_state(server, 0, 0)
        before, begin = proxy.connects, time.monotonic()
        proxy.do(lambda p: p.freeze(True))
        TOUCHES[touch](server, path)
        wait_for(lambda: AWAY in server.log, "the log says so", NOTICED_S)
        for _ in range(3):
            TOUCHES[touch](server, path)
            time.sleep(1)
            check_state(server, 1, 0)
        tried, seconds = proxy.connects - before, time.monotonic() - begin
        assert tried <= 15 + seconds, "a storm of tries"
        proxy.do(lambda p: p.freeze(False))
        wait_for(lambda: BACK in server.log, "the log says that it is over", NOTICED_S)
        assert ask(server, path) == 200
        for _ in range(2):
            TOUCHES[touch](server, path)
            time.sleep(1)
            check_state(server, 1, 1)


@pytest.mark.slow
def test_slow_queries_are_no_outage(tmp_path: Path, database: str) -> None:
    """All connections of queries wait for a lock; a ping is answered."""
    with served(tmp_path, database) as (server, _), LoopThread() as loop:
        path = stored_series(server)

        async def lock() -> asyncpg.Connection:
            connection = await asyncpg.connect(database)
            await connection.execute("BEGIN; LOCK TABLE ts")
            return connection

        async def ask_at_once() -> list[int]:
            askers = (asyncio.to_thread(server.get, path) for _ in range(8))
            return [status for status, _ in await asyncio.gather(*askers)]

        locked = loop.run(lock())
        for _ in range(2):
            assert loop.run(ask_at_once()) == [503] * 8
            time.sleep(1.5)  # a doubt has been looked into by now
            check_state(server, 0, 0)
        loop.run(locked.close())
        wait_for(lambda: server.get(path)[0] == 200, "the lock is gone")
        check_state(server, 0, 0)


def test_a_lost_connection_is_no_outage(tmp_path: Path, database: str) -> None:
    """All of them are cut; new ones are taken."""
    with served(tmp_path, database) as (server, proxy):
        path = stored_series(server)
        for _ in range(3):
            proxy.do(Proxy.cut_all)
            time.sleep(1)
            assert server.get("/readyz")[0] == 200
        wait_for(lambda: server.get(path)[0] == 200, "a query is answered")
        check_state(server, 0, 0)
