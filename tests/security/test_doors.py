"""The doors: TLS, allow-lists, tokens, CORS, slow and too many connections."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import re
import socket
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from http_api.app import DefaultHttpSettings, make_app
from http_api.gate import GateLimits
from http_api.guard import WRITING, Access
from http_api.listen import HttpListener
from http_api.tags import wrong_method
from receivers import carbon_line, carbon_pickle, tcp, udp
from tests.fake_sink import FakeSink
from tests.fake_source import FakeSource
from tests.loops import on_both_loops
from tests.test_http_render import FakeStatus
from tgres_py import accept, clock
from tgres_py.accept import TlsShare
from tgres_py.cli import client
from tgres_py.errors import BadRequest, ConfigError
from tgres_py.model.networks import KNOWN_MAX, Networks, parse_networks
from tgres_py.tls import HANDSHAKE_S, Tls

PEMS = Path(__file__).parent.parent / "data" / "tls"
TOKEN, ADMIN = "t0ken-of-the-readers", "t0ken-of-the-operators"
HERE = "127.0.0.1"
ELSEWHERE = "192.0.2.0/24"  # of no machine


async def until(condition: Callable[[], bool]) -> None:
    deadline = clock.monotonic() + 60
    while not condition():
        assert clock.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def http(
    limits: GateLimits | None = None, access: Access | None = None, tls: Tls | None = None
) -> AsyncIterator[HttpListener]:
    rules = access or Access()
    app = make_app(FakeSource(), FakeStatus(), DefaultHttpSettings(), access=lambda: rules)
    listener = HttpListener(app, limits, TlsShare(tls.context) if tls else None)
    await listener.start("127.0.0.1", 0)
    try:
        yield listener
    finally:
        await listener.close()


def trusting(name: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(PEMS / f"{name}.pem"))


def tls_of(name: str) -> Tls:
    return Tls(PEMS / f"{name}.pem", PEMS / f"{name}.key")


# -- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("networks", "host", "expected"),
    [
        ("", "203.0.113.9", True),
        ("192.0.2.0/24", "192.0.2.77", True),
        ("192.0.2.0/24", "192.0.3.1", False),
        ("192.0.2.0/24", "::ffff:192.0.2.1", True),
        ("127.0.0.1,2001:db8::/32", "2001:db8::5", True),
        ("2001:db8::/32", "fe80::1%eth0", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("192.0.2.0/24", "", True),  # a unix socket
        ("192.0.2.0/24", "nonsense", False),
    ],
)
def test_networks(networks: str, host: str, expected: bool) -> None:
    assert (host in Networks(parse_networks(networks))) is expected


def test_forged_addresses_take_no_memory() -> None:
    networks = Networks(["192.0.2.0/24"])
    for number in range(3 * KNOWN_MAX):
        assert f"10.0.{number >> 8}.{number & 255}" not in networks
    assert len(networks._known) <= KNOWN_MAX


# -- receivers -----------------------------------------------------------------------------------


async def test_carbon_takes_no_connection_from_elsewhere() -> None:
    sink, allowed = FakeSink(), Networks([ELSEWHERE])
    limits = tcp.TcpLimits(allowed=allowed)
    listener = await tcp.start("carbon", "127.0.0.1", 0, carbon_line.WIRE_FORMAT, sink, limits)
    try:
        _, writer = await asyncio.open_connection(*listener.address)
        writer.write(b"a 1 100\n")
        await until(lambda: listener.acceptor.forbidden == 1)
        writer.close()
        assert not sink.points
        allowed.change(["127.0.0.0/8"])  # as a reload does
        _, writer = await asyncio.open_connection(*listener.address)
        writer.write(b"b 1 100\n")
        await until(lambda: sink.points == [(b"b", 100, 1.0)])
        writer.close()
    finally:
        listener.close()
        await listener.drain(0.2)


async def test_datagrams_from_elsewhere_are_thrown_away_and_counted() -> None:
    sink, allowed = FakeSink(), Networks([ELSEWHERE])
    limits = udp.UdpLimits(allowed=allowed)
    listener = await udp.start("carbon_udp", "127.0.0.1", 0, carbon_line.parse, sink, limits)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"a 1 100", listener.address)
            await until(lambda: listener.forbidden == 1)
            allowed.change(["127.0.0.0/31"])
            sender.sendto(b"b 2 200", listener.address)
            sender.sendto(b"c 3 300\nd 4 400\n", listener.address)
            await until(lambda: len(sink.points) == 3)
        assert sink.points == [(b"b", 200, 2.0), (b"c", 300, 3.0), (b"d", 400, 4.0)]
        assert listener.forbidden == 1
        assert listener.datagrams == 2
    finally:
        listener.close()
        await listener.drain(0.2)


async def test_carbon_over_tls() -> None:
    sink = FakeSink()
    limits = tcp.TcpLimits(tls=TlsShare(tls_of("one").context))
    listener = await tcp.start("carbon", "127.0.0.1", 0, carbon_line.WIRE_FORMAT, sink, limits)
    lines = b"".join(b"a.%d 1 100\n" % number for number in range(50_000))
    try:
        _, plain = await asyncio.open_connection(*listener.address)
        plain.write(b"b 1 100\n")
        _, writer = await asyncio.open_connection(*listener.address, ssl=trusting("one"))
        writer.write(lines)
        await writer.drain()
        await until(lambda: len(sink.points) == 50_000)
        assert not sink.rejected
        assert (b"b", 100, 1.0) not in sink.points
        plain.close()
        writer.close()
    finally:
        listener.close()
        await listener.drain(0.2)


@pytest.mark.parametrize("farewell", [True, False], ids=["farewell", "torn off"])
@on_both_loops
async def test_what_was_sent_before_hanging_up_arrives_over_tls(farewell: bool) -> None:
    """Senders that read nothing, some more than a TLS transport holds."""
    context = trusting("one")

    def send(address: tuple[str, int], lines: bytes) -> None:
        with context.wrap_socket(socket.create_connection(address), server_hostname=HERE) as sock:
            sock.sendall(lines)
            if farewell:
                sock.setblocking(False)
                with suppress(ssl.SSLWantReadError):  # says it, doesn't wait for the answer
                    sock.unwrap()

    sink, limits = FakeSink(), tcp.TcpLimits(tls=TlsShare(tls_of("one").context))
    listener = await tcp.start("carbon", HERE, 0, carbon_line.WIRE_FORMAT, sink, limits)
    try:
        for count in (1, 2_000, 20_000, 100_000):
            sink.points.clear()
            known = listener.accepted
            lines = b"".join(b"a.%d 1 100\n" % number for number in range(count))
            await asyncio.to_thread(send, listener.address, lines)
            await until(lambda known=known: listener.accepted > known)
            await until(lambda: not listener.connections)
            assert (len(sink.points), sink.rejected.total()) == (count, 0)
            assert listener.totals.tail_bytes == 0
        sink.room = len(sink.points) + 1  # the same while there is no room, for a moment
        sender = asyncio.create_task(asyncio.to_thread(send, listener.address, lines))
        await until(lambda: listener.waiting)
        await asyncio.sleep(0.1)
        sink.make_room()
        await sender
        await until(lambda: not listener.connections)
        assert (len(sink.points), sink.rejected.total()) == (200_000, 0)
    finally:
        listener.close()
        await listener.drain(0.2)


HELLO = bytes.fromhex("160301006a010000660303") + bytes(99)  # how a TLS client begins


async def test_tls_on_a_plain_port_harms_nothing_but_itself() -> None:
    async def wait_for_the_end(address: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(HELLO)
        writer.write_eof()
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()

    sink = FakeSink()
    for wire in (carbon_line.WIRE_FORMAT, carbon_pickle.wire_format(1 << 20)):
        listener = await tcp.start("carbon", "127.0.0.1", 0, wire, sink)
        try:
            _, writer = await asyncio.open_connection(*listener.address)
            await wait_for_the_end(listener.address)
            assert not sink.points and sum(sink.rejected.values()) == 1
            sink.rejected.clear()
            if wire is carbon_line.WIRE_FORMAT:
                writer.write(b"a 1 100\n")
                await until(lambda: sink.points == [(b"a", 100, 1.0)])
                sink.points.clear()
            writer.close()
        finally:
            listener.close()
            await listener.drain(0.2)


@on_both_loops
async def test_a_handshake_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "HANDSHAKE_S", 0.1)

    limits = tcp.TcpLimits(tls=TlsShare(tls_of("one").context))
    sink = FakeSink()
    listener = await tcp.start("carbon", "127.0.0.1", 0, carbon_line.WIRE_FORMAT, sink, limits)
    try:
        for sent in (b"", HELLO[:20]):
            reader, writer = await asyncio.open_connection(*listener.address)
            writer.write(sent)
            async with asyncio.timeout(10):
                assert await reader.read() == b""
            writer.close()
        await until(lambda: listener.acceptor.failed == 2)
        assert listener.totals.connections == 0
        await until(lambda: not listener.acceptor._joining and not listener.acceptor._uncut)
    finally:
        listener.close()
        await listener.drain(0.2)


async def hung_up(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ends the connection within some seconds."""
    try:
        async with asyncio.timeout(10):
            return await reader.read() == b""
    except ConnectionResetError:
        return True


