"""Functions that make targets of the series they are given: further rounds of plan and fetch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fake_source import FakeSource, of_values
from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.series import SeriesBlock
from tgres_py.query.evaluate import ROUNDS_MAX, Fetched, evaluate, in_rounds
from tgres_py.query.limits import DefaultLimits
from tgres_py.query.plan import Plan, RenderRequest, make_plan

NOW_S = 1_700_000_100


def source() -> FakeSource:
    return of_values(
        {"web1.used": [1, 2], "web1.size": [4, 4], "web2.used": [3, 1], "web2.size": [4, 2]},
        NOW_S - 10,
    )


async def run(
    *targets: str, limits: DefaultLimits | None = None
) -> tuple[list[SeriesBlock], FakeSource, Plan]:
    over = source()
    request = RenderRequest(targets, NOW_S - 15, NOW_S, NOW_S)
    plan = make_plan(request, over, limits)

    async def work(fetched: Fetched) -> list[SeriesBlock]:
        return evaluate(plan, fetched)

    return await in_rounds(plan, over, work), over, plan


def shown(block: SeriesBlock) -> list[tuple[str, list[float]]]:
    return [(label.name, values.tolist()) for label, _, values in block.rows()]


async def test_new_targets_are_fetched_in_a_second_round() -> None:
    [block], over, _ = await run('applyByNode(*.used, 0, "divideSeries(%.used, %.size)", "%")')
    assert shown(block) == [("web1", [0.25, 0.5]), ("web2", [0.75, 0.5])]
    assert [names for names, *_ in over.fetched] == [
        ["web1.used", "web2.used"],
        ["web1.size", "web2.size"],
    ]


async def test_what_was_read_is_not_read_again() -> None:
    [block], over, _ = await run('applyByNode(*.used, 0, "scale(%.used, 2)")')
    assert len(block) == 2
    assert [names for names, *_ in over.fetched] == [["web1.used", "web2.used"]]


async def test_all_functions_of_a_request_share_a_round() -> None:
    blocks, over, plan = await run(
        'group(applyByNode(web1.used, 0, "%.size"), applyByNode(web2.used, 0, "%.size"))',
        'useSeriesAbove(*.used, 2, "used", "size")',
    )
    assert [[name for name, _ in shown(block)] for block in blocks] == [
        ["web1.size", "web2.size"],
        ["web2.size"],
    ]
    assert len(over.fetched) == len(plan.fetches) == 2


async def test_rounds_nest() -> None:
    inner = "applyByNode(%.used, 0, 'maxSeries(%.*)')"
    [block], over, _ = await run(f'applyByNode(*.used, 0, "{inner}")'.replace("%.*", "web1.*"))
    assert [values for _, values in shown(block)] == [[4, 4], [4, 4]]
    assert len(over.fetched) == 2  # what the innermost reads is there already


async def test_rounds_are_bounded() -> None:
    text = "web1.used"
    for depth in range(ROUNDS_MAX - 1):
        text = f'aliasQuery({text}, "^.*$", "web1.used", "{depth} %g")'
    [block], *_ = await run(text)  # nested arguments: one round each, just allowed
    assert len(block) == 1
    with pytest.raises(BadRequest, match="nested more than"):
        await run(f'aliasQuery({text}, "^.*$", "web1.used", "%g")')


async def test_state_of_a_request_does_not_pile_up_over_rounds() -> None:
    [first, second], *_ = await run(
        "stacked(web1.used)", 'applyByNode(web1.used, 0, "%.size")|stacked()'
    )
    assert shown(first) == [("stacked(web1.used)", [1, 2])]
    assert shown(second) == [("stacked(web1.size)", [5, 6])]


async def test_targets_made_of_series_are_limited() -> None:
    limits = replace(DefaultLimits(), query_series_max=3)
    with pytest.raises(LimitExceeded, match="series"):
        await run('applyByNode(*.used, 0, "%.*")', limits=limits)


async def test_points_of_all_rounds_are_limited() -> None:
    limits = replace(DefaultLimits(), query_points_max=5)
    with pytest.raises(LimitExceeded, match="points to read"):
        await run('applyByNode(*.used, 0, "%.size")', limits=limits)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ('applyByNode(*.used, 0, "nosuch(%)")', "unknown function: nosuch"),
        ('applyByNode(*.used, 0, "scale(%")', "position"),
        ('aliasQuery(web1.used, "used", "nosuch", "%d")', "No series found"),
        ('aliasQuery(web1.used, "used", "size", "%d %d")', "newName"),
        ('aliasQuery(web1.used, "used", "size", "%9999d")', "newName"),
        ('aliasQuery(web1.used, "(", "size", "%d")', "no regular expression"),
        ('useSeriesAbove(web1.used, 1, "used", "\\7")', "group"),
    ],
)
async def test_bad_ones_are_refused(target: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        await run(target)


async def test_a_further_target_reads_the_range_of_its_call() -> None:
    [block], over, _ = await run('movingAverage(applyByNode(web1.used, 0, "%.size"), "10s")')
    assert len(block) == 1
    ranges = {(start, end) for _, _, start, end in over.fetched}
    assert len(ranges) == 1  # both rounds read the earlier range
    [(start, end)] = ranges
    assert end - start == 3
