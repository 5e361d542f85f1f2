"""``tgres serve`` as a process, for tests that kill it: started, asked over HTTP, ended by its process id."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from tgres_py.storage.embedded import EmbeddedPostgres

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 90.0

Known = dict[str, dict[int, float]]  # series -> time of the slot -> value


def environment() -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TGRES_")}
    # counts of points and series are those that the tests send
    return {**clean, "PYTHONPATH": str(ROOT), "TGRES_SELF_METRICS_S": "0"}


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> float:
    """Waits until ``condition`` holds; the seconds that took. AssertionError after ``timeout_s``."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < timeout_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.02)
    return time.monotonic() - begin


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@cache
def _empty_database() -> Path:
    """PostgreSQL's data directory after its first start and stop."""
    folder = Path(tempfile.mkdtemp(prefix="tgres-pg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    async def make() -> None:
        server = EmbeddedPostgres(folder / "pg")
        await server.start()
        await server.stop()

    with ThreadPoolExecutor(1) as other:  # there may be a running loop in this one
        other.submit(asyncio.run, make()).result()
    return folder / "pg"


def lay_database(place: Path) -> None:
    """What initdb would make at ``place``, as a copy: a tenth of the time."""
    place.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", _empty_database(), place], check=True)


class ServerProcess:
    """A server on one data directory, which may be started many times; it chooses its ports itself.

    ``runs_initdb``: an embedded PostgreSQL makes its data directory itself.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        retentions: str = "1s:2h,10s:1d",
        runs_initdb: bool = False,
    ) -> None:
        self.folder = folder
        self.options = options
        self.module = "tgres_py.cli.main"
        self.data = folder / "data"
        self.runs_initdb = runs_initdb or any(option.startswith("--dsn") for option in options)
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.ports: dict[str, int] = {}
        self._log = folder / "log"
        (folder / "schemas.conf").write_text(f"[all]\npattern = .*\nretentions = {retentions}\n")

    # -- life --------------------------------------------------------------------------------

    def launch(self, *, open_files: int = 0) -> None:
        """Starts the process; returns when its ports are open, the store may still be away.

        ``open_files``: how many it may have, soft and hard limit; 0 = as many as we.
        """
        self.starts += 1
        if not self.runs_initdb and not self.data.exists():
            lay_database(self.data / "pg")
        self._log = self.folder / f"log{self.starts}"
        listen = [f"--{name}=127.0.0.1:0" for name in ("http", "carbon", "pickle")]
        listen += ["--statsd=off", "--statsd-mgmt=off"]  # unless the options say otherwise
        files = ["--data-dir", str(self.data), "--schemas", str(self.folder / "schemas.conf")]
        command = [sys.executable, "-m", self.module, "serve", *files, *listen]
        if open_files:
            command = ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *command]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *self.options],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment(),
            )
        wait_for(self._listens, "the ports are open", START_TIMEOUT_S)

    def _listens(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log
        found = re.findall(r"(\w+) listens on [^ ]*:(\d+)$", self.log, re.MULTILINE)
        self.ports = {name: int(port) for name, port in found}
        return self.ports.keys() >= {"http", "carbon", "carbon_udp", "pickle"}

    def start(self) -> None:
        """Starts the process and waits until it is ready."""
        self.launch()
        wait_for(self.is_ready, "ready", START_TIMEOUT_S)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout_s: float = 30.0) -> int:
        """SIGTERM; the exit code. subprocess.TimeoutExpired when it isn't gone in time."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def close(self, *, at_once: bool = False) -> None:
        """The end of a test: the process is gone, whatever state it is in. ``at_once``: by kill -9."""
        if self.process is not None and self.process.poll() is None:
            if at_once:
                return self.kill()
            try:
                self.terminate(20)
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def port_of(self, listener: str) -> int:
        """The port of a listener that isn't always there."""
        found = re.search(rf"{listener} listens on [^ ]*:(\d+)$", self.log, re.MULTILINE)
        assert found, self.log
        return int(found[1])

    @property
    def postgres_pid(self) -> int:
        """The embedded PostgreSQL's postmaster; 0 when there is none."""
        try:
            return int((self.data / "pg" / "postmaster.pid").read_text().split("\n")[0])
        except (OSError, ValueError):
            return 0

    # -- questions ---------------------------------------------------------------------------

    def get(self, path: str, timeout_s: float = 30.0) -> tuple[int, bytes]:
        """Status and body; status 0 when there is no answer."""
        try:
            url = f"http://127.0.0.1:{self.ports['http']}{path}"
            with urllib.request.urlopen(url, timeout=timeout_s) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def is_ready(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log
        return self.get("/readyz")[0] == 200

    def render(self, target: str, from_s: int, until_s: int) -> Known:
        """What is known of the series after from_s, up to until_s."""
        query = urllib.parse.urlencode(
            {"target": target, "from": from_s, "until": until_s, "format": "json"}
        )
        status, body = self.get(f"/render?{query}")
        assert status == 200, (body, self.log)
        series: list[dict[str, Any]] = json.loads(body)
        return {s["target"]: {t: v for v, t in s["datapoints"] if v is not None} for s in series}

    def send(self, lines: str) -> None:
        """Sends lines over TCP; returns when the server has read them."""
        with socket.create_connection(("127.0.0.1", self.ports["carbon"]), timeout=30) as sock:
            sock.sendall(lines.encode())
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""

    def run_verb(self, name: str, token: str, **given: Any) -> list[dict[str, Any]]:
        """All rows of an operator verb over HTTP."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['http']}/admin/{name}",
            json.dumps(given).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            rows = [json.loads(line) for line in answer if line.strip()]
        assert not rows or "error" not in rows[-1], rows[-1]
        return rows

    def metrics(self) -> dict[str, float]:
        """All samples by name (with labels)."""
        status, body = self.get("/metrics")
        assert status == 200
        lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def sum_of(self, name: str) -> float:
        """A metric summed over its labels."""
        return total(self.metrics(), name)

    def imbalance(self) -> float:
        """received - stored - overwritten - rejected - held: 0, always."""
        m = self.metrics()
        return total(m, "tgres_points_received_total") - sum(
            total(m, f"tgres_points_{kind}")
            for kind in ("stored_total", "overwritten_total", "dropped_total", "held")
        )


def total(metrics: dict[str, float], name: str) -> float:
    return sum(value for key, value in metrics.items() if key.partition("{")[0] == name)
