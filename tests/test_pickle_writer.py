"""The pickle writer (and msgpack's beside it) against the real readers."""

from __future__ import annotations

import math
import pickle
import pickletools
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from http_api.formats import msgpack_writer, pickle_writer

FLOATS = st.floats(allow_nan=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(),
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=20)
    ),
    max_leaves=40,
)
INT64 = st.integers(-(1 << 63), (1 << 64) - 1)
MSGPACK = st.recursive(
    st.none() | st.booleans() | INT64 | FLOATS | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=40,
)


@given(PLAIN)
def test_pickle_goes_round(data: Any) -> None:
    body = pickle_writer.dumps(data)
    got = pickle.loads(body)
    assert got == data
    assert repr(got) == repr(data)  # bools stay bools, tuples tuples, -0.0 is -0.0


@given(st.lists(PLAIN, max_size=5))
def test_lists_in_pieces_are_the_same_list(items: list[Any]) -> None:
    assert pickle.loads(b"".join(pickle_writer.dump_list(items))) == items


@given(MSGPACK)
def test_msgpack_goes_round(data: Any) -> None:
    got = msgpack.unpackb(msgpack_writer.dumps(data), strict_map_key=False)
    assert repr(got) == repr(data)


@pytest.mark.parametrize(
    "number",
    [s * (1 << n) + d for n in (5, 7, 8, 15, 16, 31, 32, 63) for d in (-1, 0, 1) for s in (-1, 1)],
)
def test_numbers_at_the_edges(number: int) -> None:
    assert pickle.loads(pickle_writer.dumps(number)) == number
    if -(1 << 63) <= number < 1 << 64:
        assert msgpack.unpackb(msgpack_writer.dumps(number)) == number


@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_lengths_at_the_edges(size: int) -> None:
    for data in ("x" * size, [None] * size, {str(i): i for i in range(size)}):
        assert msgpack.unpackb(msgpack_writer.dumps(data)) == data
        assert pickle.loads(pickle_writer.dumps(data)) == data


def test_very_long_numbers() -> None:
    for number in (1 << 2_000, -(1 << 2_040), 1 << 5_000):
        assert pickle.loads(pickle_writer.dumps(number)) == number
    with pytest.raises(OverflowError):
        msgpack_writer.dumps(1 << 64)


@given(st.lists(st.floats()))
def test_arrays_are_lists_with_none(values: list[float]) -> None:
    array = np.array(values, np.float64)
    wanted = [None if math.isnan(value) else value for value in values]
    assert repr(pickle.loads(pickle_writer.dumps(array))) == repr(wanted)
    assert repr(msgpack.unpackb(msgpack_writer.dumps(array))) == repr(wanted)


def test_views_and_strides() -> None:
    column = np.arange(12.0).reshape(4, 3)[::-1, 1]
    assert pickle.loads(pickle_writer.dumps(column)) == [10.0, 7.0, 4.0, 1.0]


@given(PLAIN)
def test_protocol_2_and_no_opcode_that_makes_objects(data: Any) -> None:
    """What a graphite-web that unpickles carefully, or runs on Python 2, reads."""
    opcodes = [
        (opcode.name, opcode.proto)
        for opcode, _, _ in pickletools.genops(pickle_writer.dumps(data))
    ]
    assert max(proto for _, proto in opcodes) <= 2
    assert not {"GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ"} & {
        name for name, _ in opcodes
    }


@pytest.mark.parametrize(
    "data", [b"x", object(), {1, 2}, 1j, np.zeros((2, 2)), np.zeros(2, np.int64)]
)
def test_other_types_are_refused(data: Any) -> None:
    with pytest.raises(TypeError):
        pickle_writer.dumps([data])
    with pytest.raises(TypeError):
        msgpack_writer.dumps([data])


def test_lone_surrogates_become_question_marks() -> None:
    assert pickle.loads(pickle_writer.dumps("a\ud800")) == "a?"
    assert msgpack.unpackb(msgpack_writer.dumps("a\ud800")) == "a?"
