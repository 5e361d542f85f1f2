"""How hard the fuzz tests try.

In a normal run each tries the same examples every time, so that a run never fails by chance; with
``FUZZ_TIMES=n`` n times as many, the same ones every time, too. With ``TGRES_FUZZ_SECONDS=n`` each goes on with
new ones for about n seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings

CORPUS = Path(__file__).parent / "corpus"
ROUND = 100  # examples between two looks at the clock


def fuzz_seconds() -> float:
    """Of each fuzz test; 0: the normal run."""
    return float(os.environ.get("TGRES_FUZZ_SECONDS", "0"))


def fuzz_times(usual: int) -> int:
    """How many examples: the usual number, or some times as many."""
    return usual * int(os.environ.get("FUZZ_TIMES", "1"))


def fuzz(
    run: Callable[[settings], None], examples: int, steps: int = 50, share: float = 1.0
) -> None:
    """Calls ``run`` with the settings of one round: ``examples`` of them, or rounds while there is time.

    ``share``: of that time, for a test of which there are many.
    """
    quiet = settings(
        deadline=None,
        suppress_health_check=list(HealthCheck),
        stateful_step_count=steps,
        print_blob=True,
    )
    until = time.monotonic() + fuzz_seconds() * share
    if not fuzz_seconds():
        usual = fuzz_times(examples)
        run(settings(quiet, max_examples=usual, derandomize=True, database=None))
    while time.monotonic() < until:
        run(settings(quiet, max_examples=min(examples, ROUND)))


def corpus(name: str) -> list[bytes]:
    """Inputs that once were answered wrongly, or well might be: one each line, Python's escapes for bytes, ``#`` comments."""
    lines = (CORPUS / f"{name}.txt").read_text().splitlines()
    return [from_escapes(line) for line in lines if line and not line.startswith("#")]


def from_escapes(line: str) -> bytes:
    """``a\\x00b\\n`` as bytes: Python's escapes, Latin-1."""
    return line.encode("latin-1").decode("unicode_escape").encode("latin-1")
