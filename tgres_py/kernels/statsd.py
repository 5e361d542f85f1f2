"""The cells of statsd and the sums of its timers: native (``_statsd.pyx``), or the pure twin."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tgres_py.kernels import NATIVE
from tgres_py.kernels.statsd_py import (
    StatsdCells,
    Taken,
    TakenTimers,
    filled_rows,
    grouped,
    running_sums,
    square_deviations,
)

if not TYPE_CHECKING and NATIVE:
    with suppress(ImportError):
        from tgres_py.kernels._statsd import (
            StatsdCells,
            filled_rows,
            grouped,
            running_sums,
            square_deviations,
        )

__all__ = [
    "StatsdCells",
    "Taken",
    "TakenTimers",
    "filled_rows",
    "grouped",
    "running_sums",
    "square_deviations",
]
