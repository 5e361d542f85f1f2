"""What a request reads and does, for people: ``explain=1`` and ``explain=plan``.

    {"targets": [{"target": "scale(a.*,2)",
                  "plan": {"function": "scale", "range": [0, 600], "series": 3, "points": 180, "ms": 0.02,
                           "arguments": [{"path": "a.*", "found": 3, "reads": [0]}, 2.0]}}],
     "reads": [{"retention": "10s:6h", "archive": 0, "interval": 10, …, "series": 3, "points": 180, "bytes": 1440}],
     "elsewhere": {"peers": {"b:8080": {"series": 1, "points": 60}, "c:8080": {"failed": true}},
                   "reads": [{"path": "a.*", "from": 0, "until": 600, "series": 1, "points": 60, "intervals": [10]}]},
     "total": {"series": 3, "points": 180, "bytes": 1440}, "ms": {…}}

``elsewhere``: what other nodes are asked for, where there are any, and what each gave. ``total`` counts both.
``windows``: where a function reads its first argument instead of over its range; ``reads`` of a path:
places in the list of that name. ``ms`` of a function is its own time, without its arguments'. Before anything was read (explain=plan)
there are no results and no times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tgres_py.functions.series import SeriesBlock
from tgres_py.model.retention import format_retention
from tgres_py.query.plan import Fetch, Leaf, Plan, PlannedCall, PlanNode
from tgres_py.query.remote import RemoteKey, RemoteReads, steps_of

POINT_BYTES = 8


@dataclass(slots=True)
class Observed:
    """Results by id() of their node: (series, points, seconds with arguments)."""

    results: dict[int, tuple[int, int, float]] = field(default_factory=dict)

    def add(self, node: PlanNode, block: SeriesBlock, seconds: float) -> None:
        """Of a node that is asked for twice the first, dearer time counts."""
        points = sum(part.values.size for part in block.parts)
        before = self.results.get(id(node), (0, 0, 0.0))[2]
        self.results[id(node)] = len(block), points, max(before, seconds)


def explain(
    plan: Plan, observed: Observed | None = None, seconds: dict[str, float] | None = None
) -> dict[str, Any]:
    """The plan as JSON's objects; ``seconds``: of the request's stages."""
    texts = [text for text in plan.request.targets if text.strip()]
    out: dict[str, Any] = {
        "range": [plan.request.from_s, plan.request.until_s],
        "targets": [
            {"target": text, "plan": _node(plan, node, observed)}
            for text, node in zip(texts, plan.targets, strict=True)
        ],
        "reads": [_read(fetch) for fetch in plan.fetches],
    }
    if plan.remote is not None:
        out["elsewhere"] = _elsewhere(plan, plan.remote)
    out["total"] = {
        "series": series_read(plan),
        "points": plan.points,
        "bytes": plan.points * POINT_BYTES,
    }
    if seconds:
        out["ms"] = {stage: _ms(value) for stage, value in seconds.items()}
    return out


def _read(fetch: Fetch) -> dict[str, Any]:
    window, step_s = fetch.window, fetch.step_s
    return {
        "retention": retention_of(fetch),
        "archive": window.archive,
        "interval": step_s,
        "consolidation": str(fetch.bundle.cf),
        "xFilesFactor": fetch.bundle.xff,
        "from": window.from_slot * step_s,
        "until": window.until_slot * step_s,
        "series": len(fetch.ids),
        "points": fetch.points,
        "bytes": fetch.points * POINT_BYTES,
    }


def series_read(plan: Plan) -> int:
    """Series that a request reads, those of other nodes among them."""
    own = sum(len(fetch.ids) for fetch in plan.fetches)
    return own + (plan.remote.series if plan.remote else 0)


def _elsewhere(plan: Plan, remote: RemoteReads) -> dict[str, Any]:
    """What other nodes are asked for, and who answered; before that, who will be asked."""
    peers: dict[str, dict[str, Any]] = {name: {} for name in remote.peers.names}
    for name, (series, points) in remote.counts.items():
        peers[name] = {"series": series, "points": points}
    for name in remote.failed:
        peers[name] = {"failed": True}
    return {
        "peers": peers,
        "reads": [_remote_read(remote, key) for key in dict.fromkeys(plan.remote_keys())],
    }


def _remote_read(remote: RemoteReads, key: RemoteKey) -> dict[str, Any]:
    out: dict[str, Any] = {"path": key.expression, "from": key.from_s, "until": key.until_s}
    if key in remote:
        found = remote.get(key)
        out["series"] = len(found)
        out["points"] = sum(len(one.values) for one in found)
        out["intervals"] = sorted(steps_of(found))
    return out


def retention_of(fetch: Fetch) -> str:
    """``10s:6h,1m:7d``"""
    return format_retention((archive.step_s, archive.size) for archive in fetch.bundle.archives)


def _node(plan: Plan, node: PlanNode, observed: Observed | None) -> dict[str, Any]:
    if isinstance(node, Leaf):
        return {
            "path": node.expression,
            "found": len(node.names),
            "reads": [part.fetch for part in node.parts],
            **_found_elsewhere(plan, node),
            **_result(node, list(children(plan, node)), observed),
        }
    context = node.context
    out: dict[str, Any] = {
        "function": node.function.name,
        "range": [context.from_s, context.until_s],
        **_result(node, list(children(plan, node)), observed),
        "arguments": [_argument(plan, argument, observed) for argument in node.args],
    }
    if context.windows:
        out["windows"] = [list(window) for window in context.windows]
    if id(node) in plan.further:
        out["further"] = [_node(plan, one, observed) for one in plan.further[id(node)][1]]
    return out


def _found_elsewhere(plan: Plan, leaf: Leaf) -> dict[str, Any]:
    if plan.remote is None or leaf.remote not in plan.remote:
        return {}
    return {"elsewhere": len(plan.remote.get(leaf.remote))}


def _argument(plan: Plan, argument: Any, observed: Observed | None) -> Any:
    if isinstance(argument, Leaf | PlannedCall):
        return _node(plan, argument, observed)
    if isinstance(argument, list):
        return [_argument(plan, one, observed) for one in argument]
    if argument is None or isinstance(argument, bool | int | float | str):
        return argument
    return str(argument)


def _result(node: PlanNode, below: list[PlanNode], observed: Observed | None) -> dict[str, Any]:
    if observed is None or id(node) not in observed.results:
        return {}
    series, points, seconds = observed.results[id(node)]
    inner = sum(observed.results.get(id(one), (0, 0, 0.0))[2] for one in below)
    return {"series": series, "points": points, "ms": _ms(max(0.0, seconds - inner))}


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def children(plan: Plan, node: PlanNode) -> Iterator[PlanNode]:
    """The nodes whose series a call gets."""
    if isinstance(node, Leaf):
        return
    for argument in node.args:
        for one in argument if isinstance(argument, list) else [argument]:
            if isinstance(one, Leaf | PlannedCall):
                yield one
    if id(node) in plan.further:
        yield from plan.further[id(node)][1]


def leaves(plan: Plan, node: PlanNode) -> Iterator[Leaf]:
    """All paths below a node, itself included."""
    if isinstance(node, Leaf):
        yield node
    for one in children(plan, node):
        yield from leaves(plan, one)
