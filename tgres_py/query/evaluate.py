"""Carrying out a plan: first all fetches (async; other nodes' beside our own), then all functions
(synchronous, pure; for a worker thread); again, when functions have asked for further targets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.reads import EVENTS_MAX, Further, RequestState, common_step
from tgres_py.functions.series import Grid, Label, Part, SeriesBlock
from tgres_py.model.ident import parse_tags
from tgres_py.query.held import Held
from tgres_py.query.limits import QueryLimits
from tgres_py.query.pace import Pace
from tgres_py.query.plan import Fetch, Leaf, Plan, PlannedCall, PlanNode, RenderRequest, make_plan
from tgres_py.query.remote import Peers, RemoteNeeded, RemoteReads, with_remote
from tgres_py.query.source import SeriesSource, is_wide

FETCHES_AT_ONCE = 4
PIECE_POINTS = 200_000  # some milliseconds of the event loop
ROUNDS_MAX = 5
LOADS_MAX = 10  # before a plan with other nodes is complete

Values = NDArray[np.float64]
Fetched = list[Values]
Pieces = AsyncIterator[tuple[int, Values]]
Observer = Callable[[PlanNode, SeriesBlock, float], None]
T = TypeVar("T")
K = TypeVar("K")
Keep = Callable[[Fetch, Pieces], Awaitable[K]]


class FurtherNeeded(Exception):
    """Functions ask for targets that the plan must be extended by."""

    def __init__(self, wanted: list[tuple[PlannedCall, Further]]) -> None:
        super().__init__(f"{len(wanted)} functions ask for further targets")
        self.wanted = wanted


async def in_rounds(
    plan: Plan,
    source: SeriesSource,
    work: Callable[[Fetched], Awaitable[T]],
    pace: Pace | None = None,
) -> T:
    """What ``work`` makes of the fetched values; it evaluates the plan.

    When functions ask for further targets the plan is extended, those are fetched, and ``work``
    starts anew. Errors of make_plan; BadRequest after ROUNDS_MAX rounds.
    """
    return await in_rounds_kept(plan, source, work, as_it_is, pace)


async def in_rounds_kept(
    plan: Plan,
    source: SeriesSource,
    work: Callable[[list[K]], Awaitable[T]],
    keep: Keep[K],
    pace: Pace | None = None,
) -> T:
    """The same; ``work`` gets what ``keep`` makes of the values of each fetch."""
    pace = pace or Pace()
    fetched: list[K] = []
    for _ in range(ROUNDS_MAX):
        fetched += await fetch_kept(plan, source, keep, len(fetched), pace)
        try:
            return await work(fetched)
        except FurtherNeeded as needed:
            extend = partial(plan.extend, needed.wanted)
            texts = [text for _, further in needed.wanted for text in further.targets]
        await _remotely(plan.remote, extend, is_wide(source, texts), pace)
    raise BadRequest(
        f"target: functions that make targets of series are nested more than {ROUNDS_MAX - 1} deep"
    )


async def plan_with(
    request: RenderRequest,
    source: SeriesSource,
    limits: QueryLimits,
    peers: Peers | None,
    pace: Pace | None = None,
) -> Plan:
    """The plan of a request that reads from other nodes too, unless it forbids that. Errors of
    make_plan.
    """
    remote = None
    if peers is not None and not request.local:
        remote = RemoteReads(peers, request.now_s, limits)
    texts = (*request.targets, *request.templates.values())
    plan = partial(make_plan, request, source, limits, remote, None)
    return await _remotely(remote, plan, is_wide(source, texts), pace or Pace())


async def _remotely(
    remote: RemoteReads | None, plan: Callable[[float | None], T], is_wide: bool, pace: Pace
) -> T:
    """What ``plan`` gives, once all that it needs of other nodes is loaded."""
    for _ in range(LOADS_MAX):
        try:
            return await pace.run(plan, is_wide)
        except RemoteNeeded as needed:
            assert remote is not None
            await remote.load(needed.keys)
    raise BadRequest(
        f"target: functions with windows in points are nested more than {LOADS_MAX - 1} deep"
    )


async def as_it_is(fetch: Fetch, pieces: Pieces) -> Values:
    """All values of a fetch in one array."""
    out = None
    async for first, values in pieces:
        if len(values) == len(fetch.ids):
            return values
        if out is None:
            out = np.empty((len(fetch.ids), values.shape[1]))
        out[first : first + len(values)] = values
    return np.empty((0, 0)) if out is None else out


async def fetch_all(plan: Plan, source: SeriesSource, start: int = 0) -> Fetched:
    """The values of the plan's fetches from number ``start`` on: float64 (ids, slots) each; the
    events that its calls read come into the calls. StoreUnavailable.
    """
    return await fetch_kept(plan, source, as_it_is, start)


async def fetch_kept(
    plan: Plan, source: SeriesSource, keep: Keep[K], start: int = 0, pace: Pace | None = None
) -> list[K]:
    """The same, but what ``keep`` makes of the values of each fetch as they come."""
    pace = pace or Pace()
    for call in plan.event_calls:
        assert call.events
        found = await source.find_events(call.events)
        if len(found) > EVENTS_MAX:
            raise BadRequest(f"events: more than {EVENTS_MAX} lie in the range, which is the most")
        call.event_times_s = tuple(event.at_s for event in found)
    gate = asyncio.Semaphore(FETCHES_AT_ONCE)

    async def one(number: int) -> K:
        fetch = plan.fetches[number]
        async with gate:
            return await keep(fetch, in_pieces(fetch, source, pace))

    numbers = range(start, len(plan.fetches))
    if plan.remote is None:
        if len(numbers) == 1:
            return [await one(start)]
        return list(await asyncio.gather(*(one(number) for number in numbers)))
    own = asyncio.gather(*(one(number) for number in numbers))
    fetched, _ = await asyncio.gather(own, plan.remote.load(plan.remote_keys()))
    return list(fetched)


async def in_pieces(fetch: Fetch, source: SeriesSource, pace: Pace) -> Pieces:
    """(first row, values) of some series of a fetch after the others, so that a large one neither holds the event
    loop for long nor is in memory twice.
    """
    window = fetch.window
    rows = max(1, PIECE_POINTS // max(1, window.until_slot - window.from_slot))
    for first in range(0, len(fetch.ids), rows):
        await pace.turn()
        yield (
            first,
            await source.fetch(
                fetch.ids[first : first + rows],
                fetch.bundle,
                window.archive,
                window.from_slot,
                window.until_slot,
            ),
        )


def evaluate(
    plan: Plan,
    fetched: Fetched,
    deadline_s: float | None = None,
    observe: Observer | None = None,
    points_max: int | None = None,
) -> list[SeriesBlock]:
    """One block for each target, in order. ``deadline_s``: of the monotonic clock; LimitExceeded
    once it has passed, and when the functions would make more than was allowed to be read (see
    ``Held``). FurtherNeeded: see in_rounds. ``observe`` is told each node's result and the seconds
    that it took, with its arguments'. ``points_max``: counts instead of query_points_max where it is less.
    """
    evaluator = _Evaluator(plan, fetched, _deadline_check(deadline_s), observe, points_max)
    # unknown, infinite and overflowing values are answers, not faults
    with np.errstate(all="ignore"):
        return evaluator.all(plan.targets)


def _deadline_check(deadline_s: float | None) -> Callable[[], None]:
    def check() -> None:
        if deadline_s is not None and clock.monotonic() > deadline_s:
            late = int(clock.monotonic() - deadline_s) + 1
            raise LimitExceeded("seconds over the time of a query", late, 0, "query_timeout_s")

    return check


class _Evaluator:
    def __init__(
        self,
        plan: Plan,
        fetched: Fetched,
        check: Callable[[], None],
        observe: Observer | None,
        points_max: int | None,
    ) -> None:
        self.observe = observe
        most = plan.limits.query_points_max
        self.points_max = most if points_max is None else min(points_max, most)
        self.state = RequestState(plan.request.xff)
        self.plan = plan
        self.further = plan.further
        self.fetched = fetched
        self.check = check
        self.leaves: dict[tuple[int, float], SeriesBlock] = {}
        self.held = Held(plan.limits, fetched, self.points_max)

    def all(self, arguments: list[Any]) -> list[Any]:
        """All evaluated, even when one lacks further targets, so that one round asks for all.

        The blocks count as held; whoever needs them no longer calls ``held.drop``.
        """
        out = []
        wanted: list[tuple[PlannedCall, Further]] = []
        for argument in arguments:
            try:
                out.append(self.argument(argument))
            except FurtherNeeded as needed:
                wanted += needed.wanted
            else:
                if isinstance(out[-1], SeriesBlock):
                    self.held.keep(out[-1])
        if wanted:
            self.held.drop(out)
            raise FurtherNeeded(wanted)
        return out

    def block(self, node: PlanNode) -> SeriesBlock:
        if self.observe is None:
            return self.result(node)
        started = clock.monotonic()
        block = self.result(node)
        self.observe(node, block, clock.monotonic() - started)
        return block

    def result(self, node: PlanNode) -> SeriesBlock:
        self.check()
        if isinstance(node, Leaf):
            key = id(node), self.state.xff
            block = self.leaves.get(key)
            if block is None:
                block = self.leaves[key] = self.read(node)
                self.held.keep_read(block)
            return block
        if id(node) in self.further:
            further, targets = self.further[id(node)]
            made = self.all(targets)
            block = further.finish(made)
            self.held.drop(made)
            return block
        args = self.all(node.args)
        try:
            return self.called(node, args)
        finally:
            self.held.drop(args)

    def called(self, node: PlannedCall, args: list[Any]) -> SeriesBlock:
        if node.function.params and node.function.params[-1].multiple:
            self.held.check_together(args)
        if node.function.steps is common_step:
            self.held.check_aligned(args)
        if node.function.wants_context:
            context = replace(
                node.context,
                state=self.state,
                event_times_s=node.event_times_s or (),
                points_max=self.points_max,
                check_time=self.check,
            )
            result = node.function.call(*args, context=context)
        else:
            result = node.function.call(*args)
        if not isinstance(result, Further):
            return result
        if result.targets:
            raise FurtherNeeded([(node, result)])
        return result.finish([])

    def argument(self, argument: Any) -> Any:
        if isinstance(argument, list):
            return self.all(argument)
        return self.block(argument) if isinstance(argument, PlanNode) else argument

    def read(self, leaf: Leaf) -> SeriesBlock:
        labels = [
            Label(name, leaf.expression, parse_tags(name), function, self.state.xff)
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
        block = SeriesBlock(labels, _same_grids(parts))
        remote = self.plan.remote
        if remote is None:
            return block
        by_cf = remote.limits.consolidate_by_cf
        found = remote.get(leaf.remote)
        return with_remote(block, found, leaf.expression, self.state.xff, by_cf)


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
