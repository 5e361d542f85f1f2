"""Frames of carbon's pickle stream: points read natively (``_pickle.pyx``), or, without it, frames cut only.

    stream = { frame }
    frame  = length:uint32 big-endian, pickle of `length` bytes

Both give the frames that they don't read to the caller, who knows all the rules; the cutter gives all.
"""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from tgres_py.kernels import NATIVE
from tgres_py.model.points import Times, Values

LENGTH_BYTES = 4

Data = bytes | bytearray | memoryview
Starts = NDArray[np.int64]
Sizes = NDArray[np.int32]
# starts and sizes of the names in the data, times, values, odd frames (position, start, end), bytes used
FrameColumns = tuple[Starts, Sizes, Times, Values, list[tuple[int, int, int]], int]

_length = struct.Struct(">I").unpack_from


def cut_frames(data: Data, now_s: int, frame_bytes_max: int) -> FrameColumns:
    """The complete frames at the beginning of ``data``, all of them odd: no columns, positions 0.

    ``used``: bytes up to the end of the last complete frame, or to one longer than ``frame_bytes_max``.
    """
    odd = []
    at, end = 0, len(data)
    while end - at >= LENGTH_BYTES:
        size = _length(data, at)[0]
        if size > frame_bytes_max or size > end - at - LENGTH_BYTES:
            break
        at += LENGTH_BYTES
        odd.append((0, at, at + size))
        at += size
    none = np.empty(0, np.int64)
    return none, np.empty(0, np.int32), none, np.empty(0), odd, at


read_frames = cut_frames
if NATIVE:
    with suppress(ImportError):
        from tgres_py.kernels._pickle import read_frames as read_frames_native

        read_frames = read_frames_native
