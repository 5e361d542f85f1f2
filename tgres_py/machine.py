"""What this process may use and what it uses: memory, CPU, files."""

from __future__ import annotations

import os
import resource
from pathlib import Path


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
