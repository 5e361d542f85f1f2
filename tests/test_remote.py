"""Series of other nodes: how they join, what is loaded when, and reading answers strictly."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from http_api.formats import msgpack_writer
from http_api.peer_answers import (
    BadAnswer,
    Beyond,
    read_find,
    read_render,
    read_texts,
    reckon_find,
    reckon_render,
    reckon_texts,
)
from tests.fake_source import FakeSource
from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.series import Grid, Label, SeriesBlock
from tgres_py.model.nodes import NEVER
from tgres_py.query.evaluate import evaluate, fetch_all, plan_with
from tgres_py.query.limits import DefaultLimits
from tgres_py.query.plan import RenderRequest
from tgres_py.query.remote import (
    Answers,
    RemoteKey,
    RemoteReads,
    RemoteSeries,
    join_values,
    joined,
    with_remote,
)

NAN = math.nan
KEY = RemoteKey("a.*", 0, 60)
Part = tuple[Grid, np.ndarray[Any, np.dtype[np.float64]]]


def part(start_s: int, step_s: int, *values: float) -> Part:
    return Grid(start_s, start_s + step_s * len(values), step_s), np.array(values)


def series(name: str, start_s: int, step_s: int, *values: float) -> RemoteSeries:
    return RemoteSeries(name, *part(start_s, step_s, *values))


@pytest.mark.parametrize(
    ("first", "second", "start_s", "step_s", "values"),
    [
        (part(0, 10, 1, NAN, 3), part(0, 10, 9, 8, NAN), 0, 10, [1, 8, 3]),
        (part(10, 10, 1, NAN), part(0, 10, 7, 8, 9), 0, 10, [7, 1, 9]),
        (part(0, 10, 1), part(20, 10, 9), 0, 10, [1, NAN, 9]),
        (part(0, 10, 1, NAN), part(0, 60, 5), 0, 60, [5]),
        (part(0, 10, 1, 2), part(0, 60, 5), 0, 10, [1, 2]),
        (part(0, 10, NAN, 2), part(5, 10, 5, 6), 5, 10, [5, 6]),
        (part(0, 10), part(0, 10, 5), 0, 10, [5]),
        (part(0, 10, 5), part(0, 10), 0, 10, [5]),
        (part(0, 1, 5), part(10**9, 1, 6), 0, 1, [5]),
        (part(0, 10, NAN), part(30, 10, 3), 0, 10, [NAN, NAN, NAN, 3]),
    ],
)
def test_two_nodes_know_parts_of_one_series(
    first: Part, second: Part, start_s: int, step_s: int, values: list[float]
) -> None:
    copies = first[1].copy(), second[1].copy()
    grid, got = join_values(first, second)
    assert (grid.start_s, grid.step_s) == (start_s, step_s)
    np.testing.assert_array_equal(got, values)
    np.testing.assert_array_equal(first[1], copies[0])
    np.testing.assert_array_equal(second[1], copies[1])


@given(
    st.lists(st.sampled_from([NAN, 1.0, 2.0]), min_size=1, max_size=8),
    st.lists(st.sampled_from([NAN, 3.0, 4.0]), min_size=1, max_size=8),
    st.integers(-4, 4),
)
def test_joining_is_slot_by_slot(a: list[float], b: list[float], shift: int) -> None:
    grid, got = join_values(part(1_000, 10, *a), part(1_000 + shift * 10, 10, *b))
    expected = {1_000 + shift * 10 + i * 10: v for i, v in enumerate(b) if v == v}
    expected |= {1_000 + i * 10: v for i, v in enumerate(a) if v == v}
    known = {grid.start_s + i * 10: v for i, v in enumerate(got.tolist()) if v == v}
    assert known == expected
    assert grid.start_s + 10 * len(got) == grid.end_s


def test_lists_of_nodes_join_by_name() -> None:
    found = joined(
        [[series("b", 0, 10, NAN, 1), series("a", 0, 10, 5)], [series("b", 0, 10, 2, 3)]]
    )
    assert [one.name for one in found] == ["a", "b"]
    assert found[1].values.tolist() == [2, 1]


def test_our_own_series_count_first() -> None:
    block = SeriesBlock.uniform(
        [Label("b", "x.*", {"name": "b"})], Grid(0, 20, 10), np.array([[1, NAN]])
    )
    remote = [series("b", 0, 10, 7, 8), RemoteSeries("a;t=v", *part(0, 10, 3, 4), "max")]
    rows = list(with_remote(block, remote, "x.*", 0.5, by_cf=False).rows())
    assert [(label.name, values.tolist()) for label, _, values in rows] == [
        ("a;t=v", [3, 4]),
        ("b", [1, 8]),
    ]
    label = rows[0][0]
    assert (label.path_expression, label.tags, label.cf, label.xff) == (
        "x.*",
        {"name": "a", "t": "v"},
        "average",
        0.5,
    )
    assert next(with_remote(block, remote, "x.*", 0.5, by_cf=True).rows())[0].cf == "max"
    assert with_remote(block, [], "x.*", 0.5, by_cf=False) is block


class FakePeers:
    """Answers every path with one series of a value each ``step_s``; notes what it is asked."""

    def __init__(self, step_s: int = 10) -> None:
        self.step_s = step_s
        self.asked: list[list[RemoteKey]] = []
        self.names = ["here:1", "there:1"]

    async def fetch(self, keys: Sequence[RemoteKey], now_s: int, points_max: int) -> Answers:
        self.asked.append(list(keys))
        found = {}
        for key in keys:
            slots = (key.until_s - key.from_s) // self.step_s
            start_s = key.from_s // self.step_s * self.step_s + self.step_s
            values = [(start_s + i * self.step_s) / 10 for i in range(slots)]
            found[key] = [[series(key.expression, start_s, self.step_s, *values)]]
        return Answers(found, ["there:1"])


def request(*targets: str, local: bool = False) -> RenderRequest:
    return RenderRequest(targets, 600, 660, 700, local=local)


async def result(peers: FakePeers, *targets: str, local: bool = False) -> list[SeriesBlock]:
    source = FakeSource()
    plan = await plan_with(request(*targets, local=local), source, DefaultLimits(), peers)
    return evaluate(plan, await fetch_all(plan, source))


async def test_all_paths_are_asked_for_in_one_go() -> None:
    peers = FakePeers()
    blocks = await result(peers, "a.b", "sumSeries(a.b,c)", 'timeShift(d,"1min")')
    assert len(peers.asked) == 1
    asked = [(key.expression, key.from_s) for key in peers.asked[0]]
    assert {("a.b", 600), ("c", 600), ("d", 540)} <= set(asked)
    assert len(asked) == len(set(asked))
    assert [[label.name for label in block.labels] for block in blocks][:2] == [
        ["a.b"],
        ["sumSeries(a.b,c)"],
    ]


@pytest.mark.parametrize("step_s", [10, 20])
async def test_a_window_in_points_waits_for_the_steps(step_s: int) -> None:
    peers = FakePeers(step_s)
    [block] = await result(peers, "movingAverage(a,3)")
    assert [keys[0].from_s for keys in peers.asked] == [600, 600 - 3 * step_s]
    [(_, grid, values)] = block.rows()
    # the mean of the three values that end here: the one before
    times = [grid.start_s + i * grid.step_s for i in range(len(values))]
    np.testing.assert_allclose(values, [(time - step_s) / 10 for time in times])


async def test_nested_windows_in_points() -> None:
    peers = FakePeers()
    await result(peers, "movingAverage(movingAverage(a,3),2)")
    ranges = [key.from_s for keys in peers.asked for key in keys]
    assert ranges[0] == 600 and ranges[-1] == 550


async def test_local_asks_nobody() -> None:
    peers = FakePeers()
    [block] = await result(peers, "a.b", local=True)
    assert (len(block), peers.asked) == (0, [])


async def test_errors_of_a_request_are_told_without_asking() -> None:
    peers = FakePeers()
    for target in ("scale(a", "noSuchFunction(a)", "scale(a)"):
        with pytest.raises(BadRequest):
            await result(peers, target)
    assert peers.asked == []


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        (DefaultLimits(query_points_max=5), "query_points_max"),
        (DefaultLimits(query_series_max=1), "query_series_max"),
    ],
)
async def test_limits_hold_for_other_nodes_too(limits: DefaultLimits, setting: str) -> None:
    reads = RemoteReads(FakePeers(), 700, limits)
    with pytest.raises(LimitExceeded, match=setting):
        await reads.load([RemoteKey("a", 600, 660), RemoteKey("b", 600, 660)])


async def test_what_is_known_is_not_asked_again() -> None:
    peers = FakePeers()
    reads = RemoteReads(peers, 700, DefaultLimits())
    await reads.load([KEY, KEY])
    await reads.load([KEY])
    assert peers.asked == [[KEY]]
    assert (reads.failed, reads.points, KEY in reads) == ({"there:1"}, 6, True)


# -- answers -------------------------------------------------------------------------------------


def row(**changes: Any) -> dict[str, Any]:
    whole = {"name": "a.b", "start": 10, "end": 30, "step": 10, "values": [1.5, None]}
    return {**whole, "pathExpression": "a.*", **changes}


def packed(*rows: Any) -> bytes:
    body: bytes = msgpack.packb(list(rows))
    return body


def test_a_good_answer() -> None:
    other = RemoteKey("x", 0, 60)
    asked = {"a.*": KEY, "x": other}
    body = packed(
        row(), row(name="a.c", values=[2, 3]), row(name="x", pathExpression="x", start=10.0)
    )
    found = read_render(body, asked, 100)
    assert [one.name for one in found[KEY]] == ["a.b", "a.c"]
    np.testing.assert_array_equal(found[KEY][0].values, [1.5, NAN])
    assert (found[KEY][0].grid, found[KEY][0].values.dtype) == (Grid(10, 30, 10), np.float64)
    assert [one.name for one in found[other]] == ["x"]


def test_of_one_expression_all_series_are_its() -> None:
    asked = {"a.\\(*": KEY, "a.(*": KEY}
    found = read_render(packed(row(pathExpression="anything")), asked, 100)
    assert [one.name for one in found[KEY]] == ["a.b"]


def test_what_we_write_is_read() -> None:
    values = np.array([1.0, NAN, math.inf])
    body = msgpack_writer.dumps([{**row(), "values": values}])
    np.testing.assert_array_equal(read_render(body, {"a.*": KEY}, 9)[KEY][0].values, values)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        packed(row())[:-1],
        packed(row()) + b"\x00",
        packed(7),
        msgpack.packb({"a": 1}),
        packed(row(step=0)),
        packed(row(step=1.5)),
        packed(row(start=-1)),
        packed(row(start=True)),
        packed(row(end=1 << 50)),
        packed(row(values="12")),
        packed(row(values=["1"])),
        packed(row(values=[True])),
        packed(row(values=[[1]])),
        packed(row(values=None)),
        packed(row(name=None)),
        packed(row(name="a\nb")),
        packed(row(name="")),
        packed(row(name=b"ab")),
        packed(row(consolidationFunc=3)),
        packed({1: 2}),
        msgpack.packb([msgpack.ExtType(4, b"x")]),
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5_000,
    ],
)
def test_nonsense_is_refused(body: bytes) -> None:
    with pytest.raises(BadAnswer):
        read_render(body, {"a.*": KEY}, 1_000)


def test_series_that_nobody_asked_for_are_refused() -> None:
    asked = {"a.*": KEY, "x": RemoteKey("x", 0, 60)}
    with pytest.raises(BadAnswer, match="wasn't asked for"):
        read_render(packed(row(pathExpression="y")), asked, 100)


def test_more_points_than_allowed() -> None:
    with pytest.raises(LimitExceeded, match="query_points_max"):
        read_render(packed(row(), row()), {"a.*": KEY}, 3)


MANY = 20_000
ANSWERS = {
    "floats": (reckon_render, [row(name=f"a.b{i}", values=[0.1] * 500) for i in range(100)]),
    "nils": (reckon_render, [row(values=[None] * MANY)]),
    "short": (reckon_render, [row(name=f"a.b{i}", values=[1.5]) for i in range(MANY)]),
    "nodes": (reckon_find, [{"path": f"a.b.c{i}", "is_leaf": True} for i in range(MANY)]),
}


def measured(read: Callable[[], Any]) -> int:
    """Bytes at the peak, and the result isn't gone by then."""
    tracemalloc.start()
    try:
        result = read()
        peak = tracemalloc.get_traced_memory()[1]
        del result
    finally:
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize("kind", ANSWERS)
def test_reading_an_answer_takes_no_more_than_is_reckoned(kind: str) -> None:
    reckon, rows = ANSWERS[kind]
    body = packed(*rows)
    if reckon is reckon_find:
        most, took = reckon_find(body), measured(lambda: read_find(body))
    else:
        likely, _ = reckon_render(body)
        most = likely.bytes
        took = measured(lambda: read_render(body, {"a.*": KEY}, 1 << 30, likely))
    print(took, most)
    assert most / 20 < took < most


