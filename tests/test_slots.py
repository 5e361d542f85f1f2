"""Slot arithmetic, and the read window against whisper's fetch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st

from tgres_py.errors import BadRequest
from tgres_py.model.retention import Archive, make_bundle, parse_retention
from tgres_py.model.slots import (
    align_in,
    align_out,
    choose_window,
    chunk_n,
    chunk_start_s,
    chunk_starts_s,
    slot_in_chunk,
    slot_of,
    slot_start_s,
)

NOW = 1_700_000_003
ARCHIVE = Archive(step_s=10, size=100, width=24)  # 6 chunks


def test_one_time():
    slot = slot_of(NOW, 10)
    assert slot == 170_000_000
    assert slot_start_s(slot, 10) == 1_700_000_000
    assert chunk_n(slot, ARCHIVE) == 170_000_000 // 24 % 6
    assert chunk_start_s(slot, ARCHIVE) == 170_000_000 // 24 * 240
    assert slot_in_chunk(slot, ARCHIVE) == 170_000_000 % 24


@given(st.lists(st.integers(0, 2**33), min_size=1))
def test_arrays_equal_single_numbers(times):
    slots = slot_of(np.array(times, np.int64), 10)
    for function in (chunk_n, chunk_start_s, slot_in_chunk):
        assert function(slots, ARCHIVE).tolist() == [function(t // 10, ARCHIVE) for t in times]


@given(st.integers(0, 2**33), st.integers(1, 400))
def test_a_chunk_and_its_next_lap(slot, offset):
    start_s = chunk_start_s(slot, ARCHIVE)
    assert start_s + slot_in_chunk(slot, ARCHIVE) * 10 == slot * 10
    lap = ARCHIVE.chunks * ARCHIVE.width
    assert chunk_n(slot + lap, ARCHIVE) == chunk_n(slot, ARCHIVE)
    assert chunk_start_s(slot + lap, ARCHIVE) > start_s
    same_place = chunk_n(slot + offset, ARCHIVE) == chunk_n(slot, ARCHIVE)
    if offset < ARCHIVE.size and same_place:  # both in reach: never on different laps of one row
        assert chunk_start_s(slot + offset, ARCHIVE) == start_s


def test_chunk_starts():
    assert chunk_starts_s(0, 24, ARCHIVE).tolist() == [0]
    assert chunk_starts_s(23, 25, ARCHIVE).tolist() == [0, 240]
    assert chunk_starts_s(24, 24, ARCHIVE).tolist() == []
    assert chunk_starts_s(48, 97, ARCHIVE).tolist() == [480, 720, 960]
    assert chunk_starts_s(0, 24, ARCHIVE).dtype == np.int64


def test_alignment():
    assert align_out(7, 13, 6) == (6, 18)
    assert align_out(6, 12, 6) == (6, 12)
    assert align_in(7, 19, 6) == (12, 18)
    assert align_in(6, 12, 6) == (6, 12)
    assert align_in(7, 11, 6) == (12, 12)


RETENTIONS = ["10s:1m,1m:5m,5m:30m", "60s:7", "1s:10,5s:10", "7s:70,21s:70"]


@given(
    st.sampled_from(RETENTIONS),
    st.integers(-700, 2_500),
    st.integers(-700, 2_500),
    st.integers(0, 700),
)
@settings(max_examples=300, deadline=None)
def test_window_is_whispers(text, from_age_s, until_age_s, offset_s):
    now_s = NOW + offset_s
    from_s, until_s = sorted((now_s - from_age_s, now_s - until_age_s))
    archives = make_bundle(parse_retention(text)).archives
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "a.wsp")
        whisper.create(path, list(parse_retention(text)), sparse=True)
        expected = whisper.fetch(path, from_s, until_s, now_s)
    window = choose_window(archives, from_s, until_s, now_s)
    if expected is None:
        assert window is None
    else:
        start_s, end_s, step_s = expected[0]
        assert window is not None
        assert archives[window.archive].step_s == step_s
        assert (window.from_slot * step_s, window.until_slot * step_s) == (start_s, end_s)


def test_window_examples():
    archives = make_bundle(parse_retention("10s:1m,1m:1h")).archives
    assert choose_window(archives, NOW - 60, NOW, NOW) == (0, NOW // 10 - 5, NOW // 10 + 1)
    assert choose_window(archives, NOW - 61, NOW, NOW) == (1, NOW // 60, NOW // 60 + 1)
    assert choose_window(archives, NOW + 1, NOW + 9, NOW) is None
    assert choose_window(archives, NOW - 9000, NOW - 3601, NOW) is None
    with pytest.raises(BadRequest, match="later than until"):
        choose_window(archives, NOW, NOW - 1, NOW)
