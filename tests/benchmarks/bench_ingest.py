"""Prints what a running server and its PostgreSQL take per million points, everything on.

    python -m tests.benchmarks.bench_ingest [--work 10kx300,100kx10,500kx4,churn-10kx20,late-10kx30,udp] [--flush]

Carbon plaintext over one TCP connection, names of about 57 bytes, 10 s points up to now, retention 10s:6h,1m:1d; ``churn``: 10 %
new series each round; ``late``: 5 % of the points come 1 to 6 rounds late; ``udp``: 1,000,000 lines at 200,000 a second. CPU is that of
the server's process and all its children, from the first byte until it has been idle for two seconds. ``--flush`` then asks for all
that is in memory to be written (NOTIFY tgres_flush) and counts that, too: the price of a partial chunk for every series, which the server
itself pays once in sql_freshness_s at most.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import numpy as np

from tests.acceptance.process import ServerProcess, wait_for
from tgres_py.storage.embedded import SETTINGS

STEP_S = 10
PER_HOST = 40
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
WORK = "10kx300,100kx10,500kx4,churn-10kx20,late-10kx30,udp"
UDP_LINES_PER_S = 200_000
DATAGRAM_LINES = 19


def name(series: int, generation: int = 0) -> bytes:
    host, metric = divmod(series, PER_HOST)
    fresh = b"g%d" % generation if generation else b""
    return b"servers.dc%d-eu-west.host%06d%s-web-frontend.cpu.%d.metric%02d" % (
        host % 10, host, fresh, metric % 4, metric,
    )  # fmt: skip


def rounds(kind: str, series: int, count: int) -> Iterator[bytes]:
    """The lines of each round. Values: gauges with two decimals and growing counters in turn."""
    now_s = int(time.time()) // STEP_S * STEP_S
    names = np.array([name(i) for i in range(series)], dtype=object)
    rng = np.random.default_rng(1)
    held: list[tuple[int, list[bytes]]] = []
    for r in range(count):
        if kind == "churn" and r:
            for i in range(series):
                if i // PER_HOST % 10 == r % 10:
                    names[i] = name(i, r)
        at = now_s - (count - 1 - r) * STEP_S
        gauges = rng.integers(0, 10_000, series)
        lines = [
            b"%b %d.%02d %d\n" % (n, g // 100, g % 100, at)
            if i % 2
            else b"%b %d %d\n" % (n, i * 7919 + r * (i % 997), at)
            for i, (n, g) in enumerate(zip(names, gauges.tolist(), strict=True))
        ]
        if kind == "late":
            late = set(rng.choice(series, series // 20, replace=False).tolist())
            held.append((min(count - 1, r + int(rng.integers(1, 7))), [lines[i] for i in late]))
            lines = [line for i, line in enumerate(lines) if i not in late]
            lines += [line for due, some in held if due == r for line in some]
            held = [(due, some) for due, some in held if due != r]
        yield b"".join(lines)


def children(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from children(int(child))


def cpu_s(pid: int) -> float:
    """User and system time of a process and all below it, ended ones included."""
    ticks = 0
    for process in set(children(pid)):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS_PER_S


def until_idle(pid: int) -> float:
    """CPU seconds at the beginning of the first two seconds with less than 5 % of a core."""
    while True:
        before = cpu_s(pid)
        time.sleep(2)
        if cpu_s(pid) - before < 0.1:
            return before


def send(kind: str, server: ServerProcess, payload: list[bytes]) -> None:
    if kind != "udp":
        with socket.create_connection(("127.0.0.1", server.ports["carbon"])) as connection:
            for part in payload:
                connection.sendall(part)
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", server.ports["carbon_udp"]))
        lines = b"".join(payload).splitlines(keepends=True)
        begin = time.monotonic()
        for at in range(0, len(lines), DATAGRAM_LINES):
            sock.send(b"".join(lines[at : at + DATAGRAM_LINES]))
            ahead = begin + at / UDP_LINES_PER_S - time.monotonic()
            if ahead > 0.002:
                time.sleep(ahead)


async def flush(server: ServerProcess) -> None:
    connection = await asyncpg.connect(
        host=str(server.data / "pg"), port=int(SETTINGS.get("port", "5432")), user="tgres", database="postgres"
    )
    await connection.execute("NOTIFY tgres_flush")
    await connection.close()


def measure(work: str, with_flush: bool) -> None:
    kind, _, size = work.rpartition("-")
    if work == "udp":
        kind, size = "udp", "10kx100"
    series_text, _, count = size.partition("x")
    series = int(series_text.replace("k", "000"))
    payload = list(rounds(kind, series, int(count)))
    points = sum(part.count(b"\n") for part in payload)
    with tempfile.TemporaryDirectory(prefix="tgres-bench-") as folder:
        os.chmod(folder, 0o755)  # the embedded PostgreSQL runs under another account
        server = ServerProcess(Path(folder), retentions="10s:6h,1m:1d")
        server.start()
        assert server.process is not None
        pid = server.process.pid
        try:
            begin_cpu, begin = until_idle(pid), time.monotonic()
            send(kind, server, payload)
            if kind != "udp":
                wait_for(
                    lambda: server.sum_of("tgres_points_received_total") >= points, "read", 300
                )
            accepted_s = time.monotonic() - begin
            took = until_idle(pid) - begin_cpu
            metrics = server.metrics()
            kept = metrics["tgres_points_stored_total"] + metrics["tgres_points_overwritten_total"]
            line = (
                f"{work:>14}: {points / accepted_s:>11,.0f} points/s, {took / points * 1e6:6.2f} CPU-s per M, "
                f"kept {100 * kept / points:.2f} %, {metrics['process_resident_memory_bytes'] / 1e6:,.0f} MB resident"
            )
            if with_flush:
                asyncio.run(flush(server))
                time.sleep(1)
                line += f", {(until_idle(pid) - begin_cpu) / points * 1e6:.2f} with all chunks written"
            print(line, flush=True)
        finally:
            server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", default=WORK)
    parser.add_argument("--flush", action="store_true")
    options = parser.parse_args()
    for work in options.work.split(","):
        measure(work, options.flush)


if __name__ == "__main__":
    main()
