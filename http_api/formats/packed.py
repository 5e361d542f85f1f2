"""format=pickle and format=msgpack: a list with one dict for each series, as cluster fronts read it.

Keys as graphite-web's: name, start, end (exclusive), step, values, pathExpression, valuesPerPoint,
consolidationFunc, xFilesFactor. Values are floats or None/nil, infinities included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from http_api.formats import msgpack_writer, pickle_writer
from http_api.formats.look import Look
from tgres_py.functions.series import Grid, Label, Matrix, SeriesBlock


def _info(label: Label, grid: Grid, values: Matrix) -> dict[str, Any]:
    return {
        "name": label.name,
        "start": grid.start_s,
        "end": grid.end_s,
        "step": grid.step_s,
        "values": values,
        "pathExpression": label.path_expression,
        "valuesPerPoint": 1,
        "consolidationFunc": label.cf,
        "xFilesFactor": label.xff,
    }


def write_pickle(blocks: Sequence[SeriesBlock], look: Look) -> Iterator[bytes]:
    yield from pickle_writer.dump_list(_info(*row) for block in blocks for row in block.rows())


def write_msgpack(blocks: Sequence[SeriesBlock], look: Look) -> Iterator[bytes]:
    yield msgpack_writer.array_head(sum(map(len, blocks)))
    for block in blocks:
        for row in block.rows():
            yield msgpack_writer.dumps(_info(*row))