@on_both_loops
async def test_handshakes_take_places_of_connections_and_give_way() -> None:
    sink, totals = FakeSink(), tcp.Totals()
    listeners = [
        await tcp.start(
            label,
            "127.0.0.1",
            0,
            carbon_line.WIRE_FORMAT,
            sink,
            tcp.TcpLimits(connections_max=3, tls=context),
            totals,
        )
        for label, context in (("tls", TlsShare(tls_of("one").context)), ("plain", None))
    ]
    encrypted, plain = listeners
    try:
        silent = []
        for _ in range(5):
            silent.append(await asyncio.open_connection(*encrypted.address))
            await until(lambda: encrypted.acceptor.failed + len(totals.handshakes) == len(silent))
            assert len(totals.handshakes) <= 3
        assert await hung_up(silent[0][0]) and await hung_up(silent[1][0])
        assert (encrypted.acceptor.failed, encrypted.refused) == (2, 0)
        _, one = await asyncio.open_connection(*plain.address)
        one.write(b"a 1 100\n")
        assert await hung_up(silent[2][0]), "whoever comes without TLS gets a place, too"
        _, two = await asyncio.open_connection(*encrypted.address, ssl=trusting("one"))
        two.write(b"b 1 100\n")
        await until(lambda: len(sink.points) == 2)
        await until(lambda: totals.connections + len(totals.handshakes) == 3)
        _, three = await asyncio.open_connection(*plain.address)
        assert await hung_up(silent[4][0])
        await until(lambda: (totals.connections, len(totals.handshakes)) == (3, 0))
        late, writer = await asyncio.open_connection(*encrypted.address)
        assert await hung_up(late), "no place: not even a handshake"
        assert (encrypted.refused, plain.refused) == (1, 0)
        for _, stream in silent:
            stream.close()
        for stream in (one, two, three, writer):
            stream.close()
    finally:
        for listener in listeners:
            listener.close()
            await listener.drain(0.2)


