"""Where a query is done depends on its estimated cost: what functions give counts, not only what they read."""

from __future__ import annotations

import asyncio

import pytest

from http_api.render import THREAD_S
from tests.fake_source import FakeSource
from tgres_py.functions.registry import functions
from tgres_py.query.cost import Cost
from tgres_py.query.evaluate import evaluate, fetch_all
from tgres_py.query.limits import DefaultLimits
from tgres_py.query.plan import Plan, RenderRequest, make_plan

NOW_S = 1_700_000_040
SERIES = 1_000
SLOTS = 360  # an hour
FEW = sorted(name for name, function in functions().items() if function.gives is not None)


@pytest.fixture(scope="module")
def source() -> FakeSource:
    source = FakeSource()
    for place in range(SERIES):
        source.add(f"a.s{place}", [])
    for place in range(4):
        source.add(f"b.s{place}", [(NOW_S - 60, place + 1.0)])
    return source


def planned(source: FakeSource, target: str) -> Plan:
    request = RenderRequest((target,), NOW_S - 10 * SLOTS, NOW_S, NOW_S)
    return make_plan(request, source, DefaultLimits())


@pytest.mark.parametrize(
    ("target", "series"),
    [
        ("a.*", SERIES),
        ("sumSeries(a.*)", 1),
        ("aggregate(a.*,'median')", 1),
        ("highestAverage(a.*,5)", 5),
        ("highest(a.*)", 1),
        ("limit(a.*,2000)", SERIES),
        ("highestAverage(a.*,-5)", SERIES),  # all but five
        ("group(sumSeries(a.*),averageSeries(a.*))", 2),
    ],
)
def test_functions_that_give_few_leave_little_to_write(
    source: FakeSource, target: str, series: int
) -> None:
    cost = Cost(planned(source, target))
    assert (cost.points, cost.series) == (series * SLOTS, series)


def test_a_sum_of_a_thousand_series_is_cheap_enough_for_this_process(source: FakeSource) -> None:
    assert Cost(planned(source, "sumSeries(a.*)")).seconds < THREAD_S / 2


@pytest.mark.parametrize("name", FEW)
def test_no_more_come_out_than_a_function_says(source: FakeSource, name: str) -> None:
    function = functions()[name]
    more = {"aggregate": ",'sum'", "percentileOfSeries": ",50"}.get(name, "")
    target = f"{name}(b.*{',2' if function.gives == 'n' else more})"
    plan = planned(source, target)
    blocks = evaluate(plan, asyncio.run(fetch_all(plan, source)))
    out = sum(map(len, blocks))
    assert 1 <= out <= Cost(plan).series == (2 if function.gives == "n" else 1)


def test_some_functions_say_that_they_give_few() -> None:
    assert {"sum", "sumSeries", "averageSeries", "countSeries", "limit", "mostDeviant"} <= set(FEW)
