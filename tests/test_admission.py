"""Turns of queries: a queue with an end, and none at all while memory is short."""

from __future__ import annotations

import asyncio

import pytest

from http_api.admission import Admission
from tgres_py.errors import Overloaded


async def test_who_finds_the_queue_full_is_refused() -> None:
    admission = Admission(1, 0)
    async with admission.turn():
        with pytest.raises(Overloaded, match="query_queue_max"):
            async with admission.turn():
                pass
    async with admission.turn():
        pass


async def test_while_memory_is_short_there_is_no_turn_and_who_has_one_keeps_it() -> None:
    short = False
    admission = Admission(1, 5, lambda: short)
    async with admission.turn():
        waiting = asyncio.create_task(admission.turn().__aenter__())
        await asyncio.sleep(0)
        short = True
        with pytest.raises(Overloaded, match="memory_max"):
            async with admission.turn():
                pass
    await waiting
    short = False
