"""The functions that exist, against recorded answers of graphite-web, through the whole /render but the socket."""

from __future__ import annotations

import json
from functools import cache

import pytest

from http_api.render import finish, parse_request
from http_api.reply import Params
from tests import graphite_cases as cases
from tests.fake_source import FakeSource, of_dataset
from tests.graphite_dataset import BASE_NOW
from tgres_py.errors import BadRequest
from tgres_py.query.evaluate import fetch_all
from tgres_py.query.plan import make_plan

CASES = cases.load("graphite_render.jsonl")

# where we knowingly answer otherwise: graphite-web reads a prefix of the text or ignores a typing error
STRICTER = {
    "grammar-72": "a parenthesis too many",
    "grammar-75": "nested enumeration",
}
# keyword arguments alone: graphite-web reads a metric of the function's name, we call the function
KEYWORDS_ALONE = {"constantLine-05": ["3.0"], "grammar-51": ["scale(servers.web01.cpu.user,2)"]}


@cache
def source() -> FakeSource:
    return of_dataset()


async def answer(case: cases.Case) -> list[cases.Case]:
    request, output = parse_request(Params(cases.pairs_of(case, BASE_NOW)))
    plan = make_plan(request, source())
    fetched = await fetch_all(plan, source())
    decoded: list[cases.Case] = json.loads(finish(plan, fetched, output, 1 << 30, None))
    return decoded


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
async def test_answers_as_graphite_web(case: cases.Case) -> None:
    expected = case["expected"]
    if expected["status"] != 200 or case["id"] in STRICTER:
        with pytest.raises(BadRequest):
            await answer(case)
        return
    got = await answer(case)
    if case["id"] in KEYWORDS_ALONE:
        assert [series["target"] for series in got] == KEYWORDS_ALONE[case["id"]]
        return
    now_s = BASE_NOW
    message = cases.difference(expected["data"], got, now_s, case.get("opt") or {})
    if message and "alternative" in case:
        message = cases.difference(case["alternative"]["data"], got, now_s, case.get("opt") or {})
    assert message is None, message
