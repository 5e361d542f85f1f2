"""The native reader of pickle frames against the Python reader: the same points, or the frame left alone."""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_carbon_pickle import NOW_S, PROTOCOLS, frame, frame_of, run
from tgres_py.kernels import names_py
from tgres_py.kernels.pickle_frames import cut_frames
from tgres_py.model.points import Reason

native = pytest.importorskip(
    "tgres_py.kernels._pickle", reason="the extension isn't built: only the Python reader can run"
)
native_names = pytest.importorskip("tgres_py.kernels._names", reason="the extension isn't built")

LIMIT = 1 << 20


def plainly(body: bytes) -> list[tuple[bytes, int, float]] | None:
    """The points that the kernel finds in a pickle; None if it leaves it alone."""
    data = frame(body)
    starts, sizes, times, values, odd, used = native.read_frames(data, NOW_S, LIMIT)
    assert used == len(data)
    if odd:
        assert (odd, len(times)) == ([(0, 4, len(data))], 0)
        return None
    places = zip(starts.tolist(), sizes.tolist(), strict=True)
    names = [data[start : start + size] for start, size in places]
    return list(zip(names, times.tolist(), values.tolist(), strict=True))


def dump_in_python(value: Any, protocol: int) -> bytes:
    file = io.BytesIO()
    pickle._Pickler(file, protocol).dump(value)  # type: ignore[attr-defined]  # the pure twin, which typeshed leaves out
    return file.getvalue()


# What is read natively

NUMBERS = [0, 1, 255, 256, 65_535, 65_536, -1, -129, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**40,
           2**53 + 1, -(2**55), 2**59 - 1, 1.5, -0.0, 1e300, 5e-324, 0.1, True, False]  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dump", [pickle.dumps, dump_in_python], ids=["C", "Python"])
def test_numbers(protocol: int, dump: Any) -> None:
    """Ints of all sizes and floats, as timestamps and values; more than the picklers put into one batch."""
    points = [
        (f"servers.web{i}.cpu", (number if abs(number) < 2**53 else 7, number))
        for i, number in enumerate(NUMBERS * 100)
    ]
    expected = [
        (n.encode(), NOW_S if t == -1 else int(t), float(value)) for n, (t, value) in points
    ]
    assert plainly(dump(points, protocol)) == expected


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dump", [pickle.dumps, dump_in_python], ids=["C", "Python"])
def test_repeats_from_the_memo(protocol: int, dump: Any) -> None:
    """Names, pairs and points that the pickler has written before."""
    name, pair = "servers.web1.cpu", (1_700_000_000.25, 2.5)
    point = ("a", (1, 2))
    points = [(name, (5, 1)), (name, (6.5, 2)), ("b", pair), ("c", pair), point, point] * 300
    expected = [(n.encode(), int(t), float(v)) for n, (t, v) in points]
    assert plainly(dump(points, protocol)) == expected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_texts(protocol: int) -> None:
    values = ["1.5", "-2", ".5", "5.", "1e3", "1E-3", "-0", "0.1", "123456789012345678901234567890"]
    points = [("a.b", (text if abs(float(text)) < 2**53 else 9, text)) for text in values]
    expected = [(b"a.b", int(float(t)), float(v)) for _, (t, v) in points]
    assert plainly(pickle.dumps(points, protocol)) == expected


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_names_of_any_script(protocol: int) -> None:
    names = ["é", "ж.ж", "漢字", "𝔘𝔫", "a" * 300, "\u0800", "\uffff", "\U0010ffff", "a" * 9 + "é"]
    points = [(name, (1, 2.0)) for name in names]
    assert plainly(pickle.dumps(points, protocol)) == [(n.encode(), 1, 2.0) for n in names]


G15 = b"G" + struct.pack(">d", 1.5)
ONE = [(b"a", 5, 1.5)]
WRITTEN_BY_HAND = {
    "Python 2, protocol 0": b"(lp1\n(S'a'\np2\n(I5\nF1.5\ntp3\ntp4\na.",
    "etsy's statsd": b"(l(S'a'\n(L5L\nS'1.5'\ntta.",
    "double quotes": b"(l(S\"a\"\n(I5\nS\"1.5\"\ntta.",
    "list around points": b"((S'a'\n(I5\nF1.5\nttl.",
    "SHORT_BINSTRING": b"\x80\x02](U\x01aK\x05" + G15 + b"\x86\x86e.",
    "BINSTRING": b"](T\x01\x00\x00\x00aM\x05\x00" + G15 + b"\x86\x86e.",
    "BINBYTES": b"]B\x01\x00\x00\x00aJ\x05\x00\x00\x00" + G15 + b"\x86\x86a.",
    "SHORT_BINBYTES, LONG1": b"]C\x01a\x8a\x01\x05" + G15 + b"\x86\x86a.",
    "BINBYTES8, LONG4": b"]\x8e\x01" + b"\0" * 7 + b"a\x8b\x01\0\0\0\x05" + G15 + b"\x86\x86a.",
    "BINUNICODE8": b"]\x8d\x01" + b"\0" * 7 + b"aK\x05" + G15 + b"\x86\x86a.",
    "UNICODE": b"(lVa\n(I5\nV1.5\nt\x86a.",
    "bytes after the end": b"]U\x01aK\x05" + G15 + b"\x86\x86a.garbage",
    "memo of four bytes": b"]U\x01ar\x00\x01\x00\x00K\x05" + G15 + b"\x86\x86a.",
}  # fmt: skip


