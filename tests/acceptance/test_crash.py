"""The real process is killed and stopped under load: what was received is there afterwards, and nothing else."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.load import Load, Sent
from tests.acceptance.process import Known, ServerProcess, alive, wait_for

JOURNAL_S = 1.0  # what kill -9 may cost
RECEIVE_S = 0.5  # from the sender's send() to the server's parser, on a machine with much to do

# chunks complete, are written and freed within the seconds that a test lasts
HASTE = ["--late-grace-s=0", "--flush-pace-s=0.5", "--sql-freshness-s=1", "--checkpoint-s=10"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, *HASTE)
    yield server
    server.close()


def assert_holds(server: ServerProcess, must: Known, may: Known) -> None:
    """All of ``must`` is there, and nothing but ``may``."""
    times = [t for slots in may.values() for t in slots]
    got = server.render("load*.*", min(times) - 1, max(times))
    for name, slots in may.items():
        known = got.get(name, {})
        wrong = {t: v for t, v in known.items() if slots.get(t) != v}
        assert not wrong, f"{name}: never sent: {dict(list(wrong.items())[:5])}"
        missing = sorted(must.get(name, {}).keys() - known.keys())
        assert not missing, f"{name}: {len(missing)} of {len(must[name])} lost: {missing[:5]} …"
    assert got.keys() <= may.keys()


def add(to: Known, more: Known) -> None:
    for name, slots in more.items():
        to.setdefault(name, {}).update(slots)


def test_kill_9_costs_at_most_a_second(server: ServerProcess) -> None:
    rng = random.Random(20_240_501)
    must: Known = {}
    may: Known = {}
    next_s = int(time.time()) - 5_000
    for load_s in (rng.uniform(2.5, 3.5), rng.uniform(0.1, 1.0), rng.uniform(2, 3)):
        server.start()
        postgres = server.postgres_pid
        assert alive(postgres)
        if must:
            assert_holds(server, must, may)
        sent = Sent()
        load = Load(sent, server.ports["carbon"], next_s)
        time.sleep(load_s)
        assert not load.broken, server.log
        killed = time.monotonic()
        server.kill()
        load.abandon()
        next_s = load.next_s
        add(must, sent.known(before=killed - JOURNAL_S - RECEIVE_S))
        add(may, sent.known())
        wait_for(
            lambda pid=postgres: not alive(pid), "PostgreSQL is gone", killed + 2 - time.monotonic()
        )
    server.start()
    assert sum(map(len, must.values())) > 5_000
    assert_holds(server, must, may)


def test_sigterm_loses_nothing_that_was_read(server: ServerProcess) -> None:
    server.start()
    first_s = int(time.time()) - 5_000
    sent, others = Sent(), Sent()
    busy = Load(others, server.ports["carbon"], first_s, prefix="load2")
    load = Load(sent, server.ports["carbon"], first_s)
    time.sleep(2.5)
    load.stop()
    begin = time.monotonic()
    assert server.terminate(30) == 0, server.log
    assert time.monotonic() - begin < 30
    busy.abandon()
    assert "Traceback" not in server.log
    server.start()
    must = sent.known()
    assert sum(map(len, must.values())) > 5_000
    assert_holds(server, must, must | others.known())
