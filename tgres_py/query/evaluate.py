"""Carrying out a plan: first all fetches (async), then all functions (synchronous, pure; for a
worker thread).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.errors import LimitExceeded
from tgres_py.functions.series import Grid, Label, Part, SeriesBlock
from tgres_py.model.ident import parse_tags
from tgres_py.query.plan import Leaf, Plan, PlanNode
from tgres_py.query.source import SeriesSource

FETCHES_AT_ONCE = 4

Fetched = list[NDArray[np.float64]]


async def fetch_all(plan: Plan, source: SeriesSource) -> Fetched:
    """The values of each of the plan's fetches: float64 (ids, slots). StoreUnavailable."""
    gate = asyncio.Semaphore(FETCHES_AT_ONCE)

    async def one(number: int) -> NDArray[np.float64]:
        fetch = plan.fetches[number]
        window = fetch.window
        async with gate:
            return await source.fetch(
                fetch.ids, window.archive, window.from_slot, window.until_slot
            )

    if len(plan.fetches) == 1:
        return [await one(0)]
    return list(await asyncio.gather(*(one(number) for number in range(len(plan.fetches)))))


def evaluate(plan: Plan, fetched: Fetched, deadline_s: float | None = None) -> list[SeriesBlock]:
    """One block for each target, in order. ``deadline_s``: of the monotonic clock; LimitExceeded
    once it has passed.
    """
    evaluator = _Evaluator(plan, fetched, _deadline_check(deadline_s))
    return [evaluator.block(target) for target in plan.targets]


def _deadline_check(deadline_s: float | None) -> Callable[[], None]:
    def check() -> None:
        if deadline_s is not None and clock.monotonic() > deadline_s:
            late = int(clock.monotonic() - deadline_s) + 1
            raise LimitExceeded("seconds over the time of a query", late, 0, "query_timeout_s")

    return check


class _Evaluator:
    def __init__(self, plan: Plan, fetched: Fetched, check: Callable[[], None]) -> None:
        self.xff = plan.request.xff
        self.fetched = fetched
        self.check = check
        self.leaves: dict[int, SeriesBlock] = {}

    def block(self, node: PlanNode) -> SeriesBlock:
        self.check()
        if isinstance(node, Leaf):
            block = self.leaves.get(id(node))
            if block is None:
                block = self.leaves[id(node)] = self.read(node)
            return block
        args = [self.argument(argument) for argument in node.args]
        if node.function.wants_context:
            return node.function.call(*args, context=node.context)
        return node.function.call(*args)

    def argument(self, argument: Any) -> Any:
        if isinstance(argument, list):
            return [self.block(node) for node in argument]
        return self.block(argument) if isinstance(argument, PlanNode) else argument

    def read(self, leaf: Leaf) -> SeriesBlock:
        labels = [
            Label(name, leaf.expression, parse_tags(name), function, self.xff)
            for name, function in zip(leaf.names, leaf.functions, strict=True)
        ]
        parts = []
        for part in leaf.parts:
            bundle, window = part.key
            step_s = bundle.archives[window.archive].step_s
            grid = Grid(window.from_slot * step_s, window.until_slot * step_s, step_s)
            values = self.fetched[part.fetch]
            if len(part.rows) != len(values) or (np.diff(part.rows) != 1).any():
                values = values[part.rows]
            parts.append(Part(grid, values, part.index))
        return SeriesBlock(labels, _same_grids(parts))


def _same_grids(parts: list[Part]) -> list[Part]:
    """Parts of equal grid joined, rows in the block's order (bundles that differ in other things
    than the step).
    """
    groups: dict[tuple[Grid, int], list[Part]] = {}
    for part in parts:
        groups.setdefault((part.grid, part.values.shape[1]), []).append(part)
    if len(groups) == len(parts):
        return parts
    out = []
    for (grid, _), same in groups.items():
        index = np.concatenate([part.index for part in same])
        order = np.argsort(index)
        out.append(Part(grid, np.concatenate([part.values for part in same])[order], index[order]))
    return out
