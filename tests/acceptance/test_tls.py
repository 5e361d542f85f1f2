"""Each listener of a real server behind TLS and an allow-list: what doesn't belong there ends, is counted, and costs
nobody else anything.
"""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import struct
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess, wait_for
from tgres_py.accept import HANDSHAKES_MAX
from tgres_py.tls import HANDSHAKE_S, Tls

PEMS = Path(__file__).parent.parent / "data" / "tls"
STREAMS = ("http", "carbon", "pickle", "statsd_tcp", "statsd_mgmt")
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
CONFIG = """
tls_cert = "cert.pem"
tls_key = "cert.key"
tls_listeners = ["http", "carbon", "pickle", "statsd", "statsd_mgmt"]
http_allow = "127.0.0.1/32"
carbon_allow = "127.0.0.1/32"
pickle_allow = "127.0.0.1/32"
statsd_allow = "127.0.0.1/32"
"""


class TlsServer(ServerProcess):
    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            f"--config={folder / 'tgres.toml'}",
            "--statsd=127.0.0.1:0",
            "--statsd-mgmt=127.0.0.1:0",
        )
        (folder / "tgres.toml").write_text(CONFIG)
        self.certificate("one")

    def start(self) -> None:
        super().start()
        # statsd's addresses are told after those that every server has
        wait_for(lambda: self._listens() and self.ports.keys() >= set(STREAMS), "all ports")

    def certificate(self, name: str) -> None:
        for kind in ("pem", "key"):
            shutil.copy(PEMS / f"{name}.{kind}", self.folder / f"cert.{kind}")
        if self.process is not None:
            before = len(self.log)
            self.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "reloaded: " in self.log[before:], "reloaded")

    def get(self, path: str, timeout_s: float = 30.0) -> tuple[int, bytes]:
        url = f"https://{HERE}:{self.ports['http']}{path}"
        try:
            with urllib.request.urlopen(url, timeout=timeout_s, context=trusting("one")) as answer:
                return answer.status, answer.read()
        except OSError:
            return 0, b""

    def connect(self, listener: str, source: str = HERE) -> socket.socket:
        return socket.create_connection(
            (HERE, self.ports[listener]), timeout=30, source_address=(source, 0)
        )

    def encrypted(self, listener: str, context: ssl.SSLContext) -> ssl.SSLSocket:
        return context.wrap_socket(self.connect(listener), server_hostname=HERE)

    def handshakes_failed(self, listener: str) -> float:
        metrics = self.metrics()
        if listener == "http":
            return metrics['tgres_http_connections_refused_total{reason="handshake"}']
        return metrics[f'tgres_receiver_handshakes_failed_total{{receiver="{listener}"}}']

    def forbidden(self, listener: str) -> float:
        metrics = self.metrics()
        if listener == "http":
            return metrics['tgres_http_connections_refused_total{reason="forbidden"}']
        return metrics[f'tgres_receiver_forbidden_total{{receiver="{listener}"}}']


def trusting(name: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(PEMS / f"{name}.pem"))


def ended(sock: socket.socket) -> bool:
    """Whether the server closes the connection, whatever it says before."""
    try:
        while sock.recv(4_096):
            pass
    except ConnectionError:
        pass
    return True


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path_factory.mktemp("tls"))
    server.start()
    yield server
    server.close()


def test_each_listener_reads_what_comes_over_tls(server: TlsServer) -> None:
    now_s = int(time.time())
    pickled = b"(lp0\n(Vpickled\n(I%d\nF1.0\ntta." % now_s
    for listener, sent in (
        ("carbon", b"plain 1 %d\n" % now_s),
        ("pickle", struct.pack("!L", len(pickled)) + pickled),
        ("statsd_tcp", b"counted:1|c\n"),
    ):
        with server.encrypted(listener, trusting("one")) as sock:
            sock.sendall(sent)
    with server.encrypted("statsd_mgmt", trusting("one")) as sock:
        sock.sendall(b"health\n")
        assert b"health: up" in sock.recv(1_000)
    wait_for(
        lambda: server.sum_of("tgres_points_stored_total") == 2, "the points of carbon and pickle"
    )
    wait_for(lambda: server.sum_of("tgres_statsd_lines_total") == 1, "statsd's line")


