"""What heavy queries do to ingestion: a real server under steady load, without and with each kind of query; printed, never
asserted.

python -m tests.benchmarks.bench_isolation [--seconds 10] [--rate 100000] [--series 5000] [--only sort,json]

A sender gives the rate over one TCP connection. Meanwhile 20 times a second a line is sent on a connection of
its own, and the time counts until the server has read it (ack), and until /render shows it (readable); /healthz is asked, too. Loads and
queries come from processes of their own, so that nothing here waits for Python's lock but the server.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

from tests.acceptance.process import ServerProcess

SEED_S = 4_000  # of history; with 5,000 series 20 M points
PROBES_S = 0.05
ALL = "load.*.*"
CASES: dict[str, list[tuple[str, str]]] = {
    "numpy": [("target", f"stdev(movingAverage({ALL},60),30)"), ("format", "json"), ("maxDataPoints", "10")],
    "sort": [("target", f"limit(sortByTotal(nPercentile({ALL},95)),10)"), ("format", "json")],
    "json": [("target", ALL), ("format", "json")],
    "csv": [("target", ALL), ("format", "csv")],
    "labels": [
        ("target", f"aliasSub(aliasByNode({ALL},1,2),'^(.*)s(.*)$','\\2\\1')"),
        ("target", f"groupByNode({ALL},2,'sum')"),
        ("target", f"grep({ALL},'.*9.*')"),
        ("format", "json"),
        ("from", "-20s"),
    ],
    "picture": [
        ("target", "load.s00*.*"),
        ("format", "png"),
        ("width", "2000"),
        ("height", "1500"),
    ],
    "python": [("target", "holtWintersForecast(load.s000.*,'1h')"), ("format", "json"), ("from", "-3600s")],
}


def names(series: int) -> list[str]:
    return [f"load.s{number // 10:03}.m{number % 10}" for number in range(series)]


def send(port: int, rate: int, series: int, until: float) -> None:
    """Points of all series in turn, at most ``rate`` a second."""
    template = b"".join(b"%b 1.25 @\n" % name.encode() for name in names(series))
    with socket.create_connection(("127.0.0.1", port)) as sock:
        due = time.time()
        while time.time() < until:
            sock.sendall(template.replace(b"@", b"%d" % time.time()))
            due += series / rate
            time.sleep(max(0.0, due - time.time()))


def seed(port: int, series: int) -> None:
    texts = [name.encode() for name in names(series)]
    now_s = int(time.time())
    with socket.create_connection(("127.0.0.1", port)) as sock:
        for time_s in range(now_s - SEED_S, now_s):
            line = b" %d.%02d %d\n" % (time_s % 97, time_s % 89, time_s)
            sock.sendall(line.join(texts) + line)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)


def ask(port: int, query: str, until: float) -> None:
    """The same query again and again; prints how often and how long."""
    took = []
    statuses = set()
    size = 0
    while time.time() < until or not took:
        begin = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        connection.request("GET", "/render?" + query)
        answer = connection.getresponse()
        size = 0
        while chunk := answer.read(1 << 20):
            size += len(chunk)
        statuses.add(answer.status)
        took.append(time.monotonic() - begin)
    print(f"{len(took)} queries, {statistics.median(took):.2f} s each, {size / 1e6:.1f} MB, {statuses}")


class Probe:
    def __init__(self, server: ServerProcess) -> None:
        self.ports = server.ports
        self.number = 0
        self.http = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=600)

    def run(self, seconds: float) -> dict[str, list[float]]:
        out: dict[str, list[float]] = {"ack": [], "readable": [], "healthz": []}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.monotonic()
            ack, readable = self.point()
            out["ack"].append(ack)
            out["readable"].append(readable)
            asked = time.monotonic()
            self.get("/healthz")
            out["healthz"].append(time.monotonic() - asked)
            time.sleep(max(0.0, begin + PROBES_S - time.monotonic()))
        return out

    def get(self, path: str) -> bytes:
        self.http.request("GET", path)
        return self.http.getresponse().read()

    def point(self) -> tuple[float, float]:
        self.number += 1
        begin = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.ports["carbon"])) as sock:
            sock.sendall(b"probe.x %d %d\n" % (self.number, time.time()))
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)
        ack = time.monotonic() - begin
        while True:
            text = self.get("/render?target=probe.x&from=-5s&format=raw").decode()
            values = text.strip().rpartition("|")[2].split(",")
            if f"{self.number}.0" in values:
                return ack, time.monotonic() - begin


def child(role: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.benchmarks.bench_isolation", "--role", role]
    return subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def show(title: str, found: dict[str, list[float]], points_s: float, lag: str) -> None:
    columns = []
    for name, values in found.items():
        at = sorted(values)
        p50, p99 = at[len(at) // 2], at[min(len(at) - 1, len(at) * 99 // 100)]
        columns.append(f"{name} {p50 * 1e3:6.1f} {p99 * 1e3:7.1f} {at[-1] * 1e3:7.1f}")
    print(f"{title:9} {' | '.join(columns)} | {points_s / 1e3:5.0f} k points/s | {lag}", flush=True)


def lag_of(before: dict[str, float], after: dict[str, float]) -> str:
    """The loop's lag: how many looks were later than 30 ms, and than 100 ms."""
    prefix = "tgres_loop_lag_seconds"
    counts = {key: after[key] - before.get(key, 0) for key in after if key.startswith(prefix)}
    total = counts.get(f"{prefix}_count", 0)
    late = [
        f"{total - counts[key]:.0f} > {bound}"
        for bound in ("0.03", "0.1")
        for key in counts
        if f'le="{bound}"' in key
    ]
    return f"loop lag of {total:.0f}: {', '.join(late)}"


