"""Which module may use what: read from the syntax trees, so that function-level imports count too.

The order of the layers themselves is checked by import-linter (pyproject.toml).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tgres_py", "receivers", "http_api")


@cache
def sources() -> list[Path]:
    """All of the product's Python and Cython files."""
    return sorted(
        path
        for package in PACKAGES
        for kind in ("*.py", "*.pyx", "*.pxd")
        for path in (ROOT / package).rglob(kind)
    )


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything that is imported, anywhere in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", ""))
            in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


@cache
def imports_of(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return set(imported(ast.parse(text)))
    return set(re.findall(r"^\s*(?:from|c?import)\s+([\w.]+)", text, re.MULTILINE))


def users(module: str) -> set[str]:
    """Files that import ``module`` or something in it, relative to the root."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if any(name == module or name.startswith(f"{module}.") for name in imports_of(path))
    }


def time_time_calls(tree: ast.AST) -> list[int]:
    """Lines that name ``time.time``/``time_ns`` or ask datetime for the present."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = node.value.id, node.attr
            if (owner, name) in {("time", "time"), ("time", "time_ns")} or (
                owner in {"datetime", "date"} and name in {"now", "utcnow", "today"}
            ):
                lines.append(node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            lines += [node.lineno for a in node.names if a.name in {"time", "time_ns"}]
    return lines


def test_the_walk_sees_every_kind_of_import() -> None:
    text = (
        "import pickle\ndef f():\n    from asyncpg.pool import Pool\n    import_module('aiohttp')\n"
    )
    assert set(imported(ast.parse(text))) == {"pickle", "asyncpg.pool.Pool", "aiohttp"}
    clock = "import time, datetime\nfrom time import time_ns\nx = time.time\ny = datetime.now()\n"
    assert time_time_calls(ast.parse(clock)) == [2, 3, 4]


def test_the_walk_finds_the_packages() -> None:
    assert len(sources()) > 20
    assert users("tgres_py.errors")


@pytest.mark.parametrize("module", ["pickle", "_pickle", "cPickle", "dill", "marshal", "shelve"])
def test_nothing_can_run_code_from_data(module: str) -> None:
    assert users(module) == set()


@pytest.mark.parametrize(
    ("module", "folders"),
    [("asyncpg", ("tgres_py/storage/",)), ("aiohttp", ("http_api/",))],
)
def test_libraries_stay_in_their_layer(module: str, folders: tuple[str, ...]) -> None:
    assert {path for path in users(module) if not path.startswith(folders)} == set()


def test_the_clock_alone_reads_the_time() -> None:
    found = {}
    for path in sources():
        if path.suffix == ".py" and path.name != "clock.py":
            lines = time_time_calls(ast.parse(path.read_text(encoding="utf-8")))
            if lines:
                found[path.relative_to(ROOT).as_posix()] = lines
    assert found == {}


def test_python_s_own_regular_expressions_never_meet_a_user_s_pattern() -> None:
    """Where patterns of users pass (globs, functions, rules), only a linear matcher is imported."""
    for folder in ("functions", "query", "target"):
        for path in (ROOT / "tgres_py" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id == "re"
                    and node.func.attr != "escape"
                ):
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    constant = bool(node.args) and isinstance(node.args[0], ast.Constant)
                    named = bool(node.args) and isinstance(node.args[0], ast.Name)
                    upper = named and node.args[0].id.isupper()  # type: ignore[attr-defined]  # named says that it is a Name
                    assert constant or upper, f"{where}: a computed pattern for re; use re2"


def test_what_checkers_are_told_to_ignore_has_its_reason() -> None:
    """The code of what is ignored, and a sentence."""
    for path in sorted([*sources(), *(ROOT / "tests").rglob("*.py")]):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if told := re.search(r"# type: (?=ignore)(.*)", line):
                assert re.match(r"ignore\[[a-z, -]+\]  # \w.{8}", told[1]), f"{path}, line {number}"