@on_both_loops
async def test_all_listeners_share_the_places_of_tls() -> None:
    """Each encrypted connection takes memory; who comes without TLS takes none of it."""
    share = TlsShare(tls_of("one").context, connections_max=3)
    sink, wire = FakeSink(), carbon_line.WIRE_FORMAT
    encrypted = await tcp.start("tls", HERE, 0, wire, sink, tcp.TcpLimits(tls=share))
    plain = await tcp.start("plain", HERE, 0, wire, sink, tcp.TcpLimits())
    app = make_app(FakeSource(), FakeStatus(), DefaultHttpSettings())
    web = HttpListener(app, None, share)
    await web.start(HERE, 0)
    trust = trusting("one")
    try:
        silent = [await asyncio.open_connection(*web.address) for _ in range(5)]
        assert await hung_up(silent[0][0]) and await hung_up(silent[1][0])
        await until(lambda: web.acceptor.failed == 2)
        opened = []
        for number, listener in enumerate((encrypted, web, encrypted)):
            opened.append(await asyncio.open_connection(*listener.address, ssl=trust))
            assert await hung_up(silent[2 + number][0]), "whoever comes next gets the oldest's place"
        await until(lambda: (share.open, len(share.handshakes)) == (3, 0))
        assert (web.refused, encrypted.refused) == (0, 0)
        for listener in (encrypted, web):
            refused, _ = await asyncio.open_connection(*listener.address)
            assert await hung_up(refused)
            assert listener.refused == 1
        _, writer = await asyncio.open_connection(*plain.address)
        writer.write(b"a 1 100\n")
        await until(lambda: sink.points == [(b"a", 100, 1.0)])
        writer.close()
        opened.pop()[1].close()
        await until(lambda: share.free == 1)
        opened.append(await asyncio.open_connection(*encrypted.address, ssl=trust))
        opened[-1][1].write(b"b 1 100\n")
        await until(lambda: len(sink.points) == 2)
        for _, stream in (*silent, *opened):
            stream.close()
        await until(lambda: share.open == 0)
    finally:
        await web.close()
        for listener in (encrypted, plain):
            listener.close()
            await listener.drain(0.2)


