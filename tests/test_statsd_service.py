"""statsd put together: unix sockets, the flush in a worker, settings changed while it runs, archives that are too coarse."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from receivers import tcp, udp
from receivers.statsd_service import StatsdService, StreamLimits
from tests.fake_sink import FakeSink
from tests.rig import Rig
from tgres_py.errors import ConfigError
from tgres_py.model.points import Reason
from tgres_py.model.retention import Cf, make_bundle, parse_retention
from tgres_py.statsd.listen import StatsdServer
from tgres_py.statsd.names import with_tag_values
from tgres_py.statsd.settings import from_table
from tgres_py.statsd.steps import StepCheck
from tgres_py.storage.memory import MemoryStore


def service(**table: Any) -> tuple[StatsdService, FakeSink]:
    sink = FakeSink()
    return StatsdService(from_table(table), table, sink), sink


@asynccontextmanager
async def listening(of: StatsdService, *servers: StatsdServer) -> AsyncIterator[dict[str, Any]]:
    streams = StreamLimits(tcp.TcpLimits(), tcp.Totals())
    opened = await of.listen(servers, ("127.0.0.1", 0), streams, udp.UdpLimits())
    try:
        yield opened
    finally:
        for listener in opened.values():
            listener.close()
            await listener.drain()


async def wait_until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


def stored(sink: FakeSink) -> dict[str, float]:
    return {name.decode(): value for name, _, value in sink.points}


# -- unix sockets --------------------------------------------------------------------------------


async def test_a_unix_stream_is_read_like_tcp(tmp_path: Path) -> None:
    of, _ = service()
    path = tmp_path / "s"
    async with listening(of, StatsdServer("tcp", socket=str(path), mode="0600")) as opened:
        assert opened["statsd_tcp"].address == (str(path), 0)
        assert path.stat().st_mode & 0o777 == 0o600
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"a:1|c\na:2")
        await wait_until(lambda: of.aggregator.counters().get("a") == 1)
        writer.write(b"|c\n")
        await wait_until(lambda: of.aggregator.counters()["a"] == 3)
        writer.close()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["stream", "datagram"])
async def test_only_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "stream":
        of, _ = service()
        server = StatsdServer("tcp", socket=str(path))
    else:
        of, _ = service(socket=str(path))
        server = StatsdServer("udp", port=0)
    number = socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_UNIX, number) as other:
        other.bind(str(path))
        if kind == "stream":
            other.listen()
        with pytest.raises(ConfigError, match="another process listens there"):
            async with listening(of, server):
                pass
    async with listening(of, server):  # what the other left is stale
        pass
    path.unlink(missing_ok=True)
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is no socket"):
        async with listening(of, server):
            pass
    assert path.read_text() == "precious"


async def test_the_datagram_socket_belongs_to_the_first_udp_server(tmp_path: Path) -> None:
    of, _ = service(socket=str(tmp_path / "s"))
    servers = (
        StatsdServer("tcp", port=0),
        StatsdServer("udp", port=0),
        StatsdServer("udp", port=0),
    )
    async with listening(of, *servers) as opened:
        assert set(opened) == {"statsd_tcp", "statsd", "statsd2", "statsd_mgmt"}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"a:1|c", str(tmp_path / "s"))
        await wait_until(lambda: of.aggregator.counters().get("a") == 1)


# -- flushes -------------------------------------------------------------------------------------


async def test_packets_that_come_during_a_flush_belong_to_the_next() -> None:
    of, sink = service()
    of.aggregator.add(b"a:1|c\nt:5|ms", 1, 0)
    task = asyncio.create_task(of.flush.flush(100))
    await asyncio.sleep(0)  # it has taken what it flushes, and works on it
    of.aggregator.add(b"a:2|c\nb:7|c", 1, 0)
    await task
    assert stored(sink)["stats_counts.a"] == 1 and "stats_counts.b" not in stored(sink)
    await of.flush.flush(110)
    assert stored(sink)["stats_counts.a"] == 2 and stored(sink)["stats_counts.b"] == 7
    assert {time for _, time, _ in sink.points} == {100, 110}


async def test_the_last_flush_waits_for_the_one_before_and_ends_the_others() -> None:
    of, sink = service(flushInterval=86_400_000)
    of.aggregator.add(b"a:1|c", 1, 0)
    first = asyncio.create_task(of.flush.flush(100))
    await asyncio.sleep(0)
    of.aggregator.add(b"a:2|c", 1, 0)
    await of.flush.last()
    assert first.done()
    found = [(time, value) for name, time, value in sink.points if name == b"stats_counts.a"]
    assert [value for _, value in found] == [1, 2] and found[0][0] == 100 < found[1][0]
    async with asyncio.timeout(5):
        await of.flush.run()  # there will be no other


async def test_a_removed_series_comes_again_as_a_new_one(tmp_path: Path) -> None:
    """Ids of known numbers are remembered: not beyond their series' end, nor under a series' former name."""
    spec = make_bundle(parse_retention("10s:1h"), Cf.AVERAGE, 0.5)
    rig = Rig(MemoryStore(), tmp_path, spec, now_s=1_700_000_050)
    await rig.start()
    of = StatsdService(from_table({}), {}, rig.intake)
    names = [b"stats_counts.gone", b"stats_counts.renamed"]
    for number in range(3):
        of.aggregator.add(b"gone:1|c\nrenamed:2|c\nstays:3|c", 1, 0)
        await of.flush.flush(1_700_000_000 + 10 * number)
        if number == 0:
            first = {name: rig.registry.table.get(name) for name in (*names, b"stats_counts.stays")}
            ids = np.array([first[name] for name in names], np.int32)
            rig.registry.retire(ids[:1])
            rig.registry.rename(ids[1:], ["elsewhere"])
    slot = 1_700_000_000 // 10
    for name in names:
        assert rig.registry.table.get(name) not in (-1, first[name])
    assert rig.registry.table.get(b"stats_counts.stays") == first[b"stats_counts.stays"]
    found = [(await rig.read(name, 0, slot, slot + 3)).tolist() for name in (
        "stats_counts.gone", "stats_counts.renamed", "elsewhere", "stats_counts.stays"
    )]  # fmt: skip
    nan = pytest.approx(float("nan"), nan_ok=True)
    assert found == [[nan, 1, 1], [nan, 2, 2], [2, nan, nan], [3, 3, 3]]
    await rig.stop()


async def test_refused_names_are_counted_and_tried_again() -> None:
    of, sink = service(graphite={"legacyNamespace": False, "globalPrefix": "refused"})
    for stamp in (100, 110):
        of.aggregator.add(b"a:1|c", 1, 0)
        await of.flush.flush(stamp)
    assert (
        not sink.points and sink.rejected[Reason.UNMATCHED] == sink.calls[0][1] + sink.calls[1][1]
    )


async def test_a_flush_that_fails_does_not_end_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    of, sink = service(flushInterval=1_000)
    plan, failures = of.flush.numbers.plan, []

    def fails_once(interval: Any) -> Any:
        if not failures:
            failures.append(1)
            raise MemoryError
        return plan(interval)

    monkeypatch.setattr(of.flush.numbers, "plan", fails_once)
    task = asyncio.create_task(of.flush.run())
    await wait_until(lambda: bool(sink.points))
    assert failures and not task.done()
    task.cancel()


async def test_many_names_and_points_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receivers.statsd_flush.NAMES_EACH", 7)
    monkeypatch.setattr("receivers.statsd_flush.POINTS_EACH", 10)
    of, sink = service()
    for stamp in (100, 110):
        sink.points.clear()
        of.aggregator.add(b"".join(b"k%d:%d|c\n" % (i, i) for i in range(50)), 1, 0)
        await of.flush.flush(stamp)
        assert all(stored(sink)[f"stats_counts.k{i}"] == i for i in range(50))


# -- settings, tags, archives --------------------------------------------------------------------


async def test_changed_settings_hold_from_the_next_line_and_flush_on() -> None:
    of, sink = service()
    of.aggregator.add(b"t:1|ms\nt:3|ms\nc:1|c\nh:5|h", 1, 0)
    await of.flush.flush(100)
    assert stored(sink)["stats_counts.h"] == 5
    sink.points.clear()
    table = {
        "percentThreshold": 50,
        "timerTypes": ["h"],
        "histogram": [{"metric": "t", "bins": [2]}],
        "graphite": {"globalSuffix": "x"},
        "mgmtDelete": True,
        "keysMax": 7,
    }
    await of.reconfigure(from_table(table), table)
    of.aggregator.add(b"t:1|ms\nt:3|ms\nc:2|c\nh:6|h\nnew:1|c", 1, 0)
    await of.flush.flush(110)
    found = stored(sink)
    assert found["stats_counts.c.x"] == 2 and found["stats.timers.t.upper_50.x"] == 1
    assert found["stats.timers.t.histogram.bin_2.x"] == 1 and found["stats.timers.h.sum.x"] == 6
    assert "stats.timers.t.upper_90.x" not in found and "stats_counts.new.x" not in found
    assert of.aggregator.limits()["keys"] >= 1
    assert of.management.handle(b"delgauges nope", 0) == b"metric nope not found\nEND\n\n"
    assert b"percentThreshold: 50\n" in (of.management.handle(b"config", 0) or b"")


@pytest.mark.parametrize(
    ("name", "stored_as"),
    [
        ("a", "a"), ("a;b=c", "a;b=c"), ("a;b", "a;b=true"), ("a;b=", "a;b=true"), ("a;;=x;b=c=d", "a;b=c=d"),
    ],
)  # fmt: skip
def test_tags_without_a_value_get_one(name: str, stored_as: str) -> None:
    assert with_tag_values(name, "true") == stored_as
    assert with_tag_values(name, "") == name


async def test_tags_without_a_value_are_stored_with_one() -> None:
    of, sink = service(tagDefault="yes")
    of.aggregator.add(b"a:1|g|#debug,env:prod", 1, 0)
    await of.flush.flush(100)
    assert stored(sink)["stats.gauges.a;debug=yes;env=prod"] == 1


def test_an_archive_with_longer_steps_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    check = StepCheck(10.0)
    for name, retention in (("a", "10s:1h"), ("b", "1m:1d"), ("c", "1m:1d"), ("d", "1s:1h")):
        for cf in (Cf.AVERAGE, Cf.SUM):
            check.check(make_bundle(parse_retention(retention), cf), name)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "b gets an archive of 60 s steps, but flushes come every 10 s"
    )
    assert "set flushInterval of [statsd] to 60000" in record.getMessage()
