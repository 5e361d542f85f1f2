"""A storm of new series: all are made, or refused and counted, while others are served."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess
from tests.adversity.health_watch import HealthWatch
from tests.overload.senders import Rounds, Sender, run_all

SENDERS = 8
SETTLED_S = 1.5  # for each 100,000 series


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path)
    yield server
    server.close(at_once=True)  # an orderly end would write all that was sent


@pytest.mark.parametrize("series", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_new_series(server: ServerProcess, series: int) -> None:
    """Eight senders of names that nobody knew; a dashboard's find and a known series beside them."""
    server.start()
    now = int(time.time())
    rounds = [Rounds(number, series // SENDERS, 1, now - 60) for number in range(SENDERS)]
    known = Rounds(SENDERS, 10, 50, now - 200)
    Sender(server.ports["carbon"], known.lines()).run()
    with HealthWatch(server) as health:
        took = run_all([Sender(server.ports["carbon"], one.lines()).run for one in rounds])
        time.sleep(SETTLED_S * series / 100_000)  # rows in the store and the index of names follow
    health.check()
    print(f"{series} new series: {took:.1f} s")
    metrics = server.metrics()
    refused = sum(
        metrics[f'tgres_points_dropped_total{{reason="{r}"}}'] for r in ("new_series", "memory")
    )
    assert metrics["tgres_series"] + refused == series + known.series
    assert metrics["tgres_points_stored_total"] + refused == series + known.points
    assert server.imbalance() == 0
    name = known.name(3)
    assert server.render(name, known.first_s - 1, now) == {name: known.known(3)}
    if not refused:
        for one in rounds:
            name = one.name(one.series - 1)
            assert server.render(name, now - 100, now) == {name: one.known(one.series - 1)}
