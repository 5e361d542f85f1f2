"""Connections share the open files that the system gives; the server's own are kept back."""

from __future__ import annotations

import pytest

from tgres_py.places import OWN_FILES, Places, places


def test_enough_files_are_enough() -> None:
    asked = Places(5_000, 2_000, 7_000 + OWN_FILES)
    assert asked.missing == 0
    assert places(asked) == asked


@pytest.mark.parametrize(
    ("files", "tcp", "http"),
    [(7_127, 5_000, 1_999), (4_096, 2_976, 992), (1_024, 672, 224), (256, 96, 32), (64, 24, 8), (2, 1, 1)],
)  # fmt: skip
def test_too_few_are_shared(files: int, tcp: int, http: int) -> None:
    asked = Places(5_000, 2_000, files)
    assert asked.missing == 7_000 + OWN_FILES - files
    assert places(asked) == Places(tcp, http, files)


def test_what_is_not_asked_for_is_left_to_the_other() -> None:
    assert places(Places(100_000, 10, 1_128)) == Places(990, 10, 1_128)
    assert places(Places(10, 100_000, 1_128)) == Places(10, 990, 1_128)
