"""TLS between a socket and a protocol: pieces, pauses, ends, breaks, and what it holds meanwhile."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.loops import on_both_loops
from tgres_py import clock
from tgres_py.tls import Tls
from tgres_py.tls_stream import HANDSHAKE_BYTES_MAX, PIECE_BYTES, TlsStream

PEMS = Path(__file__).parent / "data" / "tls"


class Reader(asyncio.Protocol):
    """Keeps what came; pauses after each ``pause_after`` bytes until it is asked to go on."""

    def __init__(self, pause_after: int = 1 << 40) -> None:
        self.got = bytearray()
        self.events: list[str] = []
        self.pause_after = pause_after
        self.writable = True
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.got += data
        if len(self.got) >= self.pause_after:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.events.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {type(exc).__name__}" if exc else "lost")

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True


class Buffered(Reader, asyncio.BufferedProtocol):
    """The same with a buffer of its own, of an odd size."""

    buffer = memoryview(bytearray(777))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self.buffer[:nbytes]))


class Served:
    """One connection: the protocol behind TLS, the stream, and the client's socket, not encrypted yet."""

    def __init__(self, reader: Reader, stream: TlsStream, client: socket.socket) -> None:
        self.reader, self.stream, self.client = reader, stream, client
        self.counts = [0, 0]  # opened, closed

    async def encrypt(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(PEMS / "one.pem"))
        return await asyncio.to_thread(
            context.wrap_socket, self.client, server_hostname="127.0.0.1"
        )


@asynccontextmanager
async def served(reader: Reader | None = None, handshake_s: float = 30.0) -> AsyncIterator[Served]:
    reader = reader or Reader()
    counts = [0, 0]

    def count(at: int) -> Callable[[], None]:
        def more() -> None:
            counts[at] += 1

        return more

    loop = asyncio.get_running_loop()
    context = Tls(PEMS / "one.pem", PEMS / "one.key").context
    stream = TlsStream(
        context,
        lambda: reader,
        memoryview(bytearray(PIECE_BYTES)),
        handshake_s,
        count(0),
        count(1),
    )
    stream.shaken.add_done_callback(lambda done: done.exception())  # seen
    here, there = socket.socketpair()
    here.setblocking(False)
    there.settimeout(30)
    await loop.connect_accepted_socket(lambda: stream, here)
    of = Served(reader, stream, there)
    of.counts = counts
    try:
        yield of
    finally:
        stream.abort()
        there.close()
        await until(lambda: counts[0] == counts[1])


async def until(condition: Callable[[], bool]) -> None:
    deadline = clock.monotonic() + 30
    while not condition():
        assert clock.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.002)


def has_more(got: bytearray, than: int) -> bool:
    return len(got) > than


@pytest.mark.parametrize("kind", [Reader, Buffered])
@pytest.mark.parametrize("size", [1, PIECE_BYTES, 1_000_000])
@pytest.mark.parametrize("farewell", [True, False])
@on_both_loops
async def test_all_that_was_sent_comes_before_the_end(
    kind: type[Reader], size: int, farewell: bool
) -> None:
    data = os.urandom(size)

    def send(client: ssl.SSLSocket) -> None:
        client.sendall(data)
        if farewell:
            client.unwrap()  # waits for the server's, too
        client.close()

    async with served(kind()) as of:
        await asyncio.to_thread(send, await of.encrypt())
        await until(lambda: "lost" in of.reader.events)
        assert of.reader.got == data
        assert of.reader.events == ["made", "eof", "lost"]
        assert of.counts == [1, 1]


