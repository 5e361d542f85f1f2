"""The watch over memory: how many series fit, what is shed near the bound, what the log says."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from receivers import carbon_line
from tests.acceptance.process import environment
from tgres_py import clock
from tgres_py.ingest import pressure
from tgres_py.ingest.footprint import cache_bytes, index_bytes, index_parts
from tgres_py.ingest.intake import Intake, Limits
from tgres_py.ingest.pressure import CALM, SEGMENT, TIGHT, MemoryWatch
from tgres_py.ingest.registry import Registry
from tgres_py.kernels import Budget, RingStore, statsd_py
from tgres_py.kernels import statsd as native_cells
from tgres_py.memory import MIB, Shares, shares
from tgres_py.model.points import Reason
from tgres_py.model.retention import Archive, BundleSpec, Cf
from tgres_py.server.chores import INDEX_WAITING

NOW_S = 1_700_000_000
SPEC = BundleSpec((Archive(10, 360, 120),), Cf.AVERAGE, 0.5)
LONG = BundleSpec((Archive(10, 86_400, 120),), Cf.AVERAGE, 0.5)
TOTAL = 1_000 * MIB


class Rig:
    """An intake and its watch; ``resident`` and ``now`` are what the watch sees."""

    def __init__(self, parts: Shares, budget: Budget | None = None, young_s: float = 60) -> None:
        self.resident = 0
        self.now = 1_000.0
        self.registry = Registry(lambda names: [SPEC] * len(names), RingStore(), budget=budget)
        self.registry.open()
        self.intake = Intake(self.registry, None, Limits(parts.cache))
        self.watch = MemoryWatch(self.intake, parts, young_s, lambda: 5)

    def send(self, *names: str) -> None:
        lines = "".join(f"{name} 1 {NOW_S}\n" for name in names).encode()
        self.intake.accept("test", carbon_line.parse(lines, NOW_S, self.registry))

    def look(self, resident: float, seconds: float = 1.0) -> None:
        self.resident = int(resident)
        self.now += seconds
        self.watch.look()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(shares(TOTAL), Budget(1, 10, 0, 0))
    monkeypatch.setattr(pressure, "resident_bytes", lambda: rig.resident)
    monkeypatch.setattr(clock, "monotonic", lambda: rig.now)
    clock.replace_source(lambda: NOW_S)
    yield rig
    clock.replace_source(None)


def test_near_the_bound_there_are_no_new_series_until_it_is_well_below(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rig.look(0.5 * TOTAL)
    rig.send("a.1")
    for _ in range(3):
        rig.look(TIGHT * TOTAL)
        rig.send("a.1", "a.2")
    assert rig.watch.tight and rig.watch.resident == int(TIGHT * TOTAL) + 5
    assert rig.intake.ledger.rejected == {Reason.MEMORY: 3}
    assert (len(rig.registry), rig.intake.ledger.balance) == (1, 0)
    rig.look((CALM + 0.01) * TOTAL)
    rig.send("a.2")
    assert rig.watch.tight and len(rig.registry) == 1, "it doesn't flutter"
    rig.look((CALM - 0.01) * TOTAL)
    rig.send("a.2")
    assert not rig.watch.tight and len(rig.registry) == 2
    rig.look(0.5 * TOTAL, 60)
    said = [r.getMessage() for r in caplog.records if r.name == pressure.__name__]
    assert [text.partition(":")[0] for text in said] == [
        "memory",
        "points of new series are refused",
        "memory",
        "no new series was refused for 10 s (memory); 4 points were",
    ]


def test_what_the_budget_refuses_is_told_once_with_its_prefix(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for second in range(5):
        rig.send(*(f"storm.x.{second}.{i}" for i in range(20)))
        rig.look(0)
    rig.look(0, 30)
    said = [r.getMessage() for r in caplog.records if r.name == pressure.__name__]
    assert len(said) == 2
    assert "most under storm.x" in said[0] and "no new series was refused" in said[1]


def test_the_index_s_share_ends_new_series_and_not_the_known_ones(rig: Rig) -> None:
    rig.send("a.known")
    rig.registry.sync_index()
    used = index_bytes(rig.registry)
    rig.watch.shares = Shares(TOTAL, TOTAL, used + 3 * pressure.SERIES_BYTES, TOTAL)
    rig.look(0)
    rig.send("a.known", "a.1", "a.2", "a.3", "a.4", "a.5")
    assert len(rig.registry) == 4
    assert rig.intake.ledger.rejected == {Reason.MEMORY: 2}
    assert rig.intake.ledger.stored + rig.intake.ledger.overwritten == 5
    rig.watch.shares = Shares(TOTAL, TOTAL, used // 2, TOTAL)  # the store had more than fit
    rig.look(0)
    assert rig.watch.series_left() == 0
    rig.send("a.known", "a.6")
    assert rig.intake.ledger.rejected == {Reason.MEMORY: 3}


def test_series_whose_rows_could_not_be_written_in_time_don_t_fit() -> None:
    """60 s in slots of 10 s, and two: 8 rows of 8 bytes for each column, in six tenths of the pause's level."""
    columns = 10 * SEGMENT
    cache = int(columns * 64 / pressure.YOUNG_SHARE * 1.25) + 1_000
    rig = Rig(Shares(TOTAL, cache, TOTAL, TOTAL))
    rig.send(*(f"a.{i}" for i in range(SEGMENT)))
    assert rig.watch.series_left() == 9 * SEGMENT
    rig.send(*(f"b.{i}" for i in range(9 * SEGMENT)))
    assert rig.watch.series_left() == 0
    assert cache_bytes(rig.intake) < rig.intake.limits.cache_pause_bytes


