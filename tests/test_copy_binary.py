"""The bytes of binary COPY, against a slow plain reader written from PostgreSQL's protocol pages."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tgres_py.storage import copy_binary
from tgres_py.storage.port import ChunkRows


def rows_of(stream: bytes) -> Iterator[list[bytes | None]]:
    """Fields of each row of a COPY stream without header and trailer."""
    at = 0
    while at < len(stream):
        (count,) = struct.unpack_from(">h", stream, at)
        at += 2
        fields: list[bytes | None] = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", stream, at)
            at += 4
            fields.append(None if length < 0 else stream[at : at + length])
            at += max(length, 0)
        yield fields


def array_bytes(values: list[float]) -> bytes:
    """A ``float8[]`` as PostgreSQL sends it."""
    head = struct.pack(">iiiii", 1, 0, 701, len(values), 1)
    return head + b"".join(struct.pack(">id", 8, value) for value in values)


def chunk_rows(dp: np.ndarray, archive: int = 2) -> ChunkRows:
    count = len(dp)
    return ChunkRows(
        archive,
        np.arange(count, dtype=np.int64) + (1 << 40),
        np.arange(count, dtype=np.int32)[::-1].copy(),
        np.arange(count, dtype=np.int64) * 4_800,
        dp,
    )


floats = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 9), st.integers(1, 20)),
    elements=st.floats(width=64, allow_nan=True),
)


@given(dp=floats, seed=st.integers(0, 1_000))
def test_chunk_rows_are_what_postgresql_expects(dp: np.ndarray, seed: int) -> None:
    rows = chunk_rows(dp)
    order = np.random.default_rng(seed).permutation(len(rows))
    stream = b"".join(copy_binary.chunk_pieces(rows, order))
    expected = [
        [
            struct.pack(">q", rows.rrd_id[i]),
            struct.pack(">h", 2),
            struct.pack(">i", rows.n[i]),
            struct.pack(">q", rows.start_s[i]),
            array_bytes(dp[i].tolist()),
        ]
        for i in order
    ]
    assert list(rows_of(stream)) == expected


def test_pieces_stay_small_and_lose_nothing() -> None:
    rows = chunk_rows(np.arange(1_000 * 480, dtype=np.float64).reshape(1_000, 480))
    pieces = list(copy_binary.chunk_pieces(rows, np.arange(1_000)))
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= copy_binary.PIECE_BYTES
    cells = [fields[4] for fields in rows_of(b"".join(pieces))]
    values, fits = copy_binary.parse_cells(cells, 480)
    assert fits.all()
    assert np.array_equal(values, rows.dp)


@given(dp=floats)
def test_cells_are_read_back(dp: np.ndarray) -> None:
    values, fits = copy_binary.parse_cells([array_bytes(row.tolist()) for row in dp], dp.shape[1])
    assert fits.all()
    assert values.dtype == np.float64
    assert np.array_equal(values, dp, equal_nan=True)


def test_cells_of_another_width_are_left_out() -> None:
    cells = [array_bytes([1, 2]), array_bytes([9, 9, 9]), array_bytes([3, 4]), array_bytes([])]
    values, fits = copy_binary.parse_cells(cells, 2)
    assert fits.tolist() == [True, False, True, False]
    assert values.tolist() == [[1, 2], [3, 4]]


def test_no_cells() -> None:
    values, fits = copy_binary.parse_cells([], 7)
    assert (values.shape, fits.shape) == ((0, 7), (0,))


def test_bigint_array() -> None:
    values = [1, -1, 1 << 62]
    cell = struct.pack(">iiiii", 1, 0, 20, 3, 1) + b"".join(
        struct.pack(">iq", 8, v) for v in values
    )
    assert copy_binary.int64_cell(cell).tolist() == values


@pytest.mark.parametrize("rows_per_piece", [1, 2, 100])
def test_series_rows(rows_per_piece: int) -> None:
    names = ["a.b", "größe", "x;t=1", "y"]
    tags = [None, None, b'{"t":"1"}', None]
    pieces = copy_binary.series_pieces(
        np.array([5, 6, 7, 1 << 40]), names, tags, np.array([1, 2, 3, 4], np.int32), rows_per_piece
    )
    assert list(rows_of(b"".join(pieces))) == [
        [
            struct.pack(">q", rrd_id),
            name.encode(),
            None if tag is None else b"\1" + tag,
            struct.pack(">q", bundle_id),
        ]
        for rrd_id, name, tag, bundle_id in zip(
            [5, 6, 7, 1 << 40], names, tags, [1, 2, 3, 4], strict=True
        )
    ]


def test_series_rows_come_in_pieces() -> None:
    names = [f"n{i}" for i in range(10)]
    ids = np.arange(10)
    pieces = list(
        copy_binary.series_pieces(ids, names, [None] * 10, ids.astype(np.int32), 3)
    )
    assert [len(list(rows_of(piece))) for piece in pieces] == [3, 3, 3, 1]