@pytest.mark.parametrize("kind", [Reader, Buffered])
@on_both_loops
async def test_who_does_not_read_holds_little_and_loses_nothing(kind: type[Reader]) -> None:
    """The socket isn't read meanwhile; the end waits until all before it is read."""
    data = os.urandom(3_000_000)

    def send(client: ssl.SSLSocket) -> None:
        client.sendall(data)
        client.close()

    async with served(kind(pause_after=1)) as of:
        client = await of.encrypt()
        sending = asyncio.create_task(asyncio.to_thread(send, client))
        for _ in range(5):
            before = len(of.reader.got)
            await until(partial(has_more, of.reader.got, before))
            await asyncio.sleep(0.02)
            assert not of.stream.is_reading()
            assert len(of.reader.got) - before <= PIECE_BYTES
            assert of.stream._incoming.pending <= 2 * PIECE_BYTES
            of.reader.pause_after = len(of.reader.got) + 1
            of.stream.resume_reading()
        assert not sending.done()
        while "lost" not in of.reader.events:
            of.stream.resume_reading()
            await asyncio.sleep(0)
        await sending
        assert of.reader.got == data
        assert of.reader.events == ["made", "eof", "lost"]


@on_both_loops
async def test_answers_come_whole_and_with_a_farewell() -> None:
    answer = os.urandom(5_000_000)

    def read(client: ssl.SSLSocket) -> bytes:
        got = bytearray()
        while data := client.recv(1 << 16):  # b"" is a farewell; without one it raises
            got += data
        return bytes(got)

    async with served() as of:
        client = await of.encrypt()
        of.stream.set_write_buffer_limits(50_000)
        of.stream.writelines([answer[:10], answer[10:]])
        assert of.stream.get_write_buffer_size() > 50_000
        await until(lambda: not of.reader.writable)
        reading = asyncio.create_task(asyncio.to_thread(read, client))
        await until(lambda: of.reader.writable)
        of.stream.close()
        of.stream.write(b"too late")
        assert await reading == answer
        client.close()
        await until(lambda: of.reader.events == ["made", "lost"])


@on_both_loops
async def test_a_broken_record_ends_the_connection() -> None:
    async with served() as of:
        client = await of.encrypt()
        await asyncio.to_thread(client.sendall, b"good")
        await until(lambda: of.reader.got == b"good")
        raw = socket.socket(fileno=os.dup(client.fileno()))
        raw.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
        await until(lambda: of.reader.events == ["made", "lost SSLError"])
        assert of.reader.got == b"good"
        raw.close()
        client.close()


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", ssl.SSLError),
        (
            b"\x16\x03\x01\x40\x00\x01\x00\xff\x00\x03\x03" + bytes(HANDSHAKE_BYTES_MAX),
            ConnectionResetError,
        ),
        (b"\x16\x03\x01", TimeoutError),
        (b"", TimeoutError),
    ],
    ids=["no TLS", "without end", "part", "nothing"],
)
@on_both_loops
async def test_what_is_no_handshake_ends(sent: bytes, why: type[OSError]) -> None:
    async with served(handshake_s=0.2 if why is TimeoutError else 30) as of:
        of.client.sendall(sent)
        with pytest.raises(why):
            await of.stream.shaken
        with suppress(ConnectionResetError):  # it sent what nobody read
            while await asyncio.to_thread(of.client.recv, 1_000):  # maybe an alert
                pass
        assert of.counts == [0, 0] and not of.reader.events


@on_both_loops
async def test_who_hangs_up_before_the_handshake_is_done() -> None:
    async with served() as of:
        of.client.close()
        with pytest.raises(OSError):
            await of.stream.shaken
        assert of.counts == [0, 0] and not of.reader.events


@on_both_loops
async def test_what_is_told_of_a_connection() -> None:
    async with served() as of:
        client = await of.encrypt()
        await until(lambda: "made" in of.reader.events)
        stream = of.stream
        assert stream.get_extra_info("sslcontext") is not None
        assert stream.get_extra_info("ssl_object").version() == client.version()
        assert stream.get_extra_info("socket") is not None
        assert stream.get_extra_info("nonsense", 7) == 7
        assert stream.get_protocol() is of.reader and not stream.can_write_eof()
        assert (stream.is_reading(), stream.is_closing()) == (True, False)
        stream.abort()
        assert (stream.is_reading(), stream.is_closing()) == (False, True)
        await until(lambda: of.reader.events == ["made", "lost"])
        client.close()
