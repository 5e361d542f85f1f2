"""The parts of the memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgres_py.config import Settings
from tgres_py.memory import (
    MEMORY_MAX_LEAST,
    MIB,
    PROCESS_BYTES,
    memory_max_bytes,
    shares,
)
from tgres_py.server.doors import Doors


def test_without_a_setting_the_machine_decides() -> None:
    assert memory_max_bytes(0, 10_000 * MIB) == 6_000 * MIB
    assert memory_max_bytes(300 * MIB, 10_000 * MIB) == 300 * MIB
    assert memory_max_bytes(0, 64 * MIB) == MEMORY_MAX_LEAST


@pytest.mark.parametrize("total", [MEMORY_MAX_LEAST, 400 * MIB, 8 << 30, 1 << 40])
@pytest.mark.parametrize("chosen", [0, 10 * MIB])
@pytest.mark.parametrize("tls", [False, True])
def test_the_parts_fit_and_leave_something_free(total: int, chosen: int, tls: bool) -> None:
    parts = shares(total, chosen, tls)
    taken = PROCESS_BYTES + parts.tls + parts.cache + parts.index + parts.queries
    assert total - taken >= 0.09 * (total - PROCESS_BYTES - parts.tls)
    assert min(parts.cache, parts.index, parts.queries) > 0


def test_what_comes_in_follows_the_bound() -> None:
    small, large = shares(320 * MIB), shares(64 << 30)
    assert (small.requests, small.tails) == (5 * MIB, 10 * MIB)
    assert (large.requests, large.tails) == (1 << 30, 64 * MIB)


def test_encrypted_connections_have_a_share_where_there_are_any() -> None:
    without, small = shares(320 * MIB), shares(320 * MIB, tls=True)
    assert (without.tls, without.tls_connections) == (0, 0)
    assert (small.tls, small.tls_connections) == (20 * MIB, 256)
    assert small.cache < without.cache and small.queries < without.queries
    for listeners, expected in (((), 0), (("carbon",), 20 * MIB)):
        settings = Settings(memory_max=320 * MIB, tls_cert=Path("a.pem"), tls_listeners=listeners)
        assert settings.memory_shares().tls == expected


def test_the_largest_body_comes_in_whatever_the_bound() -> None:
    large = 64 * MIB
    settings = Settings(memory_max=320 * MIB, body_bytes_max=large)
    limits, _ = Doors(settings, settings.memory_shares()).gate()
    assert limits.bytes_max >= 2 * large  # a packed one is held twice


def test_a_chosen_cache_takes_from_the_others() -> None:
    usual, larger, smaller = shares(1 << 30), shares(1 << 30, 600 * MIB), shares(1 << 30, 100 * MIB)
    assert larger.cache == 600 * MIB
    assert larger.index < usual.index < smaller.index
    assert larger.queries < usual.queries < smaller.queries


def test_a_cache_that_leaves_hardly_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="too little"):
        shares(1 << 30, 900 * MIB)
