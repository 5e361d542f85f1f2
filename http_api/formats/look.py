"""How an answer is to look: what the formats' writers share.

A writer is a generator: blocks of series and a ``Look`` in, pieces of the body out. So a large
answer is sent while it is made, and whoever joins the pieces decides how long it may get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo

from tgres_py.functions.series import SeriesBlock


@dataclass(frozen=True, slots=True)
class Look:
    """``zone``: of the times that are written as text; ``no_null_points``: of JSON only."""

    pretty: bool = False
    no_null_points: bool = False
    zone: tzinfo = UTC


Writer = Callable[[Sequence[SeriesBlock], Look], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Format:
    """``javascript``: parameter jsonp can wrap it."""

    content_type: str
    write: Writer
    javascript: bool = False
