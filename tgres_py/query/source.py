"""What the query layer asks of the server: names from memory, points from ts rows overlaid by the ring cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tgres_py.model.points import Ids
from tgres_py.model.retention import BundleSpec


@dataclass(frozen=True, slots=True)
class FindNode:
    """One node of the tree of names. A node can be leaf and branch at once."""

    path: str
    name: str
    is_leaf: bool
    is_branch: bool


class SeriesSource(Protocol):
    def expand(self, pattern: str, limit: int | None = None) -> Ids:
        """Ids of the series whose path matches a glob, in the order of their names (code points).

        LimitExceeded when there are more than ``limit``.
        """

    def find(self, pattern: str) -> list[FindNode]:
        """Nodes (branches and leaves) that match a glob, in the order of their paths."""

    def names(self, ids: Ids) -> list[str]: ...

    def bundles(self, ids: Ids) -> list[BundleSpec]:
        """The bundle of each series; equal bundles are the same object."""

    async def fetch(
        self, ids: Ids, archive: int, from_slot: int, until_slot: int
    ) -> NDArray[np.float64]:
        """Values of slots from_slot <= slot < until_slot: float64 (len(ids), until_slot - from_slot), NaN = unknown.

        All ids have the same retention. Points received before the call are seen.
        StoreUnavailable when PostgreSQL is needed and away.
        """
