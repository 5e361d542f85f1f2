"""Further questions to graphite-web 1.1.10, made at random of all functions, compositions and ways to write a
time, with its answers: through /render but the socket.
"""

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
from tgres_py.query.evaluate import Fetched, in_rounds
from tgres_py.query.plan import make_plan

CASES = cases.load("graphite_further.jsonl")


@cache
def source() -> FakeSource:
    return of_dataset()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
async def test_answers_as_graphite_web(case: cases.Case) -> None:
    request, output = parse_request(Params(cases.pairs_of(case, BASE_NOW)))
    plan = make_plan(request, source())

    async def work(fetched: Fetched) -> bytes:
        return finish(plan, fetched, output, 1 << 30, None)

    got = json.loads(await in_rounds(plan, source(), work))
    message = cases.difference(case["expected"]["data"], got, BASE_NOW, {})
    assert message is None, (case["targets"], message)
