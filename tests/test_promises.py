"""docs/PROMISES.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_named_test_exists() -> None:
    text = (ROOT / "docs" / "PROMISES.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 10
    for file in sorted({file for file, _ in named}):
        tree = ast.parse((ROOT / file).read_text())
        functions = {
            n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        missing = {name for of, name in named if of == file} - functions
        assert not missing, f"{file}: {missing}"
