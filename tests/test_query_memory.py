"""A query makes no more than it may read: whatever functions do with what was fetched, memory and time are bounded.

Limits are small here, so that what is beyond them is quick to see; memory is measured against them.
"""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fake_source import FakeSource, archives
from tgres_py import clock
from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.series import SeriesBlock
from tgres_py.model.points import Ids
from tgres_py.model.retention import BundleSpec
from tgres_py.query import explain, plan
from tgres_py.query.evaluate import Fetched, evaluate, in_rounds
from tgres_py.query.limits import DefaultLimits
from tgres_py.query.plan import RenderRequest, make_plan
from tgres_py.target.parser import NESTING_MAX

NOW_S = 1_700_000_040
# Targets that are made of series may have 65,536 characters each, as many as these together.
LIMITS = DefaultLimits(query_points_max=100_000, query_series_max=1_000, query_targets_max=3)
BYTES_ALLOWED = 8 * LIMITS.query_points_max
LONG_S = 10_000  # ten series of a second's step: as much as may be read
SHORT_S = 100  # a thousand series
# What a function takes beside its arguments and its result, in matrices as large as allowed.
TIMES_MAX = 16
# Of the largest requests that are refused: the read points, and what was made before it was too much.
REFUSED_TIMES_MAX = 8


class NoisySource(FakeSource):
    """a.s0 … a.s9, w.s0 … w.s899: noise with gaps, at every second that is asked for."""

    def __init__(self) -> None:
        super().__init__()
        bundle = BundleSpec(archives("1s:1d,1m:30d"))
        for place in range(10):
            self.add(f"a.s{place}", [], bundle)
        for place in range(900):
            self.add(f"w.s{place}", [], bundle)

    async def fetch(
        self, ids: Ids, bundle: BundleSpec, archive: int, from_slot: int, until_slot: int
    ) -> NDArray[np.float64]:
        values = np.random.default_rng(1).normal(10, 3, (len(ids), until_slot - from_slot))
        values[:, ::7] = np.nan
        rows = np.arange(len(ids))
        values[rows, rows % values.shape[1]] = np.nan  # no two neighbours have the same gaps
        return values


@pytest.fixture(scope="module")
def source() -> NoisySource:
    return NoisySource()


@pytest.fixture(autouse=True)
def few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "COPIES_MAX", 500)


def render(
    source: FakeSource, target: str, span_s: int, deadline_s: float | None = None
) -> list[SeriesBlock]:
    request = RenderRequest((target,), NOW_S - span_s, NOW_S, NOW_S)
    planned = make_plan(request, source, LIMITS)

    async def work(fetched: Fetched) -> list[SeriesBlock]:
        return evaluate(planned, fetched, deadline_s)

    return asyncio.run(in_rounds(planned, source, work))


def nested(function: str, inner: str, rest: str = "", times: int = 40) -> str:
    return f"{function}(" * times + inner + f"{rest})" * times


