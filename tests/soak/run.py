"""A soak: a server with its own PostgreSQL under mixed load for a while, watched, and checked at the end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.acceptance.process import ServerProcess, wait_for
from tests.soak.load import TOKEN, Load, steady_name, value_of
from tests.soak.watch import Watch

FINE_S, COARSE_S = 120, 10
SCHEMAS = f"""\
[statsd]
pattern = ^stats
retentions = 1s:2h
[all]
pattern = .*
retentions = 1s:{FINE_S}s,{COARSE_S}s:2h
"""
OPTIONS = (
    "--late-grace-s=5",
    "--flush-pace-s=20",
    "--sql-freshness-s=60",
    "--checkpoint-s=60",
    f"--admin-token={TOKEN}",
)
CHECKED = 40  # series of each kind
LEAKED_FDS = 20  # connections come and go
GROWTH_MB_H = 600  # of a run of some minutes: what surely is a leak


class Soak:
    """``say`` gets lines of text."""

    def __init__(self, folder: Path, series: int, say: Callable[[str], None] = print) -> None:
        config = folder / "tgres.toml"
        config.write_text("[statsd]\nflushInterval = 1000\n")
        listen = [f"--{name}=127.0.0.1:0" for name in ("statsd", "statsd-mgmt")]
        self.server = ServerProcess(folder, f"--config={config}", *listen, *OPTIONS)
        (folder / "schemas.conf").write_text(SCHEMAS)
        self._series = series
        self._say = say

    def run(self, seconds: float, every_s: float = 10.0) -> Watch:
        """Loads, watches, checks. AssertionError: something isn't as it must be."""
        self.server.start()
        self.load = Load(self.server, self._series)
        watch = Watch(self.server, self.load)
        threads = self.load.threads()
        for thread in threads:
            thread.start()
        self._say(watch.look())
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(every_s, max(0.1, end - time.monotonic())))
            self._say(watch.look())
            assert not self.load.errors, self.load.errors
        self.load.ended.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        self._say(watch.summary())
        self._check()
        self._say("all points are there, the ledger is balanced")
        if seconds >= 300:
            assert watch.fds_grown() < LEAKED_FDS
            assert watch.slope_mb_h() < GROWTH_MB_H
        return watch

    def close(self) -> None:
        self.server.close()

    # -- the end -------------------------------------------------------------------------------

    def _check(self) -> None:
        server, load = self.server, self.load
        assert not load.errors, load.errors
        wait_for(lambda: server.sum_of("tgres_points_held") == 0, "late points are merged", 60)
        assert server.imbalance() == 0
        metrics = server.metrics()
        received = {
            name: metrics[f'tgres_points_received_total{{receiver="{name}"}}']
            for name in ("carbon", "pickle")
        }
        pickled = load.sent.pop("pickle")
        assert received == {"carbon": sum(load.sent.values()), "pickle": pickled}
        assert server.sum_of("tgres_points_dropped_total") == 0
        rng = random.Random(3)
        for kind, name_of, series in (
            ("steady", steady_name, self._series),
            ("pickled", "pickled.s{}".format, 500),
            ("late", "late.s{}".format, 200),
        ):
            numbers = sorted(rng.sample(range(series), min(series, CHECKED)))
            self._check_series(kind, {name_of(n): n for n in numbers})
        begin_s = load.spans["steady"][0]
        counts = server.render("stats_counts.soaked", begin_s - 5, int(time.time()) + 1)
        assert sum(counts["stats_counts.soaked"].values()) == load.hits
        assert server.terminate() == 0, server.log
        assert "Traceback" not in server.log, server.log

    def _check_series(self, kind: str, numbers: dict[str, int]) -> None:
        """Seconds as far as the finest archive reaches, and means of ten for the whole run."""
        first_s, last_s = self.load.spans[kind]
        target = f"group({','.join(numbers)})"
        now_s = int(time.time())
        reach_s = max(first_s, now_s - FINE_S + 10)
        got = self.server.render(target, reach_s - 1, now_s)
        for name, number in numbers.items():
            want = {t: value_of(number, t) for t in range(reach_s, last_s + 1)}
            assert got.get(name, {}) == want, (name, reach_s, last_s)
        low = -(-first_s // COARSE_S) * COARSE_S
        high = (last_s + 1) // COARSE_S * COARSE_S  # slots below are complete
        got = self.server.render(target, min(low, now_s - 2 * FINE_S) - COARSE_S, now_s)
        for name, number in numbers.items():
            inside = {t: v for t, v in got.get(name, {}).items() if low <= t < high}
            want_means = {
                t: sum(value_of(number, t + i) for i in range(COARSE_S)) / COARSE_S
                for t in range(low, high, COARSE_S)
            }
            assert inside == want_means, (name, low, high)