def test_what_statsd_keeps_counts_in_the_index_s_share(rig: Rig) -> None:
    rig.send("a.known")
    rig.registry.sync_index()
    used = index_bytes(rig.registry)
    rig.watch.shares = Shares(TOTAL, TOTAL, used + 100 * pressure.SERIES_BYTES, TOTAL)
    assert rig.watch.series_left() == 100
    rig.registry.beside["statsd"] = lambda: 50 * pressure.SERIES_BYTES
    assert index_parts(rig.registry)["statsd"] == 50 * pressure.SERIES_BYTES
    assert 40 < rig.watch.series_left() < 50
    rig.registry.beside["statsd"] = lambda: MIB
    rig.look(0)
    rig.send("a.known", "a.1")
    assert rig.intake.ledger.rejected == {Reason.MEMORY: 1}


STATSD_KEYS = 100_000
STATSD = """
import gc, sys
from tgres_py.machine import calm_allocator, resident_bytes, trim_memory
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.flush import FlushNumbers
from tgres_py.statsd.settings import StatsdSettings

calm_allocator()
settings = StatsdSettings()
aggregator, numbers = Aggregator(settings), FlushNumbers(settings)


def interval(first, end):
    for low in range(first, end, 1_000):
        lines = (sys.argv[1].format(i).encode() for i in range(low, low + 1_000))
        aggregator.add(b"\\n".join(lines), 1, 100)
    plan = numbers.plan(aggregator.take(110))
    plan.ids[plan.missing] = range(len(plan.missing))
    numbers.learn(plan, plan.ids)
    del plan
    gc.collect()
    trim_memory()


interval(10_000_000, 10_005_000)
before = resident_bytes(), aggregator.bytes_used
interval(0, int(sys.argv[2]))
interval(0, int(sys.argv[2]))
print(resident_bytes() - before[0], aggregator.bytes_used - before[1])
"""


@pytest.mark.parametrize("pure", [False, True], ids=["native", "pure"])
@pytest.mark.parametrize("line", ["app.web{:07d}.requests:1|c", "app.web{:07d}.duration:12.5|ms"])
def test_what_statsd_keeps_is_what_is_reckoned(line: str, pure: bool) -> None:
    """Within a quarter: keys, and what the flush remembers of them."""
    command = [sys.executable, "-c", STATSD, line, str(STATSD_KEYS)]
    env = environment() | ({"TGRES_PURE": "1"} if pure else {})
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    grown, reckoned = map(int, done.stdout.split())
    said = f"{reckoned / STATSD_KEYS:.0f} of {grown / STATSD_KEYS:.0f} bytes"
    print(said)
    assert 0.75 < reckoned / grown < 1.25, said


def test_what_statsd_gives_up_is_given_up_in_the_account_too() -> None:
    for cells in (native_cells.StatsdCells, statsd_py.StatsdCells):
        one = cells(1_000, 1_000, 100, 10_000)
        one.count("a.key.that.stays", 1.0)
        before = one.bytes_used
        for i in range(100):
            one.member("users", f"m{i}")
            one.time("t", float(i), 1.0)
        assert one.bytes_used > before + 100 * 20
        for _ in range(2):
            one.take(0, 1, 0, 1)
        assert one.bytes_used < before + 400  # the place of two keys


@pytest.mark.parametrize("size", [12, 900])
def test_a_storm_of_other_names_ends_at_the_index_s_share(rig: Rig, size: int) -> None:
    """Names that take far more than those before; the watch doesn't look again, as in the second between two looks."""
    registry = rig.registry
    registry.budget = None
    rig.watch.shares = share = Shares(TOTAL, TOTAL, 24 * MIB, TOTAL)
    rig.send(*(f"fleet.h{i // 40}.m{i % 40}" for i in range(12_000)))
    registry.sync_index()
    rig.look(0)
    sent = 12_000
    for number in range(60):
        rig.send(*(f"storm.{number}.{i:0{size}d}" + ".x" * 4 for i in range(2_000)))
        sent += 2_000
        if registry.waiting >= INDEX_WAITING:
            registry.sync_index()
    registry.sync_index()
    assert 0.9 < index_bytes(registry) / share.index < 1.15
    assert len(registry) + rig.intake.ledger.rejected[Reason.MEMORY] == sent