POINTS = "setting query_points_max"
SERIES = "setting query_series_max"
REFUSED = [
    ("group(" + ",".join(["a.*"] * 100) + ")", LONG_S, POINTS),
    ("sumSeries(" + ",".join(["a.*"] * 100) + ")", LONG_S, POINTS),
    ("group(" + ",".join(["w.*"] * 100) + ")", 1, SERIES),
    ("group(" + ",".join(f"scale(a.*,{n})" for n in range(20)) + ")", LONG_S, POINTS),
    ("group(" + ",".join(f"alias(w.*,'{n}')" for n in range(20)) + ")", 1, SERIES),
    ("group(" + ",".join(f"time('{n}',1)" for n in range(100)) + ")", LONG_S, POINTS),
    ("group(" + ",".join(f"randomWalk('{n}',1)" for n in range(100)) + ")", LONG_S, POINTS),
    ("group(" + ",".join(f"a.s{{{n},0,1}}" for n in range(2, 10)) + ")", LONG_S, POINTS),
    (nested("fft", "a.s0"), SHORT_S, "made by functions"),
    (nested("holtWintersConfidenceBands", "a.s0", ",3,'1s','1s'"), SHORT_S, "setting"),
    (nested("asPercent", "a.s0"), SHORT_S, "characters of names"),
    (nested("asPercent", "w.*"), SHORT_S, "characters of names"),
    ("asPercent(scale(w.*,1))", SHORT_S, "characters of names"),
    ("divideSeries(scale(w.*,1),sumSeries(scale(w.*,1)))", 40, "characters of names"),
    (nested("heatMap", "w.*"), SHORT_S, "characters of names"),
    (f"aliasByNode(alias(w.*,'{'x' * 999}'),{','.join(['0'] * 99)})", 1, "of a substituted name"),
    (f"cactiStyle(group(w.*,alias(a.s0,'{'x' * 9_999}')))", 1, "characters of names"),
    (f"applyByNode(w.*,1,'sumSeries({'x' * 9_999}.%)')", 1, "setting query_targets_max"),
    (f"summarize(w.*,'{'0' * 9_999}1s')", 1, "an interval has at most"),
    (f"cactiStyle(w.*,'si','{'x' * 16_000}')", SHORT_S, "characters of names"),
    (f"alias(a.s0,'{'x' * 17_000}')", SHORT_S, "characters of a text"),
    ("aliasByNode(w.*," + ",".join(["0"] * 101) + ")", SHORT_S, "takes at most 100 of nodes"),
    (nested("timeShift", "a.s0", ",'1s'"), SHORT_S, "nested too deep"),
    (nested("timeStack", "a.s0"), SHORT_S, "nested too deep"),
    (nested("baseline", "a.s0"), SHORT_S, "nested too deep"),
    ("sumSeries(w.*,forecastLinear(a.s0,'5000s'))", SHORT_S, POINTS),
    ("countValues(scale(a.*,1e6),1000000)", LONG_S, POINTS),
    ("summarize(a.*,'1s')", LONG_S + 10, POINTS),
    ("hitcount(summarize(a.*,'1min'),'1s')", LONG_S * 2, POINTS),
    ("timeStack(a.*,'1s',0,1000)", SHORT_S, SERIES),
    ("movingWindow(a.*,'9000s')", LONG_S, POINTS),
    ("pearson(a.s0,a.s1,50)", LONG_S, POINTS),
    ("kolmogorovSmirnovTest2(a.s0,a.s1,50)", LONG_S, POINTS),
    ("events('*')", 200_000, POINTS),
]  # fmt: skip


