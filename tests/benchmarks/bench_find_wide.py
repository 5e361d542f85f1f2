"""What a find over very many nodes in one branch does to all else: a real server, asked in each format; printed, never asserted.

python -m tests.benchmarks.bench_find_wide [--series 1000000] [--only json,expand] [--front]

The client is a process of its own, as is the one that asks /healthz all the time and the sender whose points show that
ingestion goes on. Memory is the server's resident memory, most of it while the answer is made, against before.
``--front``: a second server without series is asked, which asks the first.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.acceptance.process import ServerProcess, wait_for
from tests.adversity.health_watch import HealthWatch

PART = 50_000  # names that are sent at once
CASES = {
    "json": "/metrics/find?query=wide.branch.*&format=json",
    "completer": "/metrics/find?query=wide.branch.*&format=completer",
    "treejson": "/metrics/find?query=wide.branch.*&format=treejson",
    "nodelist": "/metrics/find?query=wide.branch.*&format=nodelist",
    "pickle": "/metrics/find?query=wide.branch.*&format=pickle",
    "msgpack": "/metrics/find?query=wide.branch.*&format=msgpack",
    "leavesOnly": "/metrics/find?query=wide.branch.*&format=json&leavesOnly=1",
    "pattern": "/metrics/find?query=wide.branch.?*0[0-9]&format=json",
    "pretty": "/metrics/find?query=wide.branch.*&format=completer&pretty=1",
    "expand": "/metrics/expand?query=wide.branch.*",
    "groupByExpr": "/metrics/expand?query=wide.branch.*&groupByExpr=1",
    "index": "/metrics/index.json",
}
WIDE = (
    "--find-nodes-max=20000000",
    "--response-bytes-max=2000000000",
    "--series-new-burst=20000000",
    "--series-new-per-s=0",
    "--series-new-prefix-burst=20000000",
    "--series-new-prefix-per-s=0",
    "--cluster-timeout-s=60",
)


def seed(server: ServerProcess, series: int) -> None:
    with socket.create_connection(("127.0.0.1", server.ports["carbon"])) as sock:
        now_s = b"%d" % time.time()
        for first in range(0, series, PART):
            numbers = range(first, min(series, first + PART))
            sock.sendall(b"".join(b"wide.branch.s%07d 1 %b\n" % (n, now_s) for n in numbers))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)


def ask(port: int, path: str, gzip: bool) -> None:
    """Prints how long the answer took until it was read, and its size."""
    begin = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("GET", path, headers={"Accept-Encoding": "gzip"} if gzip else {})
    answer = connection.getresponse()
    first = time.monotonic() - begin
    size = 0
    while chunk := answer.read(1 << 20):
        size += len(chunk)
    took = time.monotonic() - begin
    print(f"{answer.status}, {took:6.2f} s ({first:5.2f} until it began), {size / 1e6:6.1f} MB")


def send(port: int) -> None:
    """One point of 100 series a tenth of a second, each on its way when the one before is acknowledged."""
    while True:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"".join(b"beside.s%d 1 %d\n" % (n, time.time()) for n in range(100)))
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)
        time.sleep(0.1)


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


class Memory:
    """``with Memory(pid) as memory``: ``grew_mb``, at most, looked at 50 times a second."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.before_mb = self.most_mb = resident_mb(pid)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self.most_mb = max(self.most_mb, resident_mb(self.pid))

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()


def child(role: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.benchmarks.bench_find_wide", "--role", role]
    return subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def measure(server: ServerProcess, case: str, gzip: bool) -> None:
    assert server.process is not None
    received = server.sum_of("tgres_points_received_total")
    begin = time.monotonic()
    with HealthWatch(server, quiet=True) as health, Memory(server.process.pid) as memory:
        out = child("ask", server.ports["http"], CASES[case], int(gzip)).communicate()[0].strip()
    points_s = (server.sum_of("tgres_points_received_total") - received) / (
        time.monotonic() - begin
    )
    print(
        f"{case:11} {out} | /healthz p50 {health.took_s(0.5) * 1e3:5.1f}, p99 {health.took_s(0.99) * 1e3:6.1f}, "
        f"max {health.took_s(1.0) * 1e3:6.1f} ms | {memory.most_mb - memory.before_mb:+5.0f} MB at most, "
        f"{resident_mb(memory.pid) - memory.before_mb:+5.0f} MB after | {points_s:.0f} points/s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--role")
    parser.add_argument("--series", type=int, default=1_000_000)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--gzip", action="store_true")
    parser.add_argument("--front", action="store_true")
    parser.add_argument("rest", nargs="*")
    given = parser.parse_args()
    if given.role == "ask":
        port, path, gzip = given.rest
        ask(int(port), path, gzip == "1")
        return
    if given.role == "send":
        send(int(given.rest[0]))
        return
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        server = ServerProcess(Path(one), *WIDE, retentions="10s:1h")
        front = None
        try:
            server.start()
            begin = time.monotonic()
            seed(server, given.series)
            wait_for(lambda: server.metrics()["tgres_series"] >= given.series, "all series", 120)
            print(f"{given.series:,} series after {time.monotonic() - begin:.0f} s", flush=True)
            asked = server
            if given.front:
                peer = f"--cluster-peers=http://127.0.0.1:{server.ports['http']}"
                asked = front = ServerProcess(Path(other), *WIDE, peer, retentions="10s:1h")
                front.start()
            server.get("/metrics/find?query=*")  # the index of names is up to date
            time.sleep(5)  # rows of the new series are written
            sender = child("send", asked.ports["carbon"])
            try:
                for case in given.only.split(","):
                    measure(asked, case, given.gzip)
            finally:
                sender.kill()
                sender.wait()
        finally:
            if front is not None:
                front.close()
            server.close()


if __name__ == "__main__":
    main()