GROWTH = """
import gc, sys
from tests.test_pressure import SPEC
from tgres_py.ingest.footprint import index_bytes
from tgres_py.ingest.registry import Registry
from tgres_py.kernels import RingStore
from tgres_py.machine import calm_allocator, resident_bytes

calm_allocator()
registry = Registry(lambda names: [SPEC] * len(names), RingStore())
registry.open()
pattern, series, each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def feed(first, end):
    for low in range(first, end, each):
        names = [
            pattern.format(host=i // 40, metric=i % 40, id=i * 7919 % (1 << 30)).encode()
            for i in range(low, min(end, low + each))
        ]
        registry.resolve(names)
        registry.fresh_floors(), list(registry.fresh_names())


def tell():
    gc.collect()
    print(resident_bytes() - before[0], index_bytes(registry) - before[1])


feed(10_000_000, 10_010_000)
registry.sync_index()
before = resident_bytes(), index_bytes(registry)
feed(0, series)
tell()
registry.sync_index()
tell()
"""
FLEET = "servers.dc1-eu-west.host{host:06d}-web.cpu.metric{metric:02d}"
DEEP = "app.{id:09d}.requests.{id:012d}.checkout.count"


@pytest.mark.parametrize(
    ("pattern", "series", "each", "pure"),
    [
        (FLEET, 300_000, 5_000, False),
        (DEEP, 100_000, 1, False),
        ("app.requests.checkout.{id:09d}.duration.count", 300_000, 5_000, False),
        (DEEP, 60_000, 5_000, True),
        pytest.param(
            "disk.used;dc=eu-west;dev=sda{metric:02d};host=web{host:06d}.example",
            300_000,
            5_000,
            False,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "disk.used;dc=eu-west;id={id:0100d}", 100_000, 5_000, False, marks=pytest.mark.slow
        ),
        pytest.param("a.{id:x}", 300_000, 5_000, False, marks=pytest.mark.slow),
        pytest.param("a.{id:0500d}", 100_000, 5_000, False, marks=pytest.mark.slow),
        pytest.param(FLEET, 60_000, 5_000, True, marks=pytest.mark.slow),
    ],
    ids=[
        "plain",
        "one_by_one",
        "storm",
        "pure",
        "tags",
        "tag_storm",
        "short",
        "long",
        "pure_plain",
    ],
)
def test_the_index_takes_what_is_reckoned(pattern: str, series: int, each: int, pure: bool) -> None:
    """Within a quarter: resident memory of a process that takes so many series, and what it says of itself, while the
    names wait for tree and tags, and when they are there."""
    command = [sys.executable, "-c", GROWTH, pattern, str(series), str(each)]
    env = environment() | ({"TGRES_PURE": "1"} if pure else {})
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    stages = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(stages) == 2
    for stage, (grown, reckoned) in zip(("waiting", "in tree"), stages, strict=True):
        said = f"{stage}: {reckoned / series:.0f} of {grown / series:.0f} bytes"
        print(said)
        assert 0.75 < reckoned / grown < 1.25, said


def test_scattered_old_points_go_little_beyond_a_tiny_cache() -> None:
    """Each line may need a row of a whole segment; the last piece that is read before senders wait takes a few megabytes."""
    rig = Rig(Shares(TOTAL, 48 * MIB, TOTAL, TOTAL))
    rig.registry.match_many = lambda names: [LONG] * len(names)
    clock.replace_source(lambda: NOW_S)
    try:
        rig.send(*(f"a.{i}" for i in range(SEGMENT)))
        rig.send(*(f"a.{i}" for i in range(SEGMENT, 2 * SEGMENT)))
        slots = iter(range(1, 100_000))
        while not rig.intake.paused:
            lines = b""
            nearly = cache_bytes(rig.intake) > rig.intake.limits.cache_pause_bytes - MIB
            while len(lines) < (rig.intake.piece_bytes_max if nearly else 1):
                slot = next(slots)
                name = SEGMENT + slot % SEGMENT
                lines += b"a.%d 1 %d\n" % (name, NOW_S - 10 * slot)
            rig.intake.accept("test", carbon_line.parse(lines, NOW_S, rig.registry))
    finally:
        clock.replace_source(None)
    assert rig.intake.ledger.rejected == {}
    assert cache_bytes(rig.intake) < rig.intake.limits.cache_pause_bytes + 8 * MIB
