"""Plans: which reads a request needs, known before any of them; checks of arguments and limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tests.fake_source import FakeSource, archives
from tgres_py.errors import BadRequest, LimitExceeded, TargetSyntaxError
from tgres_py.model.retention import BundleSpec, Cf
from tgres_py.query.evaluate import evaluate, fetch_all
from tgres_py.query.limits import DefaultLimits
from tgres_py.query.plan import Plan, RenderRequest, make_plan

NOW_S = 1_700_000_000 // 3600 * 3600
HOUR = 3600


def make_source() -> FakeSource:
    source = FakeSource()
    fine = BundleSpec(archives("10s:6h,1m:7d"))
    summed = BundleSpec(archives("10s:6h,1m:7d"), Cf.SUM)
    slow = BundleSpec(archives("1m:7d"))
    times = range(NOW_S - 2 * HOUR, NOW_S + 1, 10)
    for name, bundle in (
        ("fine.a", fine),
        ("fine.b", fine),
        ("mix.s", summed),
        ("mix.m", slow),
        ("mix.a", fine),
    ):
        step_s = bundle.archives[0].step_s
        source.add(name, [(t, float(t - NOW_S)) for t in times if t % step_s == 0], bundle)
    return source


@pytest.fixture
def source() -> FakeSource:
    return make_source()


def plan(
    source: FakeSource, *targets: str, from_s: int = NOW_S - HOUR, **limits: int | bool
) -> Plan:
    request = RenderRequest(targets, from_s, NOW_S, NOW_S)
    return make_plan(request, source, DefaultLimits(**limits))  # type: ignore[arg-type]  # the limits of a test case are numbers


def reads(planned: Plan, source: FakeSource) -> set[tuple[tuple[str, ...], int, int, int]]:
    """(names, step, seconds from now of the first and behind the last slot) of each fetch."""
    out = set()
    for fetch in planned.fetches:
        step_s = fetch.step_s
        first, end = (
            slot * step_s - NOW_S for slot in (fetch.window.from_slot, fetch.window.until_slot)
        )
        out.add((tuple(source.names(fetch.ids)), step_s, first, end))
    return out


def test_one_fetch_for_all_series_of_a_bundle(source: FakeSource) -> None:
    planned = plan(source, "fine.*", "sumSeries(fine.a,mix.a)", "scale(fine.b,2)", "mix.s")
    assert reads(planned, source) == {
        (("fine.a", "fine.b", "mix.a"), 10, -3590, 10),
        (("mix.s",), 10, -3590, 10),
    }
    assert source.fetched == []


@pytest.mark.parametrize(
    ("target", "before_s"),
    [
        ("movingAverage(fine.a,'5min')", 300),
        ("movingAverage(fine.a,'-5min')", 300),
        ("movingAverage(fine.a,12)", 120),
        ("scale(movingAverage(fine.a,12),2)", 120),
        ("movingAverage(movingAverage(fine.a,'5min'),'10min')", 900),
        ("movingAverage(scale(movingAverage(fine.a,6),1),6)", 120),
        ("movingAverage(summarize(fine.a,'1min'),5)", 300),
        ("fine.a|movingAverage(windowSize=12)", 120),
    ],
)
def test_lookback(source: FakeSource, target: str, before_s: int) -> None:
    assert reads(plan(source, target), source) == {(("fine.a",), 10, -3590 - before_s, 10)}


def test_lookback_counts_in_the_longest_step(source: FakeSource) -> None:
    assert reads(plan(source, "movingAverage(mix.*,2)"), source) == {
        (("mix.s",), 10, -3590 - 120, 10),
        (("mix.a",), 10, -3590 - 120, 10),
        (("mix.m",), 60, -3540 - 120, 60),
    }
    # averages of both come at a common step of 60 s
    assert (("mix.m",), 60, -3540 - 60, 60) in reads(
        plan(source, "movingAverage(sumSeries(mix.*),1)"), source
    )


def test_a_lookback_may_land_in_a_coarser_archive(source: FakeSource) -> None:
    assert reads(plan(source, "movingAverage(fine.a,'6h')", "fine.a"), source) == {
        (("fine.a",), 60, -7 * HOUR + 60, 60),
        (("fine.a",), 10, -3590, 10),
    }


def test_a_lookback_counts_in_the_steps_of_the_range_that_is_read(source: FakeSource) -> None:
    # a day ago there is one archive of 60 s only, wherever the shift is written
    day = 24 * HOUR
    shifted = plan(source, "movingAverage(timeShift(fine.a,'1d'),5)")
    assert (("fine.a",), 60, -HOUR - day - 300 + 60, -day + 60) in reads(shifted, source)
    wide = plan(source, "movingAverage(movingAverage(fine.a,'6h'),5)")
    assert reads(wide, source) == {(("fine.a",), 60, -7 * HOUR - 300 + 60, 60)}


def test_a_fallback_counts_only_where_it_is_used(source: FakeSource) -> None:
    kept = plan(source, "movingAverage(fallbackSeries(fine.a,constantLine(1)),5)")
    assert reads(kept, source) == {(("fine.a",), 10, -3590 - 50, 10)}
    filled = plan(source, "movingAverage(transformNull(fine.a,0,mix.m),5)")
    assert (("fine.a",), 10, -3590 - 50, 10) in reads(filled, source)


def test_windows_within_windows_are_bounded(source: FakeSource) -> None:
    same = "movingAverage(" * 60 + "fine.a" + ",5)" * 60
    assert reads(plan(source, same), source) == {(("fine.a",), 10, -3590 - 60 * 50, 10)}
    sizes = (2**number for number in range(20))
    each = "movingAverage(" * 20 + "fine.a" + "".join(f",{size})" for size in sizes)
    with pytest.raises(BadRequest, match="nested too deep"):
        plan(source, each)


def test_a_window_before_the_future_reads_nothing(source: FakeSource) -> None:
    future = RenderRequest(("movingSum(mix.m,'5min')",), NOW_S + 60, NOW_S + HOUR, NOW_S)
    assert make_plan(future, source).fetches == []


def test_constant_line_has_half_the_range_as_step(source: FakeSource) -> None:
    planned = plan(source, "movingAverage(group(constantLine(1),fine.a),1)")
    assert reads(planned, source) == {(("fine.a",), 10, -3590 - HOUR // 2, 10)}


async def test_names_keep_their_order_over_fetches(source: FakeSource) -> None:
    planned = plan(source, "mix.*")
    [block] = evaluate(planned, await fetch_all(planned, source))
    assert [label.name for label in block.labels] == ["mix.a", "mix.m", "mix.s"]
    for label, grid, values in block.rows():
        first = grid.start_s - NOW_S
        assert values[0] == first, label.name


async def test_each_path_is_read_once(source: FakeSource) -> None:
    planned = plan(source, "fine.a", "scale(fine.a,2)", "fine.*")
    blocks = evaluate(planned, await fetch_all(planned, source))
    assert len(source.fetched) == 1
    first = next(iter(blocks[0].rows()))[2]
    np.testing.assert_array_equal(next(iter(blocks[1].rows()))[2], first * 2)


async def test_functions_leave_what_was_fetched_alone(source: FakeSource) -> None:
    planned = plan(
        source,
        "perSecond(scale(fine.*,2))",
        "summarize(fine.*,'1min')",
        "movingAverage(fine.*,2)",
        "derivative(fine.*)",
    )
    fetched = await fetch_all(planned, source)
    copies = [values.copy() for values in fetched]
    for values in fetched:
        values.flags.writeable = False
    evaluate(planned, fetched)
    for values, copy in zip(fetched, copies, strict=True):
        np.testing.assert_array_equal(values, copy)


def test_out_of_reach_is_left_out(source: FakeSource) -> None:
    request = RenderRequest(("fine.a",), NOW_S - 30 * 86_400, NOW_S - 20 * 86_400, NOW_S)
    assert make_plan(request, source).fetches == []


@pytest.mark.parametrize(
    ("own", "wanted"), [(False, ["average"] * 3), (True, ["average", "average", "sum"])]
)
async def test_own_consolidation_function(source: FakeSource, own: bool, wanted: list[str]) -> None:
    planned = plan(source, "mix.*", consolidate_by_cf=own)
    [block] = evaluate(planned, await fetch_all(planned, source))
    assert [label.cf for label in block.labels] == wanted


@dataclass
class Refusal:
    target: str
    text: str


@pytest.mark.parametrize(
    "case",
    [
        Refusal("nosuch(fine.a)", "unknown function: nosuch"),
        Refusal("Scale(fine.a,2)", "unknown function: Scale"),
        Refusal("scale(fine.a)", "scale(seriesList, factor) needs its argument factor"),
        Refusal("scale(fine.a,2,3)", "takes 2 arguments, 3 are given"),
        Refusal("scale(fine.a,2,factor=3)", "no argument factor"),
        Refusal("scale(fine.a,bogus=3,factor=2)", "no argument bogus"),
        Refusal("scale(fine.a,'x')", "scale(): factor must be of type float, not 'x'"),
        Refusal("scale(fine.a,none)", "factor must be of type float"),
        Refusal(
            "scale(fine.a,fine.b)",
            "factor must be of type float, not fine.b (texts and intervals need quotes)",
        ),
        Refusal("scale(2,2)", "seriesList must be series, not 2"),
        Refusal("scale(none,2)", "seriesList"),
        Refusal("movingAverage(fine.a,5min)", "need quotes"),
        Refusal("movingAverage(fine.a,'1foo')", "windowSize: '1foo' is no interval"),
        Refusal(
            "movingAverage(fine.a,-1)", "windowSize is -1; a number of points can't be negative"
        ),
        Refusal("movingAverage(fine.a,'999999999y')", "at most 100 years"),
        Refusal("movingAverage(fine.a,true)", "must be of type intOrInterval"),
        Refusal("summarize(fine.a,'1min','bogus')", "func is 'bogus'; it must be one of average"),
        Refusal("consolidateBy(fine.a,'bogus')", "consolidationFunc is 'bogus'"),
        Refusal("alias(fine.a,5)", "newName must be of type string, not 5"),
        Refusal("aliasByNode(fine.a,0.5)", "nodes must be of type nodeOrTag"),
        Refusal("seriesByTag('rubbish')", "seriesByTag('rubbish'): Invalid tagspec rubbish"),
        Refusal("seriesByTag('a!=b')", "must not match the empty string"),
    ],
    ids=lambda case: case.target,
)
def test_refused_before_any_read(source: FakeSource, case: Refusal) -> None:
    with pytest.raises(BadRequest) as caught:
        plan(source, case.target)
    assert case.text in str(caught.value)
    assert str(caught.value).startswith("target: ")


@pytest.mark.parametrize("target", ["summarize(fine.a,'-1min')", "summarize(fine.a,'0s')"])
async def test_intervals_must_be_positive(source: FakeSource, target: str) -> None:
    planned = plan(source, target)
    with pytest.raises(BadRequest, match="must be positive"):
        evaluate(planned, await fetch_all(planned, source))


@pytest.mark.parametrize(
    ("targets", "limits", "setting"),
    [
        (("fine.a", "fine.b"), {"query_targets_max": 1}, "query_targets_max"),
        (("fine.*",), {"query_series_max": 1}, "query_series_max"),
        (("fine.a", "mix.*"), {"query_series_max": 3}, "query_series_max"),
        (("fine.*",), {"query_points_max": 719}, "query_points_max"),
    ],
)
def test_limits(
    source: FakeSource, targets: tuple[str, ...], limits: dict[str, int], setting: str
) -> None:
    with pytest.raises(LimitExceeded) as caught:
        plan(source, *targets, **limits)
    assert caught.value.setting == setting
    plan(source, *targets, **{key: value + 1 for key, value in limits.items()})


async def test_buckets_made_are_limited(source: FakeSource) -> None:
    planned = plan(source, "summarize(fine.a,'1s')", query_points_max=3000)
    with pytest.raises(LimitExceeded, match="query_points_max"):
        evaluate(planned, await fetch_all(planned, source))


async def test_the_deadline_ends_the_functions(source: FakeSource) -> None:
    planned = plan(source, "scale(fine.a,2)")
    fetched = await fetch_all(planned, source)
    with pytest.raises(LimitExceeded, match="query_timeout_s"):
        evaluate(planned, fetched, deadline_s=0.0)
    assert len(evaluate(planned, fetched, deadline_s=1e12)) == 1


def test_blank_targets_are_skipped_and_errors_have_positions(source: FakeSource) -> None:
    assert len(plan(source, "", "  ", "fine.a").targets) == 1
    with pytest.raises(TargetSyntaxError, match="at position 7"):
        plan(source, "fine.a )")