@pytest.mark.parametrize("case", list(WRITTEN_BY_HAND))
def test_written_by_hand(case: str) -> None:
    body = WRITTEN_BY_HAND[case]
    assert plainly(body) == ONE
    assert run(frame(body)) == (ONE, {}, b"")


def test_a_memo_entry_can_be_replaced() -> None:
    point = b"K\x05" + G15 + b"\x86\x86"
    body = b"](U\x01bq\x00" + point + b"U\x01aq\x00" + point + b"h\x00" + point + b"e."
    assert plainly(body) == [(b"b", 5, 1.5), *ONE, *ONE]


def test_memoize_counts_what_is_set() -> None:
    point = b"K\x05" + G15 + b"\x86\x86"
    body = b"](U\x01aq\x05" + point + b"U\x01b\x94" + point + b"h\x01" + point + b"e."
    assert plainly(body) == [*ONE, (b"b", 5, 1.5), (b"b", 5, 1.5)]


# What is left alone: the Python reader says what it is worth

LEFT_ALONE = {
    "nothing": b"",
    "no end": b"]",
    "a point alone": b"U\x01aK\x05" + G15 + b"\x86\x86.",
    "a tuple of points": pickle.dumps(tuple([("a", (5, 1.5))] * 4), 2),
    "lists as points": pickle.dumps([["a", [5, 1.5]]], 2),
    "None": pickle.dumps([("a", (5, None))], 2),
    "three in a pair": pickle.dumps([("a", (5, 1, 2))], 2),
    "a pair without a name": pickle.dumps([(5, 1)], 2),
    "text that only float() reads": pickle.dumps([("a", (5, "1_0"))], 2),
    "text that is no number": pickle.dumps([("a", (5, "running"))], 2),
    "text that ends in a blank": pickle.dumps([("a", (5, "1 "))], 2),
    "an integer of 9 bytes": pickle.dumps([("a", (5, 2**64))], 2),
    "timestamp not finite": pickle.dumps([("a", (float("nan"), 1))], 2),
    "timestamp too large": pickle.dumps([("a", (2.0**54, 1))], 2),
    "escapes": pickle.dumps([("é\n", (5, 1))], 0),
    "a string with an escape": b"(l(S'\\x61'\n(I5\nF1.5\ntta.",
    "a surrogate": pickle.dumps([("\ud800", (5, 1))], 2),
    "not UTF-8": b"]X\x01\x00\x00\x00\xffK\x05K\x01\x86\x86a.",
    "UTF-8 longer than needed": b"]X\x02\x00\x00\x00\xc1\x81K\x05K\x01\x86\x86a.",
    "UTF-8 cut": b"]X\x02\x00\x00\x00\xe6\xbcK\x05K\x01\x86\x86a.",
    "UTF-8 beyond Unicode": b"]X\x04\x00\x00\x00\xf4\x90\x80\x80K\x05K\x01\x86\x86a.",
    "the list twice": b"]q\x00h\x00a.",
    "two lists": b"]].",
    "a mark left": b"](.",
    "a mark in a pair": b"](\x86.",
    "memo entry missing": b"]h\x05.",
    "memo entry in a gap": b"]U\x01aq\x05h\x04.",
    "memo entry far away": b"]r\xff\xff\xff\x7f.",
    "memo of nothing": b"q\x00.",
    "text longer than the frame": b"]X\xff\xff\xff\xffa.",
    "text of 2**64 bytes": b"]\x8e" + b"\xff" * 8 + b"a.",
    "UTF-8 of three bytes, longer than needed": b"]X\x03\x00\x00\x00\xe0\x80\x80K\x05K\x01\x86\x86a.",
    "UTF-8 of no kind": b"]X\x04\x00\x00\x00\xfc\x80\x80\x80K\x05K\x01\x86\x86a.",
    "UTF-8 cut before an opcode like it": b"]X\x01\x00\x00\x00\xc3\x94K\x05K\x01\x86\x86a.",
    "three in a point": pickle.dumps([("b", "a", (5, 1))], 0),
    "append to a mark": b"](U\x01aK\x05K\x01\x86\x86ae.",
    "a mark for the memo": b"](q\x00U\x01aK\x05K\x01\x86\x86e.",
    "the list as name": b"]q\x00(h\x00K\x05K\x01\x86\x86e.",
    "protocol 6": b"\x80\x06].",
    "marks": b"(" * 100_000 + b".",
    "memo entries": b"]" + b"\x94" * 100_000 + b".",
    "pairs": b"](" + b"K\x01K\x01\x86" * 10_000 + b"e.",
    "code": b"cos\nsystem\n(S'true'\ntR.",
    "code in a point": b"](U\x01acos\nsystem\n(S'true'\ntR\x86e.",
}


