"""Memory limits of control groups, from made-up proc and sys trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgres_py.machine import memory_bytes

MIB = 1 << 20


def tree(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_control_groups_it_is_the_machine_s(tmp_path: Path) -> None:
    machine = memory_bytes(tmp_path)
    assert machine > 64 * MIB
    unlimited = {"sys/fs/cgroup/memory.max": "max\n"}
    assert memory_bytes(tree(tmp_path, "0::/\n", unlimited)) == machine


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/\n", {"sys/fs/cgroup/memory.max": "33554432\n"}),
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/memory.max": "33554432\n"}),
        (
            "0::/a/b\n",
            {
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/memory.max": "33554432\n",
            },
        ),
        (
            "5:cpu:/x\n4:memory:/docker/1\n",
            {"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "33554432\n"},
        ),
        (
            "4:memory:/docker/1\n",
            {"sys/fs/cgroup/memory/memory.limit_in_bytes": "33554432\n"},
        ),
    ],
)
def test_the_smallest_limit_of_the_groups_counts(
    tmp_path: Path, cgroup: str, files: dict[str, str]
) -> None:
    assert memory_bytes(tree(tmp_path, cgroup, files)) == 32 * MIB


def test_nonsense_is_ignored(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": "a lot\n", "sys/fs/cgroup/a/memory.max": "0\n"}
    assert memory_bytes(tree(tmp_path, "garbage\n0::/a\n", files)) == memory_bytes(
        tmp_path / "none"
    )
