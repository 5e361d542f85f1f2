"""format=json: ``[{"target": name, "tags": {…}, "datapoints": [[value, epoch], …]}, …]``.

NaN and infinities are null (graphite-web writes 1e9999, on which Grafana's Go reader fails).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import orjson

from http_api.encoding import dump_json
from http_api.formats.look import Look
from http_api.formats.points import Points, numbers
from tgres_py.errors import LimitExceeded
from tgres_py.functions.series import UNNAMED, Grid, Label, Matrix, SeriesBlock


def encode(
    blocks: Sequence[SeriesBlock],
    no_null_points: bool = False,
    pretty: bool = False,
    bytes_max: int | None = None,
) -> bytes:
    """The answer's body. LimitExceeded when it would be longer than ``bytes_max``."""
    made = []
    size = 0
    for piece in write(blocks, Look(pretty, no_null_points)):
        size += len(piece)
        if bytes_max is not None and size > bytes_max:
            raise LimitExceeded("bytes of the response", size, bytes_max, "response_bytes_max")
        made.append(piece)
    return b"".join(made)


def write(blocks: Sequence[SeriesBlock], look: Look) -> Iterator[bytes]:
    """Pieces of the body, one for each series.

    ``no_null_points``: points that would be null are left out, and series without another one.
    When no series at all has a point the answer is ``[]`` (as graphite-web).
    """
    body = pieces(blocks, look.no_null_points)
    yield from prettied(body) if look.pretty else body


def prettied(pieces: Iterator[bytes], indent: bytes = b"") -> Iterator[bytes]:
    """The same list over many lines, each series by itself: as objects its points take far more memory than as text."""
    before = b"["
    for piece in pieces:
        series = piece[1:]  # "[" or "," is before it
        if not series or series == b"]":  # the end, or nothing at all
            continue
        text = dump_json(orjson.loads(series), pretty=True)
        yield before + b"\n" + indent + b"  " + text.replace(b"\n", b"\n" + indent + b"  ")
        before = b","
    yield b"[]" if before == b"[" else b"\n" + indent + b"]"


def pieces(
    blocks: Sequence[SeriesBlock], no_null_points: bool, extras: Iterator[bytes] | None = None
) -> Iterator[bytes]:
    """``extras``: more members of each series' object, each after a comma."""
    if not any(part.values.size for block in blocks for part in block.parts):
        yield b"[]"
        return
    points = Points(b"[%b,", b"]")
    before = b"["
    for block in blocks:
        for label, grid, values in block.rows():
            values = values[: len(_times(grid))]
            extra = next(extras) if extras else b""
            if no_null_points and not np.isfinite(values).any():
                continue
            text = (
                _known_points(grid, values) if no_null_points else points.text(_times(grid), values)
            )
            yield b'%b{"target":%b,"tags":%b,"datapoints":[%b]%b}' % (
                before,
                *_named(label),
                text,
                extra,
            )
            before = b","
    yield b"]" if before == b"," else b"[]"


def _named(label: Label) -> tuple[bytes, bytes]:
    is_unnamed = label.name == UNNAMED and "unnamed" in label.options
    return dump_json(None if is_unnamed else label.name), dump_json(label.tags)


def _times(grid: Grid) -> range:
    """The times that a series may have: ``end_s`` itself is still one (as graphite-web)."""
    return range(grid.start_s, grid.end_s + 1, grid.step_s)


def _known_points(grid: Grid, values: Matrix) -> bytes:
    places = np.flatnonzero(np.isfinite(values))
    texts = numbers(values[places]).split(b",")
    times = (grid.start_s + grid.step_s * places).tolist()
    pairs = (b"[%b,%d]" % pair for pair in zip(texts, times, strict=True))
    return b",".join(pairs)
