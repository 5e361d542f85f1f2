"""The journal's disk is full: told once, points and queries go on in memory, and when there is space again a
kill costs no more than ever."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess, wait_for
from tests.acceptance.test_crash import HASTE, JOURNAL_S, RECEIVE_S, assert_holds
from tests.adversity.health_watch import HealthWatch
from tests.adversity.outage import Traffic
from tests.adversity.small_disk import small_disk
from tests.rig import Rig
from tests.test_flusher import until
from tgres_py.ingest.flusher import Pace
from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate
from tgres_py.storage.memory import MemoryStore

FULL, WORKS = "going on in memory", "journal: writing works again"


@contextmanager
def limited_files(server: ServerProcess) -> Iterator[Callable[[bool], None]]:
    """The server's files can't grow any more (RLIMIT_FSIZE), its log's excepted, which is small."""

    def limit(full: bool) -> None:
        assert server.process is not None
        files = [file.stat().st_size for file in (server.data / "journal").glob("*.journal")]
        most = max(files) + 4_096 if full else resource.RLIM_INFINITY
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    yield limit


@pytest.mark.parametrize("how", [pytest.param("tmpfs", marks=pytest.mark.slow), "limit"])
def test_a_full_disk_under_load(tmp_path: Path, database: str, how: str) -> None:
    server = ServerProcess(tmp_path, *HASTE, "--dsn", database)
    disk = small_disk(server.data / "journal", 12) if how == "tmpfs" else limited_files(server)
    with disk as fill:
        try:
            server.start()
            traffic = Traffic(server)
            with HealthWatch(server) as watch:
                fill(True)
                wait_for(lambda: FULL in server.log, "the log says so", 20)
                flushes = server.sum_of("tgres_flushes_total")
                assert server.sum_of("tgres_journal_failed") == 1
                wait_for(
                    lambda: server.sum_of("tgres_flushes_total") > flushes,
                    "chunks are written on",
                    20,
                )
                traffic.check_memory()
                traffic.check_store_needed(200)
                assert server.imbalance() == 0
                fill(False)
                wait_for(lambda: WORKS in server.log, "the log says that it works again", 20)
                assert server.sum_of("tgres_journal_failed") == 0
                time.sleep(JOURNAL_S + RECEIVE_S)
            watch.check()
            killed = time.monotonic()
            server.kill()
            assert (server.log.count(FULL), server.log.count(WORKS)) == (1, 1)
            assert "Traceback" not in server.log
            must, may = traffic.abandon(killed - JOURNAL_S - RECEIVE_S)
            server.start()
            assert_holds(server, must, may)
            assert server.imbalance() == 0
        finally:
            server.close()


# -- an image takes the place of what was given up ---------------------------------------------

NOW_S = 1_700_000_000 // 360 * 360
SUM = BundleSpec((Archive(10, 360, 36), Archive(60, 360, 36)), Cf.SUM, 0.0, OnDuplicate.SUM)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(MemoryStore(), tmp_path / "journal", SUM, now_s=NOW_S, pace=Pace(0, 1, 0, 1_800))
    rig.journal_kept_bytes = 2_000
    await rig.start()
    yield rig
    await rig.stop()


class FullDisk:
    """``with FullDisk():`` – the journal's thread can write nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __enter__(self) -> None:
        write = os.write

        def full(fd: int, data: bytes) -> int:
            if threading.current_thread().name == "journal":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(fd, data)

        self._monkeypatch.setattr(os, "write", full)

    def __exit__(self, *_: object) -> None:
        self._monkeypatch.undo()


async def sums(rig: Rig, names: int, slots: int) -> list[list[float]]:
    return [
        (await rig.read(f"s{i}", 0, NOW_S // 10, NOW_S // 10 + slots)).tolist()
        for i in range(names)
    ]


@pytest.mark.parametrize("away", [False, True], ids=["store there", "store away"])
async def test_what_was_given_up_is_in_the_next_image(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """Two points to each slot, before, while and after the disk is full; late ones among them; then a kill."""
    store = rig.store
    assert isinstance(store, MemoryStore)
    slots, names = 30, 5

    def send(first: int, last: int) -> None:
        for slot in range(first, last):
            rig.now_s = NOW_S + slot * 10
            rig.add((f"s{i}", rig.now_s, slot + i) for i in range(names))

    send(0, 10)
    assert await rig.journal.synced()
    await rig.flusher.settle_until(NOW_S + 50)  # from here on the first five slots are late
    with FullDisk(monkeypatch):
        store.away = away
        send(0, 20)
        begin = time.monotonic()
        task = asyncio.create_task(rig.flusher.run())
        async with asyncio.timeout(10):
            while not rig.journal.incomplete:
                send(20, 21)
                await asyncio.sleep(0.01)
                slots = 21
        again = int(rig.intake.ledger.received["test"] / names - 30)
        if not away:
            await rig.flusher.settle_until(NOW_S + 100)
            assert time.monotonic() - begin < 4, "nobody waits for a disk that takes nothing"
        assert rig.intake.ledger.balance == 0
    await until(lambda: not rig.journal.incomplete)
    store.away = False
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    expected = [
        [(slot + i) * (2 if slot < 10 else again if slot == 20 else 1) for slot in range(slots)]
        for i in range(names)
    ]
    await rig.kill()
    await rig.start()
    assert await sums(rig, names, slots) == expected
    await rig.flusher.settle_until(NOW_S + 400)
    assert await sums(rig, names, slots) == expected
    assert (rig.intake.ledger.balance, rig.intake.ledger.held) == (0, 0)
