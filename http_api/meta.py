"""``meta=true``: JSON as metrictank answers, for Grafana's data-source type of that name.

    {"version": "v0.1", "meta": {"stats": {…}},
     "series": [{"target": …, "tags": …, "datapoints": …, "meta": [{"archive-read": 1, …}]}]}

From it a panel says "Data is rolled up, aggregated over 1min using Average" and "Data is runtime
consolidated". A series whose metric (tag ``name``) is one of those read has that one's entry; any
other, a sum for example, those of all archives that its target read. Source of the names: what
Grafana's front end reads, and metrictank's own answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from http_api.formats import json
from http_api.formats.look import Look
from http_api.reply import dump_json
from tgres_py.functions.series import Label, SeriesBlock
from tgres_py.query.explain import leaves, retention_of
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
    pieces = _pieces(plan, before, shown, look, stats)
    if look.pretty:
        yield dump_json(orjson.loads(b"".join(pieces)), pretty=True)
    else:
        yield from pieces


def _pieces(
    plan: Plan,
    before: Sequence[SeriesBlock],
    shown: Sequence[SeriesBlock],
    look: Look,
    stats: dict[str, float],
) -> Iterator[bytes]:
    numbers = {
        **stats,
        "executeplan.points-fetch": sum(fetch.points for fetch in plan.fetches),
        "executeplan.points-return": sum(p.values.size for block in shown for p in block.parts),
        "executeplan.series-fetch": sum(len(fetch.ids) for fetch in plan.fetches),
    }
    head = {"version": VERSION, "meta": {"stats": numbers}}
    yield dump_json(head)[:-1] + b',"series":'
    extras = (
        b',"meta":' + dump_json(entries)
        for target, block, after in zip(plan.targets, before, shown, strict=True)
        for entries in _entries(plan, target, block, after)
    )
    yield from json.pieces(shown, look.no_null_points, extras)
    yield b"}"


def _entries(
    plan: Plan, target: PlanNode, before: SeriesBlock, shown: SeriesBlock
) -> Iterator[list[dict[str, Any]]]:
    """Of each series of a target."""
    read_by_name: dict[str, Counter[int]] = {}
    all_read: Counter[int] = Counter()
    for leaf in leaves(plan, target):
        for part in leaf.parts:
            all_read[part.fetch] += len(part.index)
            for place in part.index.tolist():
                name = leaf.names[place].partition(";")[0]  # as tag name has it
                read_by_name.setdefault(name, Counter())[part.fetch] += 1
    for (label, grid, _), (_, after, _) in zip(before.rows(), shown.rows(), strict=True):
        read = read_by_name.get(label.tags.get("name", ""), all_read)
        per = after.step_s // grid.step_s if after.step_s > grid.step_s else 0
        yield [_entry(plan, fetch, count, label, per) for fetch, count in sorted(read.items())]


def _entry(plan: Plan, number: int, count: int, label: Label, per: int) -> dict[str, Any]:
    """``per``: points that maxDataPoints made one of, 0 = none."""
    fetch = plan.fetches[number]
    retention = retention_of(fetch)
    return {
        "schema-name": retention,
        "schema-retentions": retention,
        "archive-read": fetch.window.archive,
        "archive-interval": fetch.step_s,
        "aggnum-norm": 1,
        "consolidator-normfetch": _CONSOLIDATORS.get(str(fetch.bundle.cf), str(fetch.bundle.cf)),
        "aggnum-rc": per,
        "consolidator-rc": _CONSOLIDATORS.get(label.cf, label.cf) if per else "",
        "count": count,
    }
