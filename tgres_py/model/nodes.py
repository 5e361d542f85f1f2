"""Nodes of the tree of names in columns: a million of them are a few arrays, which are made, sorted and given back without holding
Python's lock for long, as a million tuples can't be.

    text     all paths, one after the other, UTF-8      b"serversload"
    starts, lengths   of each path in it, bytes         [7, 0], [4, 7]
    names    length of its last element, bytes          [4, 7]
    ids      of the leaves, else -1                     [16, -1]
    kinds    LEAF, BRANCH or both                       [1, 2]
    since_s  where the points of a leaf begin that other servers have, else NEVER
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

NO_ID = -1
LEAF, BRANCH = 1, 2
NEVER = (1 << 63) - 1
AT_ONCE = 10_000  # rows that are texts at one time: some milliseconds

Mask = NDArray[np.bool_]
Order = NDArray[np.int64]


class TreeNode(NamedTuple):
    """``path``: whole name up to here; ``name``: its last element; ``id``: of the leaf, else -1.

    A node can be leaf and branch at once.
    """

    path: str
    name: str
    is_leaf: bool
    is_branch: bool
    id: int = NO_ID
    since_s: int = NEVER


@dataclass(slots=True)
class NodeTable:
    """Some nodes, in some order. Its columns may be those of other tables, too: nobody changes what is in them."""

    text: bytes
    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    names: NDArray[np.int32]
    ids: NDArray[np.int32]
    kinds: NDArray[np.uint8]
    since_s: NDArray[np.int64]

    @classmethod
    def of(cls, nodes: Iterable[TreeNode]) -> Self:
        """In the order given."""
        nodes = iter(nodes)
        parts = []
        while rows := list(islice(nodes, AT_ONCE)):
            parts.append(cls._of_rows(rows))
        return cls.together(parts or [cls._of_rows([])])

    @classmethod
    def _of_rows(cls, rows: list[TreeNode]) -> Self:
        paths = [node.path.encode() for node in rows]
        lengths = np.fromiter(map(len, paths), np.int32, len(rows))
        return cls(
            b"".join(paths),
            np.cumsum(lengths, dtype=np.int64) - lengths,
            lengths,
            np.fromiter((len(node.name.encode()) for node in rows), np.int32, len(rows)),
            np.fromiter((node.id for node in rows), np.int32, len(rows)),
            np.fromiter(
                (node.is_leaf * LEAF + node.is_branch * BRANCH for node in rows),
                np.uint8,
                len(rows),
            ),
            np.fromiter((node.since_s for node in rows), np.int64, len(rows)),
        )

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> Self:
        """Leaves whose paths are ``texts``, whatever is in them."""
        texts = iter(texts)
        parts = []
        while some := [text.encode() for text in islice(texts, AT_ONCE)]:
            n = len(some)
            lengths = np.fromiter(map(len, some), np.int32, n)
            starts = np.cumsum(lengths, dtype=np.int64) - lengths
            ids, kinds = np.full(n, NO_ID, np.int32), np.full(n, LEAF, np.uint8)
            since_s = np.full(n, NEVER, np.int64)
            parts.append(cls(b"".join(some), starts, lengths, lengths, ids, kinds, since_s))
        return cls.together(parts)

    @classmethod
    def together(cls, tables: Sequence[NodeTable]) -> Self:
        """The rows of one table after those of the other."""
        if not tables:
            return cls.of(())
        if len(tables) == 1 and isinstance(tables[0], cls):
            return tables[0]
        begins = np.cumsum([0, *(len(table.text) for table in tables)])
        starts = [table.starts + begin for table, begin in zip(tables, begins, strict=False)]
        return cls(
            b"".join([table.text for table in tables]),
            np.concatenate(starts),
            np.concatenate([table.lengths for table in tables]),
            np.concatenate([table.names for table in tables]),
            np.concatenate([table.ids for table in tables]),
            np.concatenate([table.kinds for table in tables]),
            np.concatenate([table.since_s for table in tables]),
        )

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def entries(self) -> int:
        """How many nodes there are when those that are leaf and branch count twice."""
        return len(self) + int(np.count_nonzero(self.kinds == LEAF | BRANCH))

    @property
    def bytes_used(self) -> int:
        columns = self.starts, self.lengths, self.names, self.ids, self.kinds, self.since_s
        return len(self.text) + sum(column.nbytes for column in columns)

    # -- other tables of the same text -------------------------------------------------------

    def take(self, rows: Order) -> Self:
        return self.__class__(
            self.text,
            self.starts.take(rows),
            self.lengths.take(rows),
            self.names.take(rows),
            self.ids.take(rows),
            self.kinds.take(rows),
            self.since_s.take(rows),
        )

    def leaves(self) -> Self:
        """The leaves, which are no branches here."""
        found = self.take(np.flatnonzero(self.kinds & LEAF))
        found.kinds = np.full(len(found), LEAF, np.uint8)
        return found

    def branches(self) -> Self:
        """The branches, leaves too or not."""
        return self.take(np.flatnonzero(self.kinds & BRANCH))

    def last_elements(self) -> Self:
        """Nodes whose paths are these nodes' names."""
        columns = self.names, self.names, self.ids, self.kinds, self.since_s
        return self.__class__(self.text, self._name_starts(), *columns)

    def by_path(self) -> Self:
        """Sorted by path (code points), those of one path joined into one: all kinds, the id that one has,
        the earliest ``since_s``.
        """
        found = self._sorted(self.starts, self.lengths)
        if found is None:
            return self
        order, is_same = found
        table = self.take(order)
        if not np.count_nonzero(is_same):
            return table
        firsts = np.flatnonzero(~is_same)
        joined = table.take(firsts)
        joined.ids = np.maximum.reduceat(table.ids, firsts)
        joined.kinds = np.bitwise_or.reduceat(table.kinds, firsts)
        joined.since_s = np.minimum.reduceat(table.since_s, firsts)
        return joined

    def by_name(self) -> Self:
        """Sorted by name (code points); those of one name stay in their order."""
        found = self._sorted(self._name_starts(), self.names)
        return self if found is None else self.take(found[0])

    def _name_starts(self) -> NDArray[np.int64]:
        return self.starts + (self.lengths - self.names)

    # -- rows --------------------------------------------------------------------------------

    def parts(self) -> Iterator[Self]:
        """The rows, some thousand at a time."""
        if len(self) <= AT_ONCE:
            yield self
            return
        for first in range(0, len(self), AT_ONCE):
            yield self._between(first, first + AT_ONCE)

    def first(self, limit: int | None) -> Self:
        """As a list's ``[:limit]``."""
        return self._between(0, len(range(len(self))[:limit]))

    def _between(self, first: int, end: int) -> Self:
        return self.__class__(
            self.text,
            self.starts[first:end],
            self.lengths[first:end],
            self.names[first:end],
            self.ids[first:end],
            self.kinds[first:end],
            self.since_s[first:end],
        )

    def path_texts(self) -> list[str]:
        return self._texts(self.starts, self.lengths)

    def name_texts(self) -> list[str]:
        return self._texts(self._name_starts(), self.names)

    def each_path(self) -> Iterator[str]:
        for part in self.parts():
            yield from part.path_texts()

    def rows(self) -> list[TreeNode]:
        columns = (
            self.path_texts(),
            self.name_texts(),
            ((self.kinds & LEAF) != 0).tolist(),
            ((self.kinds & BRANCH) != 0).tolist(),
            self.ids.tolist(),
            self.since_s.tolist(),
        )
        return list(map(TreeNode._make, zip(*columns, strict=True)))

    # -- what the native twin does without Python's lock -------------------------------------

    def _sorted(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int32]
    ) -> tuple[Order, Mask] | None:
        """The order of some texts, and which of them, in it, is the same as the one before. Stable.
        None: they are in order, and no two are the same.
        """
        ends = starts + lengths
        texts = [self.text[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        if all(a < b for a, b in pairwise(texts)):
            return None
        order = sorted(range(len(texts)), key=texts.__getitem__)
        same = [texts[a] == texts[b] for a, b in pairwise(order)]
        return np.array(order, np.int64), np.array([False, *same], np.bool_)

    def _texts(self, starts: NDArray[np.int64], lengths: NDArray[np.int32]) -> list[str]:
        ends = starts + lengths
        return [
            self.text[a:b].decode("utf-8", "replace")
            for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
        ]
