"""The soak's own code, for some seconds; the soak itself is ``python -m tests.soak``."""

from __future__ import annotations

from pathlib import Path

from tests.soak.run import Soak


def test_a_short_soak(tmp_path: Path) -> None:
    said: list[str] = []
    soak = Soak(tmp_path, 500, said.append)
    try:
        watch = soak.run(12, every_s=4)
    finally:
        soak.close()
    assert len(watch.samples) in (3, 4), "a machine that stalls may be late for one"
    last = watch.samples[-1]
    assert last.memory_mb > 20 and last.fds > 10 and last.points > 5_000 and last.series > 1_000
    assert soak.load.removed
    assert "readable" in said[-2] and "render" in said[-2]
