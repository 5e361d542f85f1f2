"""received = stored + overwritten + rejected{reason} + held, after any traffic through the real receivers."""

from __future__ import annotations

import asyncio
import logging
import pickle
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receivers import carbon_line, carbon_pickle, tcp, udp
from tests.rig import Rig
from tgres_py import clock
from tgres_py.ingest.intake import Limits
from tgres_py.ingest.ledger import SAMPLES_BURST, Ledger, RejectLog
from tgres_py.model.points import Reason
from tgres_py.model.retention import Archive, BundleSpec, Cf
from tgres_py.storage.memory import MemoryStore

NOW_S = 1_700_000_040
SPEC = BundleSpec((Archive(10, 60, 12), Archive(60, 40, 2)), Cf.AVERAGE, 0.0)


@dataclass(slots=True)
class Receivers:
    rig: Rig
    carbon: tcp.TcpListener
    pickle: tcp.TcpListener
    udp: udp.UdpListener

    def balance(self) -> None:
        """The sum holds now, and what is held is what is queued or being merged."""
        intake = self.rig.intake
        assert intake.ledger.balance == 0
        assert intake.ledger.held == intake.late_points >= sum(map(len, intake.late))


@pytest.fixture
async def receivers(tmp_path: Path) -> AsyncIterator[Receivers]:
    limits = Limits(1 << 30, future_s_max=3_600)
    rig = Rig(MemoryStore(), tmp_path, SPEC, now_s=NOW_S, limits=limits)
    await rig.start()
    intake = rig.intake
    at = "127.0.0.1", 0
    made = Receivers(
        rig,
        await tcp.start("carbon", *at, carbon_line.WIRE_FORMAT, intake),
        await tcp.start("pickle", *at, carbon_pickle.wire_format(4_096), intake),
        await udp.start("carbon_udp", *at, carbon_line.parse, intake),
    )
    yield made
    for listener in (made.carbon, made.pickle, made.udp):
        listener.close()
        await listener.drain()
    rig.journal.close()
    clock.replace_source(None)


def line(rng: random.Random) -> tuple[bytes, Reason | None]:
    """A line (without LF), and why it can't be taken on its way to the intake."""
    name = f"r.{rng.randrange(30)}".encode()
    age = rng.choice([0, 0, 0, 5, 30, 300, 900, 2_300, 2_500, 10_000, -60, -3_000, -4_000])
    good = b"%b %d %d" % (name, rng.randrange(100), NOW_S - age)
    return rng.choice(
        [
            *[(good, None)] * 12,
            (good + b"\r", None),
            (b"  " + good.replace(b" ", b"\t "), None),
            (name + b" 1 -1", None),
            (name + b";b=1;a=2 1.5e3 %d.75" % NOW_S, None),
            (name + b" nan %d" % NOW_S, Reason.NAN),
            (name + b" 1", Reason.MALFORMED),
            (good + b" more", Reason.MALFORMED),
            (name + b" one %d" % NOW_S, Reason.MALFORMED),
            (name + b" 1 inf", Reason.MALFORMED),
            (b"\xff\xfe" + good, Reason.UTF8),
            (b"a\x01b 1 %d" % NOW_S, Reason.NAME),
            (b";a=b 1 %d" % NOW_S, Reason.NAME),
            (b"x" * 1_100 + b" 1 %d" % NOW_S, Reason.LIMIT),
            (b"x" * 20_000, Reason.LIMIT),
        ]
    )


def lines(rng: random.Random, n: int) -> tuple[bytes, int, Counter[Reason]]:
    """A buffer, its number of points, and the refusals among them."""
    made = [line(rng) for _ in range(n)]
    refused = Counter(reason for _, reason in made if reason)
    return b"".join(text + b"\n" for text, _ in made), n, refused


def frame(rng: random.Random) -> tuple[bytes, int, Counter[Reason]]:
    points: list[object] = []
    refused: Counter[Reason] = Counter()
    for _ in range(rng.randrange(1, 20)):
        name = f"p.{rng.randrange(20)}"
        time_s = NOW_S - rng.choice([0, 5, 300, 2_300, 10_000])
        match rng.randrange(8):
            case 0:
                points.append((name, (time_s, float("nan"))))
                refused[Reason.NAN] += 1
            case 1:
                points.append((name, time_s))
                refused[Reason.MALFORMED] += 1
            case 2:
                points.append((name, (str(time_s), "1.5")))
            case _:
                points.append((name, (time_s, rng.random())))
    data = pickle.dumps(points, protocol=rng.randrange(6))
    if rng.random() < 0.1:
        return struct.pack(">I", 5) + b"junk.", 1, Counter({Reason.MALFORMED: 1})
    return struct.pack(">I", len(data)) + data, len(points), refused


