"""Connections without end: idle ones, slow ones, more than there are places or open files for."""

from __future__ import annotations

import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess, wait_for
from tests.adversity.health_watch import HealthWatch
from tests.overload.senders import Rounds, Sender, check_stored, run_all
from tgres_py.memory import MIB, TLS_CONNECTION_BYTES, shares
from tgres_py.places import OWN_FILES, Places, places

PEMS = Path(__file__).parents[1] / "data" / "tls"
IDLE_BYTES_MAX = 16_384  # of memory, for a connection that says nothing
CARBON = 'tgres_receiver_connections{receiver="carbon"}'
REFUSED = 'tgres_receiver_connections_refused_total{receiver="carbon"}'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path)
    yield server
    server.close()


@contextmanager
def connections(port: int, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open connections that have sent ``first``. They are this process's open files, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 256:
        pytest.skip(f"{hard} files may be open here, not {count + 256}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with ExitStack() as opened:
            socks = []
            for _ in range(count):
                sock = socket.create_connection(("127.0.0.1", port), timeout=60)
                socks.append(opened.enter_context(sock))
                if first:
                    sock.sendall(first)
            yield socks
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident(server: ServerProcess) -> float:
    return server.metrics()["process_resident_memory_bytes"]


def ended(sock: socket.socket) -> bool:
    """Whether the other side has closed it."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("count", [300, pytest.param(5_000, marks=pytest.mark.slow)])
def test_idle_connections_are_in_nobody_s_way(server: ServerProcess, count: int) -> None:
    """As many as there are places for, silent or with half a line each, two working ones among them."""
    server.options = (f"--connections-max={count}",)
    server.start()
    before = resident(server)
    rounds = [Rounds(number, 200, 50, int(time.time()) - 100) for number in range(2)]
    with (
        HealthWatch(server) as health,
        connections(server.ports["carbon"], count - 2 - count // 10) as idle,
        connections(server.ports["carbon"], count // 10, b"half.a.li") as halves,
    ):
        wait_for(lambda: server.metrics()[CARBON] == count - 2, "all are accepted")
        took = (resident(server) - before) / count
        run_all([Sender(server.ports["carbon"], one.lines()).run for one in rounds])
        with connections(server.ports["carbon"], 5) as others:
            wait_for(lambda: server.metrics()[REFUSED] >= 3, "those beyond the limit are refused")
            assert sum(ended(sock) for sock in others[-3:]) == 3
        for sock in (idle[0], halves[0]):  # they were only silent
            sock.sendall(b"ne 7 1\nnext 7 1\n")
    health.check()
    print(f"{count} idle connections: {took:,.0f} bytes each")
    assert took < IDLE_BYTES_MAX
    wait_for(lambda: server.metrics()[CARBON] == 0, "they are gone")
    rejected = server.metrics()
    # the torn lines of those that broke off; old timestamps of the two
    assert rejected['tgres_points_dropped_total{reason="malformed"}'] <= count // 10
    assert rejected['tgres_points_dropped_total{reason="too_old"}'] == 4
    assert rejected["tgres_points_stored_total"] == sum(one.points for one in rounds)
    check_stored(server, rounds)


@pytest.mark.slow
def test_idle_http_connections_leave_room(server: ServerProcess) -> None:
    """Fewer than there are places for: the next request is answered; more are closed at once, and counted."""
    server.options = ("--http-connections-max=200",)
    server.start()
    with HealthWatch(server) as health, connections(server.ports["http"], 190):
        time.sleep(1)
    health.check()
    with connections(server.ports["http"], 210) as socks:
        assert ended(socks[-1])
    wait_for(server.is_ready, "HTTP answers again")
    assert server.sum_of("tgres_http_connections_refused_total") >= 10


def test_one_byte_at_a_time(server: ServerProcess) -> None:
    """Slow senders, each byte a packet of its own: all that they say arrives."""
    server.start()
    line = b"slow.sender 1.5 %d\n" % (time.time() - 10)
    stop = threading.Event()

    def drip(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(line)):
            sock.sendall(line[at : at + 1])
            stop.wait(0.05)

    one = Rounds(0, 500, 100, int(time.time()) - 200)
    with (
        HealthWatch(server) as health,
        connections(server.ports["carbon"], 50) as socks,
    ):
        slow = [lambda sock=sock: drip(sock) for sock in socks]
        run_all([*slow, Sender(server.ports["carbon"], one.lines()).run])
    health.check()
    wait_for(lambda: server.metrics()[CARBON] == 0, "they are gone")
    metrics = server.metrics()
    assert metrics["tgres_points_stored_total"] == one.points + 1
    assert metrics["tgres_points_overwritten_total"] == 49
    assert server.imbalance() == 0


def test_few_open_files_are_shared_and_never_run_out(server: ServerProcess) -> None:
    """What senders leave open can't take the files of HTTP, journal and PostgreSQL."""
    limit = 256
    server.launch(open_files=limit)
    wait_for(server.is_ready, "ready")
    got = places(Places(5_000, 2_000, limit))
    assert f"{limit} files may be open" in server.log
    assert f"{got.tcp} connections of senders and {got.http} of HTTP" in server.log
    one = Rounds(0, 100, 50, int(time.time()) - 100)
    with (
        connections(server.ports["carbon"], 2 * limit) as idle,
        HealthWatch(server) as health,
    ):
        wait_for(lambda: ended(idle[-1]), "the last is refused")
        assert server.metrics()[CARBON] == got.tcp
        assert server.metrics()["process_open_fds"] < limit - OWN_FILES / 2
        idle[0].sendall(one.lines())
        wait_for(lambda: server.sum_of("tgres_points_stored_total") == one.points, "stored")
    health.check()
    assert "can't accept" not in server.log
    check_stored(server, [one])
    assert "Too many open files" not in server.log


def test_handshakes_without_end_take_no_other_files(server: ServerProcess) -> None:
    """TLS clients that say nothing are connections like others: journal and PostgreSQL keep their files."""
    limit = 256
    server.options = (
        f"--tls-cert={PEMS / 'one.pem'}",
        f"--tls-key={PEMS / 'one.key'}",
        "--tls-listeners=carbon,pickle",
    )
    server.launch(open_files=limit)
    wait_for(server.is_ready, "ready")
    got = places(Places(5_000, 2_000, limit))
    trust = ssl.create_default_context(cafile=str(PEMS / "one.pem"))
    one = Rounds(0, 100, 50, int(time.time()) - 100)
    with (
        HealthWatch(server) as health,
        connections(server.ports["carbon"], limit) as silent,
        connections(server.ports["pickle"], limit),
    ):
        assert ended(silent[0]), "the oldest gives way"
        wait_for(
            lambda: server.sum_of("tgres_receiver_handshakes_failed_total") >= 2 * limit - got.tcp,
            "all are accepted",
        )
        assert server.metrics()["process_open_fds"] < limit - OWN_FILES / 2
        raw = socket.create_connection(("127.0.0.1", server.ports["carbon"]), timeout=30)
        with trust.wrap_socket(raw, server_hostname="127.0.0.1") as honest:
            honest.sendall(one.lines())
            wait_for(lambda: server.sum_of("tgres_points_stored_total") == one.points, "stored")
    health.check()
    assert "can't accept" not in server.log
    check_stored(server, [one])
    assert "Too many open files" not in server.log


def test_encrypted_connections_have_their_share_of_memory(server: ServerProcess) -> None:
    """Each sends much at a time and stays; there are no more than the share of memory_max has room for."""
    server.options = (
        "--memory-max=256M",
        f"--tls-cert={PEMS / 'one.pem'}",
        f"--tls-key={PEMS / 'one.key'}",
        "--tls-listeners=carbon",
    )
    server.start()
    count = shares(256 * MIB, tls=True).tls_connections
    assert f"room for {count} TLS connections at a time" in server.log
    port, trust = server.ports["carbon"], ssl.create_default_context(cafile=str(PEMS / "one.pem"))
    one = Rounds(0, 100, 40, int(time.time()) - 100)

    def encrypted(stack: ExitStack) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", port), timeout=60)
        return stack.enter_context(trust.wrap_socket(raw, server_hostname="127.0.0.1"))

    def received() -> float:
        return server.metrics()['tgres_points_received_total{receiver="carbon"}']

    with HealthWatch(server) as health, ExitStack() as opened:
        first = encrypted(opened)  # sends as much as all others: what that takes besides is no connection's
        for _ in range(count):
            first.sendall(one.lines())
        wait_for(lambda: received() == count * one.points, "the first one's")
        before = resident(server)
        for _ in range(count - 1):
            encrypted(opened).sendall(one.lines())
        wait_for(lambda: received() == (2 * count - 1) * one.points, "all that they sent")
        took = (resident(server) - before) / count
        with ExitStack() as further, pytest.raises(OSError):
            encrypted(further)
    health.check()
    print(f"{count} encrypted connections: {took:,.0f} bytes each")
    assert took < TLS_CONNECTION_BYTES
    assert server.metrics()[REFUSED] == 1
    wait_for(lambda: server.metrics()["tgres_tls_connections"] == 0, "they are gone")
    check_stored(server, [one])


def test_without_open_files_it_waits_says_so_once_and_goes_on(server: ServerProcess) -> None:
    """The limit is lowered while it runs: accepting fails, without a storm of tries or log lines."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("prlimit is Linux' only")
    server.start()
    assert server.process is not None
    pid = server.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    opened = int(server.metrics()["process_open_fds"])
    with connections(server.ports["carbon"], 1) as known:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened // 2, hard))
        before = cpu_s(pid)
        with connections(server.ports["carbon"], 20):
            time.sleep(3.0)
            assert cpu_s(pid) - before < 1.0
            known[0].sendall(b"still.read 1 %d\n" % (time.time() - 10))
            time.sleep(0.3)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            wait_for(lambda: server.get("/healthz", 1.0)[0] == 200, "HTTP accepts again")
            wait_for(lambda: server.metrics()[CARBON] == 21, "all are accepted")
    assert server.sum_of("tgres_points_stored_total") == 1
    log = server.log
    assert log.count("carbon can't accept connections") == 1
    assert log.count("carbon accepts connections again") == 1


def cpu_s(pid: int) -> float:
    """CPU of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
