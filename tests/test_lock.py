"""docker/requirements.lock: every dependency of pyproject.toml is in it, with hashes and nothing else."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "docker" / "requirements.lock"
if not LOCK.exists():
    pytest.skip("there is no docker/ beside these tests", allow_module_level=True)


def locked() -> list[tuple[Requirement, list[str]]]:
    """Each requirement of the lock, with its hashes."""
    text = re.sub(r"^ *#.*\n", "", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        found.append((Requirement(requirement), hashes))
    return found


def test_everything_is_pinned_with_hashes() -> None:
    assert len(locked()) > 10
    for requirement, hashes in locked():
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", one) for one in hashes)


def test_every_dependency_is_locked_in_a_version_it_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = defaultdict(list)
    for requirement, _ in locked():
        versions[canonicalize_name(requirement.name)] += [
            one.version for one in requirement.specifier
        ]
    for text in [*project["dependencies"], *project["optional-dependencies"]["images"]]:
        wanted = Requirement(text)
        found = versions[canonicalize_name(wanted.name)]
        assert found and all(map(wanted.specifier.contains, found)), (text, found)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_each_python_and_machine_gets_one_version_of_each(python: str, machine: str) -> None:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
    }
    taken = [
        canonicalize_name(requirement.name)
        for requirement, _ in locked()
        if requirement.marker is None or requirement.marker.evaluate(environment)
    ]
    assert len(taken) == len(set(taken)) and {"numpy", "asyncpg", "uvloop"} <= set(taken)


def test_the_image_takes_nothing_else() -> None:
    recipe = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    installs = re.findall(r"\binstall (--no-cache-dir[^\n]*)", recipe)
    assert len(installs) == 2
    assert "--require-hashes -r docker/requirements.lock" in installs[0]
    assert "--no-deps ." in installs[1]
