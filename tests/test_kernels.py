"""The native kernels and their pure twins give the same answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgres_py.kernels import copy_py, names_py, ring_py

native_names = pytest.importorskip(
    "tgres_py.kernels._names", reason="the extension isn't built: only the pure twins can run"
)
native_copy = pytest.importorskip(
    "tgres_py.kernels._copy", reason="the extension isn't built: only the pure twins can run"
)
native_ring = pytest.importorskip(
    "tgres_py.kernels._ring", reason="the extension isn't built: only the pure twins can run"
)

_names = st.sampled_from(
    [b"a", b"a.b", b"a.b.c", b"x" * 30, b"a..b", b".a", b"a.", b"a;t=1", "ü".encode(), b"a\tb", b""]
)
_values = st.one_of(
    st.floats(allow_nan=True).map(lambda v: repr(v).encode()),
    st.integers(-(10**20), 10**20).map(lambda v: str(v).encode()),
    st.decimals(-1000, 1000, places=2).map(lambda v: str(v).encode()),
    st.sampled_from([b".5", b"5.", b"-", b".", b"1e5", b"1e", b"+1", b"1_0", b"nan", b"inf", b"1.2.3", b"--1"]),
    st.binary(max_size=4),
)
_times = st.one_of(
    st.integers(0, 2**33).map(lambda v: str(v).encode()),
    st.sampled_from([b"-1", b"-2", b"-01", b"1.5", b"1.", b".5", b"", b"123456789012", b"1e3", b"1 "]),
)
_line = st.builds(
    lambda n, v, t, gap, end: n + gap + v + gap + t + end,
    _names,
    _values,
    _times,
    st.sampled_from([b" ", b" ", b" ", b"  ", b"\t"]),
    st.sampled_from([b"\n", b"\n", b"\r\n", b""]),
)


def _same_columns(a: Any, b: Any) -> None:
    assert a[0].tolist() == b[0].tolist()
    taken = a[0] >= 0
    assert a[1][taken].tolist() == b[1][taken].tolist()
    assert a[2][taken].tobytes() == b[2][taken].tobytes()
    assert a[3] == b[3]
    assert a[4] == b[4]


@given(st.lists(st.lists(_line, max_size=12), max_size=3), st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_parse_twins_agree(buffers: list[list[bytes]], new_max: int) -> None:
    native, pure = native_names.NameTable(), names_py.NameTable()
    for lines in buffers:
        data = b"".join(lines)
        _same_columns(
            native.parse(data, 77, 20, new_max=new_max), pure.parse(data, 77, 20, new_max=new_max)
        )
    assert native.name_lines(0, native.size) == pure.name_lines(0, pure.size)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_parse_twins_agree_on_any_bytes(data: bytes) -> None:
    _same_columns(native_names.NameTable().parse(data, 1), names_py.NameTable().parse(data, 1))


@pytest.mark.parametrize("table", [native_names.NameTable, names_py.NameTable])
def test_table_grows_and_keeps_ids(table: Any) -> None:
    t = table()
    names = [b"servers.host%d.cpu" % i for i in range(70_000)]
    assert t.add_lines(b"".join(n + b"\n" for n in names)).tolist() == list(range(70_000))
    assert [t.get(n) for n in names[::997]] == list(range(0, 70_000, 997))
    assert t.get(b"servers.host70000.cpu") == -1
    t.alias(b"other;a=1", 5)
    assert t.get(b"other;a=1") == 5 and t.name(5) == names[5]
    assert t.add(b"new") == 70_000
    ids, times, values, odd, used = t.parse(b"other;a=1 2.50 10\nservers.host9.cpu -3 11\nx", 0)
    assert (ids.tolist(), times.tolist(), values.tolist(), odd, used) == ([5, 9], [10, 11], [2.5, -3.0], [], 42)


_few = st.sampled_from([b"a", b"b", b"a.b", b"c;x=1"])
_id_list = st.lists(st.integers(0, 9), max_size=3)
_change = st.one_of(
    st.tuples(st.just("parse"), st.lists(_few, min_size=1, max_size=5)),
    st.tuples(st.just("look_up"), st.lists(_few, min_size=1, max_size=5)),
    st.tuples(st.just("alias"), _few, st.integers(0, 9)),
    st.tuples(st.just("unmap"), _id_list),
    st.tuples(st.just("rename"), st.integers(0, 9), _few),
    st.tuples(st.just("detached"), _few),
)


def _apply_change(table: Any, kind: str, *args: Any) -> Any:
    if kind == "parse":
        lines = b"".join(name + b" 1 10\n" for name in args[0])
        return table.parse(lines, 1)[0].tolist()
    if kind == "look_up":
        sizes = np.array([len(name) for name in args[0]], np.int32)
        starts = np.cumsum(sizes, dtype=np.int64) - sizes
        return table.look_up(b"".join(args[0]), starts, sizes).tolist()
    if kind == "unmap":
        ids = [id for id in args[0] if id < table.size]
        return table.unmap(np.array(ids, np.int32))
    if kind == "alias":
        return table.alias(*args) if args[1] < table.size else None
    if kind == "rename" and args[0] < table.size:
        table.unmap(np.array([args[0]], np.int32))
    try:
        return getattr(table, kind)(*args)
    except (ValueError, IndexError) as error:
        return type(error)


@given(st.lists(_change, max_size=40))
@settings(max_examples=300, deadline=None)
def test_names_that_go_and_come_twins_agree(changes: list[tuple[Any, ...]]) -> None:
    native, pure = native_names.NameTable(), names_py.NameTable()
    for change in changes:
        assert _apply_change(native, *change) == _apply_change(pure, *change)
        assert native.size == pure.size
        for name in (b"a", b"b", b"a.b", b"c;x=1"):
            assert native.get(name) == pure.get(name)
    assert native.name_lines(0, native.size) == pure.name_lines(0, pure.size)


@pytest.mark.parametrize("table", [native_names.NameTable, names_py.NameTable])
def test_a_table_knows_all_names_while_it_grows(table: Any) -> None:
    """Its hash grows in small steps: at no moment is a name missing, or one there that isn't."""
    t = table()
    names = [b"a.%d" % i for i in range(20_000)]
    for i in range(0, len(names), 50):
        t.add_lines(b"".join(n + b"\n" for n in names[i : i + 50]))
        known = range(0, i + 50, 499)
        assert [t.get(names[k]) for k in known] == list(known)
        assert t.get(b"b.%d" % i) == -1
    assert t.size == len(names)


