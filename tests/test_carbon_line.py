"""Carbon's plaintext format: vectors, every split point, round trip, fuzz."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receivers.block import NAME_BYTES_MAX, SAMPLE_BYTES_MAX, SAMPLES_MAX
from receivers.carbon_line import LINE_BYTES_MAX, encode, finish, parse, split_line, wire_format
from receivers.sink import Data
from tests.fake_sink import FakeRegistry
from tgres_py.kernels import NATIVE, NameTable, names_py
from tgres_py.model.points import Ids, Parsed, Reason

NOW_S = 1_700_000_000
VECTORS = Path(__file__).parent / "data" / "carbon_line.txt"
REASONS = {str(reason): reason for reason in Reason}

Outcome = list[tuple[bytes, int, float]]


class ScanningRegistry(FakeRegistry):
    """A registry that reads plain lines by itself, with one of the kernels."""

    def __init__(self, table: Any) -> None:
        super().__init__()
        self.table = table

    def scan(self, data: Data, now_s: int) -> Any:
        return self.table.parse(data, now_s, NAME_BYTES_MAX)

    def resolve(self, names: Sequence[bytes]) -> tuple[Ids, dict[int, Reason]]:
        ids, reasons = super().resolve(names)
        for position, name in enumerate(names):
            if position not in reasons:
                ids[position] = self.table.add(name)
        return ids, reasons

    def points(self, parsed: Parsed) -> Outcome:
        block = parsed.block
        rows = zip(block.ids.tolist(), block.times.tolist(), block.values.tolist(), strict=True)
        return [(self.table.name(i), t, v) for i, t, v in rows]


# Every way to read lines; all must come to the same.
REGISTRIES: dict[str, Callable[[], FakeRegistry]] = {
    "split": FakeRegistry,
    "scan-pure": lambda: ScanningRegistry(names_py.NameTable()),
}
if NATIVE:
    REGISTRIES["scan-native"] = lambda: ScanningRegistry(NameTable())


@pytest.fixture(params=list(REGISTRIES))
def registry(request: pytest.FixtureRequest) -> FakeRegistry:
    return REGISTRIES[request.param]()


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


def run(registry: FakeRegistry, data: bytes) -> tuple[Outcome, dict[Reason, int], bytes]:
    parsed = parse(data, NOW_S, registry)
    return registry.points(parsed), dict(parsed.rejected), parsed.rest


@pytest.mark.parametrize(("line", "result"), list(vectors()))
def test_vector(registry: FakeRegistry, line: bytes, result: str) -> None:
    points, reason = expected_of(result)
    assert run(registry, line + b"\n") == (points, {reason: 1} if reason else {}, b"")


def test_vectors_in_one_buffer(registry: FakeRegistry) -> None:
    rows = list(vectors())
    assert len(rows) > 60
    points: Outcome = []
    rejected: dict[Reason, int] = {}
    for _, result in rows:
        good, reason = expected_of(result)
        points += good
        if reason:
            rejected[reason] = rejected.get(reason, 0) + 1
    got = run(registry, b"".join(line + b"\n" for line, _ in rows))
    assert got == (points, rejected, b"")


def test_split_line_returns_raw_name() -> None:
    assert split_line(b"a;z=1;b=2 3 4", NOW_S) == (b"a;z=1;b=2", 4, 3.0)


def test_rest_goes_before_the_next_bytes(registry: FakeRegistry) -> None:
    data = b"a 1 100\r\nb\t2  200\n\n nan.x nan 1\nc 3 300\nbad\nd 4 400\n"
    whole = run(registry, data)
    assert whole == (
        [(b"a", 100, 1.0), (b"b", 200, 2.0), (b"c", 300, 3.0), (b"d", 400, 4.0)],
        {Reason.NAN: 1, Reason.MALFORMED: 1},
        b"",
    )
    for cut in range(len(data) + 1):
        first = parse(data[:cut], NOW_S, registry)
        second = parse(first.rest + data[cut:], NOW_S, registry)
        rejected = first.rejected + second.rejected
        points = registry.points(first) + registry.points(second)
        assert (points, dict(rejected), second.rest) == whole, cut


def test_accepts_views(registry: FakeRegistry) -> None:
    buffer = bytearray(b"a 1 100\nb 2 2")
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
def test_name_limit(registry: FakeRegistry, extra: int) -> None:
    name = b"n" * (NAME_BYTES_MAX + extra)
    expected = ([], {Reason.LIMIT: 1}, b"") if extra else ([(name, 5, 1.0)], {}, b"")
    assert run(registry, name + b" 1 5\n") == expected


@pytest.mark.parametrize("extra", [0, 1])
def test_line_limit(registry: FakeRegistry, extra: int) -> None:
    line = b"a 1 5".ljust(LINE_BYTES_MAX + extra)
    expected = ([], {Reason.LIMIT: 1}, b"") if extra else ([(b"a", 5, 1.0)], {}, b"")
    assert run(registry, line + b"\n") == expected


def test_long_line_in_pieces_is_one_reject(registry: FakeRegistry) -> None:
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


def test_refused_by_the_registry(registry: FakeRegistry) -> None:
    points, rejected, _ = run(registry, b"a 1 5\nrefused;t=x 2 5\nb 3 5\n")
    assert points == [(b"a", 5, 1.0), (b"b", 5, 3.0)]
    assert rejected == {Reason.UNMATCHED: 1}


def test_samples_are_few_and_short(registry: FakeRegistry) -> None:
    parsed = parse((b"x" * 5_000 + b"\n") * 1_000, NOW_S, registry)
    assert parsed.rejected == {Reason.MALFORMED: 1_000}
    assert 0 < len(parsed.samples) <= SAMPLES_MAX
    assert all(
        reason is Reason.MALFORMED and 0 < len(sample) <= SAMPLE_BYTES_MAX
        for reason, sample in parsed.samples
    )


def test_nothing(registry: FakeRegistry) -> None:
    parsed = parse(b"", NOW_S, registry)
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
    for make in REGISTRIES.values():
        assert run(make(), encode(*columns)) == (points, {}, b"")


def test_round_trip_keeps_the_sign_of_zero(registry: FakeRegistry) -> None:
    (point,), _, _ = run(registry, encode([b"a"], [1], [-0.0]))
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
    outcomes = []
    for make in REGISTRIES.values():
        registry = make()
        whole = parse(data, NOW_S, registry)
        assert whole.received == sum(bool(line.strip()) for line in lines)
        assert set(whole.rejected) <= set(Reason)
        points = registry.points(whole)
        registry = make()
        first = parse(data[:cut], NOW_S, registry)
        second = parse(first.rest + data[cut:], NOW_S, registry)
        assert registry.points(first) + registry.points(second) == points
        assert first.rejected + second.rejected == whole.rejected
        assert second.rest == whole.rest
        outcomes.append((points, whole.rejected, whole.rest))
    assert all(outcome == outcomes[0] for outcome in outcomes)


@pytest.mark.parametrize("short", [b"\n", b"x\n", b" 1 \n", b"\r\n"])
def test_many_short_lines_cost_nothing_else(registry: FakeRegistry, short: bytes) -> None:
    points, rejected, rest = run(registry, short * 50_000 + b"a 1 5\nb 2")
    assert points == [(b"a", 5, 1.0)]
    assert rejected == ({Reason.MALFORMED: 50_000} if short.strip() else {})
    assert rest == b"b 2"


def test_line_limit_is_a_setting(registry: FakeRegistry) -> None:
    wire = wire_format(20)
    data = b"a 1 5\n" + b"b 1 5".ljust(21) + b"\n" + b"c" * 100
    parsed = wire.parse(data, NOW_S, registry)
    assert registry.points(parsed) == [(b"a", 5, 1.0)]
    assert (parsed.rejected, parsed.rest) == ({Reason.LIMIT: 1}, b"c" * 21)
    assert wire.finish(parsed.rest, NOW_S, registry).rejected == {Reason.LIMIT: 1}
