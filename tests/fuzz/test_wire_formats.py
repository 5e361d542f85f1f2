"""Any bytes to a receiver: each point is taken or refused with a listed reason; nothing raises."""

from __future__ import annotations

import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receivers import carbon_line, carbon_pickle
from receivers.sink import WireFormat
from tests.fake_sink import FakeRegistry, ScanningRegistry
from tests.fuzz.effort import corpus, fuzz
from tests.statsd_flushes import Flushes
from tests.test_carbon_line import REGISTRIES
from tgres_py.kernels import NameTable, names_py
from tgres_py.model.points import Parsed, Reason
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.settings import from_table

NOW_S = 1_700_000_000

_names = st.sampled_from([b"a.b", b"a;x=1", b"a;;=", b"", b"\xff", b"a\0b", b"refused.x", b"x" * 3_000])
_numbers = st.sampled_from(
    [b"1", b"-1", b"nan", b"-inf", b"1e999", b"1e308", b"1_0", b"0x1", b"1" * 400, b"9" * 19, b"\xd9\xa3"]
)
_blanks = st.sampled_from([b" ", b"\t", b"  ", b"\r", b"\0", b"\x0b", b""])
_lines = st.tuples(_names, _blanks, _numbers, _blanks, _numbers, st.sampled_from([b"\n", b"\r\n", b""]))
texts = st.lists(st.one_of(_lines.map(b"".join), st.binary(max_size=30)), max_size=8).map(b"".join)

_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5)
)
_objects = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.tuples(st.text(max_size=5), st.tuples(inner, inner))
    ),
    max_leaves=8,
)
_bodies = st.one_of(
    st.builds(pickle.dumps, _objects, st.integers(0, 5)),
    st.builds(lambda p, v: pickle.dumps([p], v), st.tuples(st.text(max_size=5), st.tuples(_scalars, _scalars)), st.integers(0, 5)),
    st.binary(max_size=40),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Frames whose bytes and lengths may be wrong."""
    data = b""
    for body in draw(st.lists(_bodies, max_size=3)):
        damaged = bytearray(body)
        if damaged and draw(st.booleans()):
            damaged[draw(st.integers(0, len(damaged) - 1))] = draw(st.integers(0, 255))
        length = draw(st.sampled_from([len(damaged)] * 8 + [0, len(damaged) + 1, 2**31, 2**32 - 1]))
        data += struct.pack(">I", length) + damaged
    return data


def check(parsed: Parsed, registry: FakeRegistry) -> None:
    assert set(parsed.rejected) <= set(Reason) and min(parsed.rejected.values(), default=1) > 0
    for name, time_s, value in registry.points(parsed):
        assert name and not np.isnan(value) and abs(time_s) <= 2**53


def feed(wire: WireFormat, registry: FakeRegistry, data: bytes, cut: int) -> int:
    """Gives a stream in two pieces and ends it, as a connection does; how many points were taken or refused."""
    rest, received = b"", 0
    for piece in (data[:cut], data[cut:]):
        parsed = wire.parse(rest + piece, NOW_S, registry)
        check(parsed, registry)
        rest, received = parsed.rest, received + parsed.received
    parsed = wire.finish(rest, NOW_S, registry)
    check(parsed, registry)
    return received + parsed.received


def lines_hold(data: bytes, cut: int) -> None:
    counts = {feed(carbon_line.WIRE_FORMAT, make(), data, cut) for make in REGISTRIES.values()}
    whole = {feed(carbon_line.WIRE_FORMAT, make(), data, 0) for make in REGISTRIES.values()}
    assert counts == whole and len(counts) == 1


def frames_hold(data: bytes, cut: int) -> None:
    registries = (
        FakeRegistry(),
        ScanningRegistry(names_py.NameTable()),
        ScanningRegistry(NameTable()),
    )
    wire = carbon_pickle.wire_format(4_096)
    assert len({feed(wire, registry, data, cut) for registry in registries}) == 1


def statsd_holds(data: bytes, dialect: str) -> None:
    aggregator = Aggregator(from_table({"dialect": dialect}))
    aggregator.add(data, 1, NOW_S)
    flush = Flushes(aggregator)
    assert all(isinstance(value, float | int) for value in flush(NOW_S + 10).values())
    flush(NOW_S + 20)


def test_carbon_lines() -> None:
    def run(chosen: settings) -> None:
        chosen(given(texts, st.integers(0, 200))(lines_hold))()

    fuzz(run, examples=150)


def test_pickle_frames() -> None:
    def run(chosen: settings) -> None:
        chosen(given(frames(), st.integers(0, 100))(frames_hold))()

    fuzz(run, examples=100)


_statsd = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.text("ab:|@#,=;.-+0123456789eTcgmsh \n_{}é", max_size=30).map(str.encode),
        st.tuples(
            st.sampled_from([b"a", b"a;t=1", b"a,t=1", b"", b"_e{1,1}", b"_sc", b"\xff"]),
            st.sampled_from([b":", b"::", b"|"]),
            st.sampled_from([b"1", b"-1", b"+1", b"1e999", b"-Infinity", b"nan", b"0x1", b"1" * 400, b"1:2:3", b"x"]),
            st.sampled_from([b"|c", b"|g", b"|ms", b"|s", b"|h", b"|d", b"|", b""]),
            st.sampled_from([b"", b"|@0", b"|@0.0", b"|@1e999", b"|@.1", b"|@1.1.1", b"|@" + b"9" * 400]),
            st.sampled_from([b"", b"|#a:b", b"|#:", b"|T1", b"|T99999999999", b"|c:x"]),
        ).map(b"".join),
    ),
    max_size=8,
).map(b"\n".join)


def test_statsd() -> None:
    def run(chosen: settings) -> None:
        chosen(given(_statsd, st.sampled_from(["etsy", "dogstatsd"]))(statsd_holds))()

    fuzz(run, examples=150)


@pytest.mark.parametrize("data", corpus("lines"))
def test_lines_of_the_corpus(data: bytes) -> None:
    lines_hold(data, len(data) // 2)


@pytest.mark.parametrize("data", corpus("pickle"))
def test_frames_of_the_corpus(data: bytes) -> None:
    frames_hold(data, len(data) // 2)


@pytest.mark.parametrize("dialect", ["etsy", "dogstatsd"])
@pytest.mark.parametrize("data", corpus("statsd"))
def test_statsd_of_the_corpus(data: bytes, dialect: str) -> None:
    statsd_holds(data, dialect)
