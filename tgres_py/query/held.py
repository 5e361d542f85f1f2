"""What the functions of a request hold in memory, beside what was fetched: bounded by the same limits.

A target may name a series often and a function may give more than it takes, so that a small plan could
make much: ``group(a.*,a.*,…)``, ``fft`` of ``fft``, names that hold a name twice. Matrices and lists of labels
that blocks share count once; the fetched ones not at all, they are the plan's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgres_py.errors import LimitExceeded
from tgres_py.functions.reads import name_chars_max
from tgres_py.functions.series import SeriesBlock
from tgres_py.query.limits import QueryLimits

# As in asPercent(scale(a.*,2),sumSeries(scale(a.*,2))): both arguments, each as large as may be read.
TIMES = 2
_SAID = f"{TIMES} times as many as may be read"


class Held:
    """Counts blocks from ``keep`` to ``drop``. LimitExceeded by query_points_max or query_series_max:
    more than TIMES as much.
    """

    def __init__(
        self, limits: QueryLimits, fetched: Iterable[NDArray[np.float64]], points_max: int
    ) -> None:
        """``points_max``: query_points_max, or less."""
        self.points_max = points_max
        self.series_max = limits.query_series_max
        self.points = 0
        self.series = 0
        self.copied = 0
        # by id() of a matrix, or a list of labels: [holders, what it adds]; holders keep it alive
        self._counts: dict[int, list[int]] = {id(_owner(values)): [1, 0] for values in fetched}

    def keep_read(self, block: SeriesBlock) -> None:
        """A block of what was fetched, to its own limit: its series are the plan's, but its points
        may be copies, of the same series for each way to write their names.
        """
        self._counts[id(block.labels)] = [1, 0]
        for part in block.parts:
            owner = _owner(part.values)
            self.copied += self._count(id(owner), owner.size)
            self._counts[id(owner)][1] = 0
        if self.copied > self.points_max:
            raise _too_many("points read again", self.copied, self.points_max, "points")

    def keep(self, block: SeriesBlock) -> None:
        for part in block.parts:
            owner = _owner(part.values)
            self.points += self._count(id(owner), owner.size)
        if self.points > TIMES * self.points_max:
            raise _too_many(
                f"points made by functions ({_SAID})",
                self.points,
                TIMES * self.points_max,
                "points",
            )
        added = self._count(id(block.labels), len(block))
        self.series += added
        if self.series > TIMES * self.series_max:
            raise _too_many(
                f"series made by functions ({_SAID})",
                self.series,
                TIMES * self.series_max,
                "series",
            )
        if added:
            self._check_names(block)

    def drop(self, blocks: Iterable[Any]) -> None:
        """The end of what ``keep`` was told; lists of blocks and other arguments may be among them."""
        for block in blocks:
            if isinstance(block, list):
                self.drop(block)
            elif isinstance(block, SeriesBlock):
                for part in block.parts:
                    self.points -= self._release(id(_owner(part.values)))
                self.series -= self._release(id(block.labels))

    def check_together(self, arguments: Iterable[Any]) -> None:
        """What a function that takes any number of blocks would copy into one."""
        blocks = [one for one in arguments if isinstance(one, SeriesBlock)]
        points = sum(part.values.size for block in blocks for part in block.parts)
        series = sum(map(len, blocks))
        if points > self.points_max:
            raise _too_many("points given to a function", points, self.points_max, "points")
        if series > self.series_max:
            raise _too_many("series given to a function", series, self.series_max, "series")

    def check_aligned(self, arguments: Iterable[Any]) -> None:
        """What a function that brings its series to one grid would fill up with unknown values: each
        row gets as long as the longest.
        """
        blocks = [one for one in arguments if isinstance(one, SeriesBlock)]
        parts = [part for block in blocks for part in block.parts]
        if len(parts) < 2:
            return
        step_s = math.lcm(*(part.grid.step_s for part in parts))
        slots = max(-(-part.values.shape[1] * part.grid.step_s // step_s) for part in parts)
        points = slots * sum(map(len, blocks))
        if points > max(self.points_max, sum(part.values.size for part in parts)):
            raise _too_many("points of series of one length", points, self.points_max, "points")

    def _check_names(self, block: SeriesBlock) -> None:
        most = name_chars_max(self.points_max)
        chars = sum(len(label.name) + len(label.path_expression) for label in block.labels)
        if chars > most:
            raise _too_many("characters of names", chars, most, "points")

    def _count(self, key: int, size: int) -> int:
        found = self._counts.setdefault(key, [0, size])
        found[0] += 1
        return size if found[0] == 1 else 0

    def _release(self, key: int) -> int:
        found = self._counts[key]
        found[0] -= 1
        if found[0]:
            return 0
        del self._counts[key]
        return found[1]


def _owner(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The array that has the memory of a view; with what isn't an array (bytes), the view itself."""
    return values.base if isinstance(values.base, np.ndarray) else values


def _too_many(what: str, value: int, most: int, kind: str) -> LimitExceeded:
    return LimitExceeded(what, value, most, f"query_{kind}_max")
