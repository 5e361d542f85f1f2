"""/metrics and the server's own points: declarations, document, values of a server whose parts are real but whose
store is memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.rig import Rig
from tgres_py import clock, metrics
from tgres_py.admin.limits import limits
from tgres_py.config import Settings
from tgres_py.ingest.pressure import MemoryWatch
from tgres_py.measure import Histogram
from tgres_py.metrics import GROUPS, agents, doc
from tgres_py.metrics.declare import Kind
from tgres_py.metrics.runtime import Runtime
from tgres_py.model.points import Reason
from tgres_py.model.retention import Archive, BundleSpec
from tgres_py.places import Places
from tgres_py.server import Server
from tgres_py.storage.memory import MemoryStore

ROOT = Path(__file__).parent.parent
SPEC = BundleSpec((Archive(10, 360, 36),))
NOW_S = 1_700_000_000
DECLARED = [one for group in GROUPS for one in group.metrics]


# -- declarations --------------------------------------------------------------------------------


def test_the_document_is_up_to_date() -> None:
    page = (ROOT / "docs/METRICS.md").read_text(encoding="utf-8")
    assert page == doc.page(), "run: python -m tgres_py.metrics.doc docs/METRICS.md"


def test_names_follow_the_conventions() -> None:
    names = [one.name for one in DECLARED]
    assert len(set(names)) == len(names)
    for one in DECLARED:
        assert re.fullmatch(r"(tgres|process)(_[a-z]+)+", one.name), one.name
        assert one.name.endswith("_total") == (one.kind is Kind.COUNTER), one.name
        assert one.kind is not Kind.HISTOGRAM or one.name.endswith("_seconds"), one.name
        assert one.help.endswith((".", "labels")) and "|" not in one.help, one.name


def test_buckets_are_cumulated() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 1.0, 7.0):
        histogram.observe(value)
    assert histogram.cumulated() == [("0.1", 2), ("1.0", 4), ("+Inf", 5)]
    assert histogram.sum == pytest.approx(8.65) and histogram.count == 5


def test_a_time_is_observed_also_when_the_block_fails() -> None:
    histogram = Histogram((60.0,))
    with pytest.raises(ValueError), histogram.timed():
        raise ValueError
    assert histogram.counts == [1, 0]


async def test_the_loop_s_lag_and_collections_are_measured() -> None:
    import gc

    runtime = Runtime()
    runtime.start()
    try:
        seen = asyncio.Event()

        class Seen(Histogram):
            def observe(self, value: float) -> None:
                seen.set()

        runtime.lag_seconds = Seen()
        task = asyncio.create_task(runtime.watch_loop())
        async with asyncio.timeout(30):
            await seen.wait()
        task.cancel()
        gc.collect()
        assert runtime.gc_seconds[2].count >= 1
    finally:
        runtime.stop()
    before = runtime.gc_seconds[2].count
    gc.collect()
    assert runtime.gc_seconds[2].count == before


# -- values --------------------------------------------------------------------------------------


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """The parts of a server without its listeners."""
    rig = Rig(MemoryStore(), tmp_path / "journal", SPEC, now_s=NOW_S)
    await rig.start()
    server = Server(Settings(data_dir=tmp_path, self_metrics_s=60))
    server.store = rig.store  # type: ignore[assignment]  # the rig's store stands for PostgreSQL's
    for part in ("ring", "registry", "journal", "intake", "flusher", "recovered"):
        setattr(server, part, getattr(rig, part))
    server.places = Places(tcp=100, http=100, files=1_000)
    server.memory = MemoryWatch(rig.intake, server.shares, young_s=0)
    rig.add([("a.b", NOW_S, 1.0), ("a.c", NOW_S, 2.0), ("a.b", NOW_S, 3.0)])
    yield server
    await rig.stop()


def samples(server: Server) -> dict[str, float]:
    text = metrics.exporter(server)().decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_every_metric_can_be_read(server: Server) -> None:
    text = metrics.exporter(server)().decode()
    shown = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    hidden = {one.name for one in DECLARED if one.name not in shown}
    assert all(
        name.startswith(
            (
                "tgres_statsd_",
                "tgres_peer_",
                "tgres_postgres_",
                "tgres_http_connections",
                    "tgres_tls_",
                "tgres_numpy_bytes",  # the pure kernels don't count
            )
        )
        for name in hidden
    )
    assert {one.name for one in DECLARED} - hidden == shown


async def test_values_are_the_owners(server: Server) -> None:
    await server.flusher.flush_now()
    await server.flusher.flush_until(0, NOW_S // 10 + 1)
    found = samples(server)
    assert found['tgres_points_received_total{receiver="test"}'] == 3
    assert found["tgres_points_stored_total"] == 2
    assert found["tgres_points_overwritten_total"] == 1
    assert found["tgres_flushes_total"] == 1
    assert found['tgres_flush_duration_seconds_bucket{le="+Inf"}'] == 1
    assert found['tgres_limit{limit="series_max"}'] == 20_000_000
    assert found['tgres_limit_used{limit="series_max"}'] == 2
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert found["process_open_fds"] >= 1
    assert 'tgres_build_info{kernels="' in "".join(found)
    assert found["tgres_memory_max_bytes"] > found['tgres_memory_share_bytes{share="cache"}'] > 0
    assert found['tgres_memory_bytes{part="names"}'] > 0


async def test_limits_are_between_none_and_all(server: Server) -> None:
    assert all(0 <= one.share <= 1 for one in limits(server))
    names = [one.name for one in limits(server)]
    assert len(set(names)) == len(names) and "disk of data_dir" in names


# -- own points ----------------------------------------------------------------------------------


async def test_own_points_have_carbon_s_names_and_count_the_last_interval(server: Server) -> None:
    own = agents.OwnPoints(server, "carbon.agents.h-a")
    first = own.values()
    assert first["metricsReceived"] == 3 and first["creates"] == 2
    assert first.keys() <= agents.CARBON_NAMES.keys() | agents.OWN_NAMES.keys()
    assert own.store(NOW_S) > 15
    received = server.intake.ledger.received[agents.RECEIVER]
    assert received == server.intake.ledger.stored - 2
    second = own.values()
    assert second["metricsReceived"] == 0, "its own points don't count"
    assert second["creates"] == received
    assert server.registry.table.get(b"carbon.agents.h-a.cache.size") >= 0
    assert server.intake.ledger.balance == 0


async def test_every_own_point_is_stored_once_there_was_something_of_all(server: Server) -> None:
    own = agents.OwnPoints(server, "x")
    server.flusher.flush_seconds.observe(0.5)
    server.meters.rendered("json", 0.25, {})
    server.runtime.lag_seconds.observe(0.01)
    values = own.values()
    assert set(values) == {*agents.CARBON_NAMES, *agents.OWN_NAMES}
    assert values["avgUpdateTime"] == 0.5 and values["tgres.renderTime"] == 0.25


async def test_no_own_points_while_there_is_no_room(server: Server) -> None:
    own = agents.OwnPoints(server, "x")
    server.intake._paused = True
    assert own.store(NOW_S) == 0
    assert server.intake.ledger.rejected[Reason.OVERLOAD] == 0


async def test_own_points_lie_on_the_grid(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []
    now = float(NOW_S) + 3.4
    clock.replace_source(lambda: now)

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if len(times) == 3:
            raise asyncio.CancelledError

    # its own only: the server's other tasks sleep, too
    monkeypatch.setattr(agents, "asyncio", SimpleNamespace(sleep=sleep))
    own = agents.OwnPoints(server, "x")
    monkeypatch.setattr(own, "store", times.append)
    with pytest.raises(asyncio.CancelledError):
        await own.run(10)
    assert times == [NOW_S + 10, NOW_S + 20, NOW_S + 30]


def test_the_prefix_names_the_host_as_carbon_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents.socket, "gethostname", lambda: "web1.example.org")
    assert agents.prefix_of("carbon.agents.{host}-a") == "carbon.agents.web1_example_org-a"
    assert agents.prefix_of("plain.") == "plain"


def test_own_points_have_a_retention_of_their_own_step() -> None:
    rules = Settings().rule_set()
    name = f"{agents.prefix_of(Settings().self_metrics_prefix)}.cache.size"
    assert [(a.step_s, a.retention_s) for a in rules.match_many([name])[0].archives] == [
        (60, 90 * 86_400)
    ]
    other = rules.match_many(["carbon.relays.x"])[0]
    assert other.archives[0].step_s == 10
    off = Settings(self_metrics_s=0).rule_set()
    assert off.match_many([name])[0].archives[0].step_s == 10
