"""The reader of plain pickles against Python's own: equal on data, never anything but data."""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
from collections import OrderedDict
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receivers.pickle_reader import DEPTH_MAX, INT_BYTES_MAX, PickleRefused, load

PROTOCOLS = range(6)


def dump_in_python(value: Any, protocol: int) -> bytes:
    """The pickle as the pure-Python pickler writes it; it differs from the C one in the memo."""
    file = io.BytesIO()
    pickle._Pickler(file, protocol).dump(value)  # type: ignore[attr-defined]  # the pure twin, which typeshed leaves out
    return file.getvalue()


def same(a: Any, b: Any) -> bool:
    """Equal in type and value, NaN and the sign of zero included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


integers = st.one_of(
    st.integers(-300, 300), st.integers(-(2**70), 2**70), st.integers(0, 8 * INT_BYTES_MAX - 2).map(lambda n: 2**n)
)  # fmt: skip
atoms = st.one_of(
    st.none(),
    st.booleans(),
    integers,
    st.floats(),
    st.text(),
    st.text(st.characters(codec=None), max_size=5),
    st.text(min_size=250, max_size=260),
)
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=8),
        st.lists(inner, max_size=5).map(tuple),
        inner.map(lambda value: (value, value) if not isinstance(value, list) else (value,)),
    ),
    max_leaves=40,
)


@given(values, st.sampled_from(PROTOCOLS))
def test_equal_to_pickle(value: Any, protocol: int) -> None:
    # A list inside a shared tuple isn't shared itself, so the one difference (lists in the memo) doesn't show.
    for data in (pickle.dumps(value, protocol), dump_in_python(value, protocol)):
        assert same(load(data), pickle.loads(data))


@given(st.lists(st.binary(max_size=300), max_size=8), st.sampled_from(range(3, 6)))
def test_bytes(value: list[bytes], protocol: int) -> None:
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("count", [0, 1, 2, 999, 1_000, 1_001, 5_000])
def test_points(protocol: int, count: int) -> None:
    """Batches of the pickler, frames of protocol 4, one and four byte memo numbers."""
    points = [(f"servers.web{i}.cpu", (1.7e9 + i, i / 3)) for i in range(count)]
    assert load(pickle.dumps(points, protocol)) == points


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shared_tuples_and_text(protocol: int) -> None:
    point = (1_700_000_000, 1.5)
    points = [("a", point), ("b", point), ("a", point)]
    assert load(pickle.dumps(points, protocol)) == points


PYTHON_2 = [
    b"(lp1\n(S'a.b'\np2\n(I1700000000\nF1.5\ntp3\ntp4\na.",  # pickle, protocol 0
    b"(lp1\n(S'a\\x00\\'\\n\\xff'\nL5L\ntp4\na.",
    b'(lp1\nS"it\'s"\na.',
    b"]q\x01(U\x03a.bq\x02(J\x00\xf1SeG?\xf8\x00\x00\x00\x00\x00\x00tq\x03tq\x04a.",  # protocol 1
    b"\x80\x02]q\x01U\x03a.bq\x02J\x00\xf1SeK\x05\x86q\x03\x86q\x04a.",
    b"\x80\x02T\x05\x00\x00\x00a\xff\x00bc.",
    b"(I01\nI00\nI1\nt.",
]


@pytest.mark.parametrize("data", PYTHON_2)
def test_python_2(data: bytes) -> None:
    assert same(load(data), pickle.loads(data, encoding="bytes"))


class Evil:
    def __reduce__(self) -> Any:
        return os.getpid, ()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [Evil(), os.getpid, Decimal(1), OrderedDict(), {"a": 1}, {1}, complex(1), object(), range(3)],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_refused(value: Any, protocol: int) -> None:
    with pytest.raises(PickleRefused, match=r"^opcode (GLOBAL|STACK_GLOBAL|0x..) at byte \d+ is not plain data$"):  # fmt: skip
        load(pickle.dumps(["a", value], protocol))


@pytest.mark.parametrize(
    "data",
    [b"cos\nsystem\n(S'true'\ntR.", b"(ios\nsystem\n.", b"(S'a'\no.", b"Pid\n.", b"NQ.", b"\x82\x01.",
     b"\x83\x01\x00.", b"\x84\x01\x00\x00\x00.", b"N(db.", b"N)\x81.", b"N)}\x92.", b"]\x93.", b"NR."],
)  # fmt: skip
def test_code_is_refused(data: bytes) -> None:
    with pytest.raises(PickleRefused, match="is not plain data"):
        load(data)


BROKEN = {
    "nothing": (b"", "broken"),
    "no end": (b"N", "broken"),
    "empty stack": (b".", "broken"),
    "two values": (b"NN.", "more than one"),
    "mark at the end": (b"(.", "more than one"),
    "mark in a tuple": (b"(\x85.", "MARK"),
    "mark in a list": (b"](a.", "MARK"),
    "mark in the memo": (b"(q\x00h\x00tt.", "MARK"),
    "no mark": (b"NNt.", "MARK"),
    "append to a tuple": (b")Na.", "not a list"),
    "append to a mark": (b"(Na.", "not a list"),
    "memo entry below 0": (b"Np-1\n.", "below 0"),
    "memo entry missing": (b"h\x05.", "broken"),
    "text cut": (b"X\x05\x00\x00\x00abc.", "too early"),
    "text of 2**63 bytes": (b"\x8d" + b"\xff" * 8 + b"a.", "too early"),
    "float cut": (b"G1234.", "broken"),
    "bad UTF-8": (b"X\x01\x00\x00\x00\xff.", "broken"),
    "no quotes": (b"Sabc\n.", "quotes"),
    "one quote": (b"S'\n.", "quotes"),
    "bad escape": (b"S'\\x0'\n.", "broken"),
    "bad int": (b"Iabc\n.", "broken"),
    "long int": (b"I" + b"1" * 10_000 + b"\n.", "integer"),
    "long long": (b"\x8b\xff\xff\xff\x7f.", "integer"),
    "negative long": (b"\x8b\xff\xff\xff\xff.", "integer"),
    "protocol 6": (b"\x80\x06N.", "protocol"),
    "too few for a tuple": (b"N\x86.", "too few"),
    "deep tuples": (b")" + b"\x85" * (DEPTH_MAX + 1) + b".", "deeper"),
    "deep lists": (b"]" * (DEPTH_MAX + 1) + b"a" * DEPTH_MAX + b".", "deeper"),
    "list in itself": (b"]q\x00h\x00a.", "twice"),
    "many lists": (b"(" + b"]" * 100_000 + b"t.", "too many"),
    "many memo entries": (b"N" + b"\x94" * 100_000 + b".", "too many"),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_broken(case: str) -> None:
    data, message = BROKEN[case]
    with pytest.raises(PickleRefused, match=message):
        load(data)


def test_deepest() -> None:
    value: Any = ()
    for _ in range(DEPTH_MAX - 1):
        value = (value,)
    assert load(pickle.dumps(value, 2)) == value


opcodes = st.sampled_from(
    [bytes([code]) for code in b"()].NtlaeIJKLMFGSTUVXBCpqrghj012duQPcRbio"]
    + [b"\x80\x02", b"\x85", b"\x86", b"\x87", b"\x88", b"\x89", b"\x8a", b"\x8c", b"\x94", b"\x95", b"\n"]
    + [b"q\x00", b"h\x00", b"K\x01", b"I1\n", b"U\x01a", b"(lp0\n", b"G12345678", b"\x00", b"'", b"1"]
)  # fmt: skip


@settings(max_examples=400)
@given(st.one_of(st.binary(max_size=200), st.lists(opcodes, max_size=40).map(b"".join)))
def test_fuzz(data: bytes) -> None:
    """Any bytes: a value or PickleRefused, nothing else; and where a value, Python's own reader agrees."""
    try:
        value = load(data)
    except PickleRefused as refused:
        assert str(refused)
        return
    if (
        b"\x95" not in data and b"L" not in data
    ):  # frame lengths aren't looked at; L0 digits, neither
        assert same(value, pickle._loads(data, encoding="bytes"))  # type: ignore[attr-defined]  # the pure twin, which typeshed leaves out


@given(st.lists(st.tuples(st.text(max_size=9), st.tuples(st.integers(), st.floats())), max_size=5),
       st.sampled_from(PROTOCOLS), st.data())  # fmt: skip
def test_flipped_byte(points: Any, protocol: int, draw: st.DataObject) -> None:
    data = bytearray(pickle.dumps(points, protocol))
    data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        load(bytes(data))
    except PickleRefused as refused:
        assert str(refused)
