"""A disk that a test can fill up: a tmpfs, where one can be mounted."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Callable[[bool], None]]:
    """A tmpfs at ``folder``; the function fills it up, or makes room again. Skips where it can't be mounted."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    ballast = folder / "ballast"

    def fill(full: bool) -> None:
        if not full:
            ballast.unlink()
            return
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4_096))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    try:
        yield fill
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
