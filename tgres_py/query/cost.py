"""What carrying out a plan will take, estimated before it is done: where it is done depends on that.

Numbers are measured on one core of 2020 and meant to be right within a factor of about three. They count what is certain
from the plan alone: series and slots that are read flow through all calls above them.
"""

from __future__ import annotations

from collections.abc import Iterator

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
    """``seconds`` of all functions; ``points`` and ``series``: at most so many come out of them."""

    def __init__(self, plan: Plan, seconds_max: float) -> None:
        """Counting ends at ``seconds_max``: a plan may have many thousand calls."""
        self._plan = plan
        self._most_ns = seconds_max * 1e9
        self._ns = 0.0
        self.points = self.series = 0
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
            return points, series
        points = series = 0
        for below in self._below(node):
            more = self._node(below)
            points += more[0]
            series += more[1]
        self._ns += points * node.function.point_ns + series * SERIES_NS + CALL_NS
        return points, series

    def _below(self, call: PlannedCall) -> Iterator[PlanNode]:
        for argument in call.args:
            for one in argument if isinstance(argument, list) else (argument,):
                if isinstance(one, PlanNode):
                    yield one
        if id(call) in self._plan.further:
            yield from self._plan.further[id(call)][1]
