"""The index of all names in memory: a tree of dicts, one for each branch.

    root -> {"servers": {"web1": {"cpu": {"user": 17, "system": 18}, "load": 19}, "web2": ("load", 20)}}

A leaf is its id; a branch is a dict of its children, or, as long as it has only one, the pair of the child's name and
the child (72 bytes instead of 200); a node that is both is a dict that also holds its id under
the key "" (no element of a name is empty). Equal elements are one string.
Names with tags aren't part of the tree: they are found by their exact canonical spelling.

``kernels/_tree.pyx`` is the same, compiled.

Readers and one writer may work at the same time without a lock: the writer only makes single dict
operations on what readers can see, and readers iterate over copies made by one such operation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tgres_py.errors import LimitExceeded
from tgres_py.model.glob import GLOBSTAR, compile_element, has_magic, split_pattern
from tgres_py.model.nodes import NO_ID, NodeTable, TreeNode

Branch: TypeAlias = "dict[str, Node] | tuple[str, Node]"
Node: TypeAlias = "int | Branch"

_OWN_ID = ""
_CACHED_BRANCHES_MAX = 10_000
# measured: a place in a dict and a number; such a place and an element's text besides its characters; a pair; what a dict is more
_NAME_BYTES, _ELEMENT_BYTES, _PAIR_BYTES, _DICT_BYTES = 70, 50, 72, 160


class NameTree:
    """Names and their ids. All names are canonical (model.ident)."""

    def __init__(self) -> None:
        self._root: dict[str, Node] = {}
        self._tagged: dict[str, int] = {}
        self._elements: dict[str, str] = {}
        self._count = 0
        self._bytes = 0  # of all but the names' own places

    def __len__(self) -> int:
        return self._count

    def add_many(self, names: Sequence[str], first_id: int) -> None:
        """Adds names with the ids first_id, first_id + 1, … A name that is known gets the new id."""
        shared = self._shared
        branches: dict[str, dict[str, Node]] = {}  # names often follow others of their branch
        for id_, name in enumerate(names, first_id):
            parent, _, leaf = name.rpartition(".")
            branch = branches.get(parent)
            if branch is not None and leaf not in branch and ";" not in name:
                branch[shared(leaf)] = id_
                self._count += 1
            elif ";" in name:
                if name not in self._tagged:
                    self._count += 1
                    self._bytes += sys.getsizeof(name)
                self._tagged[name] = id_
            elif grown := self._add(name, id_):
                if len(branches) >= _CACHED_BRANCHES_MAX:
                    branches.clear()
                branches[parent] = grown

    def add_lines(self, lines: bytes, first_id: int) -> None:
        """As add_many; ``lines``: the names in UTF-8, an LF after each."""
        names = lines.decode().split("\n")
        names.pop()
        self.add_many(names, first_id)

    @property
    def bytes_used(self) -> int:
        """Memory, about: it grows evenly with what is added."""
        return self._bytes + _NAME_BYTES * self._count

    def _shared(self, element: str) -> str:
        """The one string of all equal elements."""
        known = self._elements.get(element)
        if known is None:
            known = self._elements[element] = element
            self._bytes += sys.getsizeof(element) + _ELEMENT_BYTES
        return known

    def remove(self, name: str) -> int:
        """Removes a name and the branches that become empty; its id, or -1 when it is unknown."""
        id_ = self.get(name)
        if id_ == NO_ID:
            return NO_ID
        self._count -= 1
        if ";" in name:
            del self._tagged[name]
            self._bytes -= sys.getsizeof(name)
            return id_
        first, *rest = name.split(".")
        left = _without(self._root[first], rest)
        if left is None:
            del self._root[first]
        else:
            self._root[first] = left
        return id_

    def get(self, name: str) -> int:
        """The id of a name, or -1."""
        if ";" in name:
            return self._tagged.get(name, NO_ID)
        node: Node | None = self._root
        for element in name.split("."):
            if node is None or isinstance(node, int) or not element:
                return NO_ID
            node = _child(node, element)
        return _leaf_id(node)

    def find(self, pattern: str) -> NodeTable:
        """The nodes that match a path pattern (model.glob), sorted by path (code points).

        LimitExceeded, BadRequest: the pattern is too large.
        """
        if ";" in pattern:
            id_ = self.get(pattern)
            return NodeTable.of(
                [] if id_ == NO_ID else [TreeNode(pattern, pattern, True, False, id_)]
            )
        matches = self._match(pattern)
        matches.sort(key=_path_of)
        return NodeTable.of(_tree_node(path, node) for path, node in matches)

    def expand(
        self, pattern: str, limit: int | None = None, setting: str = "series_max"
    ) -> NDArray[np.int32]:
        """Ids of the series whose names match a path pattern, sorted by name: int32 (n,).

        LimitExceeded, naming ``setting``, when there are more than ``limit``, or the pattern is too large.
        """
        if ";" in pattern:
            id_ = self.get(pattern)
            return np.array([] if id_ == NO_ID else [id_], np.int32)
        found = [
            (path, id_) for path, node in self._match(pattern) if (id_ := _leaf_id(node)) != NO_ID
        ]
        if limit is not None and len(found) > limit:
            raise LimitExceeded(f"series that match {pattern!r}", len(found), limit, setting)
        found.sort(key=_path_of)
        return np.fromiter((id_ for _, id_ in found), np.int32, len(found))

    def _add(self, name: str, id_: int) -> dict[str, Node] | None:
        """Adds a name; the branch that it is in, if that is a dict by now."""
        shared = self._shared
        elements = name.split(".")
        branch = self._root
        last = len(elements) - 1
        for depth in range(last):
            element = elements[depth]
            child = branch.get(element)
            if isinstance(child, dict):
                branch = child
                continue
            if child is None:
                node: Node = id_
                for below in reversed(elements[depth + 1 :]):
                    node = shared(below), node
                    self._bytes += _PAIR_BYTES
                self._count += 1
            elif isinstance(child, tuple) and depth == last - 1 and child[0] != elements[last]:
                leaf = elements[last]
                node = dict((child, (shared(leaf), id_)))
                self._count += 1
                self._bytes += _DICT_BYTES
            else:
                node = self._grown(child, elements, depth + 1, id_)
            branch[shared(element)] = node
            return node if depth == last - 1 and isinstance(node, dict) else None
        leaf = shared(elements[last])
        branch[leaf] = self._grown(branch.get(leaf), elements, last + 1, id_)
        return branch

    def _grown(self, node: Node | None, elements: list[str], depth: int, id_: int) -> Node:
        """``node`` with the name elements[depth:] below it; changed in place only if it is a dict."""
        if depth == len(elements):
            if node is None or isinstance(node, int):
                self._count += node is None
                return id_
            grown = node if isinstance(node, dict) else self._dict(node)
            self._count += _OWN_ID not in grown
            grown[_OWN_ID] = id_
            return grown
        element = self._shared(elements[depth])
        below = None if isinstance(node, int) or node is None else _child(node, element)
        below = self._grown(below, elements, depth + 1, id_)
        if isinstance(node, dict):
            node[element] = below
            return node
        if node is None or (isinstance(node, tuple) and node[0] == element):
            self._bytes += _PAIR_BYTES if node is None else 0
            return element, below
        first = (_OWN_ID, node) if isinstance(node, int) else node
        self._bytes += _PAIR_BYTES if isinstance(node, int) else 0
        return self._dict(first, (element, below))

    def _dict(self, *pairs: tuple[str, Node]) -> dict[str, Node]:
        """In place of a pair."""
        self._bytes += _DICT_BYTES
        return dict(pairs)

    def _match(self, pattern: str) -> list[tuple[str, Node]]:
        """Path and node of all that matches, in no order, each once."""
        *inner, last = split_pattern(pattern)
        branches: list[tuple[str, Branch]] = [("", self._root)]
        for element in inner:
            if element == GLOBSTAR:
                # Several globstars reach a branch in several ways.
                branches = list(dict(_and_below(branches)).items())
            else:
                branches = [
                    (f"{path}.", node)
                    for path, node in _children(branches, element)
                    if not isinstance(node, int)
                ]
        if last == GLOBSTAR:
            return _children(list(dict(_and_below(branches)).items()), "*")
        return _children(branches, last)


def _children(branches: Iterable[tuple[str, Branch]], element: str) -> list[tuple[str, Node]]:
    """Path and node of the children that match one element of a pattern."""
    if element == "*":
        return [
            (prefix + name, node)
            for prefix, branch in branches
            for name, node in (branch.copy().items() if isinstance(branch, dict) else (branch,))
            if name
        ]
    if not has_magic(element):
        return [
            (prefix + element, node)
            for prefix, branch in branches
            if element and (node := _child(branch, element)) is not None
        ]
    matcher = compile_element(element)
    return [
        (prefix + name, node)
        for prefix, branch in branches
        for name in (
            matcher.literals
            or matcher.filter(list(branch) if isinstance(branch, dict) else branch[:1])
        )
        if name and (node := _child(branch, name)) is not None
    ]


def _and_below(branches: Iterable[tuple[str, Branch]]) -> list[tuple[str, Branch]]:
    """The branches and all below them, with their prefixes."""
    found = list(branches)
    level = found
    while level:
        level = [
            (f"{prefix}{name}.", node)
            for prefix, branch in level
            for name, node in (branch.copy().items() if isinstance(branch, dict) else (branch,))
            if not isinstance(node, int)
        ]
        found.extend(level)
    return found


def _path_of(match: tuple[str, object]) -> str:
    return match[0]


def _child(branch: Branch, name: str) -> Node | None:
    if isinstance(branch, dict):
        return branch.get(name)
    return branch[1] if branch[0] == name else None


def _leaf_id(node: Node | None) -> int:
    if isinstance(node, dict):
        node = node.get(_OWN_ID)
    return node if isinstance(node, int) else NO_ID


def _tree_node(path: str, node: Node) -> TreeNode:
    name = path[path.rfind(".") + 1 :]
    if isinstance(node, int):
        return TreeNode(path, name, True, False, node)
    own_id = _leaf_id(node)
    return TreeNode(path, name, own_id != NO_ID, True, own_id)


def _without(node: Node, elements: list[str]) -> Node | None:
    """What is left of a node when the name ``elements``, which it has, is taken out; None: nothing."""
    if isinstance(node, int):
        return None
    first, rest = (elements[0], elements[1:]) if elements else (_OWN_ID, [])
    below = _child(node, first)
    assert below is not None
    left = _without(below, rest)
    if isinstance(node, tuple):
        return None if left is None else (first, left)
    if left is None:
        del node[first]
    else:
        node[first] = left
    if len(node) > 1:
        return node
    only = next(iter(node.items()))
    return only[1] if only[0] == _OWN_ID else only
