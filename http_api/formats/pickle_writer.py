"""Pickle, written only: what graphite-web reads from its cluster servers.

    dumps({"start": 5, "values": np.array([1.5, nan])})  ->  PROTO 2, a dict with an int and the list [1.5, None]

Protocol 2, the highest that a graphite-web on Python 2 reads too. Knows None, bool, int, float, str,
bytes-free containers (dict, list, tuple) and float64 arrays, which become lists with None for NaN.
Opcodes: Python's documentation of pickletools. Nothing is ever read: reading pickles runs code.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from http_api.formats.packed_floats import pack_floats

_PROTO_2 = b"\x80\x02"
_STOP = b"."
_MARK = b"("
_EMPTY_LIST, _APPENDS = b"]", b"e"
_EMPTY_DICT, _SETITEMS = b"}", b"u"
_TUPLE = b"t"
_NONE, _TRUE, _FALSE = b"N", b"\x88", b"\x89"
_BININT, _LONG1, _LONG4 = b"J", b"\x8a", b"\x8b"
_BINFLOAT = b"G"
_BINUNICODE = b"X"


def dumps(data: Any) -> bytes:
    """TypeError: a type that isn't listed above."""
    out = [_PROTO_2]
    _write(data, out)
    out.append(_STOP)
    return b"".join(out)


def dump_list(items: Iterable[Any], count: int | None = None) -> Iterator[bytes]:
    """The pieces of a pickled list, one for each item. ``count``: of the items; nobody needs to know."""
    yield _PROTO_2 + _EMPTY_LIST + _MARK
    for item in items:
        out: list[bytes] = []
        _write(item, out)
        yield b"".join(out)
    yield _APPENDS + _STOP


def _write(data: Any, out: list[bytes]) -> None:
    if data is None:
        out.append(_NONE)
    elif isinstance(data, bool):
        out.append(_TRUE if data else _FALSE)
    elif isinstance(data, int):
        out.append(_int(data))
    elif isinstance(data, float):
        out.append(_BINFLOAT + struct.pack(">d", data))
    elif isinstance(data, str):
        text = data.encode("utf-8", "replace")
        out.append(_BINUNICODE + struct.pack("<I", len(text)) + text)
    elif isinstance(data, np.ndarray) and data.dtype == np.float64 and data.ndim == 1:
        out.append(_EMPTY_LIST + _MARK + pack_floats(data, _BINFLOAT, _NONE) + _APPENDS)
    elif isinstance(data, list):
        out.append(_EMPTY_LIST + _MARK)
        for item in data:
            _write(item, out)
        out.append(_APPENDS)
    elif isinstance(data, tuple):
        out.append(_MARK)
        for item in data:
            _write(item, out)
        out.append(_TUPLE)
    elif isinstance(data, dict):
        out.append(_EMPTY_DICT + _MARK)
        for key, value in data.items():
            _write(key, out)
            _write(value, out)
        out.append(_SETITEMS)
    else:
        raise TypeError(f"{type(data).__name__} isn't written as pickle")


def _int(number: int) -> bytes:
    if -(1 << 31) <= number < 1 << 31:
        return _BININT + struct.pack("<i", number)
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    if len(data) < 256:
        return _LONG1 + bytes((len(data),)) + data
    return _LONG4 + struct.pack("<i", len(data)) + data