def measure(server: ServerProcess, case: str | None, seconds: float) -> None:
    asker = None
    if case is not None:
        pairs = CASES[case]
        if not any(name == "from" for name, _ in pairs):
            pairs = [*pairs, ("from", f"-{SEED_S - 100}s"), ("until", "-100s")]
        query = urllib.parse.urlencode(pairs)
        asker = child("ask", server.ports["http"], query, time.time() + seconds + 1)
        time.sleep(1)
    before = server.metrics()
    begin = time.monotonic()
    found = Probe(server).run(seconds)
    after = server.metrics()
    received = sum(
        after[key] - before.get(key, 0)
        for key in after
        if key.startswith("tgres_points_received_total")
    )
    show(case or "idle", found, received / (time.monotonic() - begin), lag_of(before, after))
    if asker is not None:
        print("         ", asker.communicate()[0].strip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--role")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=int, default=100_000)
    parser.add_argument("--series", type=int, default=5_000)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("rest", nargs="*")
    given = parser.parse_args()
    if given.role == "send":
        port, rate, series, until = given.rest
        send(int(port), int(rate), int(series), float(until))
        return
    if given.role == "ask":
        port, query, until = given.rest
        ask(int(port), query, float(until))
        return
    cases = [case for case in given.only.split(",") if case]
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(
            Path(folder),
            "--log-level=info",
            "--response-bytes-max=1000000000",
            "--query-timeout-s=300",
            retentions="1s:2h",
        )
        try:
            server.start()
            begin = time.monotonic()
            seed(server.ports["carbon"], given.series)
            print(f"seeded in {time.monotonic() - begin:.0f} s; ms: p50, p99, max")
            end = time.time() + 600 + len(cases) * 60
            sender = child("send", server.ports["carbon"], given.rate, given.series, end)
            time.sleep(2)
            try:
                for case in (None, *cases):
                    measure(server, case, given.seconds)
            finally:
                sender.terminate()
                sender.wait()
        finally:
            server.close()


if __name__ == "__main__":
    main()
