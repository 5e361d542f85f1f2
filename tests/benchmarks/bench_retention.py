"""Prints what a change of retention of many series costs a live server, while points go on coming.

    python -m tests.benchmarks.bench_retention [--series 100000] [--rounds 60] [--to 10s:1h,1m:30d,10m:1y]

One point of each series every 10 s is sent before (``--rounds``) and during the change; a small render is asked for all the time.
Times are of the wall clock, CPU of the server with its PostgreSQL, stalls those of a timer in the server's loop.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import threading
import time
from pathlib import Path

from tests.acceptance.process import ServerProcess, wait_for
from tests.benchmarks.bench_ingest import cpu_s, name, until_idle

TOKEN = "a-token-of-the-benchmark"
STEP_S = 10


def send(server: ServerProcess, series: int, at_s: int) -> None:
    with socket.create_connection(("127.0.0.1", server.ports["carbon"])) as connection:
        connection.sendall(b"".join(b"%b %d.5 %d\n" % (name(i), i % 997, at_s) for i in range(series)))


def stalls(server: ServerProcess) -> dict[str, float]:
    """Of the loop's timer: how often it fired later than so many seconds."""
    samples = server.metrics()
    buckets = {
        float(key.partition('le="')[2].partition('"')[0]): value
        for key, value in samples.items()
        if key.startswith("tgres_loop_lag_seconds_bucket")
    }
    total = max(buckets.values())
    return {f">{le * 1000:g} ms": total - value for le, value in sorted(buckets.items())}


def measure(series: int, rounds: int, to: str) -> None:
    with tempfile.TemporaryDirectory(prefix="tgres-bench-") as folder:
        os.chmod(folder, 0o755)  # the embedded PostgreSQL runs under another account
        server = ServerProcess(Path(folder), f"--admin-token={TOKEN}", retentions="10s:6h,1m:7d")
        server.start()
        assert server.process is not None
        pid = server.process.pid
        ended = threading.Event()
        try:
            now_s = int(time.time()) // STEP_S * STEP_S
            for r in range(rounds):
                send(server, series, now_s - (rounds - r) * STEP_S)
            wait_for(
                lambda: server.sum_of("tgres_points_received_total") >= series * rounds, "read", 600
            )
            until_idle(pid)
            print(f"{series:,} series, {rounds} points each; resident {resident(server):,.0f} MB")

            begin, cpu = time.monotonic(), cpu_s(pid)
            rules = f"[all]\npattern = .*\nretentions = {to}\n"
            rows = server.run_verb("retention.plan", TOKEN, schemas=rules)
            print(f"plan: {time.monotonic() - begin:.1f} s, {cpu_s(pid) - cpu:.1f} CPU-s; {rows[0]['series']:,} series")

            def go_on() -> None:
                while not ended.wait(STEP_S):
                    send(server, series, int(time.time()) // STEP_S * STEP_S)

            threading.Thread(target=go_on, daemon=True).start()
            renders: list[float] = []

            def render() -> None:
                while not ended.is_set():
                    asked = time.monotonic()
                    server.get(f"/render?target={name(7).decode()}&from=-10min&format=json")
                    renders.append(time.monotonic() - asked)
                    ended.wait(0.1)

            threading.Thread(target=render, daemon=True).start()
            before, begin, cpu = stalls(server), time.monotonic(), cpu_s(pid)
            *_, row = server.run_verb("retention.apply", TOKEN, schemas=rules)
            took = time.monotonic() - begin
            late = {k: v - before[k] for k, v in stalls(server).items()}
            print(f"apply: {row['state']}, {row['moved']:,} series in {took:.1f} s ({row['moved'] / took:,.0f}/s), "
                  f"{cpu_s(pid) - cpu:.1f} CPU-s, resident {resident(server):,.0f} MB")
            print("loop later than:", {k: v for k, v in late.items() if v})
            renders.sort()
            print(f"renders: {len(renders)}, median {renders[len(renders) // 2] * 1000:.0f} ms, worst {renders[-1] * 1000:.0f} ms")
            begin, cpu = time.monotonic(), cpu_s(pid)
            *_, row = server.run_verb("retention.undo", TOKEN, job=row["job"])
            print(f"undo: {row['state']} in {time.monotonic() - begin:.1f} s, {cpu_s(pid) - cpu:.1f} CPU-s")
        finally:
            ended.set()
            server.close()


def resident(server: ServerProcess) -> float:
    return server.metrics()["process_resident_memory_bytes"] / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--to", default="10s:1h,1m:30d,10m:1y")
    options = parser.parse_args()
    measure(options.series, options.rounds, options.to)


if __name__ == "__main__":
    main()
