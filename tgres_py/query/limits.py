"""How much one query may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class QueryLimits(Protocol):
    """The part of the settings that queries need; the names are the settings'."""

    @property
    def query_targets_max(self) -> int: ...
    @property
    def query_nesting_max(self) -> int: ...
    @property
    def query_series_max(self) -> int: ...
    @property
    def query_points_max(self) -> int: ...
    @property
    def query_timeout_s(self) -> float: ...
    @property
    def consolidate_by_cf(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class DefaultLimits:
    query_targets_max: int = 100
    query_nesting_max: int = 64
    query_series_max: int = 20_000
    query_points_max: int = 20_000_000
    query_timeout_s: float = 60.0
    consolidate_by_cf: bool = False
