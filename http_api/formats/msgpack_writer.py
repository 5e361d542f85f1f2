"""MessagePack, written only: what carbonapi and graphite-web read from their backends.

    dumps({"start": 5, "values": np.array([1.5, nan])})

Knows None, bool, int, float, str, lists, tuples, dicts and float64 arrays, which become arrays of
float64 with nil for NaN (carbonapi takes no other kind of number). Source: the MessagePack
specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import msgpack
import numpy as np

from http_api.formats.packed_floats import pack_floats

_NIL, _FALSE, _TRUE = b"\xc0", b"\xc2", b"\xc3"
_FLOAT64 = b"\xcb"
_UNSIGNED = (
    (1 << 8, ">BB", 0xCC),
    (1 << 16, ">BH", 0xCD),
    (1 << 32, ">BI", 0xCE),
    (1 << 64, ">BQ", 0xCF),
)
_SIGNED = (
    (1 << 7, ">Bb", 0xD0),
    (1 << 15, ">Bh", 0xD1),
    (1 << 31, ">Bi", 0xD2),
    (1 << 63, ">Bq", 0xD3),
)


def dumps(data: Any) -> bytes:
    """TypeError: a type that isn't listed above; OverflowError: an int of more than 64 bits."""
    out: list[bytes] = []
    _write(data, out)
    return b"".join(out)


def _write(data: Any, out: list[bytes]) -> None:
    if data is None:
        out.append(_NIL)
    elif isinstance(data, bool):
        out.append(_TRUE if data else _FALSE)
    elif isinstance(data, int):
        out.append(_int(data))
    elif isinstance(data, float):
        out.append(_FLOAT64 + struct.pack(">d", data))
    elif isinstance(data, str):
        out.append(_str(data.encode("utf-8", "replace")))
    elif isinstance(data, np.ndarray) and data.dtype == np.float64 and data.ndim == 1:
        out.append(array_head(len(data)))
        out.append(pack_floats(data, _FLOAT64, _NIL))
    elif isinstance(data, list | tuple):
        out.append(array_head(len(data)))
        for item in data:
            _write(item, out)
    elif isinstance(data, dict):
        out.append(_head(len(data), 0x80, 0xDE, 0xDF))
        for key, value in data.items():
            _write(key, out)
            _write(value, out)
    else:
        raise TypeError(f"{type(data).__name__} isn't written as msgpack")


def dump_list(items: Iterable[Any], count: int) -> Iterator[bytes]:
    """The pieces of a list of ``count`` items, one for each item; of all types but arrays, as ``dumps`` writes them."""
    yield array_head(count)
    yield from map(msgpack.Packer(unicode_errors="replace").pack, items)


def array_head(length: int) -> bytes:
    return _head(length, 0x90, 0xDC, 0xDD)


def _head(length: int, small: int, tag16: int, tag32: int) -> bytes:
    if length < 16:
        return bytes((small | length,))
    return (
        struct.pack(">BH", tag16, length) if length < 1 << 16 else struct.pack(">BI", tag32, length)
    )


def _int(number: int) -> bytes:
    if -32 <= number < 128:
        return struct.pack(">b", number)
    for limit, layout, tag in _UNSIGNED if number >= 0 else _SIGNED:
        if -limit <= number < limit:
            return struct.pack(layout, tag, number)
    raise OverflowError(f"{number} has more than 64 bits")


def _str(text: bytes) -> bytes:
    length = len(text)
    if length < 32:
        return bytes((0xA0 | length,)) + text
    if length < 1 << 8:
        return struct.pack(">BB", 0xD9, length) + text
    if length < 1 << 16:
        return struct.pack(">BH", 0xDA, length) + text
    return struct.pack(">BI", 0xDB, length) + text