async def send_tcp(port: int, data: bytes, rng: random.Random, *, torn: bool = False) -> None:
    """Sends in pieces cut anywhere; ``torn``: the connection breaks instead of ending."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    at = 0
    while at < len(data):
        size = rng.choice([1, 10, 1_000, 100_000])
        writer.write(data[at : at + size])
        await writer.drain()
        await asyncio.sleep(0)
        at += size
    if torn:
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.close()
        return
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()


async def received(receivers: Receivers, name: str, count: int) -> None:
    for _ in range(1_000):
        if receivers.rig.intake.ledger.received[name] >= count:
            break
        await asyncio.sleep(0.005)
    assert receivers.rig.intake.ledger.received[name] == count


@pytest.mark.parametrize("seed", range(3))
async def test_random_traffic_through_all_receivers(receivers: Receivers, seed: int) -> None:
    rng = random.Random(seed)
    rig, ledger = receivers.rig, receivers.rig.intake.ledger
    store = rig.store
    assert isinstance(store, MemoryStore)
    wanted: Counter[str] = Counter()
    refused: Counter[Reason] = Counter()
    watching = True

    async def watch() -> int:
        """The sum holds at every moment, not only at the end."""
        moments = 0
        while watching:
            receivers.balance()
            moments += 1
            await asyncio.sleep(0)
        return moments

    watcher = asyncio.create_task(watch())
    for round_ in range(12):
        data, n, bad = lines(rng, rng.randrange(1, 60))
        if rng.random() < 0.3:
            data = data[:-1]  # the last line's LF is missing; a connection's end completes it
        await send_tcp(receivers.carbon.address[1], data, rng)
        wanted["carbon"] += n
        refused += bad

        frames = [frame(rng) for _ in range(rng.randrange(1, 5))]
        await send_tcp(receivers.pickle.address[1], b"".join(f[0] for f in frames), rng)
        for _, n, bad in frames:
            wanted["pickle"] += n
            refused += bad

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(rng.randrange(1, 5)):
                data, n, bad = lines(rng, rng.randrange(1, 6))
                sock.sendto(data, receivers.udp.address)
                wanted["carbon_udp"] += n
                refused += bad
        for name, count in wanted.items():
            await received(receivers, name, count)
        store.away = round_ % 4 == 2
        if not store.away:
            await rig.tick()
        if round_ == 7:
            await rig.flusher.flush_now()
            await rig.flusher.checkpoint()
        rig.now_s += rng.choice([0, 10, 100])
    watching = False
    assert await watcher > 50
    assert ledger.received == wanted
    for reason in Reason:
        if reason not in (Reason.TOO_OLD, Reason.FUTURE):  # those are known by the intake only
            assert ledger.rejected[reason] == refused[reason], reason
    assert ledger.rejected[Reason.TOO_OLD] and ledger.rejected[Reason.FUTURE]
    assert ledger.stored and ledger.overwritten and ledger.late
    store.away = False
    await rig.flusher.settle()
    receivers.balance()
    assert ledger.held == 0 and not rig.intake.late


async def test_what_ends_a_connection_is_counted(receivers: Receivers) -> None:
    rng = random.Random(1)
    ledger = receivers.rig.intake.ledger
    await send_tcp(receivers.carbon.address[1], b"a 1 -1\na 2 -", rng, torn=True)
    await received(receivers, "carbon", 2)
    await send_tcp(receivers.pickle.address[1], b"a 1 -1\n", rng)  # text on the wrong port
    await received(receivers, "pickle", 1)
    assert ledger.rejected == {Reason.MALFORMED: 1, Reason.LIMIT: 1}
    assert ledger.stored == 1
    receivers.balance()


async def test_the_kernels_drops_are_received_and_rejected(receivers: Receivers) -> None:
    receivers.rig.intake.refuse("carbon_udp", Reason.UDP_KERNEL, 7)
    assert receivers.rig.intake.ledger.received["carbon_udp"] == 7
    receivers.balance()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stored", "overwritten", "held", "rejected", "received"]),
            st.integers(1, 100),
        )
    )
)
@settings(deadline=None)
def test_balance_is_the_difference(changes: list[tuple[str, int]]) -> None:
    ledger = Ledger()
    expected = 0
    for what, count in changes:
        if what == "received":
            ledger.received["carbon"] += count
            expected += count
        elif what == "rejected":
            ledger.rejected[Reason.NAN] += count
            expected -= count
        else:
            setattr(ledger, what, getattr(ledger, what) + count)
            expected -= count
    assert ledger.balance == expected


# -- samples in the log --------------------------------------------------------------------------


def test_samples_are_bounded_and_say_how_many_are_not_shown(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    shown = RejectLog()
    with caplog.at_level(logging.WARNING):
        for i in range(50):
            shown.show("carbon", "1.2.3.4:5", [(Reason.MALFORMED, b"line %d" % i)])
        shown.show("carbon_udp", "", [(Reason.NAN, b"a\nb\x1b[31m")])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == SAMPLES_BURST + 1
    assert messages[0] == "carbon from 1.2.3.4:5: refused (malformed): b'line 0'"
    assert messages[-1] == r"carbon_udp: refused (nan): b'a\nb\x1b[31m'", "one line, no escapes"
    caplog.clear()
    now[0] += 1.5
    for i in range(3):
        shown.show("carbon", "", [(Reason.MALFORMED, b"later %d" % i)])
    [message] = [record.getMessage() for record in caplog.records]
    assert re.search(r"later 0' \(45 others not shown\)$", message)
