"""Reads ``sql/queries.sql``: statements under ``-- name: x`` lines, so that SQL stays SQL."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def _queries() -> dict[str, str]:
    text = (resources.files("tgres_py.storage") / "sql" / "queries.sql").read_text("utf-8")
    _, *parts = _NAME.split(text)
    return {name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}


def query(name: str) -> str:
    """The statement called ``name``; KeyError when there is none."""
    return _queries()[name]