@pytest.mark.parametrize(("target", "span_s", "says"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_would_make_too_much_is_refused(
    source: NoisySource, target: str, span_s: int, says: str
) -> None:
    peak, refusal = 0, ""
    tracemalloc.start()
    try:
        render(source, target, span_s)
    except BadRequest as error:
        refusal = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert says in refusal
    # names have as much memory as points; a thousand labels take some hundred bytes each
    assert peak < REFUSED_TIMES_MAX * BYTES_ALLOWED + (8 << 20)


HUNGRY = [
    ("anomalies(a.*,3,'1s')", LONG_S - 10),
    ("movingMedian(a.*,3)", LONG_S - 10),
    ("movingAverage(a.*,2000)", LONG_S - 2_000),
    ("movingWindow(w.*,3,'stddev')", SHORT_S - 5),
    ("exponentialMovingAverage(a.*,5)", LONG_S - 10),
    ("stdev(a.*,1000)", LONG_S),
    ("smartSummarize(a.*,'1s','median')", LONG_S),
    ("summarize(a.*,'3s','stddev',true)", LONG_S),
    ("hitcount(a.*,'7s')", LONG_S),
    ("interpolate(a.*)", LONG_S),
    ("fft(a.{s0,s1,s2,s3})", LONG_S),
    ("ifft(fft(a.{s0,s1,s2,s3}))", LONG_S),
    ("lowPass(a.{s0,s1,s2,s3},10)", LONG_S),
    ("holtWintersForecast(a.*,'1s','10s')", LONG_S // 10),
    ("percentileOfSeries(w.*,50)", SHORT_S),
    ("medianSeries(w.*)", SHORT_S),
    ("asPercent(a.*)", LONG_S),
    ("sumSeries(a.*,smartSummarize(a.s0,'99999999s'))", LONG_S - 1_000),
    ("slo(a.*,'2s','above',3)", LONG_S),
    ("polyfit(a.*,20)", LONG_S),
    ("timeStack(a.s0,'1s',0,8)", LONG_S),
    ("pearson(a.s0,a.s1,10)", LONG_S),
    ("sortByName(aliasSub(w.*,'s','t'),true)", SHORT_S),
]  # fmt: skip


@pytest.mark.parametrize(("target", "span_s"), HUNGRY, ids=lambda value: str(value))
def test_what_may_be_made_takes_some_times_its_points(
    source: NoisySource, target: str, span_s: int
) -> None:
    """numpy makes masks and copies of a function's arguments; no function needs more of them than TIMES_MAX."""
    tracemalloc.start()
    try:
        blocks = render(source, target, span_s)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(map(len, blocks))
    assert peak < TIMES_MAX * BYTES_ALLOWED + (2 << 20)


@pytest.mark.parametrize("function", ["scale", "movingAverage", "timeShift"])
def test_as_deep_as_may_be_allowed(source: NoisySource, function: str) -> None:
    """Planning, steps, functions and the plan in words are recursive."""
    depth = NESTING_MAX - 1 if function != "timeShift" else 8
    value = "'1s'" if function == "timeShift" else "2"
    target = nested(function, "a.s0", f",{value}", depth)
    request = RenderRequest((target,), NOW_S - SHORT_S, NOW_S, NOW_S)
    limits = DefaultLimits(query_nesting_max=NESTING_MAX)
    planned = make_plan(request, source, limits)
    observed = explain.Observed()

    async def work(fetched: Fetched) -> list[SeriesBlock]:
        return evaluate(planned, fetched, observe=observed.add)

    assert asyncio.run(in_rounds(planned, source, work))[0].labels
    assert explain.explain(planned, observed, {})


async def test_series_of_several_targets_count_together(source: NoisySource) -> None:
    targets = tuple(f"scale(a.*,{n})" for n in range(3))
    request = RenderRequest(targets, NOW_S - LONG_S, NOW_S, NOW_S)
    planned = make_plan(request, source, LIMITS)
    with pytest.raises(LimitExceeded, match="points made by functions"):
        await in_rounds(
            planned, source, lambda fetched: asyncio.to_thread(evaluate, planned, fetched)
        )


@pytest.mark.parametrize(
    "target",
    [
        "a.*",
        "alias(a.*,'x')",
        "sortByName(scale(a.*,2))",
        "asPercent(scale(a.*,2),sumSeries(scale(a.*,2)))",
        nested("scale", "a.*", ",2", 30),  # each result goes when the next is made
        "asPercent(a.*,sumSeries(a.*))",
        "divideSeriesLists(a.{s0,s1,s2,s3},a.{s4,s5,s6,s7})",
        "group(" + ",".join(f"a.s{n}" for n in range(10)) + ")",
        "applyByNode(a.*,1,'scale(a.%,2)')",
        "diffSeries(a.*,timeShift(a.s0,'10s'))",
    ],
)
def test_what_fits_is_not_counted_twice(source: NoisySource, target: str) -> None:
    """As much as may be read: sharing and renaming it costs nothing, one new value for each is allowed."""
    assert render(source, target, LONG_S * 9 // 10)


@pytest.mark.parametrize(
    "target",
    [
        "movingMedian(a.*,900)",
        "ewma(a.*,0.5)",
        "exponentialMovingAverage(a.*,3)",
        "holtWintersForecast(a.*,'1s','10s')",
        "polyfit(w.*,3)",
        "pearson(a.s0,a.s1,60)",
        "kolmogorovSmirnovTest2(a.s0,a.s1,10)",
    ],
)
def test_the_time_of_a_query_ends_in_the_middle_of_a_function(
    source: NoisySource, target: str
) -> None:
    ticks = itertools.count()
    span_s = SHORT_S if "w." in target else 1_500
    small = patch.multiple("tgres_py.functions.calculate", _DIRECT_CELLS_MAX=100_000)
    spans = patch.multiple("tgres_py.functions.correlation", _SPAN_CELLS=1_000)
    with patch.object(clock, "monotonic", lambda: float(next(ticks))), small, spans:
        assert render(source, target, span_s)
        with pytest.raises(LimitExceeded, match="setting query_timeout_s"):
            render(source, target, span_s, deadline_s=next(ticks) + 12)
