"""The TCP transport: cut anywhere, limits, waiting for room, fairness; without and with real sockets."""

from __future__ import annotations

import asyncio
import math
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from receivers import carbon_line, tcp
from receivers.sink import WireFormat
from receivers.tcp import Connection, TcpLimits, TcpListener, Totals
from receivers.turns import Turns
from tests.fake_sink import FakeSink
from tests.loops import on_both_loops
from tgres_py import clock
from tgres_py.errors import ConfigError
from tgres_py.model.points import Reason


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 1234) if name == "peername" else default

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


def connect(listener: TcpListener) -> tuple[Connection, FakeTransport]:
    connection, transport = Connection(listener), FakeTransport()
    connection.connection_made(transport)
    return connection, transport


def feed(connection: Connection, data: bytes) -> None:
    """As an event loop does: as much as fits into the buffer at a time."""
    while data:
        buffer = connection.get_buffer(-1)
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        connection.buffer_updated(size)
        data = data[size:]


def unhurried() -> Totals:
    """Of listeners that nobody else waits for: nothing is put off, however slow the machine is."""
    return Totals(turns=Turns(math.inf))


def make_listener(sink: FakeSink, totals: Totals | None = None, **limits: Any) -> TcpListener:
    wire = carbon_line.WIRE_FORMAT
    return TcpListener("carbon", wire, sink, TcpLimits(**limits), totals or unhurried())


STREAM = b"a 1 100\r\nb\t2  200\n\nbad\xff 1 1\nc;x=1 3 300\nlast 4 400"
POINTS = [(b"a", 100, 1.0), (b"b", 200, 2.0), (b"c;x=1", 300, 3.0), (b"last", 400, 4.0)]


def test_every_split_point() -> None:
    for cut in range(len(STREAM) + 1):
        sink = FakeSink()
        listener = make_listener(sink)
        connection, _ = connect(listener)
        feed(connection, STREAM[:cut])
        feed(connection, STREAM[cut:])
        connection.eof_received()
        connection.connection_lost(None)
        assert (sink.points, sink.rejected) == (POINTS, {Reason.UTF8: 1}), cut
        assert listener.totals.tail_bytes == 0
        assert not listener.connections


def test_byte_by_byte_and_interleaved() -> None:
    """Connections share the buffer, never each other's bytes."""
    sink = FakeSink()
    listener = make_listener(sink)
    one, _ = connect(listener)
    two, _ = connect(listener)
    for x, y in zip(b"one.name 1 100\n", b"two.name 2 200\n", strict=True):
        feed(one, bytes([x]))
        feed(two, bytes([y]))
    assert sink.points == [(b"one.name", 100, 1.0), (b"two.name", 200, 2.0)]
    assert sink.calls[0] == ("carbon", 1, "192.0.2.1:1234")


def test_data_larger_than_the_buffer() -> None:
    sink = FakeSink()
    connection, _ = connect(make_listener(sink, buffer_bytes=1_000))
    count = 20_000

    async def run() -> None:
        feed(connection, b"".join(b"name.%d 1 %d\n" % (i, i) for i in range(count)))

    asyncio.run(run())
    assert [t for _, t, _ in sink.points] == list(range(count))


def test_long_line_costs_one_reject() -> None:
    sink = FakeSink()
    connection, transport = connect(make_listener(sink, buffer_bytes=1_000))
    feed(connection, b"a 1 1\n")
    for _ in range(100):
        feed(connection, b"x" * 999)
    assert not sink.rejected
    feed(connection, b"\nb 2 2\n")
    assert sink.points == [(b"a", 1, 1.0), (b"b", 2, 2.0)]
    assert sink.rejected == {Reason.LIMIT: 1}
    assert not transport.closing


def test_torn_line_of_a_broken_connection_is_not_a_point() -> None:
    sink = FakeSink()
    connection, _ = connect(make_listener(sink))
    feed(connection, b"a 1 1\nb 2 17")
    connection.connection_lost(ConnectionResetError())
    assert sink.points == [(b"a", 1, 1.0)]
    assert sink.rejected == {Reason.MALFORMED: 1}
    assert sink.samples == [(Reason.MALFORMED, b"b 2 17")]


