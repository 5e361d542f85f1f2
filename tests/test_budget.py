"""The budget of new series: buckets that fill, prefixes, what a table does with it; both twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgres_py.kernels import NATIVE, budget_py, names_py

TWINS: list[tuple[Any, Any]] = [(budget_py.Budget, names_py.NameTable)]
if NATIVE:
    from tgres_py.kernels._names import Budget as NativeBudget
    from tgres_py.kernels._names import NameTable as NativeTable

    TWINS.append((NativeBudget, NativeTable))
both = pytest.mark.parametrize(("make", "table"), TWINS, ids=["pure", "native"][: len(TWINS)])


def lines(*names: bytes) -> bytes:
    return b"".join(name + b" 1 10\n" for name in names)


@both
def test_a_burst_then_a_rate(make: Any, table: Any) -> None:
    budget = make(10, 5, 0, 0)
    budget.at(100)
    assert [budget.take(b"a.b.%d" % i) for i in range(7)] == [True] * 5 + [False] * 2
    budget.at(100.25)
    assert [budget.take(b"a.b.%d" % i) for i in range(4)] == [True, True, False, False]
    budget.at(1_000)
    assert sum(budget.take(b"a.b.%d" % i) for i in range(20)) == 5
    assert budget.refused == 2 + 2 + 15


@both
def test_a_prefix_costs_the_others_nothing(make: Any, table: Any) -> None:
    budget = make(0, 0, 1, 3)
    assert [budget.take(b"storm.x.%d" % i) for i in range(5)] == [True] * 3 + [False] * 2
    assert budget.take(b"storm.y.1") and budget.take(b"calm.x.1")
    assert budget.prefixes() == [(b"storm.x", 2)]


@both
@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        (b"a.b.c.d", b"a.b"),
        (b"a.b", b"a.b"),
        (b"a", b"a"),
        (b"disk.used;host=a.b.c", b"disk.used"),
        (b"disk;host=a.b.c", b"disk"),
        (b"stats.timers.app.x.mean", b"stats.timers.app"),
        (b"stats.x", b"stats.x"),
        (b"statsd.x.y", b"statsd.x"),
        (b"n" * 300 + b".b", b"n" * 255),
        (b"n" * 254 + b".b.c", b"n" * 254 + b"."),
    ],
)
def test_prefixes_of_names(make: Any, table: Any, name: bytes, prefix: bytes) -> None:
    budget = make(0, 0, 1, 0)
    assert not budget.take(name)
    assert budget.prefixes() == [(prefix, 1)]


@both
def test_prefixes_beyond_the_bound_share_one_bucket_until_others_are_full_again(
    make: Any, table: Any
) -> None:
    budget = make(0, 0, 1, 2, 1, 3)
    budget.at(50)
    assert all(budget.take(b"p%d.x" % i) for i in range(5))  # the last two share
    assert not budget.take(b"p5.x")
    assert budget.prefixes() == [(budget_py.OTHERS, 1)]
    assert [budget.take(b"p0.y"), budget.take(b"p0.z")] == [True, False]  # it keeps its own
    budget.at(70)  # p1 and p2 are full again and make room; p0 is told for a while
    assert [budget.take(b"p6.%d" % i) for i in range(3)] == [True, True, False]
    assert dict(budget.prefixes())[b"p6"] == 1
    budget.at(70 + budget_py.FORGET_S + 60)
    assert budget.take(b"p7.x")
    assert dict(budget.prefixes()) == {budget_py.OTHERS: 1, b"p0": 1, b"p6": 1}


@both
def test_known_names_of_a_buffer_are_taken(make: Any, table: Any) -> None:
    names, budget = table(), make(0, 0, 0.001, 2)
    names.add(b"a.b.known")
    data = lines(b"a.b.1", b"a.b.known", b"a.b.2", b"a.b.3", b"a.b.known", b"a.b.1", b"c.d.1")
    assert names.parse(data, 1, budget=budget)[0].tolist() == [1, 0, 2, -4, 0, 1, 3]
    starts, sizes = np.array([0, 5, 0], np.int64), np.array([5, 7, 9], np.int32)
    assert names.look_up(b"a.b.4c.d.new", starts[:2], sizes[:2], budget=budget).tolist() == [-4, 4]
    assert (names.size, budget.refused) == (5, 2)


_name = st.sampled_from(
    [b"a", b"a.b", b"a.b.c", b"a.c;t=1", b"stats.t.a.x", b"stats.t.b", b"x" * 260]
)
_step = st.tuples(st.floats(0, 20), st.lists(st.tuples(_name, st.integers(0, 30)), max_size=12))


@pytest.mark.skipif(not NATIVE, reason="the extension isn't built: only the pure twins can run")
@given(
    rates=st.tuples(*[st.sampled_from([0, 0.5, 3]), st.integers(0, 9)] * 2),
    depth=st.integers(1, 3),
    most=st.integers(1, 6),
    steps=st.lists(_step, max_size=12),
)
def test_twins_agree(rates: Any, depth: int, most: int, steps: list[Any]) -> None:
    budgets = [make(*rates, depth, most) for make, _ in TWINS]
    tables = [table() for _, table in TWINS]
    now = 1_000.0
    for seconds, names in steps:
        now += seconds
        data = lines(*(b"%d." % i + name if i % 3 else name + b"%d" % i for name, i in names))
        outcomes = []
        for budget, table in zip(budgets, tables, strict=True):
            budget.at(now)
            outcomes.append(table.parse(data, 1, budget=budget)[0].tolist())
        assert outcomes[0] == outcomes[1]
        assert budgets[0].prefixes() == budgets[1].prefixes()
        assert budgets[0].refused == budgets[1].refused
