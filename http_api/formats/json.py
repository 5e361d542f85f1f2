"""format=json: ``[{"target": name, "tags": {…}, "datapoints": [[value, epoch], …]}, …]``.

NaN and infinities are null (graphite-web writes 1e9999, on which Grafana's Go reader fails). Values are written from the arrays
without a Python object for each point: value and time lie side by side in a float array, and the ".0" of the times,
which alone stand before a "]", is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from http_api.reply import dump_json
from tgres_py.errors import LimitExceeded
from tgres_py.functions.series import Grid, Label, Matrix, SeriesBlock

# below this the repr of a float has no exponent, which cutting ".0" relies on
_TIME_MAX_S = 10**15


def encode(
    blocks: Sequence[SeriesBlock],
    no_null_points: bool = False,
    pretty: bool = False,
    bytes_max: int | None = None,
) -> bytes:
    """The answer's body. LimitExceeded when it would be longer than ``bytes_max``.

    ``no_null_points``: points that would be null are left out, and series without a known one.
    """
    pieces: list[bytes] = []
    size = 0
    times: dict[Grid, Matrix] = {}
    for block in blocks:
        for label, grid, values in block.rows():
            pairs = _pairs(grid, values, times)
            if no_null_points:
                pairs = pairs[np.isfinite(pairs[:, 0])]
                if not len(pairs):
                    continue
            piece = _series(label, pairs)
            size += len(piece) + 1
            if bytes_max is not None and size > bytes_max:
                raise LimitExceeded("bytes of the response", size, bytes_max, "response_bytes_max")
            pieces.append(piece)
    body = b"[" + b",".join(pieces) + b"]"
    return dump_json(orjson.loads(body), pretty=True) if pretty else body


def _pairs(grid: Grid, values: Matrix, times: dict[Grid, Matrix]) -> Matrix:
    """(points, 2): value and time, as far as both reach (``end_s`` itself is still a time)."""
    stamps = times.get(grid)
    if stamps is None:
        if not -_TIME_MAX_S < grid.start_s <= grid.end_s < _TIME_MAX_S:
            stamps = np.empty(0)
        else:
            stamps = np.arange(grid.start_s, grid.end_s + 1, grid.step_s, dtype=np.float64)
        times[grid] = stamps
    points = min(len(values), len(stamps))
    pairs = np.empty((points, 2))
    pairs[:, 0] = values[:points]
    pairs[:, 1] = stamps[:points]
    return pairs


def _series(label: Label, pairs: Matrix) -> bytes:
    points = orjson.dumps(pairs, option=orjson.OPT_SERIALIZE_NUMPY).replace(b".0]", b"]")
    return b"".join(
        (
            b'{"target":',
            dump_json(label.name),
            b',"tags":',
            dump_json(label.tags),
            b',"datapoints":',
            points,
            b"}",
        )
    )
