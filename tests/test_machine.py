"""Memory limits of control groups, from made-up proc and sys trees; how the allocator is set."""

from __future__ import annotations

import platform
import subprocess
import sys
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is told what to do")
@pytest.mark.parametrize(("memory_max", "reused"), [(0, False), (8 << 30, True)])
def test_blocks_of_some_mb_are_used_again_where_memory_is_plenty(
    memory_max: int, reused: bool
) -> None:
    """Page faults of a matrix of 3 MB that comes and goes: each time with little memory, else at first only."""
    program = f"""
import resource
import numpy as np
from tgres_py.machine import calm_allocator
calm_allocator({memory_max})
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    np.ones(3 << 17)
before = faults()
for _ in range(10):
    np.ones(3 << 17)
print(faults() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (int(done.stdout) < 500) == reused
