"""The families Combine, Filter, Sorting, Alias, Special and Graph, and compositions of functions,
against recorded answers of graphite-web, through /render but the socket.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise

import pytest

from http_api.render import finish
from http_api.render_params import parse_request
from http_api.reply import Params
from tests import graphite_cases as cases
from tests.fake_source import FakeSource, of_dataset
from tests.graphite_dataset import BASE_NOW
from tgres_py.errors import BadRequest
from tgres_py.query.evaluate import Fetched, in_rounds
from tgres_py.query.plan import make_plan

CASES = cases.load("graphite_combine.jsonl")

# where we knowingly answer otherwise: the names of our answer, and why
OTHERWISE: dict[str, tuple[list[str], str]] = {
    "averageOutsidePercentile-07": (
        ["gaps.holes"],
        "a series without values is left out; graphite-web breaks down",
    ),
    "groupByTags-12": (
        ["cpu.load;nosuchtag="],
        "a tag that no series has is empty in the name; graphite-web breaks down",
    ),
    "removeBetweenPercentile-07": (
        ["gaps.bursts", "gaps.holes"],
        "unknown values lie nowhere; graphite-web breaks down",
    ),
    "stacked-09": (
        ["servers.web01.cpu.user"],
        "the keyword of /functions works; graphite-web breaks down",
    ),
    "useSeriesAbove-07": (
        ["gaps.bursts"],
        "known values count; graphite-web breaks down or skips series with unknown values",
    ),
}
# texts as values: graphite-web draws them, we refuse
REFUSED = {"threshold-07"}


@cache
def source() -> FakeSource:
    return of_dataset()


async def answer(case: cases.Case) -> list[cases.Case]:
    request, output = parse_request(Params(cases.pairs_of(case, BASE_NOW)))
    plan = make_plan(request, source())

    async def work(fetched: Fetched) -> bytes:
        return finish(plan, fetched, output, 1 << 30, None)

    decoded: list[cases.Case] = json.loads(await in_rounds(plan, source(), work))
    return decoded


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case["id"] not in OTHERWISE],
    ids=lambda case: case["id"],
)
async def test_answers_as_graphite_web(case: cases.Case) -> None:
    expected = case["expected"]
    if expected["status"] != 200 or case["id"] in REFUSED:
        with pytest.raises(BadRequest):
            await answer(case)
        return
    got = await answer(case)
    options = case.get("opt") or {}
    if options.get("walk"):
        assert_walks(expected["data"], got)
        return
    message = cases.difference(expected["data"], got, BASE_NOW, options)
    if message and "alternative" in case:
        message = cases.difference(case["alternative"]["data"], got, BASE_NOW, options)
    assert message is None, message


def assert_walks(expected: list[cases.Case], got: list[cases.Case]) -> None:
    """Random values: from 0 on, at most 0.5 apart."""
    for wanted, series in zip(expected, got, strict=True):
        values = [value for value, _ in series["datapoints"]]
        assert [series["target"], series["tags"]] == [wanted["n"], wanted["g"]]
        assert len(values) == wanted["t"][2]
        assert values[0] == 0
        assert all(0 < abs(b - a) <= 0.5 for a, b in pairwise(values))


@pytest.mark.parametrize("id_", list(OTHERWISE))
async def test_answers_otherwise(id_: str) -> None:
    [case] = [case for case in CASES if case["id"] == id_]
    assert [series["target"] for series in await answer(case)] == OTHERWISE[id_][0]