@on_both_loops
async def test_whose_handshake_is_done_does_not_give_way() -> None:
    """The last places are taken one right after the other; all stay open."""
    share, sink = TlsShare(tls_of("one").context, connections_max=20), FakeSink()
    limits = tcp.TcpLimits(connections_max=20, tls=share)
    listener = await tcp.start("carbon", HERE, 0, carbon_line.WIRE_FORMAT, sink, limits)
    trust = trusting("one")

    def connect_all() -> list[ssl.SSLSocket]:
        address = listener.address
        return [
            trust.wrap_socket(socket.create_connection(address), server_hostname=HERE)
            for _ in range(20)
        ]

    try:
        for _ in range(3):
            opened = await asyncio.to_thread(connect_all)
            await until(lambda: share.open == 20)
            assert (listener.acceptor.failed, listener.refused) == (0, 0)
            for sock in opened:
                sock.close()
            await until(lambda: share.open == 0)
    finally:
        listener.close()
        await listener.drain(0.2)


async def test_handshakes_take_places_of_http() -> None:
    async with http(GateLimits(connections_max=2), tls=tls_of("one")) as listener:
        address = listener.address
        silent = [await asyncio.open_connection(*address) for _ in range(4)]
        assert await hung_up(silent[0][0]) and await hung_up(silent[1][0])
        _, one = await asyncio.open_connection(*address, ssl=trusting("one"))
        assert await hung_up(silent[2][0])
        _, two = await asyncio.open_connection(*address, ssl=trusting("one"))
        assert await hung_up(silent[3][0])
        await until(lambda: listener.counts.open == 2)
        reader, three = await asyncio.open_connection(*address)
        assert await hung_up(reader)
        assert (listener.acceptor.failed, listener.refused) == (4, 1)
        for stream in (one, two, three, *(writer for _, writer in silent)):
            stream.close()


async def test_a_handshake_of_http_has_no_more_time_than_a_head() -> None:
    async with http(GateLimits(read_timeout_s=0.1), tls=tls_of("one")) as listener:
        reader, writer = await asyncio.open_connection(*listener.address)
        async with asyncio.timeout(HANDSHAKE_S / 2):
            assert await hung_up(reader)
        assert (listener.acceptor.failed, listener.counts.open) == (1, 0)
        writer.close()


# -- TLS and its reload --------------------------------------------------------------------------


async def test_https_and_a_new_certificate_without_a_restart() -> None:
    tls = tls_of("one")
    async with http(tls=tls) as listener, aiohttp.ClientSession() as session:
        url = f"https://127.0.0.1:{listener.address[1]}/healthz"

        async def trusted(name: str) -> bool:
            close = {"Connection": "close"}
            try:
                async with session.get(url, ssl=trusting(name), headers=close) as answer:
                    return answer.status == 200
            except aiohttp.ClientConnectorCertificateError:
                return False

        assert await trusted("one")
        assert not await trusted("two")
        with pytest.raises(ConfigError, match=r"one\.pem"):
            tls.reload(PEMS / "one.pem", PEMS / "two.key")
        assert await trusted("one")
        tls.reload(PEMS / "two.pem", PEMS / "two.key")
        assert await trusted("two")
        assert not await trusted("one")


@pytest.mark.parametrize(
    ("cert", "key"), [("one.pem", "two.key"), ("none.pem", "one.key"), ("one.key", "one.pem")]
)
def test_files_that_are_no_certificate_stop_the_start(cert: str, key: str) -> None:
    with pytest.raises(ConfigError, match="tls_cert"):
        Tls(PEMS / cert, PEMS / key)


