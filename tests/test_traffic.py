"""Taps on what arrives, and what top and tail make of them; the server is the rig's, without sockets."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from receivers import carbon_line, udp
from tests.fake_sink import FakeSink
from tests.rig import Rig
from tgres_py.admin import eyes
from tgres_py.admin.frame import Admin, Row, find_verb
from tgres_py.cli.main import main
from tgres_py.cli.top import frame
from tgres_py.errors import BadRequest
from tgres_py.ingest.traffic import (
    OTHERS,
    IdSample,
    Recent,
    Traffic,
    host_of,
    tapped,
)
from tgres_py.kernels import Budget
from tgres_py.model.points import Parsed, PointBlock, Reason, empty_block
from tgres_py.model.retention import Archive, BundleSpec
from tgres_py.server import ServerSource
from tgres_py.storage.memory import MemoryStore

SPEC = BundleSpec((Archive(10, 360, 36),))
NOW_S = 1_700_000_000


def parsed(count: int, first: int = 0) -> Parsed:
    ids = np.arange(first, first + count, dtype=np.int32)
    return Parsed(PointBlock(ids, np.full(count, NOW_S), np.ones(count)))


# -- what taps gather ----------------------------------------------------------------------------


def test_hosts() -> None:
    assert host_of("10.0.0.1:4000", "carbon") == "10.0.0.1"
    assert host_of("::1:4000", "carbon") == "::1"
    assert host_of("", "carbon_udp") == "(carbon_udp)"


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(4, 32))
def test_a_sample_is_bounded_and_stands_for_all(sizes: list[int], most: int) -> None:
    sample = IdSample(most)
    total = 0
    for size in sizes:
        sample.add(np.arange(total, total + size, dtype=np.int32))
        total += size
    ids = sample.ids()
    assert len(ids) <= most
    if total <= most:
        assert sample.stride == 1 and ids.tolist() == list(range(total))
    assert abs(len(ids) * sample.stride - total) <= sample.stride * (1 + len(bin(sample.stride)))
    assert len(np.unique(ids)) == len(ids), "no point is taken twice"


def test_traffic_counts_by_sender_and_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgres_py.ingest.traffic.SENDERS_MAX", 2)
    traffic = Traffic()
    traffic("carbon", parsed(3), "a:1")
    traffic("carbon", parsed(4), "a:2")
    traffic("pickle", parsed(5), "b:1")
    traffic("carbon", Parsed(empty_block(), Counter({Reason.NAN: 2})), "c:1")
    assert traffic.received == {"carbon": 9, "pickle": 5}
    assert traffic.senders == {("a", "carbon"): 7, ("b", "pickle"): 5, (OTHERS, "carbon"): 2}


def test_recent_blocks_are_bounded() -> None:
    recent = Recent(10)
    for count in (20, 5, 0):  # the first one is taken whatever it holds
        recent("carbon", parsed(count), "a:1")
    assert [len(one.block) for one in recent.take()] == [20] and recent.skipped == 5
    recent("carbon", parsed(6), "a:1")
    recent("carbon", parsed(4), "a:1")
    recent("carbon", parsed(1), "a:1")
    assert [len(one.block) for one in recent.take()] == [6, 4] and recent.skipped == 6
    assert recent.take() == []


def test_prefixes() -> None:
    assert eyes.prefix_of("a.b.c.d", 2) == "a.b.*"
    assert eyes.prefix_of("a.b", 2) == "a.b"
    assert eyes.prefix_of("disk.used;host=a.b.c", 1) == "disk.*"


# -- senders of datagrams ------------------------------------------------------------------------


async def test_senders_of_datagrams_are_told_only_while_they_are_watched() -> None:
    sink = FakeSink()
    listener = await udp.start("carbon_udp", "127.0.0.1", 0, carbon_line.parse, sink)

    async def send(count: int) -> None:
        total = listener.datagrams + count
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for number in range(count):
                sock.sendto(b"a 1 %d" % (NOW_S + number), listener.address)
        async with asyncio.timeout(30):
            while listener.datagrams < total:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)

    try:
        await send(2)
        with listener.watched_senders() as first:
            await send(3)
            with listener.watched_senders() as second:
                await send(4)
                assert second() == {"127.0.0.1": 4}
            assert first() == {"127.0.0.1": 7}
            assert first() == {}
        await send(1)
        with listener.watched_senders() as third:
            assert third() == {}
    finally:
        listener.close()
        await listener.drain()
    assert len(sink.points) == 10


# -- the verbs -----------------------------------------------------------------------------------


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(MemoryStore(), tmp_path, SPEC, now_s=NOW_S)
    await rig.start()
    yield rig
    await rig.stop()


def admin_of(rig: Rig) -> Admin:
    source = ServerSource(rig.registry, rig.reader, rig.flusher, rig.store)
    live: Any = SimpleNamespace(
        registry=rig.registry, source=source, intake=rig.intake, flusher=rig.flusher, listeners={}
    )
    return Admin(rig.store, live)  # type: ignore[arg-type]  # what is used of it is there


def arrive(rig: Rig, peer: str, *names: str, value: float = 1.0) -> None:
    ids, _ = rig.registry.resolve([name.encode() for name in names])
    block = PointBlock(ids, np.full(len(ids), NOW_S), np.full(len(ids), value))
    rig.intake.accept("carbon", Parsed(block), peer)


async def tapped_soon(rig: Rig) -> None:
    """Waits until a verb has put its tap on."""
    async with asyncio.timeout(30):
        while not rig.intake.taps:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)


async def rows(admin: Admin, verb: str, **given: Any) -> list[Row]:
    return [row async for row in find_verb(verb).start(admin, given)]


async def test_top(rig: Rig) -> None:
    admin = admin_of(rig)
    arrive(rig, "h0:1", "old.a.x")
    task = asyncio.create_task(rows(admin, "top", interval_s=0.2, count=1))
    await tapped_soon(rig)
    arrive(rig, "h1:1", "app.web.a", "app.web.b", "old.a.x")
    arrive(rig, "h2:1", "app.web.a", "db.x.y")
    bad = Counter({Reason.MALFORMED: 2})
    rig.intake.accept(
        "carbon", Parsed(empty_block(), bad, [(Reason.MALFORMED, b"x\x1b[2J")]), "h2:1"
    )
    [row] = await task
    assert not rig.intake.taps, "the tap is gone"
    points = {one["prefix"]: one["points_per_s"] for one in row["prefixes"]}
    assert next(iter(points)) == "app.web.*" and set(points) == {"app.web.*", "old.a.*", "db.x.*"}
    assert points["app.web.*"] == pytest.approx(3 / row["interval_s"], rel=0.05)
    new = {one["prefix"]: one["new_series_per_s"] for one in row["prefixes"]}
    assert new["old.a.*"] == 0 and new["app.web.*"] == pytest.approx(
        2 / row["interval_s"], rel=0.05
    )
    assert [(s["sender"], s["receiver"]) for s in row["senders"]] == [
        ("h2", "carbon"),
        ("h1", "carbon"),
    ]
    [refused] = row["refused"]
    assert (
        refused["reason"] == "malformed" and refused["total"] == 2 and refused["sender"] == "h2:1"
    )
    assert row["series"] == 4
    shown = "\n".join(frame(row, None))
    assert "app.web.*" in shown and "malformed" in shown and "\x1b" not in shown
    assert all(len(line) <= 30 for line in frame(row, 30))


async def test_top_names_the_prefixes_of_new_series_that_are_refused(rig: Rig) -> None:
    rig.registry.budget = Budget(0, 1, 1e-9, 1)
    task = asyncio.create_task(rows(admin_of(rig), "top", interval_s=0.2, count=1))
    await tapped_soon(rig)
    rig.registry.resolve([b"app.web.a", b"app.web.b", b"app.web.c", b"db.x.y"])
    [row] = await task
    [refused] = row["refused_new"]
    assert (refused["prefix"], refused["total"]) == ("app.web", 2)
    assert refused["points_per_s"] == pytest.approx(2 / row["interval_s"], rel=0.05)
    assert any("app.web " in line and line.endswith(" 2") for line in frame(row, None))


async def test_top_says_that_senders_wait(rig: Rig) -> None:
    rig.intake._paused = True
    [row] = await rows(admin_of(rig), "top", interval_s=0.01, count=1)
    assert row["paused"] and "PAUSED" in frame(row, None)[0] and row["prefixes"] == []
    assert frame(row, None)[1] == "nothing arrives"


async def test_tail_shows_what_matches_also_of_new_series(rig: Rig) -> None:
    arrive(rig, "h:1", "app.a.x")
    task = asyncio.create_task(rows(admin_of(rig), "tail", glob="app.*.x", count=3))
    await tapped_soon(rig)
    arrive(rig, "h1:1", "app.a.x", "other.a.x", value=2.5)
    arrive(rig, "h2:1", "app.b.x", "app.c.x", "app.c.y")
    found = await task
    assert [(row["name"], row["value"], row["sender"]) for row in found] == [
        ("app.a.x", 2.5, "h1"),
        ("app.b.x", 1.0, "h2"),
        ("app.c.x", 1.0, "h2"),
    ]
    assert found[0]["time_at_s"] == NOW_S and not rig.intake.taps


async def test_tail_shows_a_sample_when_there_is_too_much(rig: Rig) -> None:
    task = asyncio.create_task(rows(admin_of(rig), "tail", glob="**", rate=10, count=10))
    await tapped_soon(rig)
    arrive(rig, "h:1", *[f"s{number:03}" for number in range(100)])
    found = await task
    names = [row["name"] for row in found if "name" in row]
    assert len(names) == 10 and names[0] == "s000" and names[-1] == "s099"
    notes = [row["note"] for row in found if "note" in row]
    assert any("90 points not shown" in text for text in notes)


async def test_tail_says_that_nothing_matches_yet(rig: Rig) -> None:
    verb = find_verb("tail").start(admin_of(rig), {"glob": "none.*"})
    assert "no series matches none.*" in (await anext(verb))["note"]
    await verb.aclose()  # type: ignore[attr-defined]  # it is a generator, which the annotation doesn't say
    assert not rig.intake.taps


async def test_verbs_that_need_a_server_say_so(rig: Rig) -> None:
    for name, arguments in (("top", {}), ("tail", {"glob": "*"})):
        with pytest.raises(BadRequest, match="needs a running server"):
            find_verb(name).start(Admin(rig.store), arguments)  # type: ignore[arg-type]  # what is used of it is there


async def test_a_tap_sees_each_buffer_once_and_only_while_it_is_there(rig: Rig) -> None:
    seen: list[int] = []
    with tapped(rig.intake, lambda receiver, parsed, peer: seen.append(len(parsed.block))):
        arrive(rig, "h:1", "a", "b")
        arrive(rig, "h:1", "c")
    arrive(rig, "h:1", "d")
    assert seen == [2, 1]


async def test_refusals_of_the_ring_leave_a_sample(rig: Rig) -> None:
    ids, _ = rig.registry.resolve([b"late.x"])
    for time_s, reason in ((NOW_S + 10**6, Reason.FUTURE), (NOW_S - 10**6, Reason.TOO_OLD)):
        block = PointBlock(ids, np.array([time_s]), np.array([2.5]))
        rig.intake.accept("carbon", Parsed(block), "h:1")
        last = rig.intake.rejects.last[reason]
        assert last.line == b"late.x 2.5 %d" % time_s and last.peer == "h:1"


async def test_series_that_are_gone_take_no_other_one_s_place(rig: Rig) -> None:
    """Ids go on where they were when a series is retired: there are more ids than series."""
    arrive(rig, "h:1", "gone.a", "gone.b", "app.a.x")
    rig.registry.retire(np.array([0, 1], np.int32))
    admin = admin_of(rig)
    shown = asyncio.create_task(rows(admin, "tail", glob="app.*.x", count=2))
    await tapped_soon(rig)
    arrive(rig, "h:1", "app.a.x", "app.b.x")
    assert [row["name"] for row in await shown if "name" in row] == ["app.a.x", "app.b.x"]
    task = asyncio.create_task(rows(admin, "top", interval_s=0.2, count=1))
    await tapped_soon(rig)
    arrive(rig, "h:1", "new.c.x")
    [row] = await task
    assert row["series"] == 3
    new = {one["prefix"]: one["new_series_per_s"] for one in row["prefixes"]}
    assert new == {"new.c.*": pytest.approx(1 / row["interval_s"], rel=0.05)}


def test_ctrl_c_is_the_end_of_tail_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Iterator[Row]:
        yield {"name": "a", "value": 1.0}
        raise KeyboardInterrupt

    monkeypatch.setattr("tgres_py.cli.admin_client.run_verb", interrupted)
    result = CliRunner().invoke(main, ["tail", "a"])
    assert result.exit_code == 0 and result.stdout.splitlines()[1].split() == ["a", "1"]
    assert CliRunner().invoke(main, ["series", "ls"]).exit_code == 1
    monkeypatch.setattr("tgres_py.cli.top.run_verb", lambda *_: interrupted_top())
    assert CliRunner().invoke(main, ["top", "--json"]).exit_code == 0


def interrupted_top() -> Iterator[Row]:
    yield {"points_per_s": 1.0}
    raise KeyboardInterrupt
