"""Which whisper files there are below a folder, and which series they are."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tgres_py.migrate.names import SUFFIX, name_of_path
from tgres_py.model.ident import NAME_BYTES_MAX, NameRefused


class Found(NamedTuple):
    """``path``: relative to the root, with ``/`` between folders."""

    path: str
    name: str
    size: int
    mtime_ns: int


class LeftOut(NamedTuple):
    """A file that is not imported, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class Listing:
    """``files``: in order of their paths."""

    files: list[Found] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def list_files(root: Path, prefix: str = "", name_bytes_max: int = NAME_BYTES_MAX) -> Listing:
    """All files ``*.wsp`` below ``root``. Links are followed, each folder once.

    Of files that mean the same series the first one counts; the others are left out, as are names that no
    series can have.
    """
    listing = Listing()
    paths: dict[str, str] = {}
    for path, entry in _walk(root, listing.left_out):
        try:
            name = name_of_path(path, prefix, name_bytes_max)
            status = entry.stat()
        except (NameRefused, OSError) as error:
            listing.left_out.append(LeftOut(path, _reason(error)))
            continue
        if not stat.S_ISREG(status.st_mode):
            listing.left_out.append(LeftOut(path, "it is no file"))  # a pipe would hold the import up
            continue
        other = paths.setdefault(name, path)
        if other is not path:
            listing.left_out.append(LeftOut(path, f"it is the same series as {other}: {name}"))
            continue
        listing.files.append(Found(path, name, status.st_size, status.st_mtime_ns))
    return listing


def batches(files: Sequence[Found], most: int) -> Iterator[list[Found]]:
    """The files in parts of at most ``most``."""
    for first in range(0, len(files), most):
        yield list(files[first : first + most])


def _walk(root: Path, left_out: list[LeftOut]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Whisper files with their relative paths, in order."""
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(root / folder)
            if (status.st_dev, status.st_ino) in seen:
                left_out.append(LeftOut(folder, "this folder was met before: a link goes round"))
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            left_out.append(LeftOut(folder or ".", _reason(error)))
            continue
        folders = []
        for entry in ordered:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                folders.append(path)
            elif entry.name.endswith(SUFFIX):
                yield path, entry
        waiting += reversed(folders)


def _reason(error: NameRefused | OSError) -> str:
    if isinstance(error, OSError):
        return f"it can't be read: {error.strerror or error}"
    return str(error)
