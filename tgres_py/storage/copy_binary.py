"""PostgreSQL's binary COPY stream and array cells, built and read by numpy. FORMAT.md draws the bytes.

    stream := signature "PGCOPY\\n\\xff\\r\\n\\0"  flags int32 = 0  extension int32 = 0  row*  int16 = -1
    row    := fields int16  (length int32  bytes)*                            all big endian
    float8[] := ndim int32 = 1  has_null int32 = 0  oid int32 = 701  width int32  lower int32 = 1
                (length int32 = 8  float64)*width

A chunk costs no Python object: the rows are one structured array, filled column by column
(0.008 CPU-s per million points); rows of new series are a kernel's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgres_py.kernels import series_rows
from tgres_py.storage.port import ChunkRows

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)

FLOAT8_OID = 701
ARRAY_HEADER_BYTES = 20
PIECE_BYTES = 1 << 20


@lru_cache(maxsize=64)
def _cell_dtype(width: int) -> np.dtype[Any]:
    """A ``float8[]`` of ``width`` elements without NULLs."""
    return np.dtype(
        [
            ("ndim", ">i4"),
            ("has_null", ">i4"),
            ("oid", ">i4"),
            ("width", ">i4"),
            ("lower", ">i4"),
            ("dp", [("length", ">i4"), ("value", ">f8")], (width,)),
        ]
    )


@lru_cache(maxsize=64)
def _row_dtype(width: int) -> np.dtype[Any]:
    """A row of ``ts``: rrd_id, archive, n, start_s, dp."""
    fields: list[tuple[str, Any]] = [("fields", ">i2")]
    for name, type_ in (("rrd_id", ">i8"), ("archive", ">i2"), ("n", ">i4"), ("start_s", ">i8")):
        fields += [(f"{name}_length", ">i4"), (name, type_)]
    return np.dtype([*fields, ("cell_length", ">i4"), ("cell", _cell_dtype(width))])


def chunk_pieces(rows: ChunkRows, order: NDArray[np.intp]) -> Iterator[bytes]:
    """The COPY rows of ``rows[order]``, about a MiB at a time, without header and trailer."""
    width = rows.dp.shape[1]
    dtype = _row_dtype(width)
    step = max(1, PIECE_BYTES // dtype.itemsize)
    piece = np.zeros(min(step, len(order)), dtype)
    _fill_constants(piece, rows.archive, width)
    for first in range(0, len(order), step):
        take = order[first : first + step]
        part = piece[: len(take)]
        part["rrd_id"] = rows.rrd_id[take]
        part["n"] = rows.n[take]
        part["start_s"] = rows.start_s[take]
        part["cell"]["dp"]["value"] = rows.dp[take]
        yield part.tobytes()


def _fill_constants(piece: NDArray[Any], archive: int, width: int) -> None:
    dtype = piece.dtype
    piece["fields"] = 5
    for name in ("rrd_id", "archive", "n", "start_s", "cell"):
        piece[f"{name}_length"] = dtype[name].itemsize
    piece["archive"] = archive
    cell = piece["cell"]
    cell["ndim"] = 1
    cell["oid"] = FLOAT8_OID
    cell["width"] = width
    cell["lower"] = 1
    cell["dp"]["length"] = 8


def parse_cells(
    cells: Sequence[bytes], width: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What ``array_send(dp)`` gave: float64 (k, width) of the cells that have ``width`` elements,
    and bool (len(cells),) telling which those are (a row of an older layout is left out)."""
    dtype = _cell_dtype(width)
    fits = np.fromiter((len(cell) for cell in cells), np.int64, len(cells)) == dtype.itemsize
    joined = b"".join(cells if fits.all() else [c for c, ok in zip(cells, fits, strict=True) if ok])
    values = np.frombuffer(joined, dtype)["dp"]["value"]
    return values.astype(np.float64), fits


def int64_cell(cell: bytes) -> NDArray[np.int64]:
    """A ``bigint[]`` without NULLs as int64 (k,)."""
    dtype = np.dtype([("length", ">i4"), ("value", ">i8")])
    return np.frombuffer(cell, dtype, offset=ARRAY_HEADER_BYTES)["value"].astype(np.int64)


def series_pieces(
    rrd_ids: NDArray[np.int64],
    names: list[str],
    tags: list[bytes | None],
    bundle_ids: NDArray[np.int32],
    rows_per_piece: int = 4_096,
) -> Iterator[bytes]:
    """COPY rows (id bigint, name text, tags jsonb, bundle_id bigint), without header and trailer.

    ``tags``: JSON text, or None for NULL.
    """
    for first in range(0, len(names), rows_per_piece):
        part = slice(first, first + rows_per_piece)
        yield series_rows(rrd_ids[part], names[part], tags[part], bundle_ids[part])
