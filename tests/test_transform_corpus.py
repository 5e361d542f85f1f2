"""The families Transform and Calculate against recorded answers of graphite-web, through /render but the socket."""

from __future__ import annotations

import json
from functools import cache

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

CASES = cases.load("graphite_transform.jsonl")

# where we knowingly answer otherwise
OTHERWISE = {
    "delay-14": "a delay of 0 loses all values there",
}


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
    if expected["status"] != 200 and "alternative" in case:
        expected = case["alternative"]
    if expected["status"] != 200:
        with pytest.raises(BadRequest):
            await answer(case)
        return
    got = await answer(case)
    options = case.get("opt") or {}
    message = cases.difference(expected["data"], got, BASE_NOW, options)
    assert message is None, message