# -- HTTP: tokens --------------------------------------------------------------------------------


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("path", "authorization", "status"),
    [
        ("/healthz", None, 200),
        ("/readyz", None, 200),
        ("/version", None, 401),
        ("/", None, 401),
        ("/no/such/path", None, 401),
        ("/metrics/find?query=*", None, 401),
        ("/version", f"Bearer {TOKEN}", 200),
        ("/version", f"bearer  {TOKEN}", 200),
        ("/version", f"Bearer {ADMIN}", 200),
        ("/version", f"Bearer {TOKEN[:-1]}", 401),
        ("/version", f"Bearer {TOKEN}x", 401),
        ("/version", "Bearer ", 401),
        ("/version", "Bearer é", 401),
        ("/version", TOKEN, 401),
        ("/version", basic(f"anybody:{TOKEN}"), 200),
        ("/version", basic(f"{TOKEN}:"), 401),
        ("/version", basic(TOKEN), 401),
        ("/version", "Basic ???", 401),
        ("/healthz/", None, 401),
        ("/admin/", f"Bearer {ADMIN}", 404),  # no admin verbs in this application
    ],
)
async def test_the_token_of_http(path: str, authorization: str | None, status: int) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    async with http(access=Access(TOKEN, ADMIN)) as listener, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{listener.address[1]}{path}"
        async with session.get(url, headers=headers) as answer:
            assert answer.status == status
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            if status == 401:
                assert answer.headers["WWW-Authenticate"].startswith("Basic")
                assert answer.content_type == "text/plain"
                assert TOKEN not in await answer.text()


async def test_the_commands_send_their_token(monkeypatch: pytest.MonkeyPatch) -> None:
    async with http(access=Access(TOKEN)) as listener:
        url = f"http://127.0.0.1:{listener.address[1]}"
        ask = client.post, url, "/metrics/find", [("query", "*")]
        monkeypatch.delenv("TGRES_TOKEN", raising=False)
        with pytest.raises(BadRequest, match="token"):
            await asyncio.to_thread(*ask)
        monkeypatch.setenv("TGRES_TOKEN", TOKEN)
        assert await asyncio.to_thread(*ask) == []


# -- HTTP: CORS ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origins", "origin", "expected"),
    [
        ((), "https://evil.example", None),
        (("https://grafana.example",), "https://evil.example", None),
        (("https://grafana.example",), "https://grafana.example", "https://grafana.example"),
        (("*",), "https://any.example", "https://any.example"),
    ],
)
async def test_cors(origins: tuple[str, ...], origin: str, expected: str | None) -> None:
    access = Access(TOKEN, cors_origins=origins)
    async with http(access=access) as listener, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{listener.address[1]}/version"
        headers = {"Origin": origin, "Authorization": f"Bearer {TOKEN}"}
        async with session.get(url, headers=headers) as answer:
            assert answer.headers.get("Access-Control-Allow-Origin") == expected
            assert ("Origin" in answer.headers.get("Vary", "")) == bool(origins)
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        async with session.options(url, headers=asks) as answer:
            assert answer.status == (204 if expected else 401)
            assert answer.headers.get("Access-Control-Allow-Origin") == expected
            assert "Access-Control-Allow-Credentials" not in answer.headers


WRITES = {
    "/events": b'{"what": "x"}',
    "/events/": b'{"what": "x"}',
    "/tags/tagSeries": b"path=a.b;c=d",
    "/tags/tagMultiSeries": b"path=a.b;c=d",
    "/tags/delSeries": b"path=a.b;c=d",
}


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize(
    ("origin", "allowed", "status"),
    [
        (None, (), 200),  # no browser
        ("http://tgres.example:8080", (), 200),  # a page of this server
        ("https://tgres.example:8080", (), 200),  # behind a proxy that does TLS
        ("http://evil.example", (), 403),
        ("http://tgres.example:8081", (), 403),
        ("null", (), 403),
        ("http://evil.example/tgres.example:8080", (), 403),
        ("https://grafana.example", ("https://grafana.example",), 200),
        ("https://any.example", ("*",), 200),
    ],
)
async def test_pages_of_other_hosts_write_nothing(
    path: str, origin: str | None, allowed: tuple[str, ...], status: int
) -> None:
    """A form needs no permission to be sent, and browsers add the password that they know (CSRF)."""
    access = Access(TOKEN, cors_origins=allowed)
    headers = {"Authorization": basic(f"x:{TOKEN}"), "Host": "tgres.example:8080"}
    headers |= {"Origin": origin} if origin else {}
    async with http(access=access) as listener, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{listener.address[1]}"
        async with session.post(url + path, data=WRITES[path], headers=headers) as answer:
            assert answer.status == status, await answer.text()
        asked = b"target=a&format=json"
        async with session.post(f"{url}/render", data=asked, headers=headers) as answer:
            assert answer.status == 200, "reading changes nothing"


