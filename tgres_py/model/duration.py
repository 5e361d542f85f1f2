"""Durations as people write them: ``90``, ``90s``, ``15m``, ``12h``, ``30d``, ``2w``, ``1y`` (365 days)."""

from __future__ import annotations

import re

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_DURATION = re.compile(r"\s*(\d{1,10}(?:\.\d{1,6})?)\s*([a-z]*)\s*", re.ASCII)


def parse_duration(value: object) -> float:
    """Seconds; a bare number is seconds. ValueError: no duration."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    match = _DURATION.fullmatch(str(value).lower())
    unit = match[2] if match else ""
    # minute, minutes, min, sec, days …; a month is none of them: it has no length
    known = next((u for u in _UNITS if unit.startswith(u) and not unit.startswith("mo")), None)
    if match is None or (unit and known is None):
        raise ValueError(f"{value!r} is no duration: write 90s, 15m, 12h, 30d, 2w or 1y")
    return float(match[1]) * _UNITS[known or "s"]


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration: ``90d``."""
    for unit in ("y", "w", "d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds:.12g}s"
