"""The cells of statsd: native (``_statsd.pyx``), or the pure twin."""

from __future__ import annotations

from tgres_py.kernels.statsd_py import StatsdCells

__all__ = ["StatsdCells"]