def test_connections_over_the_common_limit_are_refused() -> None:
    totals = unhurried()
    one, other = (make_listener(FakeSink(), totals, connections_max=2) for _ in range(2))
    first, transport = connect(one)
    assert not transport.closing
    assert not connect(other)[1].closing
    refused, transport = connect(one)
    assert transport.closing
    refused.connection_lost(None)
    assert (one.accepted, one.refused, totals.connections) == (1, 1, 2)
    first.connection_lost(None)
    assert not connect(other)[1].closing
    assert (other.accepted, other.refused, totals.connections) == (2, 0, 2)


async def test_all_wait_while_the_sink_is_full_and_nothing_is_lost() -> None:
    sink = FakeSink(room=2)
    listener = make_listener(sink)
    one, transport_one = connect(listener)
    _, transport_two = connect(listener)
    feed(one, b"a 1 1\n")
    assert transport_one.reading
    feed(one, b"b 2 2\nc 3")
    assert not transport_one.reading
    assert not transport_two.reading
    _, transport_three = connect(listener)
    assert not transport_three.reading
    assert len(sink.waiting) == 1
    sink.make_room(2)  # woken, but still full
    assert not transport_one.reading
    sink.make_room(3)
    assert transport_one.reading and transport_two.reading and transport_three.reading
    feed(one, b" 3\n")
    assert [t for _, t, _ in sink.points] == [1, 2, 3]
    assert not transport_one.reading


async def test_a_full_read_lets_others_read() -> None:
    connection, transport = connect(make_listener(FakeSink(), buffer_bytes=1_000))
    feed(connection, b"a 1 1\n")
    assert transport.reading
    feed(connection, b" " * len(connection.get_buffer(-1)))
    assert not transport.reading
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert transport.reading


def test_tails_have_a_common_limit() -> None:
    sink = FakeSink()
    listener = make_listener(sink, tail_bytes_max=25)
    one, transport_one = connect(listener)
    two, transport_two = connect(listener)
    feed(one, b"x" * 20)
    feed(two, b"y" * 20)
    assert not transport_one.closing
    assert transport_two.closing
    assert sink.rejected == {Reason.LIMIT: 1}
    two.connection_lost(None)
    assert listener.totals.tail_bytes == 20


# Real sockets


@asynccontextmanager
async def served(
    sink: FakeSink,
    host: str = "127.0.0.1",
    limits: TcpLimits | None = None,
    wire: WireFormat = carbon_line.WIRE_FORMAT,
    totals: Totals | None = None,
) -> AsyncIterator[TcpListener]:
    listener = await tcp.start("carbon", host, 0, wire, sink, limits, totals)
    try:
        yield listener
    finally:
        listener.close()
        await listener.drain(0.2)


async def until(condition: Callable[[], bool]) -> None:
    deadline = clock.monotonic() + 60
    while not condition():
        assert clock.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


@on_both_loops
async def test_socket() -> None:
    sink = FakeSink()
    async with served(sink) as listener:
        _, writer = await asyncio.open_connection(*listener.address)
        for cut in (STREAM[:10], STREAM[10:11], STREAM[11:]):
            writer.write(cut)
            await writer.drain()
            await asyncio.sleep(0.01)
        await until(lambda: len(sink.points) == 3)
        writer.close()
        await until(lambda: len(sink.points) == 4)
        assert sink.points == POINTS
        assert sink.calls[0][2].startswith("127.0.0.1:")


async def overfill(sink: FakeSink, listener: TcpListener) -> None:
    """Sends more than the sink and both sockets' buffers take: it waits, then all arrives, in order."""
    _, writer = await asyncio.open_connection(*listener.address)
    count = 600_000  # 10 MB
    writer.write(b"".join(b"name 1 %010d\n" % i for i in range(count)))
    await asyncio.sleep(0.3)
    taken = len(sink.points)
    assert taken < 50_000
    assert writer.transport.get_write_buffer_size() > 0
    await asyncio.sleep(0.1)
    assert len(sink.points) == taken
    sink.make_room()
    await until(lambda: len(sink.points) == count)
    assert [t for _, t, _ in sink.points] == list(range(count))
    writer.close()


