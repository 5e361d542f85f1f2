"""Bytes of numpy's arrays, exactly: what is made after ``count_arrays`` and is there yet, views not counted twice.

numpy keeps its allocator in the context of the code that runs, so ``count_arrays`` holds for the context that calls it
and for all that is started from there (tasks, asyncio.to_thread); a thread of one's own calls it, too. An array goes back
to the allocator that made it, wherever that happens, so nothing is lost. Without the native kernel nothing is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tgres_py.kernels import NATIVE


def _nothing() -> None:
    pass


def _unknown() -> int | None:
    return None


if TYPE_CHECKING or not NATIVE:
    count_arrays, array_bytes = _nothing, _unknown
else:
    try:
        from tgres_py.kernels._arrays import array_bytes, count_arrays
    except ImportError:
        count_arrays, array_bytes = _nothing, _unknown

__all__ = ["array_bytes", "count_arrays"]