def test_what_writes_is_asked_for_its_page() -> None:
    """A new route for POST only is either no change or one of WRITING."""
    app = make_app(FakeSource(), FakeStatus())
    methods: dict[str, set[str]] = {}
    for route in app.router.routes():
        if route.resource is not None and route.handler is not wrong_method:
            path = route.resource.canonical.rstrip("/")
            methods.setdefault(path, set()).add(route.method)
    posted = {path for path, of in methods.items() if "POST" in of and "GET" not in of}
    assert posted | {"/events"} == WRITING


# -- HTTP: connections ---------------------------------------------------------------------------


async def raw(listener: HttpListener, data: bytes) -> bytes:
    """What comes until the server closes."""
    reader, writer = await asyncio.open_connection(*listener.address)
    writer.write(data)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_http_takes_no_connection_from_elsewhere() -> None:
    async with http(GateLimits(allowed=Networks([ELSEWHERE]))) as listener:
        assert await raw(listener, b"GET /healthz HTTP/1.0\r\n\r\n") == b""
        assert (listener.acceptor.forbidden, listener.counts.open) == (1, 0)


async def test_connections_beyond_the_limit_are_closed() -> None:
    async with http(GateLimits(connections_max=2)) as listener:
        held = [await asyncio.open_connection(*listener.address) for _ in range(2)]
        await until(lambda: listener.counts.open == 2)
        assert await raw(listener, b"GET /healthz HTTP/1.0\r\n\r\n") == b""
        assert listener.refused == 1
        held[0][1].close()
        await until(lambda: listener.counts.open == 1)
        assert b" 200 " in await raw(listener, b"GET /healthz HTTP/1.0\r\n\r\n")
        held[1][1].close()


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: b\r\n"],
    ids=["nothing", "half a line", "no end of the headers"],
)
async def test_a_slow_head_ends_the_connection(sent: bytes) -> None:
    async with http(GateLimits(read_timeout_s=0.1)) as listener:
        answer = await raw(listener, sent)
        assert b"408 Request Timeout" in answer
        assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer
        assert listener.counts.timed_out == 1
        await until(lambda: listener.counts.open == 0)


async def test_a_slow_second_head_ends_the_connection() -> None:
    async with http(GateLimits(read_timeout_s=0.3)) as listener:
        reader, writer = await asyncio.open_connection(*listener.address)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"ok\n")
        writer.write(b"GET /hea")
        async with asyncio.timeout(10):
            assert b"408 Request Timeout" in await reader.read()
        writer.close()


async def test_a_slow_body_ends_the_request() -> None:
    async with http(access=Access(body_s=0.1)) as listener:
        head = b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\ntarget=a"
        assert b" 408 " in await raw(listener, head)
        assert listener.counts.timed_out == 1


LONG_HEAD = b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X-A: %b\r\n" % (b"b" * 7_000)
SHORT_BODY = b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\ntarget=a"
LONG_BODY = b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n"
HALF_BODY = b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Length: 7500\r\n\r\n" + b"a" * 7_000


