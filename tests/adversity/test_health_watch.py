"""The watch on /healthz blames the server for what is its own, and the machine for the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from tests.acceptance.process import ServerProcess
from tests.adversity.health_watch import HEALTHZ_S, HealthWatch

STALL_S = 2.0
ANSWERS = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Ok(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args): pass
server = HTTPServer(("127.0.0.1", 0), Ok)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    """Something that answers at once, as far as the watch knows it."""
    process = subprocess.Popen([sys.executable, "-c", ANSWERS], stdout=subprocess.PIPE)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    yield cast(ServerProcess, SimpleNamespace(ports={"http": port}, process=process))
    process.kill()
    process.communicate()


def stall(*pids: int) -> None:
    """One after the other, so that the first stands still while the others ask it something."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.3)
    time.sleep(STALL_S)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def test_a_server_that_stalls_is_seen(server: ServerProcess) -> None:
    assert server.process is not None
    with HealthWatch(server) as watch:
        stall(server.process.pid)
        time.sleep(0.3)
    assert max(one.own_s for one in watch.answers) > HEALTHZ_S
    with pytest.raises(AssertionError):
        watch.check()


def test_a_machine_that_stalls_is_no_fault_of_the_server(server: ServerProcess) -> None:
    """Server and watch stand still, in the middle of a question."""
    assert server.process is not None
    with HealthWatch(server) as watch:
        stall(server.process.pid, watch.pid)
        time.sleep(0.3)
    assert max(one.took_s for one in watch.answers) > STALL_S
    watch.check()