@pytest.mark.parametrize("table", [native_names.NameTable, names_py.NameTable])
def test_a_table_that_grows_forgets_what_is_gone(table: Any) -> None:
    t = table()
    t.add_lines(b"".join(b"a%d\n" % i for i in range(3_000)))
    t.unmap(np.arange(0, 3_000, 2, dtype=np.int32))
    t.add_lines(b"".join(b"b%d\n" % i for i in range(70_000)))
    assert [t.get(b"a%d" % i) for i in range(6)] == [-1, 1, -1, 3, -1, 5]
    assert t.name(2) == b"a2"
    assert t.add(b"a2") == 73_000


@given(
    rule=st.integers(0, 5),
    steps=st.sampled_from([1, 10]),
    blocks=st.lists(
        st.tuples(
            st.lists(
                st.tuples(st.integers(0, 6), st.integers(-400, 1300), st.integers(-5, 5)), max_size=25
            ),
            st.sampled_from(["", "seal", "unseal", "drop", "assign"]),
            st.integers(0, 60),
        ),
        max_size=6,
    ),
)
@settings(max_examples=200, deadline=None)
def test_ring_twins_agree(rule: int, steps: int, blocks: list[Any]) -> None:
    rings = [native_ring.RingStore(), ring_py.RingStore()]
    for ring in rings:
        assert ring.add_segment(steps, 600, 1200, 4, rule) == 0
        assert ring.add_segment(10, 600, 600, 4, 0, 30) == 1
        ring.place(np.array([0, 2, 4], np.int32), 0)
        ring.place(np.array([1, 3], np.int32), 1)
    for points, action, slot in blocks:
        ids = np.array([p[0] for p in points], np.int32)
        times = np.array([p[1] for p in points], np.int64)
        values = np.array([p[2] for p in points], np.float64)
        results = []
        for ring in rings:
            if action == "seal":
                ring.set_seal(0, slot)
            elif action == "unseal":
                ring.set_seal(0, ring_py.FLOOR_NONE)
            elif action == "drop" and slot >= ring.floor(0):
                ring.drop(0, slot)
            if action == "assign":
                ring.assign(ids, times, values, np.full(len(ids), 3, np.uint32))
                results.append(None)
            else:
                r = ring.store(ids, times, values, 900, 200)
                results.append((r[0], r[1], *(a.tolist() for a in r[2:])))
        assert results[0] == results[1]
        for s in (0, 1):
            a, b = (
                (
                    ring.floor(s), ring.seal(s), ring.span(s), ring.written(s),
                    ring.block(s, -50, 150).tobytes(), ring.count_block(s, -50, 150).tobytes() if s == 0 and rule == 3 else b"",
                    ring.gather(s, np.array([1, 0], np.int32), 3, 90).tobytes(),
                )
                for ring in rings
            )
            assert a == b
        assert rings[0].row_bytes == rings[1].row_bytes


@pytest.mark.parametrize("make", [native_ring.RingStore, ring_py.RingStore])
def test_a_ring_takes_more_series_than_it_began_with(make: Any) -> None:
    ring = make()
    for segment, first in enumerate((0, 900, 5_000)):
        ring.add_segment(10, 600, 1200, 4_096, 0)
        ring.place(np.arange(first, first + 600, dtype=np.int32), segment)
    segments, columns = ring.locate(np.array([0, 599, 600, 900, 1_499, 5_599, 6_000], np.int32))
    assert segments.tolist() == [0, 0, -1, 1, 1, 2, -1]
    assert columns.tolist() == [0, 599, -1, 0, 599, 599, -1]


_texts = st.text(st.characters(codec="utf-8"), max_size=12)


@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            _texts,
            st.none() | st.binary(max_size=9),
            st.integers(-(2**31), 2**31 - 1),
        ),
        max_size=9,
    )
)
@settings(deadline=None)
def test_series_rows_twins_agree(rows: list[Any]) -> None:
    ids, names, tags, bundles = zip(*rows, strict=True) if rows else ((), (), (), ())
    columns = np.array(ids, np.int64), list(names), list(tags), np.array(bundles, np.int32)
    assert native_copy.series_rows(*columns) == copy_py.series_rows(*columns)


def test_series_rows_need_equal_columns() -> None:
    for series_rows in (native_copy.series_rows, copy_py.series_rows):
        with pytest.raises(ValueError):
            series_rows(np.zeros(2, np.int64), ["a", "b"], [None], np.zeros(2, np.int32))
