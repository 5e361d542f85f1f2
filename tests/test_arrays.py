"""The exact count of numpy's bytes."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable

import numpy as np
import pytest

_arrays = pytest.importorskip(
    "tgres_py.kernels._arrays", reason="the extension isn't built: nothing is counted"
)


def counted(test: Callable[[], None]) -> int:
    """Runs it in a context of its own, counting; the bytes that are there afterwards and weren't before."""
    before = int(_arrays.array_bytes())

    def run() -> None:
        _arrays.count_arrays()
        test()

    contextvars.copy_context().run(run)
    return int(_arrays.array_bytes()) - before


def test_what_is_there_is_counted_and_what_is_gone_is_not() -> None:
    kept: list[object] = []

    def test() -> None:
        for array in (np.empty(1_000), np.zeros((10, 10), np.int32), np.ones(3, np.uint8)):
            kept.extend((array, array[1:]))
        np.arange(10_000)

    assert counted(test) == 8_000 + 400 + 3
    kept.clear()
    assert counted(lambda: None) == 0


def test_arrays_that_grow_and_shrink() -> None:
    kept: list[object] = []

    def test() -> None:
        kept.append(np.fromiter((i for i in range(1_000)), np.int64))  # made larger, then cut
        array = np.zeros(10)
        array.resize(500, refcheck=False)
        assert array.sum() == 0
        kept.append(array)

    assert counted(test) == 8_000 + 4_000
    held = int(_arrays.array_bytes())
    kept.clear()
    assert held - int(_arrays.array_bytes()) == 12_000


def test_arrays_are_freed_in_other_contexts_and_threads() -> None:
    kept: list[object] = []
    assert counted(lambda: kept.append(np.empty(123))) == 984
    held = int(_arrays.array_bytes())
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert held - int(_arrays.array_bytes()) == 984


async def test_tasks_and_their_threads_count_too() -> None:
    before = int(_arrays.array_bytes())

    async def work() -> list[object]:
        _arrays.count_arrays()
        return [await asyncio.to_thread(np.empty, 1_000), np.empty(10)]

    made = await asyncio.create_task(work())
    assert int(_arrays.array_bytes()) - before == 8_080
    del made


@pytest.mark.parametrize("shape", [0, (0, 5), 1, 1 << 20])
def test_any_size(shape: int | tuple[int, ...]) -> None:
    def test() -> None:
        array = np.zeros(shape, np.uint8)
        array[...] = 7
        assert (np.ascontiguousarray(array[::-1]) == 7).all()

    assert counted(test) == 0
