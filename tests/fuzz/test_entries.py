"""Everything that reads bytes from outside gets sound inputs with small damages: see ``entries``."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from tests.fuzz.effort import fuzz_seconds, fuzz_times
from tests.fuzz.entries import ENTRIES
from tests.fuzz.mutate import mutations
from tests.fuzz.seeds import seeds

MUTATIONS = 150
SEED = 1
BYTES_MAX = 64 << 20  # for an input of some kB
SECONDS_MAX = 5.0


def holds(entry: str, data: bytes) -> None:
    began_s = time.process_time()
    try:
        ENTRIES[entry](data)
    except BaseException as error:
        escaped = data.decode("latin-1").encode("unicode_escape").decode()
        error.add_note(f"entry {entry}; a line for tests/fuzz/corpus/{entry}.txt:\n{escaped}")
        raise
    assert time.process_time() - began_s < SECONDS_MAX, (entry, data)


@pytest.mark.parametrize("entry", ENTRIES)
def test_sound_inputs_and_the_corpus(entry: str) -> None:
    for data in seeds(entry):
        holds(entry, data)
    holds(entry, b"")


@pytest.mark.parametrize("entry", ENTRIES)
def test_damaged_inputs(entry: str) -> None:
    inputs = seeds(entry)
    for data in mutations(inputs, SEED, fuzz_times(MUTATIONS)):
        holds(entry, data)
    until_s, seed = time.monotonic() + fuzz_seconds(), time.time_ns()
    while time.monotonic() < until_s:
        seed += 1
        for data in mutations(inputs, seed, MUTATIONS):
            holds(entry, data)


@pytest.mark.parametrize("entry", ENTRIES)
def test_damaged_inputs_take_little_memory(entry: str) -> None:
    """Lengths in the bytes are promises that nobody needs to keep: no room is made for them."""
    inputs = seeds(entry)
    ENTRIES[entry](inputs[0])
    tracemalloc.start()
    try:
        for data in mutations(inputs, SEED, MUTATIONS // 5):
            holds(entry, data)
        assert tracemalloc.get_traced_memory()[1] < BYTES_MAX
    finally:
        tracemalloc.stop()
