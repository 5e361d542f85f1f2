"""docs/COMPATIBILITY.md: every difference has a reason, and the page is what the tree holds."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import further_reasons, graphite_names, page, reasons
from tgres_py.functions.registry import functions

PAGE = Path(__file__).parent.parent / "docs" / "COMPATIBILITY.md"


def report() -> dict[str, Any]:
    return {
        "classes": {name: [1, 2] for name in ("core", "edge", "error", "quirk")},
        "functions": {"scale": {"pass": 3, "fail": 1, "tags_differ": 0}},
        "failures": [{"id": id_, "targets": ["a|b"], "path": None} for id_ in reasons()],
    }


def rows(text: str, heading: str) -> list[list[str]]:
    part = text.split(heading, 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_page_gives_the_reasons_of_the_tree() -> None:
    found = {row[0].strip("`"): row[-1] for row in rows(PAGE.read_text(), "## What differs")}
    for key, reason in reasons().items():
        assert found[key] == reason.replace("|", "\\|")
    for key, reason in further_reasons().items():
        assert found[key.strip("`")] == reason.replace("|", "\\|")


def test_core_edge_and_error_cases_pass() -> None:
    counts = {row[0]: row[2:] for row in rows(PAGE.read_text(), "# Compatibility")}
    for name in ("core", "edge", "error"):
        cases, passed = counts[name]
        assert cases == passed
    cases, passed = counts["quirk"]
    assert int(cases) - int(passed) == len(reasons())


def test_the_functions_of_the_page_are_those_registered() -> None:
    text = PAGE.read_text()
    added = re.findall(r"`(\w+)`", text.split("## Functions that graphite-web doesn't have")[1])
    assert added == sorted(functions().keys() - set(graphite_names()))
    assert set(graphite_names()) <= functions().keys()


def test_a_difference_needs_a_reason() -> None:
    made = report()
    assert "a\\|b" in page(made)
    more = copy.deepcopy(made)
    more["failures"].append({"id": "scale-99", "targets": None, "path": "/x"})
    with pytest.raises(ValueError, match="scale-99"):
        page(more)
    made["failures"].pop()
    with pytest.raises(ValueError, match="no longer"):
        page(made)
