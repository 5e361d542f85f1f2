"""Real senders, run against a receiver; each function returns what it sent.

A function raises ``NotInstalled`` with the reason where its sender isn't there.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WAIT_S = 30.0


class NotInstalled(Exception):
    """The sender isn't installed; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One point as it left the sender; ``name`` as sent, tags included."""

    name: str
    time_s: int
    value: float


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to ``log``; at the end it is asked to stop, and made to after a while."""
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# carbon's relay

RELAY_CONF = """\
[relay]
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {line_port}
PICKLE_RECEIVER_INTERFACE = 127.0.0.1
PICKLE_RECEIVER_PORT = {pickle_port}
RELAY_METHOD = consistent-hashing
DESTINATIONS = {host}:{port}:a
DESTINATION_PROTOCOL = pickle
MAX_DATAPOINTS_PER_MESSAGE = 500
MAX_QUEUE_SIZE = 100000
USE_FLOW_CONTROL = True
CARBON_METRIC_INTERVAL = 0
"""


def carbon_relay(host: str, port: int, folder: Path, points: list[Sent]) -> list[Sent]:
    """Sends ``points`` as lines to carbon's relay (PyPI carbon), which sends them on as pickles."""
    script = Path(sys.executable).parent / "carbon-relay.py"
    if importlib.util.find_spec("carbon") is None or not script.exists():
        raise NotInstalled("carbon isn't installed (pip install carbon)")
    line_port = free_port()
    config = folder / "carbon.conf"
    config.write_text(
        RELAY_CONF.format(line_port=line_port, pickle_port=free_port(), host=host, port=port)
    )
    command = [sys.executable, str(script), f"--config={config}", f"--logdir={folder}",
               f"--pidfile={folder / 'relay.pid'}", "--nodaemon", "start"]  # fmt: skip
    (folder / "storage-schemas.conf").write_text("[all]\npattern = .*\nretentions = 60s:1d\n")
    log = folder / "relay.log"
    with running(command, log, GRAPHITE_ROOT=str(folder), GRAPHITE_CONF_DIR=str(folder)) as relay:
        wait_until(lambda: answers(line_port) or relay.poll() is not None, "no carbon-relay.py")
        if relay.poll() is not None:
            raise RuntimeError(log.read_text())
        with socket.create_connection(("127.0.0.1", line_port), timeout=WAIT_S) as sock:
            sock.sendall(b"".join(f"{p.name} {p.value!r} {p.time_s}\n".encode() for p in points))
        time.sleep(3)  # it says nothing when its queue is empty
    return points


# graphyte


def graphyte(host: str, port: int, points: list[Sent], protocol: str = "tcp") -> list[Sent]:
    """Sends points with PyPI graphyte, one connection or datagram each."""
    if importlib.util.find_spec("graphyte") is None:
        raise NotInstalled("graphyte isn't installed (pip install graphyte)")
    module = importlib.import_module("graphyte")
    sender = module.Sender(host, port=port, protocol=protocol, raise_send_errors=True)
    for point in points:
        name, *tags = point.name.split(";")
        sender.send(name, point.value, point.time_s, dict(tag.split("=") for tag in tags))
    return points


# collectd

COLLECTD_CONF = """\
FQDNLookup false
Hostname "h1.example.com"
BaseDir "{folder}"
PIDFile "{folder}/collectd.pid"
Interval 1
LoadPlugin cpu
LoadPlugin load
LoadPlugin memory
LoadPlugin interface
LoadPlugin write_graphite
<Plugin write_graphite>
  <Node "tgres">
    Host "127.0.0.1"
    Port "{port}"
    Protocol "tcp"
    LogSendErrors true
    Prefix "collectd."
    StoreRates true
    AlwaysAppendDS false
    EscapeCharacter "_"
    UseTags {use_tags}
  </Node>
</Plugin>
"""


class Tee:
    """A port that passes everything on to another one and keeps a copy."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.data = bytearray()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                source, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._pass_on, args=(source,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, source: socket.socket) -> None:
        with source, socket.create_connection(self._target, timeout=WAIT_S) as target:
            while data := source.recv(65_536):
                target.sendall(data)
                self.data += data

    def close(self) -> None:
        """No new connections; waits until the old ones have ended."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(WAIT_S)


def collectd(
    host: str, port: int, folder: Path, seconds: float = 6.0, tags: bool = False
) -> list[Sent]:
    """Runs collectd's write_graphite for a while, through a tee that says what it sent."""
    program = shutil.which("collectd") or shutil.which("collectd", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise NotInstalled("collectd isn't installed (apt-get install collectd-core)")
    tee = Tee(host, port)
    config = folder / "collectd.conf"
    config.write_text(
        COLLECTD_CONF.format(folder=folder, port=tee.port, use_tags=str(tags).lower())
    )
    with running([program, "-f", "-C", str(config)], folder / "collectd.log"):
        time.sleep(seconds)
    tee.close()
    return [point for point in map(_sent, bytes(tee.data).splitlines()) if point is not None]


def _sent(line: bytes) -> Sent | None:
    """A line of collectd; None where it had no value yet (``nan``)."""
    name, value, timestamp = line.decode().split()
    number = float(value)
    return None if math.isnan(number) else Sent(name, int(timestamp), number)