@on_both_loops
async def test_back_pressure_reaches_the_sender() -> None:
    sink = FakeSink(room=1)
    async with served(sink) as listener:
        await overfill(sink, listener)


@on_both_loops
async def test_new_connection_waits_while_the_sink_is_full() -> None:
    sink = FakeSink(room=0)
    async with served(sink) as listener:
        await overfill(sink, listener)


@on_both_loops
async def test_reset_connection() -> None:
    sink = FakeSink()
    async with served(sink) as listener:
        _, writer = await asyncio.open_connection(*listener.address)
        writer.write(b"a 1 1\nb 2 17")
        await until(lambda: len(sink.points) == 1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await until(lambda: sink.rejected == {Reason.MALFORMED: 1})
        assert sink.points == [(b"a", 1, 1.0)]


@on_both_loops
async def test_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    sink = FakeSink()
    async with served(sink, limits=TcpLimits(idle_s=1.0)) as listener:
        reader, writer = await asyncio.open_connection(*listener.address)
        _, busy = await asyncio.open_connection(*listener.address)
        sent = 0
        while not reader.at_eof() and reader.exception() is None and sent < 200:
            busy.write(b"a 1 1\n")
            sent += 1
            await asyncio.sleep(0.05)
        assert sent < 200
        assert len(listener.connections) == 1
        busy.write(b"b 2 2\n")
        await until(lambda: (b"b", 2, 2.0) in sink.points)
        writer.close()
        busy.close()


@on_both_loops
async def test_drain_reads_what_was_sent() -> None:
    sink = FakeSink()
    async with served(sink) as listener:
        _, writer = await asyncio.open_connection(*listener.address)
        count = 100_000
        writer.write(b"name 1 5\n" * count)
        await writer.drain()
        await until(lambda: len(sink.points) > 0)
        listener.close()
        await listener.drain(10.0)
        assert len(sink.points) == count
        assert not listener.connections
        writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection(*listener.address)


@on_both_loops
async def test_senders_that_came_sent_and_went_lose_nothing() -> None:
    """Listening ends while they wait in the kernel's backlog, or are on their way to a protocol."""
    for turns in range(6):  # of the event loop
        sink = FakeSink()
        listener = await tcp.start("carbon", "127.0.0.1", 0, carbon_line.WIRE_FORMAT, sink)
        for _ in range(3):
            with socket.create_connection(listener.address) as sender:
                sender.sendall(STREAM)
        for _ in range(turns):
            await asyncio.sleep(0)
        listener.close()
        await listener.drain()
        assert sorted(sink.points) == sorted(POINTS * 3), turns
        assert listener.accepted == 3


@on_both_loops
async def test_without_file_descriptors_it_goes_on_later() -> None:
    sink = FakeSink()
    async with served(sink) as listener:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as sender:
            sender.setblocking(False)
            highest = max(int(name) for name in os.listdir("/dev/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            fill = []
            try:
                with suppress(OSError):
                    while True:
                        fill.append(os.dup(0))
                sender.connect_ex(listener.address)
                await asyncio.sleep(0.05)
                assert listener.accepted == 0
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for fd in fill:
                    os.close(fd)
            await until(lambda: listener.accepted == 1)


@on_both_loops
async def test_address_in_use_is_one_sentence() -> None:
    sink = FakeSink()
    async with served(sink) as listener:
        with pytest.raises(ConfigError, match=r"^carbon: can't listen on 127\.0\.0\.1:\d+: Addr"):
            await tcp.start("carbon", *listener.address, carbon_line.WIRE_FORMAT, sink)


@pytest.mark.parametrize(("listening", "to"), [("::1", "::1"), ("::", "127.0.0.1")])
async def test_ipv6(listening: str, to: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    sink = FakeSink()
    async with served(sink, listening) as listener:
        _, writer = await asyncio.open_connection(to, listener.address[1])
        writer.write(b"a 1 1")
        writer.close()
        await until(lambda: sink.points == [(b"a", 1, 1.0)])
