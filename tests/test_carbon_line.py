"""Carbon's plaintext format: vectors, every split point, round trip, fuzz."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receivers import carbon_line
from receivers.block import NAME_BYTES_MAX, SAMPLE_BYTES_MAX, SAMPLES_MAX
from receivers.carbon_line import LINE_BYTES_MAX, encode, finish, split_line
from receivers.sink import Data, NameRegistry
from tests.fake_sink import FakeRegistry
from tgres_py.model.points import Parsed, Reason

NOW_S = 1_700_000_000
VECTORS = Path(__file__).parent / "data" / "carbon_line.txt"
REASONS = {str(reason): reason for reason in Reason}

Parser = Callable[[Data, int, NameRegistry], Parsed]
Outcome = list[tuple[bytes, int, float]]

# Every implementation of the same function; further ones join here.
PARSERS: dict[str, Parser] = {"pure": carbon_line.parse}


@pytest.fixture(params=list(PARSERS))
def parse(request: pytest.FixtureRequest) -> Parser:
    return PARSERS[request.param]


def unescape(text: str) -> bytes:
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def vectors() -> Iterator[tuple[bytes, str]]:
    for row in VECTORS.read_text(encoding="ascii").splitlines():
        if row and not row.startswith("#"):
            line, _, result = row.partition(" => ") if " => " in row else row.partition("=> ")
            yield unescape(line), result


def expected_of(result: str) -> tuple[Outcome, Reason | None]:
    if result == "nothing":
        return [], None
    if result in REASONS:
        return [], REASONS[result]
    name, time_s, value = result.split(" ")
    return [(unescape(name), int(time_s), float(value))], None


def run(parser: Parser, data: bytes) -> tuple[Outcome, dict[Reason, int], bytes]:
    registry = FakeRegistry()
    parsed = parser(data, NOW_S, registry)
    return registry.points(parsed), dict(parsed.rejected), parsed.rest


@pytest.mark.parametrize(("line", "result"), list(vectors()))
def test_vector(parse: Parser, line: bytes, result: str) -> None:
    points, reason = expected_of(result)
    assert run(parse, line + b"\n") == (points, {reason: 1} if reason else {}, b"")


def test_vectors_in_one_buffer(parse: Parser) -> None:
    rows = list(vectors())
    assert len(rows) > 60
    points: Outcome = []
    rejected: dict[Reason, int] = {}
    for _, result in rows:
        good, reason = expected_of(result)
        points += good
        if reason:
            rejected[reason] = rejected.get(reason, 0) + 1
    got = run(parse, b"".join(line + b"\n" for line, _ in rows))
    assert got == (points, rejected, b"")


def test_split_line_returns_raw_name() -> None:
    assert split_line(b"a;z=1;b=2 3 4", NOW_S) == (b"a;z=1;b=2", 4, 3.0)


def test_rest_goes_before_the_next_bytes(parse: Parser) -> None:
    data = b"a 1 100\r\nb\t2  200\n\n nan.x nan 1\nc 3 300\nbad\nd 4 400\n"
    whole = run(parse, data)
    assert whole == (
        [(b"a", 100, 1.0), (b"b", 200, 2.0), (b"c", 300, 3.0), (b"d", 400, 4.0)],
        {Reason.NAN: 1, Reason.MALFORMED: 1},
        b"",
    )
    for cut in range(len(data) + 1):
        registry = FakeRegistry()
        first = parse(data[:cut], NOW_S, registry)
        second = parse(first.rest + data[cut:], NOW_S, registry)
        rejected = first.rejected + second.rejected
        points = registry.points(first) + registry.points(second)
        assert (points, dict(rejected), second.rest) == whole, cut


def test_accepts_views(parse: Parser) -> None:
    buffer = bytearray(b"a 1 100\nb 2 2")
    registry = FakeRegistry()
    parsed = parse(memoryview(buffer), NOW_S, registry)
    buffer[:] = b"x" * len(buffer)
    assert registry.points(parsed) == [(b"a", 100, 1.0)]
    assert parsed.rest == b"b 2 2"


def test_last_line_without_newline() -> None:
    registry = FakeRegistry()
    parsed = finish(b"a 1 100\nb 2 200", NOW_S, registry)
    assert registry.points(parsed) == [(b"a", 100, 1.0), (b"b", 200, 2.0)]
    assert parsed.rest == b""


@pytest.mark.parametrize("extra", [0, 1])
def test_name_limit(parse: Parser, extra: int) -> None:
    name = b"n" * (NAME_BYTES_MAX + extra)
    expected = ([], {Reason.LIMIT: 1}, b"") if extra else ([(name, 5, 1.0)], {}, b"")
    assert run(parse, name + b" 1 5\n") == expected


@pytest.mark.parametrize("extra", [0, 1])
def test_line_limit(parse: Parser, extra: int) -> None:
    line = b"a 1 5".ljust(LINE_BYTES_MAX + extra)
    expected = ([], {Reason.LIMIT: 1}, b"") if extra else ([(b"a", 5, 1.0)], {}, b"")
    assert run(parse, line + b"\n") == expected


def test_long_line_in_pieces_is_one_reject(parse: Parser) -> None:
    registry = FakeRegistry()
    rest = b""
    rejected: dict[Reason, int] = {}
    points: Outcome = []
    for piece in [b"a 1 5\nb"] + [b"x" * 5_000] * 20 + [b" 1 5\nc 1 5\n"]:
        parsed = parse(rest + piece, NOW_S, registry)
        rest = parsed.rest
        assert len(rest) <= LINE_BYTES_MAX + 1
        points += registry.points(parsed)
        for reason, count in parsed.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    assert points == [(b"a", 5, 1.0), (b"c", 5, 1.0)]
    assert rejected == {Reason.LIMIT: 1}


def test_refused_by_the_registry(parse: Parser) -> None:
    points, rejected, _ = run(parse, b"a 1 5\nrefused.x 2 5\nb 3 5\n")
    assert points == [(b"a", 5, 1.0), (b"b", 5, 3.0)]
    assert rejected == {Reason.UNMATCHED: 1}


def test_samples_are_few_and_short(parse: Parser) -> None:
    parsed = parse((b"x" * 5_000 + b"\n") * 1_000, NOW_S, FakeRegistry())
    assert parsed.rejected == {Reason.MALFORMED: 1_000}
    assert 0 < len(parsed.samples) <= SAMPLES_MAX
    assert all(
        reason is Reason.MALFORMED and 0 < len(sample) <= SAMPLE_BYTES_MAX
        for reason, sample in parsed.samples
    )


def test_nothing(parse: Parser) -> None:
    parsed = parse(b"", NOW_S, FakeRegistry())
    assert parsed.received == 0
    assert parsed.block.ids.dtype.name == "int32"
    assert parsed.block.times.dtype.name == "int64"
    assert parsed.block.values.dtype.name == "float64"


names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")),
    min_size=1,
    max_size=30,
)


@given(
    st.lists(
        st.tuples(
            names.map(str.encode).filter(lambda name: not name.startswith(b"refused")),
            st.integers(0, 2**40),
            st.floats(allow_nan=False),
        )
    )
)
def test_round_trip(points: Outcome) -> None:
    columns = list(zip(*points, strict=True)) or [(), (), ()]
    for parser in PARSERS.values():
        assert run(parser, encode(*columns)) == (points, {}, b"")


def test_round_trip_keeps_the_sign_of_zero(parse: Parser) -> None:
    (point,), _, _ = run(parse, encode([b"a"], [1], [-0.0]))
    assert math.copysign(1.0, point[2]) == -1.0


fragments = st.sampled_from(
    [b"a", b".b", b" ", b"\t", b"\r", b"\n", b"1", b"1e5", b"nan", b"inf", b"-1", b";t=1", b"_", b".",
     b"\x00", b"\xff", "é".encode(), b"1700000000", b"a 1 1700000000\n", b"+", b"0x1", b"e", b"\x0b"]
)  # fmt: skip


@given(
    st.one_of(st.binary(max_size=300), st.lists(fragments, max_size=40).map(b"".join)), st.data()
)
def test_fuzz(data: bytes, draw: st.DataObject) -> None:
    """Any bytes: each line that isn't blank is one point or one listed reason, whatever the cuts."""
    cut = draw.draw(st.integers(0, len(data)))
    lines = data.split(b"\n")[:-1]
    for parser in PARSERS.values():
        registry = FakeRegistry()
        whole = parser(data, NOW_S, registry)
        assert whole.received == sum(bool(line.strip()) for line in lines)
        assert set(whole.rejected) <= set(Reason)
        registry = FakeRegistry()
        first = parser(data[:cut], NOW_S, registry)
        second = parser(first.rest + data[cut:], NOW_S, registry)
        assert first.received + second.received == whole.received
        assert first.rejected + second.rejected == whole.rejected
        assert second.rest == whole.rest
