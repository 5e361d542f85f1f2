"""What flows between render functions: an ordered list of series whose values lie in few matrices.

Series of equal start, end, step and length share one float64 matrix (a ``Part``); almost always a
block is one part. Functions work on the matrices; per series there is one small ``Label`` and
nothing per point. NaN is the only "no value". Blocks, parts and labels are never changed after they
are made: functions return new ones and may share arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]
Option = bool | int | float | str
Options = dict[str, Option]
Row = tuple["Label", "Grid", Matrix]

UNNAMED = "None"  # with the option of this name: a series that nobody named


@dataclass(slots=True, frozen=True)
class Grid:
    """When the columns of a matrix are: column i is at start_s + i * step_s.

    ``end_s`` is exclusive for fetched data, and kept apart from the number of columns: some
    functions give more values than their range holds, and the answer then stops at ``end_s`` (as
    graphite-web).
    """

    start_s: int
    end_s: int
    step_s: int


@dataclass(slots=True)
class Label:
    """What a series is called.

    ``path_expression``: the expression that made it, which aggregates use for their own name;
    ``cf``: function that consolidates it to fewer points; ``xff``: known/total needed for that;
    ``options``: how it is to be drawn, under graphite-web's names (color, alpha, lineWidth, dashed,
    drawAsInfinite, secondYAxis, stacked, invisible), and ``unnamed`` (see UNNAMED).
    """

    name: str
    path_expression: str
    tags: dict[str, str]
    cf: str = "average"
    xff: float = 0.0
    options: Options = field(default_factory=dict)

    def derived(self, name: str, **tags: str) -> Label:
        """The label of a function's result: new name and path expression, tags added."""
        return Label(name, name, {**self.tags, **tags}, self.cf, self.xff, self.options)

    def renamed(self, name: str) -> Label:
        """Another name to show; the path expression stays."""
        return Label(name, self.path_expression, self.tags, self.cf, self.xff, self.options)

    def drawn(self, **options: Option) -> Label:
        """The same, drawn with ``options`` too."""
        return replace(self, options={**self.options, **options})


@dataclass(slots=True)
class Part:
    """The series of one grid. ``values``: (k, slots); ``index``: (k,), ascending places in the
    block.
    """

    grid: Grid
    values: Matrix
    index: Positions


class SeriesBlock:
    """``labels``: one per series, in order; ``parts``: together hold each place exactly once."""

    __slots__ = ("labels", "parts")

    def __init__(self, labels: list[Label], parts: list[Part]) -> None:
        self.labels = labels
        self.parts = parts

    @classmethod
    def uniform(cls, labels: list[Label], grid: Grid, values: Matrix) -> SeriesBlock:
        """A block of one part; ``values``: (len(labels), slots)."""
        if not labels:
            return cls([], [])
        return cls(labels, [Part(grid, values, np.arange(len(labels)))])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def steps(self) -> list[int]:
        return [part.grid.step_s for part in self.parts]

    def map_labels(self, relabel: Callable[[Label], Label]) -> SeriesBlock:
        return SeriesBlock([relabel(label) for label in self.labels], self.parts)

    def map_values(self, compute: Callable[[Part], tuple[Grid, Matrix]]) -> SeriesBlock:
        """The same series with other values, computed part by part."""
        parts = []
        for part in self.parts:
            grid, values = compute(part)
            parts.append(Part(grid, values, part.index))
        return SeriesBlock(self.labels, parts)

    def take(self, positions: Sequence[int]) -> SeriesBlock:
        """The series at ``positions`` (distinct), in that order."""
        target = np.full(len(self.labels), -1, dtype=np.intp)
        target[list(positions)] = np.arange(len(positions))
        parts = []
        for part in self.parts:
            new = target[part.index]
            kept = np.flatnonzero(new >= 0)
            order = kept[np.argsort(new[kept])]
            if len(order):
                parts.append(Part(part.grid, part.values[order], new[order]))
        return SeriesBlock([self.labels[position] for position in positions], parts)

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> SeriesBlock:
        """A block of single series, values (slots,) each; the opposite of ``rows``."""
        places: dict[tuple[Grid, int], list[int]] = {}
        for place, (_, grid, values) in enumerate(rows):
            places.setdefault((grid, len(values)), []).append(place)
        parts = [
            Part(grid, np.stack([rows[place][2] for place in same]), np.array(same, dtype=np.intp))
            for (grid, _), same in places.items()
        ]
        return cls([label for label, _, _ in rows], parts)

    def rows(self) -> Iterator[Row]:
        """(label, grid, values (slots,)) of each series, in order."""
        places: list[tuple[Part, int]] = (
            [(self.parts[0], 0)] * len(self.labels) if self.parts else []
        )
        for part in self.parts:
            for row, place in enumerate(part.index.tolist()):
                places[place] = (part, row)
        for label, (part, row) in zip(self.labels, places, strict=True):
            yield label, part.grid, part.values[row]


class BlockLists(SeriesBlock):
    """A list of lists of series, as mapSeries makes it; whoever doesn't ask sees one list of all."""

    __slots__ = ("lists",)

    def __init__(self, lists: list[SeriesBlock]) -> None:
        whole = concat(lists)
        super().__init__(whole.labels, whole.parts)
        self.lists = lists


def concat(blocks: Iterable[SeriesBlock]) -> SeriesBlock:
    """All series, in order; parts of equal grid and length become one."""
    blocks = [block for block in blocks if len(block)]
    if len(blocks) == 1:
        return blocks[0]
    labels: list[Label] = []
    merged: dict[tuple[Grid, int], list[Part]] = {}
    for block in blocks:
        for part in block.parts:
            moved = Part(part.grid, part.values, part.index + len(labels))
            merged.setdefault((part.grid, part.values.shape[1]), []).append(moved)
        labels.extend(block.labels)
    parts = []
    for (grid, _), same in merged.items():
        if len(same) == 1:
            parts.append(same[0])
        else:
            values = np.concatenate([part.values for part in same])
            parts.append(Part(grid, values, np.concatenate([part.index for part in same])))
    return SeriesBlock(labels, parts)
