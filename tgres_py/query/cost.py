"""What carrying out a plan will take, estimated before it is done: where it is done depends on that.

Numbers are measured on one core of 2020 and meant to be right within a factor of about three. They count what is certain
from the plan alone: series and slots that are read flow through all calls above them, but for functions that give few.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from tgres_py.query.plan import Leaf, Plan, PlannedCall, PlanNode

POINT_NS = 3  # of a leaf: one copy
SERIES_NS = 3_000  # a label at each node
CALL_NS = 30_000


def series_of(plan: Plan, leaf: Leaf) -> int:
    elsewhere = len(plan.remote.get(leaf.remote)) if plan.remote else 0
    return len(leaf.names) + elsewhere


def points_of(plan: Plan, leaf: Leaf) -> int:
    own = sum(
        len(part.ids) * (part.key[1].until_slot - part.key[1].from_slot) for part in leaf.parts
    )
    remote = plan.remote.get(leaf.remote) if plan.remote else ()
    return own + sum(len(one.values) for one in remote)


class Cost:
    """What the functions of a plan take.

    ``seconds``; ``points``, ``series``: at most so many come out; ``leaf_points``: of all leaves; ``largest_points``: that
    go into one call; ``series_seen``: of all nodes.
    """

    def __init__(self, plan: Plan, seconds_max: float = math.inf) -> None:
        """Counting ends at ``seconds_max``: a plan may have many thousand calls."""
        self._plan = plan
        self._most_ns = seconds_max * 1e9
        self._ns = 0.0
        self._leaves: set[int] = set()
        self.points = self.series = 0
        self.leaf_points = self.largest_points = self.series_seen = 0
        for target in plan.targets:
            points, series = self._node(target)
            self.points += points
            self.series += series

    @property
    def seconds(self) -> float:
        return self._ns / 1e9

    def _node(self, node: PlanNode) -> tuple[int, int]:
        """(points, series) that come out of a node."""
        if self._ns > self._most_ns:
            return 0, 0
        if isinstance(node, Leaf):
            points, series = points_of(self._plan, node), series_of(self._plan, node)
            self._ns += points * POINT_NS + series * SERIES_NS
            self.series_seen += series
            if id(node) not in self._leaves:
                self._leaves.add(id(node))
                self.leaf_points += points
            return points, series
        points = series = 0
        for below in self._below(node):
            more = self._node(below)
            points += more[0]
            series += more[1]
        function = node.function
        if not series:
            points, series = self._made(node), 1
        slots = points / max(1, series)
        self._ns += points * function.point_ns + slots * function.slot_ns
        if function.window_ns and node.context.windows:
            (from_s, until_s), *_ = node.context.windows
            window = slots * node.context.lookback_s / max(1, until_s - from_s)
            self._ns += points * window * function.window_ns
        self._ns += series * SERIES_NS + CALL_NS
        self.largest_points = max(self.largest_points, points)
        self.series_seen += series
        given = self._given(node, series)
        return math.ceil(points * given / max(1, series)), given

    def _given(self, call: PlannedCall, series: int) -> int:
        """How many series come out of a function that so many go into, at most."""
        gives = call.function.gives
        if isinstance(gives, str):
            gives = _values(call).get(gives)
        return min(series, gives) if isinstance(gives, int) and gives > 0 else series

    def _made(self, call: PlannedCall) -> int:
        """Points of a function that makes a series of the range alone."""
        steps = call.function.steps(_values(call), frozenset(), call.context)
        if not steps:
            return 0
        return int((call.context.until_s - call.context.from_s) // min(steps))

    def _below(self, call: PlannedCall) -> Iterator[PlanNode]:
        for argument in call.args:
            for one in argument if isinstance(argument, list) else (argument,):
                if isinstance(one, PlanNode):
                    yield one
        if id(call) in self._plan.further:
            yield from self._plan.further[id(call)][1]


def _values(call: PlannedCall) -> dict[str, Any]:
    """Arguments by the names of their parameters."""
    return dict(zip((param.name for param in call.function.params), call.args, strict=False))
