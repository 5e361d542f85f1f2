"""Arrays of floats for pickle and msgpack: both write a float as one tag byte and 8 bytes, high byte first.

One numpy operation for a whole series, no Python object for a point.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack_floats(values: NDArray[np.float64], tag: bytes, unknown: bytes) -> bytes:
    """Each value as ``tag`` and its 8 bytes, each NaN as the one byte ``unknown``."""
    cells = np.empty((len(values), 9), np.uint8)
    cells[:, 0] = tag[0]
    cells[:, 1:] = np.ascontiguousarray(values).astype(">f8").view(np.uint8).reshape(-1, 8)
    nan = np.isnan(values)
    if not nan.any():
        return cells.tobytes()
    kept = np.ones(cells.shape, bool)
    kept[nan, 1:] = False
    cells[nan, 0] = unknown[0]
    return cells[kept].tobytes()
