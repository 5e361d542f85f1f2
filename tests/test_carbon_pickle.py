"""Carbon's pickle format: what real senders write, every split point, bad points, bad frames."""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receivers import carbon_pickle
from receivers.block import NAME_BYTES_MAX
from receivers.carbon_pickle import FRAME_BYTES_MAX, encode, finish, parse, wire_format
from receivers.sink import NameScanner
from receivers.tcp import TcpLimits, TcpListener
from tests.fake_sink import FakeRegistry, FakeSink, ScanningRegistry
from tests.test_tcp import connect, feed, unhurried
from tgres_py.ingest.registry import Registry
from tgres_py.kernels import NameTable, RingStore, names_py
from tgres_py.model.points import Parsed, Reason

NOW_S = 1_700_000_000
PROTOCOLS = range(6)

Outcome = tuple[list[tuple[bytes, int, float]], dict[Reason, int], bytes]


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def frame_of(points: Any, protocol: int) -> bytes:
    return frame(pickle.dumps(points, protocol))


# Every way to read frames; all must come to the same. Where the kernel isn't built, all but the first are the pure one.
REGISTRIES: list[Callable[[], FakeRegistry]] = [
    FakeRegistry,
    lambda: ScanningRegistry(names_py.NameTable()),
    lambda: ScanningRegistry(NameTable()),
]


def parse_all_ways(data: bytes, **limits: int) -> tuple[Outcome, list[Reason]]:
    """What all registries agree on: the outcome, and the reasons of the samples."""
    outcomes = []
    for make in REGISTRIES:
        registry = make()
        parsed = parse(data, NOW_S, registry, **limits)
        assert parsed.received == len(parsed.block) + sum(parsed.rejected.values())
        assert all(text for _, text in parsed.samples)
        assert parsed.block.times.dtype == "int64" and parsed.block.values.dtype == "float64"
        outcome = registry.points(parsed), dict(parsed.rejected), parsed.rest
        outcomes.append((outcome, sorted(reason for reason, _ in parsed.samples)))
    assert outcomes.count(outcomes[0]) == len(outcomes)
    return outcomes[0]


