"""How long receivers hold the event loop: pieces adapt to what they cost, streams take turns and lose nothing."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from receivers import carbon_line, udp
from receivers.sink import Data, NameRegistry
from receivers.tcp import Connection, Totals
from receivers.turns import PIECE_BYTES_FIRST, PIECE_BYTES_MIN, PIECE_S, Piece, Turns
from receivers.udp import UdpLimits
from tests.fake_sink import FakeSink
from tests.loops import on_both_loops
from tests.test_tcp import connect, make_listener, served
from tests.test_udp import send, until
from tgres_py.model.points import Parsed, Reason

LINE_S = 0.0005  # of CPU: so the tests don't depend on what else the machine does


def slow_parse(data: Data, now_s: int, registry: NameRegistry) -> Parsed:
    """Each line takes its time."""
    parsed = carbon_line.parse(data, now_s, registry)
    end = time.thread_time() + LINE_S * parsed.received
    while time.thread_time() < end:
        pass
    return parsed


async def held_s(done: Callable[[], bool]) -> float:
    """Runs until ``done``; the longest time, of CPU, that the loop was held at once."""
    deadline = time.monotonic() + 60
    longest = 0.0
    while not done():
        assert time.monotonic() < deadline
        begin = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - begin)
    return longest


def test_a_piece_shrinks_to_what_takes_its_time_and_grows_back() -> None:
    piece = Piece(262_144)
    assert piece.bytes == PIECE_BYTES_FIRST
    piece.took(16_384, 2 * PIECE_S)
    assert piece.bytes == 8_192
    piece.took(100, 2 * PIECE_S)  # the machine was busy with something else
    assert piece.bytes == PIECE_BYTES_MIN
    for _ in range(20):
        piece.took(piece.bytes, PIECE_S / 10)
    assert piece.bytes == 262_144


def test_a_piece_does_not_grow_by_what_did_not_fill_it() -> None:
    piece = Piece(262_144)
    for _ in range(20):
        piece.took(1_000, PIECE_S / 100)
    assert piece.bytes == PIECE_BYTES_FIRST
    piece.took(PIECE_BYTES_FIRST, 0.9 * PIECE_S)
    assert piece.bytes == PIECE_BYTES_FIRST


async def test_turns_come_in_order_and_end_with_their_time() -> None:
    turns = Turns(1.0)
    turns.spend(0.5)
    assert not turns.over
    turns.spend(0.5)
    assert turns.over
    seen: list[int] = []

    def taken(number: int) -> None:
        seen.append(number)
        turns.spend(0.4)

    for number in range(5):
        turns.put_off(lambda number=number: taken(number))
    lengths = []
    while turns.waiting:
        await asyncio.sleep(0)
        lengths.append(len(seen))
    assert seen == [0, 1, 2, 3, 4]
    assert lengths == [3, 5]


def spent() -> Totals:
    """Of listeners whose turn is over with the first byte."""
    return Totals(turns=Turns(1e-9))


def read(connection: Connection, data: bytes) -> None:
    """One read of the loop."""
    buffer = connection.get_buffer(-1)
    assert len(buffer) >= len(data)
    buffer[: len(data)] = data
    connection.buffer_updated(len(data))


async def test_what_comes_after_the_turn_waits_unparsed_and_unread() -> None:
    sink = FakeSink()
    listener = make_listener(sink, spent())
    one, _ = connect(listener)
    two, transport = connect(listener)
    read(one, b"a 1 1\n")
    assert len(two.get_buffer(-1)) == PIECE_BYTES_MIN
    read(two, b"b 2 2\nc 3 3\nd 4")
    assert len(sink.points) == 1
    assert not transport.reading
    await asyncio.sleep(0)
    assert [t for _, t, _ in sink.points] == [1, 2, 3]
    assert transport.reading
    await asyncio.sleep(0)
    read(two, b" 4\n")
    assert [t for _, t, _ in sink.points] == [1, 2, 3, 4]
    assert listener.totals.tail_bytes == 0


async def test_what_was_put_off_waits_on_while_the_sink_is_full() -> None:
    sink = FakeSink(room=2)
    listener = make_listener(sink, spent())
    one, _ = connect(listener)
    two, transport = connect(listener)
    read(one, b"a 1 1\n")
    read(two, b"b 2 2\n")
    sink.room = 1
    listener.wait_for_room()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(sink.points) == 1
    assert not transport.reading
    sink.make_room()
    assert not transport.reading
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(sink.points) == 2
    assert transport.reading


async def test_a_connection_that_breaks_loses_only_its_torn_line() -> None:
    sink = FakeSink()
    listener = make_listener(sink, spent())
    one, _ = connect(listener)
    two, _ = connect(listener)
    read(one, b"a 1 1\n")
    read(two, b"b 2 2\nc 3 3\nd 4")
    two.connection_lost(ConnectionResetError())
    assert [t for _, t, _ in sink.points] == [1, 2, 3]
    assert sink.rejected == {Reason.MALFORMED: 1}
    await asyncio.sleep(0)
    assert len(sink.points) == 3


@on_both_loops
async def test_streams_that_are_slow_to_parse_leave_the_loop_to_others() -> None:
    """Eight at a time, more than a piece each: nothing is lost, and a turn is never as long as all of it."""
    sink = FakeSink()
    wire = replace(carbon_line.WIRE_FORMAT, parse=slow_parse)
    async with served(sink, wire=wire) as listener:
        writers = [(await asyncio.open_connection(*listener.address))[1] for _ in range(8)]
        lines = 200
        for number, writer in enumerate(writers):
            writer.write(b" " * random.Random(number).randrange(200_000) + b"\n")
            writer.write(b"".join(b"s%d 1 %d%b\n" % (number, i, b" " * 90) for i in range(lines)))
            writer.close()
        longest = await held_s(lambda: len(sink.points) >= 8 * lines)
        for number in range(8):
            times = [t for name, t, _ in sink.points if name == b"s%d" % number]
            assert times == list(range(lines))
    assert longest < 8 * lines * LINE_S / 3, longest  # 0.27 s; one piece that was too long is 0.1 s


@on_both_loops
async def test_many_quick_streams_are_read_in_whole_pieces() -> None:
    """A parser is called for some ten kilobytes at a time, though all come at once and turns are over with the first."""
    sink, pieces = FakeSink(), list[int]()

    def parse(data: Data, now_s: int, registry: NameRegistry) -> Parsed:
        pieces.append(len(data))
        return carbon_line.parse(data, now_s, registry)

    lines, streams = 300, 50
    sent = b"".join(b"a 1 %d%b\n" % (number, b" " * 990) for number in range(lines))

    def send_all(address: tuple[str, int]) -> None:
        socks = [socket.create_connection(address) for _ in range(streams)]
        for at in range(0, len(sent), 50_000):
            for sock in socks:
                sock.sendall(sent[at : at + 50_000])
        for sock in socks:
            sock.close()

    wire = replace(carbon_line.WIRE_FORMAT, parse=parse)
    async with served(sink, wire=wire, totals=spent()) as listener:
        sending = asyncio.create_task(asyncio.to_thread(send_all, listener.address))
        await until(lambda: len(sink.points) == streams * lines)
        await sending
        await until(lambda: not listener.connections)
        assert listener.totals.tail_bytes == 0
    assert not sink.rejected
    assert sum(pieces) / len(pieces) > 2 * PIECE_BYTES_MIN


async def test_time_that_was_given_is_for_one_turn_and_the_next() -> None:
    turns = Turns(1.0)
    ahead = turns.give()
    assert turns.over and turns.holds(ahead)
    turns.spend(0.75, ahead)
    assert turns.holds(ahead)
    await asyncio.sleep(0)
    assert not turns.over and turns.holds(ahead)
    turns.spend(0.5, ahead)  # a quarter of it is the turn's
    assert not turns.over and not turns.holds(ahead)
    turns.spend(0.75)
    assert turns.over
    kept = turns.give()
    for _ in range(2):
        assert turns.holds(kept)
        turns.put_off(lambda: None)
        await asyncio.sleep(0)
    turns.put_off(lambda: None)
    await asyncio.sleep(0)
    assert not turns.holds(kept)


async def test_datagrams_that_are_slow_to_parse_leave_the_loop_to_others() -> None:
    sink = FakeSink(room=0)
    listener = await udp.start("carbon_udp", "127.0.0.1", 0, slow_parse, sink, UdpLimits())
    try:
        count = 1_200
        datagram = b"".join(b"a 1 1%b\n" % (b" " * 590) for _ in range(100))
        send(listener.address, *[datagram] * (count // 100))
        await until(lambda: listener.datagrams == count // 100)
        sink.make_room()
        longest = await held_s(lambda: len(sink.points) >= count)
        assert longest < count * LINE_S / 3, longest
    finally:
        listener.close()
        await listener.drain(0.5)


async def test_a_queue_that_would_take_long_is_full() -> None:
    """Whatever its bytes are: what is refused is counted line by line."""

    sink = FakeSink()
    limits = UdpLimits(queue_s_max=0.05)
    listener = await udp.start("carbon_udp", "127.0.0.1", 0, slow_parse, sink, limits)
    try:
        for number in range(20):  # what they cost is learned
            send(listener.address, b"a 1 1\nb 2 2")
            await until(lambda number=number: len(sink.points) == 2 * (number + 1))
        sink.room = 0
        for number in range(200):
            send(listener.address, b"a 1 1\nb 2 2")
            await until(lambda number=number: listener.datagrams == 21 + number)
        sink.make_room()
        await until(lambda: len(sink.points) + sink.rejected[Reason.OVERLOAD] == 440)
        # 50 ms at 0.5 ms a line, and the first buffer
        assert 250 < sink.rejected[Reason.OVERLOAD] < 400
    finally:
        listener.close()
        await listener.drain(0.5)
