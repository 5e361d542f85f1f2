"""The UDP transport over real loopback sockets: datagrams stay apart, overflow is counted, nothing waits."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receivers import carbon_line, udp
from receivers.udp import UdpLimits, UdpListener
from tests.fake_sink import FakeSink
from tgres_py import clock
from tgres_py.errors import ConfigError
from tgres_py.kernels import udp as kernel
from tgres_py.model.points import Reason


@asynccontextmanager
async def served(
    sink: FakeSink, host: str = "127.0.0.1", limits: UdpLimits | None = None
) -> AsyncIterator[UdpListener]:
    listener = await udp.start("carbon_udp", host, 0, carbon_line.parse, sink, limits)
    try:
        yield listener
    finally:
        listener.close()
        await listener.drain(0.5)


def send(address: tuple[str, int], *datagrams: bytes) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        for datagram in datagrams:
            sock.sendto(datagram, address)


async def until(condition: Callable[[], bool]) -> None:
    deadline = clock.monotonic() + 10
    while not condition():
        assert clock.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


async def test_each_datagram_is_complete_in_itself() -> None:
    sink = FakeSink()
    async with served(sink) as listener:
        send(
            listener.address, b"a 1 100", b"b 2 200\r\nc 3 3", b"00\n", b"", b"d;x=1 4 400\n", b"\n"
        )
        await until(lambda: len(sink.points) == 4 and bool(sink.rejected))
        assert sink.points == [
            (b"a", 100, 1.0),
            (b"b", 200, 2.0),
            (b"c", 3, 3.0),
            (b"d;x=1", 400, 4.0),
        ]
        assert sink.rejected == {Reason.MALFORMED: 1}
        assert sink.samples == [(Reason.MALFORMED, b"00")]
        assert listener.datagrams == 6


async def test_large_datagram_is_not_cut() -> None:
    lines = [b"name.%05d 1 100\n" % i for i in range(4_000)]
    datagram = b"".join(lines)[:65_000].rpartition(b"\n")[0]
    sink = FakeSink()
    async with served(sink) as listener:
        send(listener.address, datagram, datagram, datagram)
        count = 3 * (datagram.count(b"\n") + 1)
        await until(lambda: len(sink.points) == count)
        assert not sink.rejected


async def test_a_burst_is_kept_in_order() -> None:
    count = 20_000
    sink = FakeSink()
    async with served(sink) as listener:
        datagrams = [b"name 1 %d" % i for i in range(count)]
        for at in range(0, count, 200):
            send(listener.address, *datagrams[at : at + 200])
            await asyncio.sleep(0.001)
        await until(lambda: len(sink.points) + listener.kernel_drops() == count)
        times = [t for _, t, _ in sink.points]
        assert times == sorted(times)
        assert len(times) == count - listener.kernel_drops() > count / 2


async def test_full_queue_is_counted_by_lines() -> None:
    """A full sink: what fits into the queue waits, the rest is read, counted and thrown away."""
    sink = FakeSink(room=0)
    async with served(sink, limits=UdpLimits(queue_bytes_max=1_000)) as listener:
        for _ in range(100):
            send(listener.address, b"a 1 100\nb 2 200")
            await asyncio.sleep(0.001)
        await until(lambda: listener.datagrams == 100)
        assert sink.points == []
        sink.make_room()
        await until(lambda: len(sink.points) + sink.rejected[Reason.OVERLOAD] == 200)
        assert 0 < len(sink.points) <= 130
        send(listener.address, b"c 3 300")
        await until(lambda: sink.points[-1] == (b"c", 300, 3.0))


async def test_close_and_drain_take_what_was_sent() -> None:
    sink = FakeSink()
    async with served(sink) as listener:
        send(listener.address, *[b"a 1 %d" % i for i in range(100)])
        listener.close()
        await listener.drain()
        assert [t for _, t, _ in sink.points] == list(range(100))
        listener.close()


async def test_drain_of_a_full_sink_is_counted() -> None:
    sink = FakeSink(room=0)
    async with served(sink) as listener:
        send(listener.address, b"a 1 1\nb 2 2", b"c 3 3\n")
        listener.close()
        await listener.drain(0.02)
        assert sink.points == []
        assert sink.rejected == {Reason.OVERLOAD: 3}
        sink.make_room()
        await asyncio.sleep(0.01)
        assert sink.points == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's drops are read from Linux' /proc")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_kernel_drops(host: str) -> None:
    """Bursts overflow a buffer of a few kB; the kernel says by how much."""
    sink = FakeSink()
    if host == "::1":
        require_ipv6()
    limits = UdpLimits(rcvbuf_bytes=4_096)
    async with served(sink, host, limits) as listener:
        sent = 0
        for _ in range(200):
            send(listener.address, *[b"x 1 1".ljust(2_000)] * 50)
            sent += 50
            if listener.kernel_drops():
                break
        assert listener.kernel_drops() > 0
        await until(lambda: len(sink.points) + listener.kernel_drops() == sent)
        drops = listener.kernel_drops()
        listener.close()
        assert listener.kernel_drops() == drops


def require_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")


@pytest.mark.parametrize(("listening", "to"), [("::1", "::1"), ("::", "127.0.0.1")])
async def test_ipv6(listening: str, to: str) -> None:
    require_ipv6()
    sink = FakeSink()
    async with served(sink, listening) as listener:
        send((to, listener.address[1]), b"a 1 1")
        await until(lambda: sink.points == [(b"a", 1, 1.0)])


async def test_receive_buffer_is_enlarged() -> None:
    sink = FakeSink()
    async with (
        served(sink, limits=UdpLimits(rcvbuf_bytes=8_192)) as small,
        served(sink, limits=UdpLimits(rcvbuf_bytes=131_072)) as large,
    ):
        assert 8_192 <= small.rcvbuf_bytes < 131_072 <= large.rcvbuf_bytes


async def test_address_in_use_is_one_sentence() -> None:
    sink = FakeSink()
    async with served(sink) as listener:
        with pytest.raises(ConfigError, match=r"^carbon: can't listen on 127\.0\.0\.1:\d+: Addr"):
            await udp.start("carbon", *listener.address, carbon_line.parse, sink)


# The kernel and its pure twin

Drain = Callable[[socket.socket, memoryview, int], tuple[int, int]]


DRAINS = list(dict.fromkeys([kernel.drain, kernel.drain_pure]))  # one where there is no kernel


@pytest.mark.parametrize("drain", DRAINS, ids=lambda f: f.__module__)
@given(datagrams=st.lists(st.binary(max_size=40), max_size=30), datagrams_max=st.integers(1, 8))
def test_drain_joins_datagrams_with_newlines(
    drain: Drain, datagrams: list[bytes], datagrams_max: int
) -> None:
    def ended(datagram: bytes) -> bytes:
        return datagram if not datagram or datagram.endswith(b"\n") else datagram + b"\n"

    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        for datagram in datagrams:
            sender.sendto(datagram, receiver.getsockname())
        buffer = memoryview(bytearray(kernel.DATAGRAM_BYTES_MAX + 101))
        got, counts = [], []
        while not counts or counts[-1]:
            used, count = drain(receiver, buffer, datagrams_max)
            assert count <= datagrams_max
            got.append(bytes(buffer[:used]))
            counts.append(count)
        assert b"".join(got) == b"".join(map(ended, datagrams))
        assert sum(counts) == len(datagrams)
