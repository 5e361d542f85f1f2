"""Prints how fast statsd's lines are parsed and aggregated, and what a flush of timers takes; npm statsd beside it.

    python -m tests.benchmarks.bench_statsd [--daemon FOLDER]

Counters: 20 lines a datagram, 10,000 keys, buffers as the UDP thread hands them over, in this process; with ``--daemon`` (the
folder of npm statsd) the same datagrams go over UDP to that daemon, as many as it takes without loss. Flush: 10,000 timers × 100
values, to blocks of points, with counters coming in.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from receivers.statsd_flush import StatsdFlush
from tgres_py import clock
from tgres_py.ingest.intake import Intake, Limits
from tgres_py.ingest.registry import Registry
from tgres_py.kernels import RingStore
from tgres_py.kernels.statsd import StatsdCells
from tgres_py.model.rules import RuleSet
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.settings import StatsdSettings

KEYS, LINES_EACH, DATAGRAMS = 10_000, 20, 50_000


def datagrams(kind: str) -> list[bytes]:
    """Keys in random order: nothing is like the round before."""
    chance = random.Random(1)
    return [
        b"\n".join(
            b"servers.web%04d.requests:%d|%b" % (chance.randrange(KEYS), chance.randrange(1_000), kind.encode())
            for _ in range(LINES_EACH)
        )
        + b"\n"
        for _ in range(DATAGRAMS)
    ]  # fmt: skip


def lines_per_s(kind: str) -> float:
    packets = datagrams(kind)
    buffers = [b"".join(packets[i : i + 2_000]) for i in range(0, DATAGRAMS, 2_000)]
    aggregator = Aggregator(StatsdSettings())
    begin = time.perf_counter()
    for buffer in buffers:
        aggregator.add(buffer, 2_000, 0)
    return DATAGRAMS * LINES_EACH / (time.perf_counter() - begin)


def set_members_per_s() -> float:
    """Ten sets of 100,000 members, each member twice."""
    lines = [b"users.set%d:member-%d|s" % (i % 10, i // 10) for i in range(1_000_000)]
    buffers = [b"\n".join(lines[i : i + 40_000]) for i in range(0, len(lines), 40_000)] * 2
    aggregator = Aggregator(StatsdSettings())
    begin = time.perf_counter()
    for buffer in buffers:
        aggregator.add(buffer, 1, 0)
    return 2 * len(lines) / (time.perf_counter() - begin)


async def flush_s() -> tuple[float, float, float]:
    """A flush of 10,000 timers × 100 values into the ring, while a buffer of 2,000 lines comes in every 5 ms, as the UDP thread has them.

    Returns seconds of the best of three flushes, the longest stall of the loop in it, lines/s taken during it.
    """
    ring = RingStore()
    registry = Registry(RuleSet().match_many, ring)
    registry.open()
    intake = Intake(registry, None, Limits(cache_bytes_max=8 << 30))
    flush = StatsdFlush(Aggregator(StatsdSettings()), intake)
    start_s = clock.now_s() // 10 * 10
    add = flush.aggregator.add
    packets = datagrams("c")
    buffers = [b"".join(packets[i : i + 100]) for i in range(0, 2_000, 100)]
    best = (1e9, 0.0, 0.0)
    for turn in range(4):
        for n in range(100):
            add(b"".join(b"t.web%d:%d|ms\n" % (i, i * 7919 % (n + 900)) for i in range(KEYS)), 1, 0)
        begin = last = due = time.perf_counter()
        task = asyncio.create_task(flush.flush(start_s + 10 * turn))
        stall, taken = 0.0, 0
        while not task.done():
            if last >= due:
                add(buffers[taken % len(buffers)], 100, 0)
                taken, due = taken + 1, due + 0.005
            await asyncio.sleep(0.0005)
            now = time.perf_counter()
            stall, last = max(stall, now - last), now
        seconds = time.perf_counter() - begin
        if turn:  # the names are known from the first one on
            best = min(best, (seconds, stall, taken * 100 * LINES_EACH / seconds))
    return best


def daemon_lines_per_s(folder: Path) -> float:
    """CPU seconds that the daemon takes for the same datagrams, as lines/s of one core."""
    with tempfile.TemporaryDirectory() as work:
        config = Path(work, "config.js")
        # no flush before the counters are read: it would reset them
        config.write_text(
            "{port: 28150, address: '127.0.0.1', mgmt_port: 28151, flushInterval: 600000, backends: []}"
        )
        process = subprocess.Popen(
            ["node", "stats.js", str(config)], cwd=folder, stdout=subprocess.DEVNULL
        )
        try:
            time.sleep(1.5)
            before = cpu_s(process.pid)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for number, packet in enumerate(datagrams("c")):
                    sock.sendto(packet, ("127.0.0.1", 28150))
                    if number % 20 == 19:
                        time.sleep(0.002)
            time.sleep(1)
            with socket.create_connection(("127.0.0.1", 28151)) as mgmt:
                mgmt.sendall(b"counters\n")
                time.sleep(0.5)
                text = mgmt.recv(1 << 20).decode()
            found = [row for row in text.split("\n") if "metrics_received" in row]
            received = int(found[0].split(":")[1].strip(" ,"))
            return received / (cpu_s(process.pid) - before)
        finally:
            process.terminate()
            process.wait()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--daemon", type=Path)
    daemon = parser.parse_args().daemon
    print(f"cells: {StatsdCells.__module__}")
    for kind, label in (
        ("c", "counters"),
        ("g", "gauges"),
        ("ms", "timers"),
        ("c|#env:prod,dc:a", "with tags"),
    ):
        print(f"{label:10} {lines_per_s(kind) / 1e6:6.2f} M lines/s")
    print(f"sets       {set_members_per_s() / 1e6:6.2f} M members/s, 100,000 of a set")
    seconds, stall, rate = asyncio.run(flush_s())
    print(
        f"flush of {KEYS} timers x 100 values: {seconds * 1e3:.0f} ms, longest stall of the loop {stall * 1e3:.1f} ms, "
        f"{rate / 1e6:.2f} M lines/s taken meanwhile"
    )
    if daemon:
        print(
            f"npm statsd, counters over UDP: {daemon_lines_per_s(daemon) / 1e6:.2f} M lines per CPU-s"
        )


if __name__ == "__main__":
    main()