@asynccontextmanager
async def open_to(listener: HttpListener, sent: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """A connection that has sent this and stays open."""
    reader, writer = await asyncio.open_connection(*listener.address)
    writer.write(sent)
    await writer.drain()
    try:
        yield reader
    finally:
        writer.close()


async def nothing_is_held(listener: HttpListener) -> None:
    await until(lambda: listener.counts.held == 0)


@pytest.mark.parametrize(
    "sent",
    [LONG_HEAD, HALF_BODY, SHORT_BODY + HALF_BODY],
    ids=["head", "body", "second body"],
)
async def test_requests_that_are_together_too_long_are_refused(sent: bytes) -> None:
    """What is small is answered all the same; what is gone counts no longer."""
    async with http(GateLimits(bytes_max=100_000)) as listener, AsyncExitStack() as opened:
        for _ in range(12):
            await opened.enter_async_context(open_to(listener, sent))
        await until(lambda: listener.counts.held > 80_000)
        assert listener.counts.crowded == 0
        reader = await opened.enter_async_context(open_to(listener, LONG_BODY + 50_000 * b"a"))
        async with asyncio.timeout(10):
            answer = await reader.readuntil(b"(memory_max)\n")
        assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in answer
        assert listener.counts.crowded >= 1
        for small in (SHORT_BODY, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"):
            reader = await opened.enter_async_context(open_to(listener, small))
            assert b" 200 " in await reader.readuntil(b"\r\n")
        await opened.aclose()
        await nothing_is_held(listener)


@pytest.mark.parametrize("ended", [True, False], ids=["hung up", "too slow"])
@pytest.mark.parametrize(
    "head",
    [
        b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
        b"POST /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nF4240\r\n",
        b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 1000000\r\n\r\n",
    ],
    ids=["plain", "chunked", "packed"],
)
async def test_a_body_that_does_not_end_is_gone_with_its_connection(
    head: bytes, ended: bool
) -> None:
    """Without a garbage collection, which comes when it comes."""
    access = Access(body_s=60 if ended else 0.2)
    rounds = 5 if ended else 2
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        async with http(GateLimits(bytes_max=64 << 20), access) as listener:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(rounds):
                _, writer = await asyncio.open_connection(*listener.address)
                writer.write(head + 900_000 * b"x")
                await until(lambda number=number: listener.counts.accepted > number)
                if ended:
                    await until(lambda: listener.counts.held > 900_000)
                    writer.transport.abort()
                await until(lambda: listener.counts.open == 0)
                writer.close()
            await asyncio.sleep(0.05)
            assert tracemalloc.get_traced_memory()[0] - before < rounds * 300_000
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
async def test_what_is_packed_counts_as_what_it_may_become(encoding: bytes) -> None:
    body = {b"gzip": gzip.compress, b"deflate": zlib.compress}[encoding](
        b"target=" + b"a" * 900_000
    )
    head = b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
    sent = head % (encoding, len(body)) + body
    for bytes_max, status in ((2_000_000, b" 400 "), (1_000_000, b" 503 ")):
        async with http(GateLimits(bytes_max=bytes_max)) as listener:
            async with open_to(listener, sent) as reader:
                assert status in await reader.readuntil(b"\r\n")
            await nothing_is_held(listener)


@pytest.mark.parametrize(
    ("encoding", "body", "answer"),
    [
        (b"gzip", gzip.compress(b"target=a.b&format=json"), b" 200 "),
        (b"deflate", zlib.compress(b"target=a.b&format=json"), b" 200 "),
        (b"deflate", zlib.compress(b"target=a.b&format=json", wbits=-15), b" 200 "),
        (b"identity", b"target=a.b&format=json", b" 200 "),
        (b"gzip", gzip.compress(b"target=a.b&format=json")[:-9], b"body: it is broken"),
        (b"gzip", b"target=a.b", b"body: it is broken"),
        (b"gzip", gzip.compress(b"a" * (100 << 20)), b" 413 "),
        (b"zstd", b"target=a.b", b"Content-Encoding: gzip and deflate are read"),
    ],
    ids=["gzip", "zlib", "deflate", "plain", "cut", "not packed", "bomb", "another"],
)
async def test_packed_bodies_are_read_within_their_bounds(
    encoding: bytes, body: bytes, answer: bytes
) -> None:
    async with http() as listener:
        head = b"POST /render HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
        assert answer in await raw(listener, head % (encoding, len(body)) + body)


async def test_a_head_beyond_all_room_is_told_so() -> None:
    async with http(GateLimits(bytes_max=9_000)) as listener:
        answer = await raw(listener, LONG_HEAD + LONG_HEAD)
        assert answer.startswith(b"HTTP/1.1 503 ") and answer.endswith(b"(memory_max)\n")
        length = int(re.findall(rb"Content-Length: (\d+)", answer)[0])
        assert len(answer.partition(b"\r\n\r\n")[2]) == length
        await until(lambda: listener.counts.open == 0)
        assert listener.counts.held == 0 and listener.counts.crowded == 1


async def test_an_idle_connection_is_closed() -> None:
    async with http(GateLimits(idle_s=0.1)) as listener:
        got = await raw(listener, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 200 " in got
        assert b"408" not in got


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 1_000 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 20_000 + b"\r\n\r\n",
        b"GET /healthz?" + b"b" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01 no HTTP at all\r\n\r\n",
    ],
    ids=["many headers", "a long header", "a long line", "no HTTP"],
)
async def test_heads_beyond_the_limits_are_refused(head: bytes) -> None:
    async with http() as listener:
        answer = await raw(listener, head)
        assert b" 400 " in answer
        assert b"text/plain" in answer
        assert b"<" not in answer
