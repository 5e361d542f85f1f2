"""Series of other nodes: what a request reads from them, and how their series join our own.

A node is asked for (expression, range) and answers ready series; it chooses archives itself, by the
range and ``now``, as we do. So a path needs no look-up of names there before it is read, and all
paths of a request are read in one go, beside our own fetches. Only a function whose window is
counted in points (movingAverage(x, 5)) must know the steps of its series before the window is
known: its argument is read over the request's range first (as graphite-web does), and the plan is
made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tgres_py.errors import LimitExceeded
from tgres_py.functions.series import Grid, Label, Matrix, Row, SeriesBlock
from tgres_py.model.ident import parse_tags
from tgres_py.query.limits import QueryLimits


@dataclass(frozen=True, slots=True)
class RemoteKey:
    """What other nodes are asked for. ``by_tags``: the expression is a seriesByTag()."""

    expression: str
    from_s: int
    until_s: int
    by_tags: bool = False


@dataclass(slots=True)
class RemoteSeries:
    """One series of another node. ``values``: float64 (slots,), NaN = unknown."""

    name: str
    grid: Grid
    values: Matrix
    cf: str = "average"


@dataclass(slots=True)
class Answers:
    """``series``: by key, each node's list; ``failed``: the nodes that didn't answer; ``counts``: how
    many series and points each of the others gave.
    """

    series: dict[RemoteKey, list[list[RemoteSeries]]]
    failed: list[str]
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)


class Peers(Protocol):
    @property
    def names(self) -> list[str]:
        """Of all other nodes, in the order of the settings."""

    async def fetch(self, keys: Sequence[RemoteKey], now_s: int, points_max: int) -> Answers:
        """What all other nodes have; those that fail are named. LimitExceeded: too many points."""


class RemoteNeeded(Exception):
    """The plan depends on the steps of series that are to be read first."""

    def __init__(self, keys: set[RemoteKey]) -> None:
        super().__init__(f"{len(keys)} expressions are to be read from other nodes first")
        self.keys = keys


class RemoteReads:
    """What one request has read from other nodes. ``failed``: names of those that didn't answer."""

    def __init__(self, peers: Peers, now_s: int, limits: QueryLimits) -> None:
        self.peers = peers
        self.now_s = now_s
        self.limits = limits
        self.failed: set[str] = set()
        self.points = 0
        self.counts: dict[str, tuple[int, int]] = {}  # series and points that each node gave
        self._known: dict[RemoteKey, list[RemoteSeries]] = {}

    @property
    def series(self) -> int:
        return sum(map(len, self._known.values()))

    def __contains__(self, key: RemoteKey) -> bool:
        return key in self._known

    @property
    def known(self) -> Mapping[RemoteKey, list[RemoteSeries]]:
        """All that was read."""
        return self._known

    def remember(self, key: RemoteKey, series: list[RemoteSeries]) -> None:
        """Takes what was read elsewhere."""
        self._known[key] = series
        self.points += sum(len(one.values) for one in series)

    def get(self, key: RemoteKey) -> list[RemoteSeries]:
        """The series of all other nodes, in the order of their names; none as long as it isn't read."""
        return self._known.get(key, [])

    async def load(self, keys: Iterable[RemoteKey]) -> None:
        """Reads what isn't known yet. LimitExceeded: too many series or points."""
        wanted = [key for key in dict.fromkeys(keys) if key not in self._known]
        if not wanted:
            return
        points_max = self.limits.query_points_max
        answers = await self.peers.fetch(wanted, self.now_s, points_max - self.points)
        self.failed.update(answers.failed)
        for name, (series, points) in answers.counts.items():
            before = self.counts.get(name, (0, 0))
            self.counts[name] = before[0] + series, before[1] + points
        for key in wanted:
            self._known[key] = joined(answers.series.get(key, []))
        self.points = sum(len(one.values) for found in self._known.values() for one in found)
        for what, number, setting in (
            ("series of other nodes", self.series, "query_series_max"),
            ("points of other nodes", self.points, "query_points_max"),
        ):
            limit: int = getattr(self.limits, setting)
            if number > limit:
                raise LimitExceeded(what, number, limit, setting)


