"""maxDataPoints and the consolidation functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgres_py.errors import BadRequest
from tgres_py.functions.aggregation import (
    AGGREGATE_ALIASES,
    AGGREGATES,
    consolidate,
    reduce_known,
    reducer,
)
from tgres_py.functions.series import Grid, Label, SeriesBlock, concat
from tgres_py.query.consolidate import consolidate_blocks

NAN = math.nan


def block(
    values: list[float], start_s: int = 0, step_s: int = 10, cf: str = "average", xff: float = 0.0
) -> SeriesBlock:
    grid = Grid(start_s, start_s + step_s * len(values), step_s)
    return SeriesBlock.uniform([Label("a", "a", {"name": "a"}, cf, xff)], grid, np.array([values]))


def row(got: SeriesBlock) -> tuple[int, int, list[float]]:
    [(_, grid, values)] = got.rows()
    return grid.start_s, grid.step_s, values.tolist()


# points 0..8 at 0, 10, …, 80 s, at most 4: 3 to one; the start goes to 30, and 2 points (not 3) are dropped
@pytest.mark.parametrize(
    ("cf", "wanted"),
    [
        ("average", [3.0, 6.0, 8.0]),
        ("avg", [3.0, 6.0, 8.0]),
        ("sum", [9.0, 18.0, 8.0]),
        ("min", [2.0, 5.0, 8.0]),
        ("max", [4.0, 7.0, 8.0]),
        ("first", [2.0, 5.0, 8.0]),
        ("last", [4.0, 7.0, 8.0]),
        ("avg_zero", [3.0, 6.0, 8.0]),
    ],
)
def test_functions(cf: str, wanted: list[float]) -> None:
    [got] = consolidate_blocks([block(list(map(float, range(9))), cf=cf)], 4)
    assert row(got) == (30, 30, wanted)


def test_as_many_points_as_allowed_stay() -> None:
    values = list(map(float, range(9)))
    [got] = consolidate_blocks([block(values)], 9)
    assert row(got) == (0, 10, values)


def test_one_point_is_everything_at_the_start() -> None:
    [got] = consolidate_blocks([block([1.0, 2.0, NAN, 6.0], 20)], 1)
    assert row(got) == (20, 40, [3.0])


def test_unaligned_start_moves_to_the_next_bucket_and_keeps_its_phase() -> None:
    # start 25: the next multiple of 20 after it is 40, kept at 5 past: 45
    [got] = consolidate_blocks([block([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 25)], 3)
    start_s, step_s, _ = row(got)
    assert (start_s % 20, step_s) == (5, 20)


def test_unknown_points_and_xff() -> None:
    values = [NAN, NAN, NAN, NAN, 1.0, 3.0, NAN, NAN, 5.0]
    [got] = consolidate_blocks([block(values, xff=0.6)], 4)
    np.testing.assert_array_equal(row(got)[2], [NAN, NAN, NAN])
    [got] = consolidate_blocks([block(values)], 4)
    np.testing.assert_array_equal(row(got)[2], [1.0, 3.0, 5.0])


def test_the_range_is_that_of_all_series() -> None:
    short, long = block([1.0, 2.0, 3.0, 4.0]), block([1.0] * 40)
    got = consolidate_blocks([short, long], 10)
    assert [row(one)[1] for one in got] == [40, 40]


def test_nothing_to_consolidate() -> None:
    assert [len(b) for b in consolidate_blocks([SeriesBlock([], [])], 5)] == [0]


def test_unknown_function() -> None:
    with pytest.raises(BadRequest, match="bogus"):
        consolidate_blocks([block([1.0, 2.0, 3.0], cf="bogus")], 1)


floats = st.one_of(st.just(NAN), st.floats(-1e6, 1e6).map(lambda v: round(v, 3)))


def known(values: list[float]) -> list[float]:
    return [v for v in values if not math.isnan(v)]


PLAIN = {
    "average": lambda v: sum(v) / len(v),
    "sum": sum,
    "min": min,
    "max": max,
    "first": lambda v: v[0],
    "last": lambda v: v[-1],
}


@given(
    st.lists(floats, min_size=1, max_size=30),
    st.integers(1, 8),
    st.sampled_from(sorted(PLAIN)),
    st.sampled_from([0.0, 0.4, 1.0]),
)
def test_consolidate_equals_plain_loops(values: list[float], per: int, cf: str, xff: float) -> None:
    groups = [known(values[i : i + per]) for i in range(0, len(values), per)]
    wanted = [PLAIN[cf](g) if g and len(g) / per >= xff else NAN for g in groups]
    got = consolidate(np.array([values]), per, cf, xff)[0]
    assert got.tolist() == pytest.approx(wanted, nan_ok=True, rel=1e-9, abs=1e-9)


AGGREGATED = {
    **{name: PLAIN[name] for name in ("average", "sum", "min", "max", "last")},
    "count": len,
    "range": lambda v: max(v) - min(v),
    "median": lambda v: float(np.median(v)),
    "stddev": lambda v: float(np.std(v)),
    "diff": lambda v: v[0] - sum(v[1:]),
}


@given(st.lists(floats, min_size=1, max_size=12), st.sampled_from(sorted(AGGREGATED)))
def test_aggregates_equal_plain_loops(values: list[float], name: str) -> None:
    wanted = AGGREGATED[name](known(values)) if known(values) else NAN
    got = reduce_known(reducer(name), np.array([values]), 1, 0.0)
    assert got.tolist() == pytest.approx([wanted], nan_ok=True, rel=1e-9, abs=1e-6)


def test_every_aggregate_is_tested_or_named_here() -> None:
    values = np.array([[2.0, NAN, 4.0]])
    assert reduce_known(reducer("avg_zero"), values, 1, 0.0).tolist() == [2.0]
    assert np.isnan(reduce_known(reducer("multiply"), values, 1, 0.0)).all()
    assert reduce_known(reducer("multiply"), values[:, ::2], 1, 0.0).tolist() == [8.0]
    assert set(AGGREGATES) == set(AGGREGATED) | {"avg_zero", "multiply"}
    assert set(AGGREGATE_ALIASES.values()) <= set(AGGREGATES)


def test_concat_joins_equal_grids_and_take_picks() -> None:
    three = concat([block([1.0, 2.0]), block([7.0], step_s=60), block([3.0, 4.0])])
    assert [len(part.index) for part in three.parts] == [2, 1]
    assert [values.tolist() for _, _, values in three.rows()] == [[1.0, 2.0], [7.0], [3.0, 4.0]]
    picked = three.take([2, 1])
    assert [values.tolist() for _, _, values in picked.rows()] == [[3.0, 4.0], [7.0]]
