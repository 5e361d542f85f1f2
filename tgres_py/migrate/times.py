"""Times on the command line and in CSV files: Unix seconds, ISO 8601, or as Graphite has them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from tgres_py.target.attime import parse_at_time

_AGO = re.compile(r"\d+[a-z]+", re.ASCII)


def parse_time(text: str, now_s: int, parameter: str) -> int:
    """Unix seconds of ``2026-11-01``, ``2026-11-01T10:00:00+01:00``, ``30d`` (ago), ``-30d``, an epoch …

    Without a zone a time is UTC. BadRequest names ``parameter``.
    """
    if _AGO.fullmatch(text):
        text = f"-{text}"
    try:
        return iso_s(text)
    except ValueError:
        return parse_at_time(text, now_s, UTC, parameter)


def iso_s(text: str) -> int:
    """Unix seconds of an ISO 8601 time with a date written with dashes; ValueError when it is none."""
    if text[4:5] != "-":
        raise ValueError(f"{text!r} is no ISO 8601 time")
    at = datetime.fromisoformat(text)
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() // 1)
