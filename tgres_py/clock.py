"""The only place that reads the wall clock, so that tests can replace it."""

from __future__ import annotations

import time
from collections.abc import Callable

_source: Callable[[], float] = time.time


def now() -> float:
    """Seconds since 1970 UTC, fractional."""
    return _source()


def now_s() -> int:
    """Whole seconds since 1970 UTC."""
    return int(_source())


def monotonic() -> float:
    """Seconds of a clock that never steps; for time-outs and pacing."""
    return time.monotonic()


def replace_source(source: Callable[[], float] | None) -> None:
    """Reads the time from ``source`` from now on; None restores the system's clock."""
    global _source
    _source = source or time.time
