"""What the query layer and the HTTP API ask of the server: names and tags from memory, points from ts
rows overlaid by the ring cache, events from the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tgres_py.model.event import Event, EventQuery
from tgres_py.model.glob import has_magic
from tgres_py.model.nodes import NodeTable
from tgres_py.model.points import Ids
from tgres_py.model.retention import BundleSpec
from tgres_py.model.tagindex import TagIndex


class SeriesSource(Protocol):
    # Names are looked up in any thread.

    def count(self) -> int:
        """How many series there are."""

    def expand(self, pattern: str, limit: int | None = None) -> Ids:
        """Ids of the series whose path matches a glob, in the order of their names (code points).

        LimitExceeded when there are more than ``limit``.
        """

    def find(self, pattern: str) -> NodeTable:
        """Nodes (branches and leaves) that match a glob, in the order of their paths."""

    def by_tags(self, expressions: Sequence[str], limit: int | None = None) -> Ids:
        """Ids of the series that fulfil all tag expressions, in the order of their names.

        BadRequest: a bad expression; LimitExceeded when there are more than ``limit``.
        """

    def names(self, ids: Ids) -> list[str]: ...

    def bundles(self, ids: Ids) -> list[BundleSpec]:
        """The bundle of each series; equal bundles are the same object."""

    async def fetch(
        self, ids: Ids, bundle: BundleSpec, archive: int, from_slot: int, until_slot: int
    ) -> NDArray[np.float64]:
        """Values of slots from_slot <= slot < until_slot: float64 (len(ids), until_slot - from_slot), NaN = unknown.

        All ids have, or had a moment ago, this ``bundle``, to which archive and slots belong. Points received before the call are seen.
        StoreUnavailable when PostgreSQL is needed and away.
        """

    async def find_events(self, wanted: EventQuery) -> list[Event]:
        """The events that a query asks for, in the order of their times. StoreUnavailable."""


class TagSource(Protocol):
    def tags(self) -> TagIndex:
        """The index of tags, up to date."""

    async def tag_series(self, names: Sequence[str]) -> list[str]:
        """Creates the series that are missing and puts all into the index of tags; their canonical names.

        BadRequest: a name that no series can have (none is created then); StoreUnavailable.
        """

    async def untag_series(self, names: Sequence[str]) -> None:
        """Takes series out of the index of tags, for good; their points and names stay. Unknown ones
        are ignored. BadRequest, StoreUnavailable.
        """


class EventSource(Protocol):
    """StoreUnavailable when PostgreSQL is away."""

    async def add_event(self, event: Event) -> int:
        """Stores an event; its id. ``event.id`` is ignored."""

    async def get_event(self, id_: int) -> Event | None: ...


class Source(SeriesSource, TagSource, EventSource, Protocol):
    """What the HTTP API needs."""


# A pattern over more series than these may take some milliseconds, as may longer targets: these are looked up in a thread.
INLINE_SERIES_MAX = 5_000
INLINE_CHARS_MAX = 2_000


def is_wide(source: SeriesSource, patterns: Iterable[str]) -> bool:
    """Whether looking up path patterns or targets may take longer than the event loop can spare."""
    texts = list(patterns)
    return sum(map(len, texts)) > INLINE_CHARS_MAX or (
        source.count() > INLINE_SERIES_MAX
        and any(has_magic(text) or "seriesByTag" in text for text in texts)
    )
