"""The cells of statsd: native (``_statsd.pyx``), or the pure twin."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tgres_py.kernels import NATIVE
from tgres_py.kernels.statsd_py import StatsdCells

if not TYPE_CHECKING and NATIVE:
    with suppress(ImportError):
        from tgres_py.kernels._statsd import StatsdCells

__all__ = ["StatsdCells"]
