"""Series as CSV rows, carbon lines or whisper files."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from receivers import carbon_line
from tgres_py.errors import ConfigError
from tgres_py.migrate.mixed import Points
from tgres_py.migrate.names import path_of_name
from tgres_py.migrate.read import Stored
from tgres_py.migrate.whisper_file import encode_file
from tgres_py.model.ident import NameRefused

CSV_HEADER = b"path,time,value\n"


def csv_rows(name: str, points: Points, iso: bool) -> bytes:
    """Rows path,time,value; ``iso``: times as 2026-11-24T10:00:00Z, else Unix seconds."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([name])
    times = points[0].tolist()
    shown = [_iso(time_s) for time_s in times] if iso else times
    rows = zip(shown, points[1].tolist(), strict=True)
    lead = text.getvalue()
    return "".join([f"{lead},{time},{value!r}\n" for time, value in rows]).encode()


def carbon_lines(name: str, points: Points) -> bytes:
    """Lines as carbon takes them."""
    raw = name.encode()
    return carbon_line.encode([raw] * len(points[0]), points[0].tolist(), points[1].tolist())


def write_whisper(folder: Path, stored: Stored, overwrite: bool) -> str:
    """Writes a series as the file that carbon would keep it in; why it was left out, or "".

    The file is there as a whole or not at all.
    """
    try:
        path = folder / path_of_name(stored.name)
        data = encode_file(stored.spec, stored.archives)
    except (NameRefused, ConfigError) as error:
        return str(error)
    if not overwrite and path.exists():
        return f"{path} exists"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(data)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        return f"{path} can't be written: {error.strerror}"
    return ""


def _iso(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
