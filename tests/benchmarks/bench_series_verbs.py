"""Times of ``tgres series …`` on a live server with many series, and how long its event loop stood still meanwhile.

    python -m tests.benchmarks.bench_series_verbs [SERIES]

Each verb runs over HTTP as the CLI does it. "stall" is the longest time that a request for /healthz took, asked
every 5 ms; "points" are those sent meanwhile, all of which must be answered for by the ledger.
"""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from tests.acceptance.process import ServerProcess, wait_for
from tgres_py.cli.admin_client import Target, run_verb

TOKEN = "a-token-for-the-benchmark"
PART = 10_000


class Watch(threading.Thread):
    """Asks for /healthz again and again; ``worst`` is the longest answer in seconds."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.worst = 0.0
        self._port = port
        self._end = threading.Event()

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._end.wait(0.005):
            begin = time.monotonic()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            self.worst = max(self.worst, time.monotonic() - begin)

    def stop(self) -> float:
        self._end.set()
        self.join()
        return self.worst


@contextmanager
def timed(server: ServerProcess, what: str) -> Iterator[None]:
    watch = Watch(server.ports["http"])
    watch.start()
    begin = time.monotonic()
    yield
    seconds = time.monotonic() - begin
    print(f"{what:<34} {seconds:7.2f} s   stall {watch.stop() * 1000:6.0f} ms", flush=True)


def send(server: ServerProcess, names: list[str]) -> None:
    with socket.create_connection(("127.0.0.1", server.ports["carbon"])) as sock:
        for at in range(0, len(names), PART):
            sock.sendall("".join(f"{name} 1 -1\n" for name in names[at : at + PART]).encode())
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)


def main(count: int) -> None:
    names = [f"bench.dc{i % 7}.rack{i % 100}.host{i // 10}.metric{i % 10}" for i in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        options = (f"--admin-token={TOKEN}", "--self-metrics-s=0")
        server = ServerProcess(Path(folder), *options, retentions="10s:6h,1m:7d,10m:5y")
        server.start()
        target = Target(f"http://127.0.0.1:{server.ports['http']}", TOKEN)

        def run(verb: str, **given: object) -> list[dict[str, object]]:
            rows = list(run_verb(target, verb, given))
            assert not any("error" in row for row in rows), rows[-1]
            return [dict(row) for row in rows if not row.keys() & {"progress", "note"}]

        try:
            with timed(server, "nothing, for comparison"):
                time.sleep(2)
            with timed(server, f"{count:,} new series"):
                send(server, names)
                wait_for(lambda: "tgres_series" in server.metrics(), "metrics")
                run("series.show", glob=[names[0]])  # waits for the rows
            with timed(server, "ls of all"):
                assert len(run("series.ls")) == count
            with timed(server, "ls by --regex"):
                run("series.ls", regex="host99[.]metric[0-4]$")
            with timed(server, "stale of all"):
                run("series.stale", **{"for": "1h"})
            tenth = f"bench.*.rack{{{','.join(str(i) for i in range(10))}}}.*.*"
            with timed(server, f"rm, dry, of {count // 10:,}"):
                [dry] = run("series.rm", glob=[tenth])
            with timed(server, f"rm of {dry['series']:,}"):
                [done] = run("series.rm", glob=[tenth], yes=True)
            with timed(server, "undo"):
                run("series.undo", batch=done["batch"], yes=True)
            with timed(server, f"rename of {dry['series']:,}"):
                pattern = r"^bench[.](dc\d+)[.](rack\d)[.]"
                run("series.rename", old=pattern, new=r"moved.\2.\1.", regex=True, yes=True)
            with timed(server, "all points again, a tenth new"):
                send(server, names)
                run("series.show", glob=[names[0]])
            [done] = run("series.rm", glob=["moved.**"], yes=True)
            with timed(server, f"purge of {done['series']:,}"):
                run("series.purge", batch=done["batch"], yes=True)
            assert server.imbalance() == 0
        finally:
            server.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
