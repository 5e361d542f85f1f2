"""Whether PostgreSQL is there: one line for each change, whoever sees it; pings that are few."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.rig import running_rig
from tests.test_flusher import until
from tgres_py.errors import StoreUnavailable
from tgres_py.model.retention import Archive, BundleSpec
from tgres_py.storage.memory import MemoryStore
from tgres_py.storage.port import ChunkRows
from tgres_py.storage.presence import Presence

NOW_S = 1_700_000_000
SPEC = BundleSpec((Archive(10, 360, 36),))
REFUSED = StoreUnavailable("disk full")


class Pinged:
    """``silent``: pings get no answer, after ``takes_s``; ``lost``: so many of the next only fail."""

    def __init__(self) -> None:
        self.silent = False
        self.lost = 0
        self.takes_s = 0.0
        self.given_s: list[float] = []

    async def ping(self, timeout_s: float) -> None:
        self.given_s.append(timeout_s)
        await asyncio.sleep(self.takes_s)
        if self.silent or self.lost:
            self.lost -= bool(self.lost)
            raise StoreUnavailable("no answer")


@asynccontextmanager
async def watching(presence: Presence) -> AsyncIterator[None]:
    task = asyncio.create_task(presence.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Away and back, in order."""
    return [r.message.split()[2] for r in caplog.records if r.message.startswith("PostgreSQL is")]


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tgres_py.storage.presence")


async def test_a_silence_that_nobody_meets(caplog: pytest.LogCaptureFixture) -> None:
    store = Pinged()
    presence = Presence(store.ping, every_s=0.05, gap_s=0.01)
    woken = 0

    def wake() -> None:
        nonlocal woken
        woken += 1

    presence.on_answer = wake
    async with watching(presence):
        await until(lambda: len(store.given_s) > 2)
        assert told(caplog) == []
        store.silent = True
        await until(lambda: not presence.available)
        before = len(store.given_s)
        await until(lambda: len(store.given_s) > before + 3)
        assert (told(caplog), woken, presence.why) == (["away"], 0, "no answer")
        store.silent = False
        await until(lambda: presence.answers)
        assert (told(caplog), woken) == (["away"], 1)  # whoever writes says whether that works
        presence.all_written()
        presence.all_written()
    assert told(caplog) == ["away", "back"]
    assert presence.available


async def test_an_answered_ping_says_that_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    """Queries that time out, a connection that was cut: one ping that fails is tried again at once."""
    store = Pinged()
    presence = Presence(store.ping, every_s=60, gap_s=0.01)
    async with watching(presence):
        for lost in (0, 1):
            store.lost = lost
            before = len(store.given_s)
            presence.doubt()
            await until(lambda n=before: len(store.given_s) > n + store.lost)
            await until(lambda: presence._asking is None)
    assert presence.available and presence.answers and not store.lost
    assert told(caplog) == []


async def test_many_that_doubt_make_few_pings() -> None:
    """One at a time, and a pause between them; a known silence is no news."""
    store = Pinged()
    presence = Presence(store.ping, every_s=60, gap_s=0.2, tries_s=(1.0, 2.0))
    async with watching(presence):
        begin = asyncio.get_running_loop().time()
        for _ in range(50):
            presence.doubt()
            await asyncio.gather(*(presence.check() for _ in range(20)))
            await asyncio.sleep(0.01)
        seconds = asyncio.get_running_loop().time() - begin
        assert 2 <= len(store.given_s) <= 2 + seconds / 0.2
        await until(lambda: presence._asking is None)
        store.silent = True
        store.takes_s = 0.02
        store.given_s.clear()
        async with asyncio.timeout(10):
            while all(await asyncio.gather(*(presence.check() for _ in range(20)))):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        assert store.given_s == [1.0, 2.0]
        for _ in range(20):
            presence.doubt()
        await asyncio.sleep(0.5)
        assert store.given_s == [1.0, 2.0]


async def test_who_gives_up_waiting_ends_no_ping() -> None:
    store = Pinged()
    store.takes_s = 0.2
    presence = Presence(store.ping)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await presence.check()
    assert await presence.check()
    assert presence.pings == 1


async def test_one_refused_write_is_no_outage_two_are(caplog: pytest.LogCaptureFixture) -> None:
    presence = Presence(Pinged().ping)
    await presence.refused(REFUSED)
    presence.written()
    presence.all_written()
    await presence.refused(REFUSED)
    assert (presence.available, told(caplog)) == (True, [])
    await presence.refused(REFUSED)
    await presence.refused(REFUSED)
    assert (presence.available, presence.answers, told(caplog)) == (False, True, ["away"])
    presence.written()  # one of many: the next may be refused again
    assert told(caplog) == ["away"]
    presence.all_written()
    assert told(caplog) == ["away", "back"]


async def test_tries_that_write_a_part_may_fail_more_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Much to write after an outage, and one write that took too long; not for ever."""
    presence = Presence(Pinged().ping)
    for _ in range(2):
        for _ in range(4):
            presence.written()
            await presence.refused(REFUSED)
        assert presence.available
        presence.all_written()
    for _ in range(5):
        assert told(caplog) == []
        presence.written()
        await presence.refused(REFUSED)
    assert told(caplog) == ["away"]


async def test_refused_after_a_silence_is_the_same_outage(caplog: pytest.LogCaptureFixture) -> None:
    """Another server has taken its place, which is read-only until it is promoted."""
    store = Pinged()
    store.silent = True
    presence = Presence(store.ping, gap_s=0.0)
    await presence.refused(StoreUnavailable("cut"))
    store.silent = False
    for _ in range(3):
        await presence.refused(StoreUnavailable("read-only"))
    assert (presence.answers, presence.available, presence.why) == (True, False, "read-only")
    presence.all_written()
    assert told(caplog) == ["away", "back"]


async def test_the_first_write_after_a_silence_says_back(caplog: pytest.LogCaptureFixture) -> None:
    """Not the last of minutes of them."""
    store = Pinged()
    store.silent = True
    presence = Presence(store.ping)
    await presence.refused(StoreUnavailable("no answer in time"))
    presence.all_written()  # that was nothing
    assert told(caplog) == ["away"]
    presence.written()
    assert told(caplog) == ["away", "back"]


class Refusing(MemoryStore):
    """Answers, and takes no chunks."""

    full = False
    tries = 0

    async def write_chunks(self, rows: Sequence[ChunkRows], late_seq: int | None = None) -> None:
        self.tries += 1
        if self.full:
            raise REFUSED
        await super().write_chunks(rows, late_seq)


async def test_a_flusher_whose_writes_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Refusing()
    async with running_rig(store, tmp_path, SPEC, now_s=NOW_S) as rig:
        task = asyncio.create_task(rig.flusher.run())
        try:
            rig.add([("a", NOW_S, 1.0)])
            await rig.tick()
            store.full = True
            rig.now_s += 800
            await until(lambda: not rig.flusher.presence.available)
            assert store.tries == 2
            store.full = False
            await until(lambda: rig.flusher.presence.available)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert told(caplog) == ["away", "back"]


async def test_a_flusher_writes_nothing_into_a_silence(tmp_path: Path) -> None:
    """It looks whether there is an answer first; its lock is free meanwhile."""
    store = Refusing()
    async with running_rig(store, tmp_path, SPEC, now_s=NOW_S) as rig:
        rig.add([("a", NOW_S, 1.0)])
        await rig.tick()
        store.away = True
        rig.now_s += 800
        assert not await rig.flusher.presence.check()
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await rig.flusher.tick()
        assert store.tries == 0