GAP_SLOTS_MAX = 100_000  # unknown slots that may lie between the parts of one series


def joined(lists: Iterable[Iterable[RemoteSeries]]) -> list[RemoteSeries]:
    """The series of several nodes, each name once, in the order of their names."""
    found: dict[str, RemoteSeries] = {}
    for one in lists:
        for series in one:
            before = found.get(series.name)
            found[series.name] = series if before is None else _join(before, series)
    return [found[name] for name in sorted(found)]


def _join(first: RemoteSeries, second: RemoteSeries) -> RemoteSeries:
    grid, values = join_values((first.grid, first.values), (second.grid, second.values))
    return RemoteSeries(first.name, grid, values, first.cf)


def join_values(first: tuple[Grid, Matrix], second: tuple[Grid, Matrix]) -> tuple[Grid, Matrix]:
    """One series of what two nodes know of it.

    Equal steps: over both ranges, slot by slot, the first known value counts. Else (or when the
    slots don't lie on one grid) the one that knows the larger part of its slots, the first of equals.
    """
    (a, of_a), (b, of_b) = first, second
    if not len(of_a) or not len(of_b):
        return first if len(of_a) else second
    if a.step_s != b.step_s or (a.start_s - b.start_s) % a.step_s:
        return second if _known_part(of_b) > _known_part(of_a) else first
    if a == b and len(of_a) == len(of_b):
        return a, np.where(np.isnan(of_a), of_b, of_a)
    start_s = min(a.start_s, b.start_s)
    grid = Grid(start_s, max(a.end_s, b.end_s), a.step_s)
    places = [(one.start_s - start_s) // a.step_s for one in (a, b)]
    slots = max(places[0] + len(of_a), places[1] + len(of_b))
    if slots > len(of_a) + len(of_b) + GAP_SLOTS_MAX:
        return first  # far apart: no answer to one question, and not worth the memory between them
    values = np.full(slots, np.nan)
    values[places[1] : places[1] + len(of_b)] = of_b
    own = values[places[0] : places[0] + len(of_a)]
    own[:] = np.where(np.isnan(of_a), own, of_a)
    return grid, values


def _known_part(values: Matrix) -> float:
    return np.count_nonzero(~np.isnan(values)) / len(values)


def with_remote(
    block: SeriesBlock, remote: Sequence[RemoteSeries], expression: str, xff: float, by_cf: bool
) -> SeriesBlock:
    """Our series of a path and those of other nodes, in the order of their names; ours count first.

    ``by_cf``: the other node's function consolidates its series, else Graphite's average.
    """
    if not remote:
        return block
    rows: dict[str, Row] = {row[0].name: row for row in block.rows()}
    for series in remote:
        own = rows.get(series.name)
        if own is not None:
            label, grid, values = own
            grid, values = join_values((grid, values), (series.grid, series.values))
        else:
            cf = series.cf if by_cf else "average"
            label = Label(series.name, expression, parse_tags(series.name), cf, xff)
            grid, values = series.grid, series.values
        rows[series.name] = label, grid, values
    return SeriesBlock.of_rows([rows[name] for name in sorted(rows)])


def steps_of(series: Iterable[RemoteSeries]) -> frozenset[int]:
    return frozenset(one.grid.step_s for one in series)


def group(keys: Iterable[RemoteKey]) -> Mapping[tuple[int, int], list[RemoteKey]]:
    """The keys of each range: one request to a node."""
    out: dict[tuple[int, int], list[RemoteKey]] = {}
    for key in keys:
        out.setdefault((key.from_s, key.until_s), []).append(key)
    return out
