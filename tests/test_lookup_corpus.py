"""seriesByTag() and events() against recorded answers of graphite-web, through /render but the socket."""

from __future__ import annotations

import json

import pytest

from http_api.render import finish
from http_api.render_params import parse_request
from http_api.reply import Params
from tests import graphite_cases as cases
from tests.fake_source import FakeSource, of_dataset
from tests.graphite_dataset import BASE_NOW
from tests.test_http_index import EVENTS
from tgres_py.errors import BadRequest
from tgres_py.model.event import Event
from tgres_py.query.evaluate import Fetched, in_rounds
from tgres_py.query.plan import make_plan

CASES = cases.load("graphite_lookup.jsonl")


@pytest.fixture(scope="module")
def dataset_source() -> FakeSource:
    return of_dataset()


@pytest.fixture
async def source(dataset_source: FakeSource) -> FakeSource:
    dataset_source.store = type(dataset_source.store)()
    for offset, what, tags, data in EVENTS:
        await dataset_source.add_event(Event(what, BASE_NOW + offset, tuple(tags.split()), data))
    return dataset_source


async def answer(source: FakeSource, pairs: list[tuple[str, str]]) -> list[cases.Case]:
    request, output = parse_request(Params(pairs))
    plan = make_plan(request, source)

    async def work(fetched: Fetched) -> bytes:
        return finish(plan, fetched, output, 1 << 30, None)

    decoded: list[cases.Case] = json.loads(await in_rounds(plan, source, work))
    return decoded


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
async def test_answers_as_graphite_web(source: FakeSource, case: cases.Case) -> None:
    pairs = cases.pairs_of(case, BASE_NOW)
    if case["expected"]["status"] != 200:
        with pytest.raises(BadRequest):
            await answer(source, pairs)
        return
    got = await answer(source, pairs)
    data = case["expected"]["data"]
    assert cases.difference(data, got, BASE_NOW, case.get("opt") or {}) is None


def request(target: str, from_s: int, until_s: int) -> list[tuple[str, str]]:
    return [
        ("target", target),
        ("from", str(BASE_NOW + from_s)),
        ("until", str(BASE_NOW + until_s)),
        ("now", str(BASE_NOW)),
        ("format", "json"),
    ]


async def test_two_events_in_one_second_and_one_at_the_end(source: FakeSource) -> None:
    [series] = await answer(source, request('events("*")', -302, -298))
    assert [value for value, _ in series["datapoints"]] == [None, None, 2, None]
    [series] = await answer(source, request('events("*")', -302, -300))
    assert [value for value, _ in series["datapoints"]] == [None, None]


async def test_events_without_tags_counts_nothing(source: FakeSource) -> None:
    [series] = await answer(source, request("events()", -302, -298))
    assert series["target"] == 'events("")'
    assert {value for value, _ in series["datapoints"]} == {None}


async def test_events_over_another_range(source: FakeSource) -> None:
    [series] = await answer(source, request("movingAverage(events('*'),'10s')", -295, -285))
    assert [value for value, _ in series["datapoints"]] == [2.0] * 5 + [None] * 5


async def test_too_many_seconds(source: FakeSource) -> None:
    with pytest.raises(BadRequest, match="query_points_max"):
        await answer(source, request('events("*")', -1_000_000_000, 0))


async def test_a_piece_of_tags_as_path_and_in_a_moving_window(source: FakeSource) -> None:
    found = await answer(source, request('movingAverage(seriesByTag("name=temp"),2)', -120, 0))
    assert found and all(s["target"].startswith("movingAverage(temp;") for s in found)