@pytest.mark.parametrize("listener", STREAMS)
@pytest.mark.parametrize(
    "sent",
    [b"a.plain.line 1 100\n", b"GET /version HTTP/1.1\r\n\r\n", bytes(range(256)), b""],
    ids=["line", "http", "garbage", "nothing"],
)
def test_what_is_no_tls_ends_there(server: TlsServer, listener: str, sent: bytes) -> None:
    failed, lines = server.handshakes_failed(listener), server.sum_of("tgres_statsd_lines_total")
    with server.encrypted(listener, trusting("one")) as open_, server.connect(listener) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        assert ended(sock)
        wait_for(lambda: server.handshakes_failed(listener) == failed + 1, "it is counted")
        open_.sendall(b"\n" if listener != "statsd_mgmt" else b"health\n")
    assert server.sum_of("tgres_statsd_lines_total") == lines
    assert not server.render("a.plain.line", 0, 1_000)


@pytest.mark.parametrize("listener", STREAMS)
def test_old_tls_is_refused(server: TlsServer, listener: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    failed = server.handshakes_failed(listener)
    with pytest.raises(ssl.SSLError) as refused:
        server.encrypted(listener, context)
    # uvloop hangs up without a word
    assert refused.value.reason in (
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "UNEXPECTED_EOF_WHILE_READING",
    )
    assert server.handshakes_failed(listener) == failed + 1
    # whatever the system's OpenSSL would allow
    own = Tls(PEMS / "one.pem", PEMS / "one.key").context
    assert own.minimum_version == ssl.TLSVersion.TLSv1_2


def test_an_expired_certificate_is_renewed_without_a_restart(server: TlsServer) -> None:
    sender = server.encrypted("carbon", trusting("one"))
    server.certificate("expired")
    for listener in STREAMS:
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            server.encrypted(listener, trusting("expired"))
    server.certificate("one")
    for listener in STREAMS:
        server.encrypted(listener, trusting("one")).close()
    stored = server.sum_of("tgres_points_stored_total")
    sender.sendall(b"renewed 1 %d\n" % time.time())
    wait_for(lambda: server.sum_of("tgres_points_stored_total") == stored + 1, "it lives on")
    sender.close()


@pytest.mark.parametrize("listener", STREAMS)
def test_handshakes_that_never_end_hold_nobody_up(server: TlsServer, listener: str) -> None:
    failed = server.handshakes_failed(listener)
    silent = [server.connect(listener) for _ in range(HANDSHAKES_MAX + 10)]
    try:
        for _ in range(3):
            server.encrypted(listener, trusting("one")).close()
        silent[0].settimeout(HANDSHAKE_S / 2)
        assert ended(silent[0]), "the oldest gives way"
        wait_for(lambda: server.handshakes_failed(listener) - failed >= 10, "they are counted")
    finally:
        for sock in silent:
            sock.close()


def test_each_listener_counts_whom_it_keeps_out(server: TlsServer) -> None:
    for listener in STREAMS:
        before = server.forbidden(listener)
        with server.connect(listener, ELSEWHERE) as sock:
            assert ended(sock)
        assert server.forbidden(listener) == before + 1
    for listener in ("carbon_udp", "statsd"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((ELSEWHERE, 0))
            sender.sendto(b"a:1|c\n", (HERE, server.ports[listener]))
        wait_for(lambda listener=listener: server.forbidden(listener) == 1, listener)  # type: ignore[misc]  # mypy infers no types of a lambda's defaults


def test_each_listener_says_how_many_it_refused(server: TlsServer) -> None:
    metrics = server.metrics()
    for listener in STREAMS[1:]:
        assert f'tgres_receiver_connections_refused_total{{receiver="{listener}"}}' in metrics
    assert 'tgres_http_connections_refused_total{reason="limit"}' in metrics
