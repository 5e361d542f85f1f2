"""Every account of the database may send notifications, whatever else it may: strange ones harm nobody."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import asyncpg
import pytest

from tests.acceptance.process import ServerProcess, wait_for
from tgres_py.storage.embedded import running_dsn

STRANGE = [
    ("tgres_settle", "999999999999 abc"),
    ("tgres_settle", "9" * 5_000 + " abc"),
    ("tgres_settle", "٣ abc"),  # a digit, of another script
    ("tgres_settle", ""),
    ("tgres_series", "0-999999999999"),
    ("tgres_series", "9" * 5_000),
    ("tgres_series", "-5,x,\n"),
    ("tgres_flush", "{" * 7_000),
    ("tgres_flush", "*." * 3_000 + "*"),
    ("tgres_flush", "[z-a]\x1b[31m"),
]


async def notify(dsn: str, notices: list[tuple[str, str]], answer: str = "") -> None:
    """Sends them, and waits for an answer to a request to settle."""
    came = asyncio.Event()
    connection = await asyncpg.connect(dsn)
    try:
        if answer:
            await connection.add_listener(
                "tgres_settled", lambda *of: came.set() if of[-1] == answer else None
            )
        for channel, text in notices:
            await connection.execute("SELECT pg_notify($1, $2)", channel, text)
        if answer:
            async with asyncio.timeout(20):
                await came.wait()
    finally:
        await connection.close()


@pytest.mark.parametrize("strange", [STRANGE], ids=["all"])
def test_strange_notifications_end_nothing(tmp_path: Path, strange: list[tuple[str, str]]) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    try:
        dsn = running_dsn(server.data / "pg")
        assert dsn is not None
        now_s = int(time.time())
        server.send(f"before 1 {now_s}\n")
        # what is answered last comes after all that were sent before
        asyncio.run(notify(dsn, [*strange, ("tgres_settle", f"{now_s} c0ffee")], "c0ffee"))
        ahead_s = int(time.time()) + 300
        server.send(f"after 1 {ahead_s}\n")
        metrics = server.metrics()
        assert metrics["tgres_points_stored_total"] == 2, "no floor went up into the future"
        assert metrics["tgres_points_held"] == metrics["tgres_points_late_total"] == 0
        # a change of series is still noticed
        asyncio.run(rename(dsn))
        wait_for(lambda: server.get("/metrics/find?query=renamed")[1] != b"[]", "it is noticed")
        assert " ended" not in server.log and "Traceback" not in server.log
        assert "\x1b" not in server.log
        assert server.metrics()["process_resident_memory_bytes"] < 1 << 30
    finally:
        server.close()


async def rename(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(20):
            while True:
                row = await connection.fetchval(
                    "UPDATE rrd SET name = 'renamed' WHERE name = 'before' RETURNING id"
                )
                if row is not None:
                    break
                await asyncio.sleep(0.1)
        await connection.execute("SELECT pg_notify('tgres_series', $1)", str(row))
    finally:
        await connection.close()
