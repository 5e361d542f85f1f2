"""Rules of the source that keep whole kinds of weaknesses out, and the names in SECURITY.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("tgres_py", "receivers", "http_api")
RUNS_SQL = ("execute", "executemany", "fetch", "fetchrow", "fetchval", "cursor", "prepare")


def sources(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            yield path.relative_to(ROOT).as_posix(), tree


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name's last two parts, or the name of a plain function; call)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            name = owner.id if isinstance(owner, ast.Name) else "?"
            yield f"{name}.{node.func.attr}", node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node


@pytest.fixture(scope="module")
def all_calls() -> list[tuple[str, str, ast.Call]]:
    """Of the product: (file, name, call)."""
    return [(file, name, call) for file, tree in sources(*PACKAGES) for name, call in calls(tree)]


def test_sql_holds_bound_parameters_only() -> None:
    """What is run is a constant or a named query of a .sql file; nothing is formatted into it."""
    seen = 0
    for file, tree in sources("tgres_py/storage"):
        for name, call in calls(tree):
            owner, _, method = name.partition(".")
            if owner != "connection" or method not in RUNS_SQL or not call.args:
                continue
            seen += 1
            sql = call.args[0]
            named = isinstance(sql, ast.Call) and ast.unparse(sql.func) == "query"
            step = ast.unparse(sql) == "step.sql"  # a migration's file
            constant = isinstance(sql, ast.Constant)
            assert named or step or constant, f"{file}:{call.lineno}: {ast.unparse(sql)}"
    assert seen > 50


@pytest.mark.parametrize(
    "forbidden",
    [
        *("pickle.loads", "pickle.load", "marshal.loads", "os.system", "subprocess.getoutput"),
        *("eval", "exec", "__import__"),
    ],
)
def test_nothing_runs_what_was_sent(
    all_calls: list[tuple[str, str, ast.Call]], forbidden: str
) -> None:
    assert len(all_calls) > 5_000
    for file, name, call in all_calls:
        assert name != forbidden, f"{file}:{call.lineno}"


def test_nothing_is_given_to_a_shell(all_calls: list[tuple[str, str, ast.Call]]) -> None:
    for file, _, call in all_calls:
        shell = [k for k in call.keywords if k.arg == "shell"]
        assert not shell, f"{file}:{call.lineno}: a shell"


def test_http_requests_start_in_the_cluster_only() -> None:
    for file, tree in sources("tgres_py", "receivers", "http_api"):
        if file.startswith("tgres_py/cli/") or file == "http_api/cluster.py":
            continue
        source = (ROOT / file).read_text(encoding="utf-8")
        words = ("ClientSession", "urlopen", "urllib.request", "http.client", "smtplib")
        if not any(word in source for word in words):
            continue
        text = ast.unparse(tree)  # without comments
        for word in words:
            if word in text:
                assert file in ASKS_OF_ITS_USER, f"{file}: {word}"


ASKS_OF_ITS_USER = {"tgres_py/migrate/verify.py"}  # an operator's command names the address


def test_tests_that_security_md_names_exist() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 20
    for file in sorted({file for file, _ in named}):
        path = ROOT / file
        assert path.exists(), file
        names = {
            node.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        missing = {function for of, function in named if of == file} - names
        assert not missing, f"{file}: {missing}"
    for advisory in (
        "CVE-2013-5093",
        "CVE-2013-5942",
        "CVE-2017-18638",
        "CVE-2022-4728",
        "CVE-2022-4729",
        "CVE-2022-4730",
    ):
        assert advisory in page