def run(data: bytes, **limits: int) -> Outcome:
    return parse_all_ways(data, **limits)[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("count", [1, 2, 999, 1_000, 1_001, 2_500])
def test_relay(protocol: int, count: int) -> None:
    """carbon-relay: (name, (float timestamp, float value))."""
    points = [(f"servers.web{i}.cpu", (NOW_S + i + 0.25, i / 3)) for i in range(count)]
    expected = [(f"servers.web{i}.cpu".encode(), NOW_S + i, i / 3) for i in range(count)]
    assert run(frame_of(points, protocol)) == (expected, {}, b"")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_relay_takes_the_quick_way(protocol: int) -> None:
    points = [(f"servers.web{i}.cpu", (NOW_S + i, i / 3)) for i in range(2_500)]
    columns = carbon_pickle._common_shape(pickle.dumps(points, protocol))
    assert columns is not None
    assert columns[0][-1] == b"servers.web2499.cpu"


def test_statsd() -> None:
    """etsy's statsd, byte for byte: protocol 0, long timestamps, values as text."""
    body = b"(l" + b"".join(
        b"(S'stats.%s'\n(L1795346527L\nS'%s'\ntta" % pair
        for pair in [(b"a", b"1.5"), (b"b", b"0"), (b"c", b"-1e-7")]
    )
    expected = [
        (b"stats.a", 1795346527, 1.5),
        (b"stats.b", 1795346527, 0.0),
        (b"stats.c", 1795346527, -1e-7),
    ]
    assert carbon_pickle._statsd_shape(body + b".") is not None
    assert run(frame(body + b".")) == (expected, {}, b"")
    bad = body + b"(S'stats.d'\n(L1795346527L\nS'x'\ntta."
    assert run(frame(bad)) == (expected, {Reason.MALFORMED: 1}, b"")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_graphitesend(protocol: int) -> None:
    """Values as text."""
    points = [("systems.h.a", (1795346527.9, "1.500000")), ("systems.h.b", ("1795346527", "2"))]
    expected = [(b"systems.h.a", 1795346527, 1.5), (b"systems.h.b", 1795346527, 2.0)]
    assert run(frame_of(points, protocol)) == (expected, {}, b"")


def test_python_2_relay() -> None:
    item = (
        b"U\x03a.b" + b"G" + struct.pack(">d", NOW_S) + b"G" + struct.pack(">d", 2.5) + b"\x86\x86"
    )
    assert run(frame(b"\x80\x02](" + item * 2 + b"e.")) == ([(b"a.b", NOW_S, 2.5)] * 2, {}, b"")
    assert run(frame(b"\x80\x02]" + item + b"a.")) == ([(b"a.b", NOW_S, 2.5)], {}, b"")


@pytest.mark.parametrize(
    "points",
    [
        [["a", [5, 1]], ("b", [6, 2])],
        (("a", (5, 1)), ["b", (6, 2)]),
        [(b"a", (5, True)), (b"b", (6, 2))],
        [("a", ("5", "1_0e-1")), ("b", (" 6 ", b"2"))],
    ],
    ids=repr,
)
def test_shapes(points: Any) -> None:
    assert run(frame_of(points, 4)) == ([(b"a", 5, 1.0), (b"b", 6, 2.0)], {}, b"")


BAD_POINTS: list[tuple[Any, Reason]] = [
    (("a", (5, math.nan)), Reason.NAN),
    (("a", (5, "nan")), Reason.NAN),
    (("a", (5, "running")), Reason.MALFORMED),
    (("a", (5, None)), Reason.MALFORMED),
    (("a", (None, 1)), Reason.MALFORMED),
    (("a", (math.nan, 1)), Reason.MALFORMED),
    (("a", (math.inf, 1)), Reason.MALFORMED),
    (("a", (2.0**54, 1)), Reason.MALFORMED),
    (("a", (5,)), Reason.MALFORMED),
    (("a", (5, 1, 2)), Reason.MALFORMED),
    (("a", 5, 1), Reason.MALFORMED),
    (("a",), Reason.MALFORMED),
    ((5, (5, 1)), Reason.MALFORMED),
    (("a", "51"[0]), Reason.MALFORMED),
    ("a 5 1", Reason.MALFORMED),
    (None, Reason.MALFORMED),
    (7, Reason.MALFORMED),
    ([], Reason.MALFORMED),
    (("", (5, 1)), Reason.NAME),
    (("a\nb", (5, 1)), Reason.NAME),
    (("a\tb", (5, 1)), Reason.NAME),
    (("a\x00", (5, 1)), Reason.NAME),
    (("\ud800", (5, 1)), Reason.UTF8),
    ((b"\xff", (5, 1)), Reason.UTF8),
    (("refused;x=1", (5, 1)), Reason.UNMATCHED),
    (("n" * (NAME_BYTES_MAX + 1), (5, 1)), Reason.LIMIT),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_POINTS, ids=[repr(p)[:40] for p, _ in BAD_POINTS])
def test_a_bad_point_costs_itself(bad: Any, reason: Reason) -> None:
    points = [("x", (1.0, 1.5)), bad, ("y", (2.0, 2.5))]
    outcome, samples = parse_all_ways(frame_of(points, 4))
    assert outcome == ([(b"x", 1, 1.5), (b"y", 2, 2.5)], {reason: 1}, b"")
    assert samples == [reason]


@pytest.mark.parametrize("timestamp", [-1, -1.0, -1.9, "-1"])
def test_now(timestamp: Any) -> None:
    assert run(frame_of([("a", (timestamp, 1.5))] * 3, 2)) == ([(b"a", NOW_S, 1.5)] * 3, {}, b"")


def test_infinity_and_blanks_pass() -> None:
    points = [("a b", (5.0, math.inf)), ("é", (5.0, -math.inf))]
    expected = [(b"a b", 5, math.inf), ("é".encode(), 5, -math.inf)]
    assert run(frame_of(points, 2)) == (expected, {}, b"")


BAD_FRAMES = [
    b"",
    b"garbage",
    b"\x80\x02](",
    b"\x80\x02](X\xff\xff\xff\x7fa",
    b"cos\nsystem\n(S'true'\ntR.",
    pickle.dumps({"a": 1}),
    pickle.dumps("a 1 5"),
    pickle.dumps(None),
]


@pytest.mark.parametrize("bad", BAD_FRAMES, ids=repr)
def test_a_bad_frame_costs_itself(bad: bytes) -> None:
    good = frame_of([("a", (5, 1.5))], 2)
    outcome, samples = parse_all_ways(good + frame(bad) + good)
    assert outcome == ([(b"a", 5, 1.5)] * 2, {Reason.MALFORMED: 1}, b"")
    assert samples == [Reason.MALFORMED]


def test_empty_list_is_nothing() -> None:
    assert run(frame_of([], 2)) == ([], {}, b"")


def test_frame_limit() -> None:
    body = pickle.dumps([("a", (5, 1.5))], 2)
    assert run(frame(body), frame_bytes_max=len(body)) == ([(b"a", 5, 1.5)], {}, b"")
    good = frame(pickle.dumps([], 2))
    outcome = run(good + frame(body), frame_bytes_max=len(body) - 1)
    assert outcome == ([], {Reason.LIMIT: 1}, frame(body)[:4])
    assert wire_format(len(body) - 1).wanted(outcome[2]) == -1
    assert wire_format(len(body)).wanted(outcome[2]) == 4 + len(body)
    assert wire_format().wanted(b"\x00\x10\x00") == 4


def test_torn_frame_at_the_end_is_counted() -> None:
    parsed = finish(b"\x00\x00\x00\x10\x80", NOW_S, FakeRegistry())
    assert (len(parsed.block), parsed.rejected) == (0, {Reason.MALFORMED: 1})


def test_with_the_registry_of_the_server() -> None:
    """Names get their canonical form; what there is no room for is refused, whoever reads the frame."""
    registry = Registry(lambda names: [], RingStore(), series_max=4)
    assert isinstance(registry, NameScanner)
    plain = [("a", (1, 1.5)), ("d;y=2;x=1", (2, 2)), ("d;x=1;y=2", (3, 3)), ("e", (4, 4))]
    odd = [("a", (5, "5_0")), ("f", (6, 6)), ("a b", (7, 7))]
    for _ in range(2):
        parsed = parse(frame_of(plain, 2) + frame_of(odd, 2), NOW_S, registry)
        d = "d;x=1;y=2"
        assert registry.names(parsed.block.ids) == ["a", d, d, "e", "a", "f"]
        assert parsed.block.times.tolist() == [1, 2, 3, 4, 5, 6]
        assert parsed.rejected == {Reason.NAME: 1}
    beyond = parse(frame_of([("g", (1, 1)), ("a", (2, 2)), ("h;x=1", (3, 3))], 2), NOW_S, registry)
    assert registry.names(beyond.block.ids) == ["a"]
    assert beyond.rejected == {Reason.LIMIT: 2}


# Through the transport


def test_every_split_point() -> None:
    stream = (
        frame_of([("a", (1.0, 1.5)), ("b", (2, "2.5"))], 2)
        + frame(b"bad")
        + frame_of([("c", (3, 3))], 0)
    )
    for cut in range(len(stream) + 1):
        sink = FakeSink()
        listener = TcpListener("pickle", wire_format(), sink, TcpLimits(), unhurried())
        connection, transport = connect(listener)
        feed(connection, stream[:cut])
        feed(connection, stream[cut:])
        connection.eof_received()
        assert sink.points == [(b"a", 1, 1.5), (b"b", 2, 2.5), (b"c", 3, 3.0)], cut
        assert sink.rejected == {Reason.MALFORMED: 1}
        assert not transport.closing
        assert listener.totals.tail_bytes == 0


@pytest.mark.parametrize("piece", [1_000, 10_000, 65_536, 300_000])
async def test_large_frames_in_pieces(piece: int) -> None:
    """Frames larger than the shared buffer and tails of all lengths."""
    count = 12_000
    points = [(f"servers.web{i:05d}.cpu.total.user.percent", (float(i), 1.5)) for i in range(count)]
    body = pickle.dumps(points, 2)
    assert 700_000 < len(body) < FRAME_BYTES_MAX
    stream = frame(body) * 2
    sink = FakeSink()
    listener = TcpListener(
        "pickle", wire_format(), sink, TcpLimits(buffer_bytes=150_000), unhurried()
    )
    connection, _ = connect(listener)
    for at in range(0, len(stream), piece):
        feed(connection, stream[at : at + piece])
    assert [t for _, t, _ in sink.points] == list(range(count)) * 2
    assert listener.totals.tail_bytes == 0


def test_a_frame_is_parsed_when_it_is_complete() -> None:
    """However small the pieces are: nothing is looked at again and again."""
    calls: list[int] = []

    def counting(data: Any, *rest: Any) -> Parsed:
        calls.append(len(data))
        return parse(data, *rest)

    stream = frame_of([(f"servers.web{i}", (i, 1.5)) for i in range(700)], 2)
    sink = FakeSink()
    wire = replace(wire_format(), parse=counting)
    listener = TcpListener("pickle", wire, sink, TcpLimits(), unhurried())
    connection, _ = connect(listener)
    for at in range(0, len(stream), 64):
        feed(connection, stream[at : at + 64])
    assert calls == [64, len(stream)]
    assert len(sink.points) == 700
    assert listener.totals.tail_bytes == 0


def test_oversized_length_closes_the_connection() -> None:
    sink = FakeSink()
    listener = TcpListener("pickle", wire_format(), sink, TcpLimits(), unhurried())
    connection, transport = connect(listener)
    feed(connection, frame_of([("a", (5, 1.5))], 2) + b"servers.web1.cpu 1 5\n" * 100)
    assert transport.closing
    assert sink.points == [(b"a", 5, 1.5)]
    assert sink.rejected == {Reason.LIMIT: 1}
    assert sink.samples[0][1].startswith(b"servers.web1.cpu")
    connection.connection_lost(None)
    assert sink.rejected == {Reason.LIMIT: 1}
    assert listener.totals.tail_bytes == 0


# Round trip and fuzz

names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1, max_size=300
).filter(lambda name: not name.startswith("refused"))
good_points = st.lists(
    st.tuples(
        names,
        st.tuples(
            st.one_of(st.integers(0, 2**45), st.floats(0, 2**45)),
            st.one_of(st.floats(allow_nan=False), st.integers(-(2**40), 2**40)),
        ),
    ),
    max_size=12,
)


