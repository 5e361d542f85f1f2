"""``tgres serve`` as a process: what stops the start, what the first lines say, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(__file__).parent.parent
WAIT_S = 60

OFF = [f"--{name}=off" for name in ("http", "carbon", "pickle", "statsd", "statsd-mgmt")]


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TGRES_")}
    return {**clean, "PYTHONPATH": str(ROOT), "TGRES_SELF_METRICS_S": "0", **more}


def refusal(folder: Path, *args: str) -> str:
    """The one line with which a start that can't work ends."""
    run = subprocess.run(
        [sys.executable, "-m", "tgres_py.cli.main", "serve", *OFF, *args],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(),
        timeout=WAIT_S,
    )
    assert run.returncode == 2, run.stderr
    lines = [line for line in run.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1, run.stderr
    return lines[0]


def test_data_directory_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    text = refusal(tmp_path, "--data-dir", "file")
    assert text.startswith("tgres: data_dir file: ") and "choose a directory" in text


def test_address_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = refusal(tmp_path, "--http", address, "--dsn", "postgresql://127.0.0.1:9/x")
    assert address in text and "in use" in text.lower()


class Server:
    """A running ``tgres serve`` that keeps the lines of its log."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        self.process = process
        self._log = log
        self.lines: list[str] = []

    def until(self, pattern: str) -> re.Match[str]:
        """Waits for a line of the log."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            for line in iter(self._log.readline, ""):
                self.lines.append(line)
                if match := re.search(pattern, line):
                    return match
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in\n{''.join(self.lines)}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, with the embedded PostgreSQL, an HTTP port and a carbon port that it chose."""
    (tmp_path / "s.conf").write_text("[a]\npattern = ^a\\.\nretentions = 5s:1h\n")
    args = ["--http", "127.0.0.1:0", "--carbon", "127.0.0.1:0", "--schemas", "s.conf"]
    path = tmp_path / "log"
    with path.open("w") as out, path.open() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tgres_py.cli.main", "serve", *OFF, *args],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env=environment(),
        )
        try:
            yield Server(process, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(WAIT_S)


def client(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tgres_py.cli.main", *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=WAIT_S,
    )


def test_what_the_readme_tries_out(server: Server, tmp_path: Path) -> None:
    """Start, send a line, find it, render it, reload, stop."""
    server.until(r"tgres \d+\.\d+\.\d+, kernels: (native|pure Python)")
    url = f"http://{server.until(r'http listens on ([0-9.:]+)')[1]}"
    host, port = server.until(r"carbon listens on ([0-9.]+):(\d+)").groups()
    server.until(r"ready: 0 series")
    sent_s = int(time.time())
    with socket.create_connection((host, int(port))) as sender:
        sender.sendall(f"a.value 42 {sent_s}\n".encode())
    end = time.monotonic() + WAIT_S
    while client("find", "a.*", "--url", url).stdout != "a.value\n":
        assert time.monotonic() < end
    answer = json.loads(client("render", "a.value", "--from=-10min", "--json", "--url", url).stdout)
    known = [(v, t) for v, t in answer[0]["datapoints"] if v is not None]
    assert known == [(42.0, sent_s // 5 * 5)]

    (tmp_path / "s.conf").write_text("[a]\npattern = ^a\\.\nretentions = 5s:1h,7s:1d\n")
    server.process.send_signal(signal.SIGHUP)
    server.until(r"ERROR .*s\.conf, line 3.*7 s.*as before")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(WAIT_S) == 0
    server.until(r"stopped")
    assert not [line for line in server.lines if "Traceback" in line]
