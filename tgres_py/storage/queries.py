"""Reads the statements under ``sql/``, each below a line ``-- name: x``, so that SQL stays SQL."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

# Files of statements; those that are numbered are migrations.
FILES = ("queries.sql", "names.sql", "retention.sql")

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def _queries() -> dict[str, str]:
    found: dict[str, str] = {}
    for file in FILES:
        text = (resources.files("tgres_py.storage") / "sql" / file).read_text("utf-8")
        _, *parts = _NAME.split(text)
        found |= {name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}
    return found


def query(name: str) -> str:
    """The statement called ``name``; KeyError when there is none."""
    return _queries()[name]
