"""The entry of atheris works: it runs from the seeds, guided by coverage, and tells what fails as a line of the corpus."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import entries

pytest.importorskip("atheris", reason="pip install atheris")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run_atheris", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.slow  # instrumenting takes some seconds
def test_it_runs_from_the_seeds(tmp_path: Path) -> None:
    done = run("peer_find", "20", f"-corpus={tmp_path}", "-runs=200")
    assert done.returncode == 0, done.stderr
    assert "Done 200 runs" in done.stderr
    assert list(tmp_path.iterdir())
    unknown = run("nothing")
    assert unknown.returncode != 0
    assert all(entry in unknown.stderr for entry in entries.ENTRIES)
