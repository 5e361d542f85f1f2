"""``meta=true``: JSON as metrictank answers, for Grafana's data-source type of that name.

    {"version": "v0.1", "meta": {"stats": {…}},
     "series": [{"target": …, "tags": …, "datapoints": …, "meta": [{"archive-read": 1, …}]}]}

From it a panel says "Data is rolled up, aggregated over 1min using Average" and "Data is runtime
consolidated". A series whose metric (tag ``name``) is one of those read has that one's entry; any
other, a sum for example, those of all archives that its target read. Of series that another node
gave only interval and function are known; nodes that didn't answer are listed under peers-failed. Source of the names: what
Grafana's front end reads, and metrictank's own answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from http_api.encoding import dump_json
from http_api.formats import json
from http_api.formats.look import Look
from tgres_py.functions.series import Label, SeriesBlock
from tgres_py.query.explain import leaves, retention_of, series_read
from tgres_py.query.plan import Plan, PlanNode

VERSION = "v0.1"
_CONSOLIDATORS = {
    "average": "AverageConsolidator",
    "avg": "AverageConsolidator",
    "sum": "SumConsolidator",
    "min": "MinimumConsolidator",
    "max": "MaximumConsolidator",
    "first": "FirstConsolidator",
    "last": "LastConsolidator",
    "avg_zero": "AverageZeroConsolidator",
}


class Elsewhere(NamedTuple):
    """Series of other nodes of one interval; which archives these have isn't known here."""

    step_s: int
    cf: str


Read = int | Elsewhere  # a fetch's number, or other nodes


def write(
    plan: Plan,
    before: Sequence[SeriesBlock],
    shown: Sequence[SeriesBlock],
    look: Look,
    stats: dict[str, float],
) -> Iterator[bytes]:
    """The body in pieces. ``before``, ``shown``: a block for each target, before and after
    maxDataPoints.
    """
    numbers = {
        **stats,
        "executeplan.points-fetch": plan.points,
        "executeplan.points-return": sum(p.values.size for block in shown for p in block.parts),
        "executeplan.series-fetch": series_read(plan),
    }
    about: dict[str, Any] = {"stats": numbers}
    if plan.remote is not None and plan.remote.failed:
        about["peers-failed"] = sorted(plan.remote.failed)
    head = {"version": VERSION, "meta": about}
    extras = (
        b',"meta":' + dump_json(entries)
        for target, block, after in zip(plan.targets, before, shown, strict=True)
        for entries in _entries(plan, target, block, after)
    )
    series = json.pieces(shown, look.no_null_points, extras)
    if look.pretty:
        yield dump_json(head, pretty=True).removesuffix(b"\n}") + b',\n  "series": '
        yield from json.prettied(series, b"  ")
        yield b"\n}"
    else:
        yield dump_json(head)[:-1] + b',"series":'
        yield from series
        yield b"}"


def _entries(
    plan: Plan, target: PlanNode, before: SeriesBlock, shown: SeriesBlock
) -> Iterator[list[dict[str, Any]]]:
    """Of each series of a target."""
    read_by_name: dict[str, Counter[Read]] = {}
    all_read: Counter[Read] = Counter()
    for leaf in leaves(plan, target):
        for series in plan.remote.get(leaf.remote) if plan.remote else ():
            read = Elsewhere(series.grid.step_s, series.cf)
            all_read[read] += 1
            read_by_name.setdefault(series.name.partition(";")[0], Counter())[read] += 1
        for part in leaf.parts:
            all_read[part.fetch] += len(part.index)
            for place in part.index.tolist():
                name = leaf.names[place].partition(";")[0]  # as tag name has it
                read_by_name.setdefault(name, Counter())[part.fetch] += 1
    for (label, grid, _), (_, after, _) in zip(before.rows(), shown.rows(), strict=True):
        counts = read_by_name.get(label.tags.get("name", ""), all_read)
        per = after.step_s // grid.step_s if after.step_s > grid.step_s else 0
        reads: list[Read] = [*sorted(read for read in counts if isinstance(read, int))]
        reads += sorted(read for read in counts if isinstance(read, Elsewhere))
        yield [_entry(plan, read, counts[read], label, per) for read in reads]


def _entry(plan: Plan, read: Read, count: int, label: Label, per: int) -> dict[str, Any]:
    """``per``: points that maxDataPoints made one of, 0 = none."""
    if isinstance(read, Elsewhere):
        cf, archive, step_s, retention = read.cf, 0, read.step_s, ""
    else:
        fetch = plan.fetches[read]
        cf, archive, step_s = str(fetch.bundle.cf), fetch.window.archive, fetch.step_s
        retention = retention_of(fetch)
    return {
        "schema-name": retention,
        "schema-retentions": retention,
        "archive-read": archive,
        "archive-interval": step_s,
        "aggnum-norm": 1,
        "consolidator-normfetch": _CONSOLIDATORS.get(cf, cf),
        "aggnum-rc": per,
        "consolidator-rc": _CONSOLIDATORS.get(label.cf, label.cf) if per else "",
        "count": count,
    }
