"""A log that nobody can fill: warnings of each place in the source at a bounded rate, with the number that weren't shown.

Whoever sends lines, asks questions or breaks connections decides how often something is worth a warning. ``Sparing`` stands
in the handler, so it holds for all modules, libraries included. What the server says of its own (info) and what an operator turned
on to look for something (debug) is shown as it comes.
"""

from __future__ import annotations

import logging

from tgres_py import clock

PER_S = 1.0
BURST = 10.0
FREELY = {"freely": True}  # as ``extra``: the caller sees to its rate


class Allowance:
    """A token bucket: ``burst`` at once, ``per_s`` afterwards. ``hidden``: how many were refused since the last that wasn't."""

    __slots__ = ("_burst", "_per_s", "_since", "_tokens", "hidden")

    def __init__(self, per_s: float = PER_S, burst: float = BURST) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._since = clock.monotonic()
        self.hidden = 0

    def take(self) -> bool:
        """Whether one more may be shown now; if so the caller tells of ``hidden``, and sets it to 0."""
        now = clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._since) * self._per_s)
        self._since = now
        if self._tokens < 1:
            self.hidden += 1
            return False
        self._tokens -= 1
        return True

    def told(self) -> str:
        """What to add to the text that is shown: how many others aren't."""
        hidden, self.hidden = self.hidden, 0
        return f" ({hidden:,} others not shown)" if hidden else ""


class Sparing(logging.Filter):
    """For a handler: an allowance for each place that warns. There are as many as the source has."""

    def __init__(self) -> None:
        super().__init__()
        self._allowances: dict[tuple[str, int], Allowance] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Handlers call it under their lock, from any thread."""
        if record.levelno < logging.WARNING or getattr(record, "freely", False):
            return True
        allowance = self._allowances.setdefault((record.pathname, record.lineno), Allowance())
        if not allowance.take():
            return False
        if told := allowance.told():
            record.msg, record.args = record.getMessage() + told, None
        return True