def expected_of(points: Any) -> list[tuple[bytes, int, float]]:
    return [(name.encode(), int(t), float(value)) for name, (t, value) in points]


@given(good_points, st.sampled_from(PROTOCOLS), st.booleans())
def test_good_points(points: Any, protocol: int, in_python: bool) -> None:
    """Both picklers of the standard library, all protocols: exact, on the quick way and on the other."""
    file = io.BytesIO()
    (pickle._Pickler if in_python else pickle.Pickler)(file, protocol).dump(points)  # type: ignore[attr-defined]  # the pure twin, which typeshed leaves out
    assert run(frame(file.getvalue())) == (expected_of(points), {}, b"")


@given(good_points)
def test_encode(points: Any) -> None:
    columns = list(zip(*((n.encode(), t, v) for n, (t, v) in points), strict=True)) or [(), (), ()]
    data = encode(*columns)
    assert run(data) == (expected_of(points), {}, b"")
    assert [tuple(p) for p in pickle.loads(data[4:])] == points


@given(st.binary(max_size=200), good_points, st.data())
def test_fuzz(garbage: bytes, points: Any, draw: st.DataObject) -> None:
    """Any bytes: points and listed reasons; the rest is what wasn't complete."""
    data = bytearray(
        frame_of(points, draw.draw(st.sampled_from(PROTOCOLS))) + frame(garbage) + garbage
    )
    for _ in range(draw.draw(st.integers(0, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    taken, rejected, rest = run(bytes(data))
    assert set(rejected) <= set(Reason)
    assert not any(math.isnan(value) for _, _, value in taken)
    assert data.endswith(rest) or len(rest) == 4
