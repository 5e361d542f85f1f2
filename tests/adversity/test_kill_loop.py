"""kill -9 of a real server again and again, under mixed load and at any moment: in the start, in a checkpoint, while
PostgreSQL is away or frozen. Afterwards each slot holds what is possible after points were received in order
and those of the last second may be missing; nothing counts twice, nothing is invented.

``TGRES_KILL_ROUNDS=100`` for many rounds (with ``-m slow``), ``TGRES_KILL_SEED`` for those of a seed.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess, wait_for
from tests.acceptance.test_crash import HASTE, JOURNAL_S
from tests.adversity.mixed_load import Expected, MixedLoad
from tests.adversity.test_postgres_away import sql
from tgres_py.model.retention import OnDuplicate

NOTICE_S = 0.3  # from the counter to the journal's thread, on a machine with much to do
FINE_S, COARSE_S = 21_600, 10
SHARES = {"away": 0.3, "frozen": 0.3}  # of the rounds


class Database:
    """Somebody else's PostgreSQL that stands still, or takes no connections."""

    def __init__(self, admin_dsn: str, dsn: str) -> None:
        self.dsn = dsn
        self._admin_dsn = admin_dsn
        self._name = dsn.partition("?")[0].rpartition("/")[2]
        self._frozen: list[int] = []

    def _backends(self) -> list[int]:
        wanted = f"SELECT pid FROM pg_stat_activity WHERE datname = '{self._name}'"
        return [pid for (pid,) in sql(self._admin_dsn, wanted)]

    def disturb(self, how: str) -> None:
        if how == "frozen":
            self._frozen = self._backends()
            for pid in self._frozen:
                os.kill(pid, signal.SIGSTOP)
        elif how == "away":
            self._allow("false")
            ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            sql(self._admin_dsn, f"{ends} WHERE datname = '{self._name}'")

    def restore(self) -> None:
        for pid in self._frozen:
            os.kill(pid, signal.SIGCONT)
        self._frozen = []
        self._allow("true")

    def _allow(self, word: str) -> None:
        sql(self._admin_dsn, f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS {word}")


class Statsd:
    """Counts, one at a time, over UDP; ``sent`` in all."""

    def __init__(self) -> None:
        self.sent = 0

    def count(self, port: int, ended: threading.Event) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", port))
            while not ended.wait(0.01):
                self.sent += 1
                try:
                    sock.send(b"hits:1|c")
                except ConnectionRefusedError:
                    return


class KillLoop:
    def __init__(self, folder: Path, database: Database, seed: int) -> None:
        config = folder / "tgres.toml"
        config.write_text("[statsd]\nflushInterval = 1000\n")
        listen = [f"--{name}=127.0.0.1:0" for name in ("statsd", "statsd-mgmt")]
        options = [f"--config={config}", *listen, *HASTE, "--store-timeout-s=3"]
        self.server = ServerProcess(folder, *options, "--dsn", database.dsn)
        self.server.module = "tests.adversity.hasty"
        (folder / "schemas.conf").write_text(
            "".join(
                f"[{rule}]\npattern = ^load\\.\\w+\\.{rule}\\.\nretentions = 1s:6h,{COARSE_S}s:1d\n"
                f"on-duplicate = {rule}\n"
                for rule in OnDuplicate
            )
            + "[rest]\npattern = .*\nretentions = 1s:6h\n"
        )
        (folder / "aggregation.conf").write_text("[all]\npattern = .*\nxFilesFactor = 0\n")
        self.server.options += ("--aggregation", str(folder / "aggregation.conf"))
        self.database = database
        self.rng = random.Random(seed)
        self.expected = Expected()
        self.statsd = Statsd()
        self.begin_s = self.next_s = int(time.time()) - 15_000
        self.kills = 0

    # -- a round -------------------------------------------------------------------------------

    def round(self) -> None:
        rng = self.rng
        look_from_s = self.next_s - 200
        how = rng.choices([*SHARES, ""], [*SHARES.values(), 1 - sum(SHARES.values())])[0]
        self.load_and_kill(rng.uniform(0.5, 2.5), how)
        if how and rng.random() < 0.5:
            self.server.launch()
            self.load_and_kill(rng.uniform(0.2, 1.0))
        if how and rng.random() < 0.5:
            self.database.restore()
        self.server.launch()
        for _ in range(rng.choice((0, 0, 1, 2))):  # kills in the start
            time.sleep(rng.uniform(0, 0.5))
            self.kill()
            self.server.launch()
        self.database.restore()
        self.look(look_from_s)

    def load_and_kill(self, seconds: float, how: str = "") -> None:
        """Load, PostgreSQL disturbed under it, kill."""
        ended = threading.Event()
        statsd = threading.Thread(
            target=self.statsd.count, args=(self.server.ports["statsd"], ended), daemon=True
        )
        statsd.start()
        with MixedLoad(self.server, self.expected, self.next_s, self.rng) as load:
            time.sleep(seconds)
            if how:
                self.database.disturb(how)
                time.sleep(self.rng.uniform(0, 2.0))
            killed = time.monotonic()
            self.kill()
        ended.set()
        statsd.join(10)
        load.settle(killed - JOURNAL_S - NOTICE_S)
        self.next_s = load.next_s

    def kill(self) -> None:
        self.kills += 1
        self.server.kill()

    # -- what must hold ------------------------------------------------------------------------

    def look(self, from_s: int) -> None:
        wait_for(self.server.is_ready, "ready", 60)
        wait_for(lambda: self.server.sum_of("tgres_points_held") == 0, "late points are merged", 60)
        got = self.server.render("load.*.*.*", from_s - 1, self.next_s)
        wrong = self.expected.look(got, from_s)
        assert not wrong, f"{len(wrong)} wrong after {self.kills} kills: {wrong[:8]}"
        assert self.server.imbalance() == 0
        assert "Traceback" not in self.server.log, self.server.log

    def look_at_all(self) -> None:
        """Coarse slots, too, are those of the points that are there; statsd counted nothing twice."""
        self.look(self.begin_s - 200)
        first_s = (self.begin_s - 200) // COARSE_S * COARSE_S
        fine = self.server.render("load.*.*.*", first_s - 1, self.next_s)
        coarse = self.server.render(
            "load.*.*.*", int(time.time()) - FINE_S - 100, self.next_s + COARSE_S
        )
        assert fine.keys() == coarse.keys()
        for name, slots in fine.items():
            parts: dict[int, list[float]] = {}
            for time_s, value in slots.items():
                parts.setdefault(time_s // COARSE_S * COARSE_S, []).append(value)
            want = {time_s: sum(values) / len(values) for time_s, values in parts.items()}
            assert coarse[name] == pytest.approx(want), name
        counted = self.server.render(
            "stats_counts.hits", int(time.time()) - 3_600, int(time.time())
        )
        assert 0 < sum(counted["stats_counts.hits"].values()) <= self.statsd.sent

    def run(self, rounds: int) -> None:
        self.server.start()
        for _ in range(rounds):
            self.round()
        self.look_at_all()
        assert self.server.terminate() == 0, self.server.log
        self.server.start()
        self.look_at_all()


@pytest.fixture
def external(postgres_dsn: str, database: str) -> Iterator[Database]:
    somebodys = Database(postgres_dsn, database)
    yield somebodys
    somebodys.restore()


def run(folder: Path, database: Database, rounds: int, seed: int) -> None:
    loop = KillLoop(folder, database, seed)
    try:
        loop.run(rounds)
    except BaseException as error:
        error.add_note(f"TGRES_KILL_SEED={seed}, {loop.kills} kills\n{loop.server.log}")
        raise
    finally:
        database.restore()
        loop.server.close()


def test_kills(tmp_path: Path, external: Database) -> None:
    run(tmp_path, external, 2, int(os.environ.get("TGRES_KILL_SEED", "1")))


@pytest.mark.slow
def test_many_kills(tmp_path: Path, external: Database) -> None:
    seed = int(os.environ.get("TGRES_KILL_SEED", time.time_ns() & 0xFFFF))
    run(tmp_path, external, int(os.environ.get("TGRES_KILL_ROUNDS", "20")), seed)