@pytest.mark.parametrize("case", list(LEFT_ALONE))
def test_left_alone(case: str) -> None:
    body = LEFT_ALONE[case]
    assert plainly(body) is None
    run(frame(body))


# Buffers


def test_position_of_odd_frames() -> None:
    """Points keep their order, whoever reads their frame."""
    good, odd = [("a", (1, 1)), ("b", (2, 2))], [("c", (3, "3_0")), ("a", (4, 4))]
    bad = [("a", (5, None)), ("d;x=1", (6, 6))]
    data = b"".join(frame_of(points, 2) for points in (odd, good, bad, [], good, odd, odd))
    starts, sizes, _, _, left, used = native.read_frames(data, 0, LIMIT)
    assert used == len(data)
    assert [position for position, _, _ in left] == [0, 2, 4, 4]
    assert [data[start : start + size] for start, size in zip(starts, sizes, strict=True)] == [b"a", b"b"] * 2  # fmt: skip
    ab, ca = [(b"a", 1, 1.0), (b"b", 2, 2.0)], [(b"c", 3, 30.0), (b"a", 4, 4.0)]
    taken, rejected, rest = run(data)
    assert taken == [*ca, *ab, (b"d;x=1", 6, 6.0), *ab, *ca, *ca]
    assert (sum(rejected.values()), rest) == (1, b"")


def test_each_frame_has_a_memo_of_its_own() -> None:
    good = frame_of([("a", (5, 1.5))], 2)
    other = frame(b"]h\x01K\x05K\x01\x86\x86a.")
    assert b"q\x01" in good
    assert native.read_frames(good + other, 0, LIMIT)[4] == [(1, len(good) + 4, len(good + other))]
    assert run(good + other) == (ONE, {Reason.MALFORMED: 1}, b"")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cut_anywhere(protocol: int) -> None:
    """A buffer that ends at any byte, and a frame whose pickle does."""
    body = pickle.dumps([("a", (1, 1.5)), ("b", (2, 70_000)), ("a", (3, "2.5"))], protocol)
    data = frame(body)
    for end in range(len(data)):
        assert run(data * 2 + data[:end])[2] == data[:end]
    for end in range(len(body)):
        assert plainly(body[:end]) is None
        run(frame(body[:end]))


def test_frames_too_long() -> None:
    data = frame(b"]." + b"x" * 98)
    for read in (native.read_frames, cut_frames):
        assert read(data + data, 0, 100)[5] == 208
        assert read(data + data, 0, 99)[5] == 0
        assert read(b"\xff\xff\xff\xff" + data, 0, LIMIT)[5] == 0
        assert read(b"", 0, LIMIT)[5] == 0
    assert cut_frames(data + data + b"\0", 0, 100)[4] == [(0, 4, 104), (0, 108, 208)]


# Both readers, any frames

