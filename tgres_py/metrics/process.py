"""Metrics of the process itself: build, limits, memory, CPU, event loop, garbage collection."""

from __future__ import annotations

import platform
import resource
import threading
from typing import TYPE_CHECKING

from tgres_py import __version__
from tgres_py.admin.limits import limits
from tgres_py.kernels import NATIVE
from tgres_py.machine import cpu_seconds, open_files, resident_bytes
from tgres_py.metrics.declare import Declared, Group, Kind, Labelled

if TYPE_CHECKING:
    from tgres_py.server import Server


def _build(server: Server) -> Labelled:
    kernels = "native" if NATIVE else "pure"
    database = "embedded" if server.embedded is not None else "external"
    yield (__version__, platform.python_version(), kernels, database), 1


GROUPS = (
    Group(
        "Limits",
        (
            Declared(
                "tgres_limit",
                Kind.GAUGE,
                "What each limit allows: settings, and what the machine has (bytes, points or pieces).",
                lambda s: [((one.name,), one.most) for one in limits(s)],
                ("limit",),
            ),
            Declared(
                "tgres_limit_used",
                Kind.GAUGE,
                "How much of it is used.",
                lambda s: [((one.name,), one.used) for one in limits(s)],
                ("limit",),
            ),
        ),
    ),
    Group(
        "Process",
        (
            Declared(
                "tgres_build_info",
                Kind.GAUGE,
                "1; what runs, in the labels.",
                _build,
                ("version", "python", "kernels", "postgresql"),
            ),
            Declared(
                "process_start_time_seconds",
                Kind.GAUGE,
                "When the server started, Unix seconds.",
                lambda s: s.runtime.started_s,
            ),
            Declared(
                "process_resident_memory_bytes",
                Kind.GAUGE,
                "Resident memory.",
                lambda s: resident_bytes(),
            ),
            Declared(
                "process_cpu_seconds_total",
                Kind.COUNTER,
                "CPU time of the server, without PostgreSQL.",
                lambda s: cpu_seconds(),
            ),
            Declared("process_open_fds", Kind.GAUGE, "Open files.", lambda s: open_files() or None),
            Declared(
                "process_max_fds",
                Kind.GAUGE,
                "Files that may be open.",
                lambda s: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            ),
            Declared("process_threads", Kind.GAUGE, "Threads.", lambda s: threading.active_count()),
            Declared(
                "tgres_loop_lag_seconds",
                Kind.HISTOGRAM,
                "How much later than asked the event loop ran a timer, four times a second.",
                lambda s: s.runtime.lag_seconds,
            ),
            Declared(
                "tgres_gc_duration_seconds",
                Kind.HISTOGRAM,
                "Pauses of Python's garbage collection.",
                lambda s: [((str(n),), h) for n, h in enumerate(s.runtime.gc_seconds)],
                ("generation",),
            ),
        ),
    ),
)
