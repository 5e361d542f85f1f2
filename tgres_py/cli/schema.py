"""``tgres schema match NAME…``: which rules a name meets, and what a series of that name costs."""

from __future__ import annotations

from typing import Any

import click

from tgres_py.cli.common import json_option, print_json
from tgres_py.cli.options import RULE_SETTINGS, setting_options
from tgres_py.config_sources import load
from tgres_py.model.duration import format_duration
from tgres_py.model.ident import canonical
from tgres_py.model.retention import bytes_per_series, format_retention
from tgres_py.model.rules import AggregationRule, Explanation, SchemaRule


@click.group()
def schema() -> None:
    """Explain retention rules."""


@schema.command()
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@setting_options((*RULE_SETTINGS, "retention", "name_bytes_max"))
@json_option
def match(names: tuple[str, ...], config_file: str | None, as_json: bool, **options: Any) -> None:
    """Say which rules NAME meets, its archives, and the bytes of one series in memory and on disk.

    A running server is not asked: a series that it has already keeps the archives it was created with.
    """
    settings = load(config_file, options)
    rules = settings.rule_set()
    found = [rules.explain(canonical(name, settings.name_bytes_max)) for name in names]
    if as_json:
        print_json([as_data(one) for one in found])
    else:
        click.echo("\n\n".join(as_text(one) for one in found))


def as_data(explanation: Explanation) -> dict[str, Any]:
    """The answer for ``--json``."""
    spec = explanation.spec
    size = bytes_per_series(spec)
    return {
        "name": explanation.name,
        "schema": _rule_data(explanation.schema),
        "aggregation": _rule_data(explanation.aggregation),
        "retention": format_retention((a.step_s, a.size) for a in spec.archives),
        "cf": str(spec.cf),
        "xff": spec.xff,
        "on_duplicate": str(spec.on_duplicate),
        "expire_s": explanation.schema.expire_s,
        "archives": [
            {
                "step_s": archive.step_s,
                "size": archive.size,
                "width": archive.width,
                "chunk_s": archive.chunk_s,
                "chunks": archive.chunks,
            }
            for archive in spec.archives
        ],
        "memory_bytes": size.memory,
        "disk_bytes_max": size.disk,
    }


def as_text(explanation: Explanation) -> str:
    """The answer for people."""
    spec = explanation.spec
    size = bytes_per_series(spec)
    rows = [("archive", "slots", "chunk width", "chunk spans", "chunks")]
    for archive in spec.archives:
        text = format_retention([(archive.step_s, archive.size)])
        span = _duration(archive.chunk_s)
        rows.append((text, f"{archive.size:,}", str(archive.width), span, f"{archive.chunks:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        explanation.name,
        f"  schema       {_rule_text(explanation.schema)}",
        f"  aggregation  {_rule_text(explanation.aggregation)}",
        f"  roll-up      {spec.cf}, xFilesFactor {spec.xff:g}; two points in a slot: {spec.on_duplicate}",
        *_expiry_lines(explanation.schema),
        *(
            "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ),
        f"  one series   {_size(size.memory)} in memory, at most {_size(size.disk)} on disk",
    ]
    return "\n".join(lines)


def _expiry_lines(rule: SchemaRule) -> list[str]:
    if rule.expire_s is None:
        return []
    return [f"  expires      after {format_duration(rule.expire_s)} without a point"]


def _rule_data(rule: SchemaRule | AggregationRule) -> dict[str, Any]:
    return {
        "rule": rule.name,
        "pattern": rule.pattern,
        "source": rule.source,
        "line": rule.line or None,
    }


def _rule_text(rule: SchemaRule | AggregationRule) -> str:
    line = f", line {rule.line}" if rule.line else ""
    pattern = f" {rule.pattern}" if rule.pattern else ""
    return f"[{rule.name}]{pattern}  ({rule.source}{line})"


def _duration(seconds: int) -> str:
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds} s"


def _size(size_bytes: int) -> str:
    for unit, name in ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.3g} {name}"
    return f"{size_bytes} bytes"
