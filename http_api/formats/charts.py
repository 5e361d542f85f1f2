"""format=dygraph and format=rickshaw: JSON as these two JavaScript chart libraries read it.

    dygraph   {"labels" : ["Time", "a"], "data" : [[1778597190000, 1.5], …]}   times in ms; {} without series
    rickshaw  [{"target": "a", "datapoints": [{"x": 1778597190, "y": 1.5}, …]}, …]

Both have times from a series' start up to before its end. NaN and infinities are null, in dygraph
too, where graphite-web writes the word Infinity, which no JSON reader takes. dygraph's rows are the
first series' times: other series must have as many values (there a crash, here a BadRequest).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import orjson

from http_api.encoding import dump_json
from http_api.formats.json import prettied
from http_api.formats.look import Look
from http_api.formats.points import Points
from tgres_py.errors import BadRequest
from tgres_py.functions.series import Grid, Matrix, SeriesBlock

ROWS_AT_ONCE = 4_096


def _times(grid: Grid) -> range:
    return range(grid.start_s, grid.end_s, grid.step_s)


def write_dygraph(blocks: Sequence[SeriesBlock], look: Look) -> Iterator[bytes]:
    rows = [row for block in blocks for row in block.rows()]
    if not rows:
        yield b"{}"
        return
    times = _times(rows[0][1])
    for label, _, values in rows:
        if len(values) != len(times):
            raise BadRequest(
                f"format: dygraph needs series of equal length: {label.name} has {len(values)} "
                f"points, the first series' range has {len(times)}"
            )
    labels = dump_json(["Time", *(label.name for label, _, _ in rows)])
    yield b'{"labels" : ' + labels + b', "data" : ['
    for first in range(0, len(times), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        matrix = np.stack([values[part] for _, _, values in rows], axis=1)
        yield (b", " if first else b"") + _dygraph_rows(times[part], matrix)
    yield b"]}"


def _dygraph_rows(times: range, matrix: Matrix) -> bytes:
    texts = orjson.dumps(matrix, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
    return b", ".join(
        b"[%d000, %b]" % pair for pair in zip(times, (text for text in texts), strict=True)
    )


def write_rickshaw(blocks: Sequence[SeriesBlock], look: Look) -> Iterator[bytes]:
    if look.pretty:
        yield from prettied(write_rickshaw(blocks, Look()))
        return
    points = Points(b'{"x":', b',"y":%b}')
    before = b"["
    for block in blocks:
        for label, grid, values in block.rows():
            times = _times(grid)[: len(values)]
            text = points.text(times, values[: len(times)])
            yield b'%b{"target":%b,"datapoints":[%b]}' % (before, dump_json(label.name), text)
            before = b","
    yield b"]" if before == b"," else b"[]"
