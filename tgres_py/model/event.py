"""An event: something that happened at a moment, such as a deployment; an annotation in a graph."""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """``at_s``: seconds since 1970 UTC, to the microsecond; ``tags``: texts without blanks, in the
    order in which they were given; ``id``: the store's, 0 as long as it has none.
    """

    what: str
    at_s: float
    tags: tuple[str, ...] = ()
    data: str = ""
    id: int = 0


class EventQuery(NamedTuple):
    """Events with from_s <= at_s <= until_s. ``tags``: None = all, else those with all of the tags (or,
    without ``match_all``, one of them); ``limit``: the most that are wanted, the earliest ones. No further ones are given
    once those before hold more than ``bytes_max`` (see text_bytes). ``times_only``: without what and data, tags and id.
    """

    from_s: float
    until_s: float
    tags: tuple[str, ...] | None = None
    match_all: bool = True
    limit: int = 10_000
    bytes_max: int = 200 << 20
    times_only: bool = False

    def matches(self, event: Event) -> bool:
        if not self.from_s <= event.at_s <= self.until_s:
            return False
        if self.tags is None:
            return True
        return (all if self.match_all else any)(tag in event.tags for tag in self.tags)


TAG_BYTES = 64  # of each besides its text


def text_bytes(event: Event) -> int:
    """Of its texts in UTF-8, and what its tags take besides."""
    texts = event.what, event.data, *event.tags
    return sum(len(text.encode()) for text in texts) + TAG_BYTES * len(event.tags)
