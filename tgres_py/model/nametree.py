"""The index of all names in memory: a tree of dicts, one for each branch.

    root -> {"servers": {"web1": {"cpu": {"user": 17, "system": 18}, "load": 19}}}

A leaf is its id; a branch is a dict of its children; a node that is both is a dict that also holds
its id under the key "" (no element of a name is empty). Equal elements are one string.
Names with tags aren't part of the tree: they are found by their exact canonical spelling.

Readers and one writer may work at the same time without a lock: the writer only makes single dict
operations on what readers can see, and readers iterate over copies made by one such operation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tgres_py.errors import LimitExceeded
from tgres_py.model.glob import GLOBSTAR, compile_element, has_magic, split_pattern

Branch: TypeAlias = "dict[str, int | Branch]"

_OWN_ID = ""
NO_ID = -1


class TreeNode(NamedTuple):
    """``path``: whole name up to here; ``name``: its last element; ``id``: of the leaf, else -1."""

    path: str
    name: str
    is_leaf: bool
    is_branch: bool
    id: int


class NameTree:
    """Names and their ids. All names are canonical (model.ident)."""

    def __init__(self) -> None:
        self._root: Branch = {}
        self._tagged: dict[str, int] = {}
        self._elements: dict[str, str] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add_many(self, names: Sequence[str], first_id: int) -> None:
        """Adds names with the ids first_id, first_id + 1, … A name that is known gets the new id."""
        shared = self._elements.setdefault
        branches: dict[str, Branch] = {}
        for id_, name in enumerate(names, first_id):
            if ";" in name:
                self._count += name not in self._tagged
                self._tagged[name] = id_
                continue
            parent, dot, leaf = name.rpartition(".")
            branch = branches.get(parent)
            if branch is None:
                branch = self._branch(parent) if dot else self._root
                branches[parent] = branch
            known = branch.get(leaf)
            if known is None:
                branch[shared(leaf, leaf)] = id_
                self._count += 1
            elif isinstance(known, dict):
                self._count += _OWN_ID not in known
                known[_OWN_ID] = id_
            else:
                branch[leaf] = id_

    def remove(self, name: str) -> int:
        """Removes a name and the branches that become empty; its id, or -1 when it is unknown."""
        if ";" in name:
            id_ = self._tagged.pop(name, NO_ID)
            self._count -= id_ != NO_ID
            return id_
        elements = name.split(".")
        if not all(elements):
            return NO_ID
        trail = [self._root]
        for element in elements[:-1]:
            child = trail[-1].get(element)
            if not isinstance(child, dict):
                return NO_ID
            trail.append(child)
        id_ = _leaf_id(trail[-1].get(elements[-1]))
        if id_ == NO_ID:
            return NO_ID
        self._count -= 1
        _remove_leaf(trail, elements)
        return id_

    def get(self, name: str) -> int:
        """The id of a name, or -1."""
        if ";" in name:
            return self._tagged.get(name, NO_ID)
        node: int | Branch | None = self._root
        for element in name.split("."):
            if not isinstance(node, dict) or not element:
                return NO_ID
            node = node.get(element)
        return _leaf_id(node)

    def find(self, pattern: str) -> list[TreeNode]:
        """The nodes that match a path pattern (model.glob), sorted by path (code points).

        LimitExceeded, BadRequest: the pattern is too large.
        """
        if ";" in pattern:
            id_ = self.get(pattern)
            return [] if id_ == NO_ID else [TreeNode(pattern, pattern, True, False, id_)]
        matches = self._match(pattern)
        matches.sort(key=_path_of)
        return [_tree_node(path, node) for path, node in matches]

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

    def _branch(self, path: str) -> Branch:
        """The branch at a path, made where missing."""
        branch = self._root
        for element in path.split("."):
            child = branch.get(element)
            if not isinstance(child, dict):
                made: Branch = {} if child is None else {_OWN_ID: child}
                branch[self._elements.setdefault(element, element)] = made
                child = made
            branch = child
        return branch

    def _match(self, pattern: str) -> list[tuple[str, int | Branch]]:
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
                    if isinstance(node, dict)
                ]
        if last == GLOBSTAR:
            return _children(list(dict(_and_below(branches)).items()), "*")
        return _children(branches, last)


def _children(
    branches: Iterable[tuple[str, Branch]], element: str
) -> list[tuple[str, int | Branch]]:
    """Path and node of the children that match one element of a pattern."""
    if element == "*":
        return [
            (prefix + name, node)
            for prefix, branch in branches
            for name, node in list(branch.items())
            if name
        ]
    if not has_magic(element):
        return [
            (prefix + element, node)
            for prefix, branch in branches
            if element and (node := branch.get(element)) is not None
        ]
    matcher = compile_element(element)
    return [
        (prefix + name, node)
        for prefix, branch in branches
        for name in (matcher.literals or matcher.filter(list(branch)))
        if name and (node := branch.get(name)) is not None
    ]


def _and_below(branches: Iterable[tuple[str, Branch]]) -> list[tuple[str, Branch]]:
    """The branches and all below them, with their prefixes."""
    found = list(branches)
    level = found
    while level:
        level = [
            (f"{prefix}{name}.", node)
            for prefix, branch in level
            for name, node in list(branch.items())
            if isinstance(node, dict)
        ]
        found.extend(level)
    return found


def _path_of(match: tuple[str, object]) -> str:
    return match[0]


def _leaf_id(node: int | Branch | None) -> int:
    if isinstance(node, dict):
        node = node.get(_OWN_ID)
    return node if isinstance(node, int) else NO_ID


def _tree_node(path: str, node: int | Branch) -> TreeNode:
    name = path[path.rfind(".") + 1 :]
    if isinstance(node, int):
        return TreeNode(path, name, True, False, node)
    own_id = _leaf_id(node)
    return TreeNode(path, name, own_id != NO_ID, len(node) > (own_id != NO_ID), own_id)


def _remove_leaf(trail: list[Branch], elements: list[str]) -> None:
    """Takes the leaf out of the last branch of ``trail``, and branches that nothing is left in."""
    node = trail[-1][elements[-1]]
    if isinstance(node, dict):
        del node[_OWN_ID]
    else:
        del trail[-1][elements[-1]]
    for depth in range(len(trail) - 1, 0, -1):
        branch, parent, element = trail[depth], trail[depth - 1], elements[depth - 1]
        if not branch:
            del parent[element]
            continue
        if len(branch) == 1 and _OWN_ID in branch:
            parent[element] = branch[_OWN_ID]
        break
