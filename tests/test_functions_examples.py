"""The examples in the functions' docstrings, run as tests.

load STEP  NAME VALUE…          a series; "_" is unknown; all start at one time
eval TARGET  => [NAME: ]VALUE… [| [NAME: ]VALUE…]
                                over exactly the loaded range; a name is compared when given
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.fake_source import UNITS_S, FakeSource, archives
from tgres_py.functions.registry import functions
from tgres_py.functions.series import SeriesBlock
from tgres_py.model.retention import BundleSpec
from tgres_py.query.evaluate import Fetched, evaluate, in_rounds
from tgres_py.query.plan import RenderRequest, make_plan

START_S = 1_700_000_040  # a multiple of 60 s


@dataclass(frozen=True)
class Example:
    function: str
    loads: tuple[str, ...]
    target: str
    wanted: str

    def __str__(self) -> str:
        return self.target


def examples(function: str, text: str) -> Iterator[Example]:
    loads: list[str] = []
    for line in text.splitlines():
        if line.startswith("load "):
            loads.append(line.removeprefix("load "))
        else:
            target, wanted = re.split(r"\s+=>\s*", line.removeprefix("eval "), maxsplit=1)
            yield Example(function, tuple(loads), target, wanted)


ALL = [e for name, f in functions().items() for e in examples(name, f.examples)]


def numbers(text: str) -> list[float]:
    return [math.nan if word == "_" else float(word) for word in text.split()]


def loaded(lines: tuple[str, ...]) -> tuple[FakeSource, int]:
    """The series, and the end of their range."""
    source, end_s = FakeSource(), START_S + 30
    for line in lines:
        step, name, *words = line.split()
        step_s = int(step[:-1]) * UNITS_S[step[-1]]
        bundle = BundleSpec(archives(f"{step_s}s:1d,1h:1y"))
        values = numbers(" ".join(words))
        points = [(START_S + i * step_s, v) for i, v in enumerate(values) if not math.isnan(v)]
        source.add(name, points, bundle)
        end_s = max(end_s if source.by_id[:-1] else 0, START_S + (len(values) - 1) * step_s)
    return source, end_s


@pytest.mark.parametrize("example", ALL, ids=str)
async def test_example(example: Example) -> None:
    source, end_s = loaded(example.loads)
    plan = make_plan(RenderRequest((example.target,), START_S - 1, end_s, end_s), source)

    async def work(fetched: Fetched) -> list[SeriesBlock]:
        return evaluate(plan, fetched)

    [block] = await in_rounds(plan, source, work)
    wanted = [part.strip().rpartition(": ") for part in example.wanted.split(" | ")]
    got = list(block.rows())
    assert len(got) == len(wanted)
    for (name, _, values), (label, _, row) in zip(wanted, got, strict=True):
        if name:
            assert label.name == name
        assert row.tolist() == pytest.approx(numbers(values), nan_ok=True)


@pytest.mark.parametrize("name", list(functions()))
def test_every_function_has_help_and_examples(name: str) -> None:
    function = functions()[name]
    assert function.help
    assert list(examples(name, function.examples))


def test_groups_are_graphites() -> None:
    assert {f.group for f in functions().values()} <= {
        "Alias", "Calculate", "Combine", "Filter Data", "Filter Series", "Graph", "Sorting", "Special", "Transform",
    }  # fmt: skip