def test_reading_a_list_of_texts_takes_no_more_than_is_reckoned() -> None:
    body = json.dumps([f"a.b{i}" for i in range(MANY)]).encode()
    took = measured(lambda: read_texts(body))
    assert reckon_texts(body) / 5 < took < reckon_texts(body)


@pytest.mark.parametrize("less", [{"points": 5_000}, {"row": 5_000}])
def test_an_answer_with_more_values_than_usual_is_told(less: dict[str, int]) -> None:
    """Whole numbers of a byte each."""
    body = packed(row(values=[1] * MANY), *(row(name=f"x{i}") for i in range(2_000)))
    likely, most = reckon_render(body)
    with pytest.raises(Beyond):
        read_render(body, {"a.*": KEY}, 1 << 30, likely._replace(**less))
    found = read_render(body, {"a.*": KEY}, 1 << 30, most)
    assert sum(len(one.values) for one in found[KEY]) == MANY + 4_000


@pytest.mark.parametrize("head", [b"\xdd\x01\x00\x00\x00", b"\x91\x81\xa1a\xdd\x01\x00\x00\x00"])
def test_the_head_of_a_list_takes_no_memory(head: bytes) -> None:
    """It says that 16 million entries follow."""

    def refused() -> None:
        with pytest.raises(BadAnswer):
            read_render(head, {"a.*": KEY}, 1 << 30)
        with pytest.raises(BadAnswer):
            read_find(head)

    assert measured(refused) < 1 << 20
    assert reckon_find(head) < 1_000


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_refused(body: bytes) -> None:
    for read in (
        lambda: read_render(body, {"a": KEY}, 50),
        lambda: read_find(body),
        lambda: read_texts(body),
    ):
        try:
            read()
        except (BadAnswer, LimitExceeded):
            continue


def test_nodes() -> None:
    body = packed(
        {"path": "a", "is_leaf": False},
        {"path": "a.b", "isLeaf": 1, "intervals": [[50.5, 90], [20, 30]]},
        {"metric_path": "c", "is_leaf": True, "intervals": [[-math.inf, math.inf]]},
    )
    assert [(n.path, n.is_leaf, n.since_s) for n in read_find(body).rows()] == [
        ("a", False, NEVER),
        ("a.b", True, 20),
        ("c", True, 0),
    ]
    with pytest.raises(BadAnswer):
        read_find(packed({"path": "a"}))
    with pytest.raises(BadAnswer):
        read_find(packed({"is_leaf": True}))


def test_texts() -> None:
    assert list(read_texts(b'["a","b"]').each_path()) == ["a", "b"]
    for bad in (b"{}", b"[1]", b"[", b'["a\\nb"]', b"[" * 100_000):
        with pytest.raises(BadAnswer):
            read_texts(bad)
