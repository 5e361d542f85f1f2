"""Every render function on every kind of input: an answer or BadRequest, never another exception.

Arguments are made from the declared types of the parameters, so a new function is covered by being declared.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fake_source import FakeSource, archives
from tgres_py.errors import BadRequest
from tgres_py.functions.registry import Param, RenderFunction, functions
from tgres_py.functions.series import SeriesBlock
from tgres_py.model.points import Ids
from tgres_py.model.retention import BundleSpec
from tgres_py.query.evaluate import Fetched, evaluate, in_rounds
from tgres_py.query.plan import RenderRequest, make_plan

START_S = 1_700_000_040
SLOTS = 30
MANY = 10_000
CASES_MAX = 8

INPUTS = {
    "no series": "none.*",
    "empty": "empty.*",
    "one point": "one.*",
    "all NaN": "unknown.*",
    "mixed steps": "mixed.*",
    "infinite": "scale(mixed.s10,inf)",
    "no slots": "delay(removeEmpty.*,1)",
}
LITERALS = {
    "boolean": ("true", "false"),
    "float": ("1", "0", "-2.5", "1e308", "inf", "50"),
    "integer": ("1", "0", "-3", "2"),
    "intOrInf": ("1", "0", "-1", "inf"),
    "interval": ('"20s"', '"0s"', '"-1min"', '"7s"', '"1d"'),
    "intOrInterval": ("3", "0", "-2", '"20s"', '"0s"', '"-1min"', '"7s"'),
    "node": ("0", "-1", "7"),
    "nodeOrTag": ("0", "-9", '"name"'),
    "string": ('"a"', '""', '"("', '"x.*"'),
    "tag": ('"name"', '"nosuch"'),
    "date": ('"-20s"', '"now"', "0", '"rubbish"'),
    "aggFunc": ('"sum"', '"median"', '"multiply"', '"nosuch"'),
    "aggOrSeriesFunc": ('"sum"', '"asPercent"', '"powSeries"'),
    "any": ("10", "mixed.s10", "none.*", "mixed.*"),
}
SECOND_SERIES = ("mixed.s10", "mixed.*", "none.*")


@pytest.fixture(scope="module")
def source() -> FakeSource:
    fine, coarse = (BundleSpec(archives(text)) for text in ("10s:1h,1m:3h", "20s:1h,1m:3h"))
    out = FakeSource()
    out.add("empty.a", [], fine)
    out.add("one.a", [(START_S + 50, 5.0)], fine)
    out.add("unknown.a", [(START_S - 3000, 1.0)], fine)
    out.add("unknown.b", [(START_S - 3000, 1.0)], coarse)
    times = [START_S + 10 * slot for slot in range(SLOTS)]
    values = [math.sin(slot) * 10 ** (slot % 5) for slot in range(SLOTS)]
    out.add("mixed.s10", list(zip(times, values, strict=True)), fine)
    out.add("mixed.gaps", [p for i, p in enumerate(zip(times, values, strict=True)) if i % 3], fine)
    out.add("mixed.s20", list(zip(times[::2], values[::2], strict=True)), coarse)
    out.add("mixed.zero", [(time, 0.0) for time in times], fine)
    return out


def literals(param: Param) -> tuple[str, ...]:
    if param.options:
        return (*(f'"{option}"' for option in param.options), '"nosuch"')
    return LITERALS[param.type.name]


def arguments(function: RenderFunction, series: str) -> Iterator[str]:
    """Argument lists: the required parameters alone, then with each optional one, each value in turn."""
    choices: list[tuple[str, ...]] = []
    first = True
    for param in function.params:
        if param.type.name in ("seriesList", "seriesLists"):
            choices.append((series,) if first else SECOND_SERIES)
            first = False
        else:
            choices.append(literals(param))
    required = sum(param.required for param in function.params)
    for count in range(required, len(choices) + 1):
        some = choices[:count]
        for place in range(max(1, count)):
            longest = len(some[place]) if some else 1
            for turn in range(longest):
                yield ",".join(
                    options[turn if number == place else 0] for number, options in enumerate(some)
                )


async def answer(source: FakeSource, target: str) -> SeriesBlock | None:
    """None: refused. Blocks are checked for what every consumer relies on."""
    request = RenderRequest((target,), START_S - 1, START_S + 10 * SLOTS, START_S + 10 * SLOTS)
    try:
        plan = make_plan(request, source)

        async def work(fetched: Fetched) -> list[SeriesBlock]:
            return evaluate(plan, fetched)

        [block] = await in_rounds(plan, source, work)
    except BadRequest as refused:
        assert "\n" not in str(refused)
        return None
    check_block(block)
    return block


def check_block(block: SeriesBlock) -> None:
    places = np.concatenate([part.index for part in block.parts] or [np.empty(0, int)])
    assert sorted(places.tolist()) == list(range(len(block)))
    for part in block.parts:
        assert part.values.dtype == np.float64
        assert part.values.ndim == 2
        assert len(part.values) == len(part.index)
        assert part.grid.step_s > 0
    for label in block.labels:
        assert isinstance(label.name, str)
        assert all(isinstance(value, str) for value in label.tags.values())


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", list(functions()))
async def test_answers_or_refuses(source: FakeSource, name: str, kind: str) -> None:
    function = functions()[name]
    tried = list(dict.fromkeys(arguments(function, INPUTS[kind])))
    step = -(-len(tried) // CASES_MAX)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # arithmetic with infinities
        for text in tried[::step]:
            target = f"{name}({text})"
            try:
                await answer(source, target)
            except Exception as error:
                error.add_note(target)
                raise


# setXFilesFactor is meant to change what is read after it
@pytest.mark.parametrize("name", sorted({*functions()} - {"setXFilesFactor", "xFilesFactor"}))
async def test_inputs_stay_as_they_are(source: FakeSource, name: str) -> None:
    """Fetched matrices are shared between targets: a function that wrote into its argument would harm others."""
    function = functions()[name]
    target = f"{name}({next(arguments(function, 'mixed.*'))})"
    before = await answer(source, "mixed.*")
    request = RenderRequest(
        ("mixed.*", target, "mixed.*"), START_S - 1, START_S + 10 * SLOTS, START_S + 10 * SLOTS
    )
    assert before is not None
    try:
        plan = make_plan(request, source)

        async def work(fetched: Fetched) -> list[SeriesBlock]:
            return evaluate(plan, fetched)

        blocks = await in_rounds(plan, source, work)
    except BadRequest:
        return
    for block in (blocks[0], blocks[2]):
        for (label, grid, values), (wanted, wanted_grid, known) in zip(
            block.rows(), before.rows(), strict=True
        ):
            assert (label, grid) == (wanted, wanted_grid)
            np.testing.assert_array_equal(values, known)


class ManySource(FakeSource):
    """Names as they are, values made up: so that the functions take the time, not the source."""

    async def fetch(
        self, ids: Ids, bundle: BundleSpec, archive: int, from_slot: int, until_slot: int
    ) -> NDArray[np.float64]:
        return np.asarray(ids[:, None] % 7 + np.arange(from_slot, until_slot) % 5, np.float64)


@pytest.fixture(scope="module")
def many() -> FakeSource:
    # functions that look back for days find all that is kept: few slots of many series
    bundle = BundleSpec(archives("10s:20m"))
    out = ManySource()
    for number in range(MANY):
        out.add(f"many.s{number:05}.x", [], bundle)
    out.add("mixed.s10", [], bundle)
    return out


@pytest.mark.parametrize("name", list(functions()))
async def test_ten_thousand_series(many: FakeSource, name: str) -> None:
    function = functions()[name]
    text = next(arguments(function, "many.*.x"))
    request = RenderRequest((f"{name}({text})",), START_S - 1, START_S + 30, START_S + 30)
    try:
        plan = make_plan(request, many)

        async def work(fetched: Fetched) -> list[SeriesBlock]:
            return evaluate(plan, fetched)

        [block] = await in_rounds(plan, many, work)
    except BadRequest as refused:
        assert "\n" not in str(refused)
        return
    check_block(block)


def test_every_type_of_parameter_has_values() -> None:
    used = {param.type.name for f in functions().values() for param in f.params}
    assert used <= {*LITERALS, "seriesList", "seriesLists"}
    assert all(len(list(itertools.islice(arguments(f, "x"), 1))) for f in functions().values())