texts = st.sampled_from(
    ["a", "a.b", "x" * 300, "é", "a;t=1", "a b", "", "a\n", "1.5", "\ud800", "a\\"]
)
numbers = st.one_of(
    st.integers(-(2**70), 2**70), st.integers(-2, 70_000), st.floats(), st.booleans(), st.just(-1)
)
texts_of_numbers = st.one_of(
    st.floats().map(repr),
    st.decimals(-1000, 1000, places=2).map(str),
    st.sampled_from(["", "1", "+1", "1_0", " 1", "1 ", "nan", "inf", "1e", "1e400", "-", "٣"]),
)
number_like = st.one_of(
    numbers, numbers, texts_of_numbers, texts_of_numbers.map(str.encode), st.none()
)
names = st.one_of(texts, texts, texts.map(lambda t: t.encode("utf-8", "surrogatepass")))
points = st.one_of(
    *[st.tuples(names, st.tuples(number_like, number_like))] * 4,
    st.tuples(texts, st.tuples(st.integers(-1, 2**31), st.floats())),
    st.tuples(names, number_like),
    st.tuples(names, st.tuples(number_like)),
    st.lists(number_like, max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(points, max_size=10), st.sampled_from(PROTOCOLS), st.booleans(), st.data())
def test_any_points(values: list[Any], protocol: int, repeat: bool, draw: st.DataObject) -> None:
    """Good and bad points, shared ones too; then bytes of the pickle changed, left out or doubled."""
    dump = draw.draw(st.sampled_from([pickle.dumps, dump_in_python]))
    body = bytearray(dump(values + values if repeat else values, protocol))
    run(frame(bytes(body)))
    for _ in range(draw.draw(st.integers(0, 3))):
        at = draw.draw(st.integers(0, len(body) - 1))
        length = draw.draw(st.integers(0, 3))
        body[at : at + length] = draw.draw(
            st.one_of(st.binary(max_size=3), st.just(body[at : at + 9]))
        )
        if not body:
            break
    run(frame(bytes(body)) + frame_of([("z", (1, 1))], 2))


pieces = st.one_of(
    st.sampled_from(
        [bytes([code]) for code in b"()].NtlaeIJKLMFGSTUVXBCpqrghj012"]
        + [b"\x80\x02", b"\x85", b"\x86", b"\x86", b"\x87", b"\x88", b"\x89", b"\x8a\x01\x07", b"\x94",
           b"\x95" + b"\0" * 8, b"\n", b"q\x00", b"h\x00", b"p0\n", b"g0\n", b"r\1\0\0\0", b"j\1\0\0\0"]
        + [b"K\x01", b"I1\n", b"I01\n", b"L5L\n", b"L5\n", b"F1.5\n", b"F1e5\n", G15, b"M\1\1", b"J" + b"\xff" * 4]
        + [b"U\x01a", b"C\x01b", b"X\x01\0\0\0c", b"\x8c\x02\xc3\xa9", b"S'd'\n", b"Ve\n", b"S'1.5'\n"]
    ),
    *[st.sampled_from([b"U\x01aK\x01K\x02\x86\x86", b"(S'b'\n(I1\nF2\ntt", b"K\x01K\x02\x86", b"]", b"(", b"a", b"e"])] * 2,
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from([b"", b"]", b"](", b"(l", b"("]),
    st.lists(pieces, max_size=25).map(b"".join),
    st.sampled_from([b".", b"a.", b"e.", b"l.", b""]),
)
def test_any_opcodes(head: bytes, middle: bytes, tail: bytes) -> None:
    run(frame(head + middle + tail))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    run(frame(data) + data)


# Names to ids

some_names = st.lists(
    st.sampled_from([b"a", b"a.b", b"x" * 30, b"y" * 21, b"a..b", b".a", b"a.", b"a;t=1", b"~a", b"a\tb", b""]),
    max_size=12,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(some_names, max_size=4), st.integers(0, 3), st.sets(st.integers(0, 11)))
def test_look_up_twins_agree(buffers: list[list[bytes]], new_max: int, without: set[int]) -> None:
    tables: list[Any] = [native_names.NameTable(), names_py.NameTable()]
    for table in tables:
        table.add(b"x" * 30)
        table.alias(b"a;t=1", 0)
    for names in buffers:
        data = b"-".join(names)
        sizes = np.array([len(name) for name in names], np.int32)
        starts = np.cumsum(sizes + 1, dtype=np.int64) - sizes - 1
        sizes[[i for i in without if i < len(sizes)]] = -1
        ids, model = (table.look_up(data, starts, sizes, 20, new_max).tolist() for table in tables)
        assert ids == model
        assert all((found == -1) == (size < 0) for found, size in zip(ids, sizes, strict=True))
    native_names_, pure_names = (table.name_lines(0, table.size) for table in tables)
    assert native_names_ == pure_names


@pytest.mark.parametrize("table", [native_names.NameTable, names_py.NameTable])
@pytest.mark.parametrize(("start", "size"), [(-1, 1), (0, 4), (3, 1), (2**62, 2), (4, 0)])
@pytest.mark.parametrize("data", [b"abc", b""])
def test_look_up_stays_in_the_data(table: Any, start: int, size: int, data: bytes) -> None:
    with pytest.raises(IndexError):
        table().look_up(data, np.array([start]), np.array([size], np.int32))


@pytest.mark.parametrize("table", [native_names.NameTable, names_py.NameTable])
def test_look_up_at_the_edge(table: Any) -> None:
    found = table().look_up(b"abc", np.array([0, 2, 3]), np.array([3, 1, 0], np.int32))
    assert found.tolist() == [0, 1, -2]
    with pytest.raises(ValueError):
        table().look_up(b"abc", np.array([0, 2]), np.array([3], np.int32))
