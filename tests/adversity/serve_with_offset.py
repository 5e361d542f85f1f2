"""``tgres serve`` whose wall clock a test sets: the seconds to add are in the file ``clock`` of its directory."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

from tgres_py import clock
from tgres_py.cli.main import main

OFFSET = struct.Struct("=d")


def set_offset(folder: Path, seconds: float) -> None:
    """For the server that runs, or will run, in this directory."""
    with (folder / "clock").open("r+b" if (folder / "clock").exists() else "w+b") as file:
        file.write(OFFSET.pack(seconds))


def run() -> None:
    with Path("clock").open("rb") as file:
        seconds = mmap.mmap(file.fileno(), OFFSET.size, access=mmap.ACCESS_READ)
    clock.replace_source(lambda: time.time() + OFFSET.unpack_from(seconds)[0])
    main()


if __name__ == "__main__":
    run()
