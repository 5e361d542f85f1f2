"""What this process may use and what it uses: memory, CPU, files."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable
from pathlib import Path

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
# at most a little more than the matrices of renders that the server does itself
MAPPED_BYTES, MAPPED_BYTES_MAX = 1 << 20, 5 << 20
ARENAS = 4


def memory_bytes(root: Path = Path("/")) -> int:
    """The smallest of the machine's memory and the limits of the process's control groups, v1 and v2.

    ``root``: where proc and sys are looked for. A limit that can't be read doesn't count.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_group_limits(root)])


def cpus() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _group_limits(root: Path) -> list[int]:
    groups = root / "sys/fs/cgroup"
    files = [groups / "memory.max", groups / "memory/memory.limit_in_bytes"]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        own = path.strip("/")
        if not controllers:  # v2: the limits of all groups above hold too
            places = [groups / own, *(groups / parent for parent in Path(own).parents)]
            files += [place / "memory.max" for place in places]
        elif "memory" in controllers.split(","):
            files.append(groups / "memory" / own / "memory.limit_in_bytes")
    texts = [_text(file).strip() for file in files]
    return [int(text) for text in texts if text.isdecimal() and int(text) > 0]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def resident_bytes() -> int:
    """Resident memory of this process; 0 where /proc doesn't tell."""
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def private_bytes(pid: int) -> int:
    """Resident memory that a process shares with no other; 0 where /proc doesn't tell, or it has ended."""
    try:
        with open(f"/proc/{pid}/statm") as f:
            _, resident, shared, *_ = f.read().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def calm_allocator(memory_max: int = 0) -> None:
    """Large blocks are given back to the system as soon as they are free, and few threads have a heap of their own.

    What is large depends on the memory that there is: a block that is new costs a page fault for each 4 KB, so a matrix
    of some MB that goes and comes with each query costs more than what is done with it. glibc by itself would raise the
    size from which blocks are mapped up to 32 MB. Elsewhere nothing.
    """
    if (mallopt := _glibc("mallopt")) is not None:
        mapped = min(max(MAPPED_BYTES, memory_max // 256), MAPPED_BYTES_MAX)
        mallopt(M_MMAP_THRESHOLD, mapped)
        mallopt(M_TRIM_THRESHOLD, 4 * mapped)
        mallopt(M_ARENA_MAX, ARENAS)


def trim_memory() -> None:
    """Gives free memory back to the system where the allocator can (glibc); may take some milliseconds, in any thread."""
    if (trim := _glibc("malloc_trim")) is not None:
        trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except OSError:
        return None


def open_files() -> int:
    """Open file descriptors; 0 where /proc doesn't tell."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # without the listing's own
    except OSError:
        return 0


def cpu_seconds() -> float:
    """User and system time of this process, without PostgreSQL's."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
