"""docs/COMPATIBILITY.md from a report of the conformance comparer, and the reasons of what differs.

    python -m tests.conformance REPORT.json > docs/COMPATIBILITY.md

The report is what the comparer writes with --report: passed and failed cases per function and class. A case that
differs needs a reason in tests/data/deviations.json, else this refuses to write the page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tgres_py.functions.registry import functions

DATA = Path(__file__).parent / "data"
CLASSES = {
    "core": "ordinary use",
    "edge": "missing and empty things",
    "error": "refused requests",
    "quirk": "accidents of graphite-web, each decided",
}
_HEAD = """# Compatibility with graphite-web

<!-- written by python -m tests.conformance; don't edit -->

Measured against recorded answers of graphite-web 1.1.10, tags of the series included: the same requests, the same data,
answers compared point by point.
"""
_COMMON = """Beyond the cases of the table, questions made at random of all functions were asked to both, and these differences are left:
"""
_ADDED = """## Functions that graphite-web doesn't have

From carbonapi, or ours; `/functions` describes them.
"""


def reasons() -> dict[str, str]:
    """Why a case differs, by the case's id."""
    return _read("deviations.json")


def further_reasons() -> dict[str, str]:
    """What else differs, found by other means than the cases."""
    return _read("deviations_further.json")


def graphite_names() -> list[str]:
    """What graphite-web calls its functions."""
    return (DATA / "graphite_functions.txt").read_text().split()


def page(report: Mapping[str, Any]) -> str:
    """The page. ValueError: a case differs without a reason, or a reason is left over."""
    failed = {failure["id"]: failure for failure in report["failures"]}
    known = reasons()
    if unexplained := sorted(failed.keys() - known.keys()):
        raise ValueError(f"no reason is given for {', '.join(unexplained)}")
    if obsolete := sorted(known.keys() - failed.keys()):
        raise ValueError(f"no longer differ: {', '.join(obsolete)}")
    added = sorted(functions().keys() - set(graphite_names()))
    parts = [
        _HEAD,
        _classes(report["classes"]),
        "## What differs, and why\n",
        _table(
            ("case", "request", "why"),
            ((f"`{id_}`", _request(failed[id_]), known[id_]) for id_ in sorted(failed)),
        ),
        _COMMON,
        _table(("what", "why"), further_reasons().items()),
        "## Functions and areas\n",
        _areas(report["functions"]),
        _ADDED,
        ", ".join(f"`{name}`" for name in added) + "\n",
    ]
    return "\n".join(parts)


def _read(name: str) -> dict[str, str]:
    read: dict[str, str] = json.loads((DATA / name).read_text())
    return read


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|")


def _request(failure: Mapping[str, Any]) -> str:
    return " ".join(f"`{target}`" for target in failure.get("targets") or [failure["path"]])


def _classes(counts: Mapping[str, Sequence[int]]) -> str:
    return _table(
        ("class", "", "cases", "passed"),
        ((name, text, counts[name][1], counts[name][0]) for name, text in CLASSES.items()),
    )


def _areas(counts: Mapping[str, Mapping[str, int]]) -> str:
    rows = []
    for name in sorted(counts, key=str.lower):
        passed, failed = counts[name]["pass"], counts[name]["fail"]
        rows.append((f"`{name}`", passed + failed, passed, "" if not failed else "see above"))
    return _table(("function or area", "cases", "passed", ""), rows)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        text = page(json.loads(Path(arguments[0]).read_text()))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
