"""After kill -9 a server accepts points within 15 s, and has its series and points back, however full the journal is.

Full means: an image of rings whose chunk is complete and not written yet, and all points of the half hour until the
next checkpoint (``checkpoint_s``), one each ten seconds from 100,000 series.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.process import ROOT, Known, ServerProcess, environment, wait_for
from tgres_py.cli.blast_payload import name_of

RESTART_S = 15.0  # the promise
STEP_S = 10
CHUNK = 480  # slots that the ring holds of a series when its chunk is complete
UNTIL_CHECKPOINT = 180  # rounds in 1,800 s
OPTIONS = ("--late-grace-s=3600", "--sql-freshness-s=0")  # nothing is written meanwhile


def blast(server: ServerProcess, series: int, rounds: int, start_s: int) -> None:
    options = {
        "--port": server.ports["carbon"],
        "--series": series,
        "--rounds": rounds,
        "--step": STEP_S,
        "--start-at": start_s,
    }
    words = [str(word) for pair in options.items() for word in pair]
    command = [sys.executable, "-m", "tgres_py.cli.main", "blast", *words]
    before = server.sum_of("tgres_points_received_total")
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment(), timeout=900)
    sent = before + series * rounds
    wait_for(lambda: server.sum_of("tgres_points_received_total") == sent, "all is read", 300)


def some_points(server: ServerProcess, series: int, from_s: int, until_s: int) -> Known:
    names = [name_of(number, "blast") for number in range(0, series, series // 10)]
    return server.render(f"group({','.join(names)})", from_s, until_s)


def restart(folder: Path, series: int, image: int, more: int, *dsn: str) -> tuple[float, float]:
    """Seconds from the start of the process until it accepts a point, and until it is ready."""
    server = ServerProcess(folder, *OPTIONS, *dsn, retentions="10s:6h,1m:7d")
    try:
        begin_s = int(time.time()) // 4_800 * 4_800 - 4_800
        server.start()
        blast(server, series, image, begin_s)
        time.sleep(1.5)
        server.kill()
        usual, server.module = server.module, "tests.adversity.hasty"
        server.start()
        wait_for(lambda: server.sum_of("tgres_checkpoints_total") >= 1, "a checkpoint", 300)
        server.kill()
        server.module = usual
        server.start()
        blast(server, series, more, begin_s + image * STEP_S)
        end_s = begin_s + (image + more) * STEP_S
        before = some_points(server, series, begin_s - 1, end_s)
        assert all(len(slots) == image + more for slots in before.values())
        journal_mb = server.sum_of("tgres_journal_bytes") / 1e6
        time.sleep(1.5)
        server.kill()
        begin = time.monotonic()
        server.launch()
        with socket.create_connection(("127.0.0.1", server.ports["carbon"]), RESTART_S) as sock:
            sock.sendall(b"newcomer 1 -1\n")
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        assert server.sum_of("tgres_points_received_total") >= 1
        accepts_s = time.monotonic() - begin
        wait_for(server.is_ready, "ready", 300)
        ready_s = time.monotonic() - begin
        points_m = series * (image + more) / 1e6
        print(
            f"\n{series} series, {points_m:.1f} M points in {journal_mb:.0f} MB of journal:"
            f" accepts after {accepts_s:.1f} s, ready after {ready_s:.1f} s"
        )
        assert server.sum_of("tgres_recovered_points") == series * (image + more)
        assert some_points(server, series, begin_s - 1, end_s) == before
        assert server.imbalance() == 0
        return accepts_s, ready_s
    finally:
        server.close()


def test_a_restart(tmp_path: Path, database: str) -> None:
    accepts_s, ready_s = restart(tmp_path, 2_000, 20, 20, "--dsn", database)
    assert accepts_s < RESTART_S and ready_s < RESTART_S


@pytest.mark.slow
@pytest.mark.parametrize("embedded", [False, True], ids=["external", "embedded"])
def test_a_restart_with_100_000_series_and_a_full_journal(
    tmp_path: Path, database: str, embedded: bool
) -> None:
    dsn = () if embedded else ("--dsn", database)
    accepts_s, ready_s = restart(tmp_path, 100_000, CHUNK, UNTIL_CHECKPOINT, *dsn)
    assert accepts_s < RESTART_S
    assert ready_s < 2 * RESTART_S
