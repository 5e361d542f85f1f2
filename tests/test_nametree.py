"""The tree of names against a slow model that splits and matches every name."""

from __future__ import annotations

import fnmatch
import gc
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgres_py.errors import LimitExceeded
from tgres_py.model import nametree
from tgres_py.model.glob import PATTERN_CHARS_MAX
from tgres_py.model.nodes import NO_ID, TreeNode

try:
    from tgres_py.kernels import _tree

    TREES = [nametree.NameTree, _tree.NameTree]
except ImportError:
    TREES = [nametree.NameTree]

each_tree = pytest.mark.parametrize("make", TREES, ids=lambda make: make.__module__)

NAMES = [
    "servers.web1.cpu.user",
    "servers.web1.cpu.system",
    "servers.web1.cpu",  # leaf and branch
    "servers.web2.cpu.user",
    "servers.db-1.cpu.user",
    "servers.db.cpu.user",
    "load",
    "disk.used;dev=sda;host=a",
]


def tree_of(make, names, first_id=0):
    tree = make()
    tree.add_many(names, first_id)
    return tree


def paths(tree, pattern):
    return [node.path for node in tree.find(pattern).rows()]


@each_tree
def test_find_tells_leaves_from_branches(make):
    tree = tree_of(make, NAMES, 10)
    assert tree.find("servers.web1.*").rows() == [
        TreeNode("servers.web1.cpu", "cpu", True, True, 12)
    ]
    assert tree.find("*").rows() == [
        TreeNode("load", "load", True, False, 16),
        TreeNode("servers", "servers", False, True, NO_ID),
    ]
    assert tree.find("servers.web1.cpu.*").rows() == [
        TreeNode("servers.web1.cpu.system", "system", True, False, 11),
        TreeNode("servers.web1.cpu.user", "user", True, False, 10),
    ]


@each_tree
def test_expand_gives_ids_by_name(make):
    ids = tree_of(make, NAMES).expand("servers.*.cpu.user")
    assert ids.dtype == np.int32
    # By code points of whole names: "db-1." comes before "db.", unlike element by element.
    assert ids.tolist() == [4, 5, 0, 3]


@each_tree
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("servers.web1", ["servers.web1"]),
        ("servers.web{1,2,3}.cpu", ["servers.web1.cpu", "servers.web2.cpu"]),
        ("servers.web[!1].cpu", ["servers.web2.cpu"]),
        (r"servers.web\1.cpu", ["servers.web1.cpu"]),
        ("servers.nope.*", []),
        ("servers.web1.cpu.user.*", []),
        ("load.*", []),
        ("", []),
        (".", []),
        ("servers..cpu", []),
        ("servers.web1.cpu.", []),
        ("**.system", ["servers.web1.cpu.system"]),
        (
            "servers.web1.**",
            ["servers.web1.cpu", "servers.web1.cpu.system", "servers.web1.cpu.user"],
        ),
        ("**.servers.**.web2.**", ["servers.web2.cpu", "servers.web2.cpu.user"]),
        ("disk.*", []),
        ("disk.used;dev=sda;host=a", ["disk.used;dev=sda;host=a"]),
        ("disk.used;dev=*;host=a", []),
    ],
)
def test_patterns(make, pattern, expected):
    assert paths(tree_of(make, NAMES), pattern) == expected


@each_tree
def test_tagged_names_are_leaves_by_exact_name(make):
    tree = tree_of(make, NAMES)
    name = NAMES[-1]
    assert tree.find(name).rows() == [TreeNode(name, name, True, False, 7)]
    assert tree.expand(name).tolist() == [7]
    assert tree.expand("disk.used;x=1").tolist() == []
    assert tree.get(name) == 7
    assert tree.remove(name) == 7
    assert tree.remove(name) == NO_ID
    assert tree.get(name) == NO_ID


@each_tree
def test_get(make):
    tree = tree_of(make, NAMES)
    assert [tree.get(name) for name in NAMES] == list(range(len(NAMES)))
    for unknown in ("", ".", "servers", "servers.web1", "servers.web1.cpu.", "load.x", "nope"):
        assert tree.get(unknown) == NO_ID


@each_tree
def test_remove_prunes_empty_branches(make):
    tree = tree_of(make, NAMES)
    assert tree.remove("servers.web2.cpu.user") == 3
    assert paths(tree, "servers.web2") == []
    assert tree.remove("servers.web1.cpu") == 2
    assert tree.find("servers.web1.cpu").rows() == [
        TreeNode("servers.web1.cpu", "cpu", False, True, NO_ID)
    ]
    for unknown in ("servers.web2.cpu.user", "servers", "servers.web1.cpu.", "x.y", ""):
        assert tree.remove(unknown) == NO_ID
    for name in NAMES:
        tree.remove(name)
    assert len(tree) == 0
    assert tree.find("**").rows() == []
    tree.add_many(["servers.a"], 5)
    assert tree.expand("**").tolist() == [5]


@each_tree
def test_remove_turns_a_branch_back_into_a_leaf(make):
    tree = tree_of(make, ["a.b", "a.b.c"])
    assert tree.remove("a.b.c") == 1
    assert tree.find("a.*").rows() == [TreeNode("a.b", "b", True, False, 0)]
    if make is nametree.NameTree:
        assert tree._root == {"a": ("b", 0)}


@each_tree
def test_a_name_added_again_takes_the_new_id(make):
    tree = tree_of(make, [*NAMES, "a", "a.b"])
    tree.add_many([*NAMES, "a"], 100)
    assert len(tree) == len(NAMES) + 2
    assert tree.get("load") == 106
    assert tree.get("servers.web1.cpu") == 102
    assert tree.get("a") == 108


@each_tree
def test_limits(make):
    tree = tree_of(make, NAMES)
    assert len(tree.expand("servers.**", limit=6)) == 6
    with pytest.raises(LimitExceeded, match="render_series_max"):
        tree.expand("servers.**", limit=5, setting="render_series_max")
    with pytest.raises(LimitExceeded, match="PATTERN_CHARS_MAX"):
        tree.find("a" * (PATTERN_CHARS_MAX + 1))


element = st.text("ab-", min_size=1, max_size=2)
name = st.lists(element, min_size=1, max_size=4).map(".".join)
pattern = st.lists(
    st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "?", "{a,b}", "**", "[!a]*"]),
    min_size=1,
    max_size=4,
)


def slow_match(elements, parts):
    """Whether the elements of a pattern match those of a path; a final ** needs at least one more."""
    if not elements:
        return not parts
    first, rest = elements[0], elements[1:]
    if first == "**":
        if not rest:
            return len(parts) >= 1
        return any(slow_match(rest, parts[i:]) for i in range(len(parts) + 1))
    if not parts:
        return False
    variants = ["a", "b"] if first == "{a,b}" else [first]
    return any(fnmatch.fnmatchcase(parts[0], v) for v in variants) and slow_match(rest, parts[1:])


@each_tree
@given(
    st.lists(st.tuples(st.booleans(), name), max_size=25),
    st.lists(pattern, min_size=1, max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_equals_a_slow_model(make, changes, patterns):
    tree = make()
    model = {}
    for id_, (add, changed) in enumerate(changes):
        if add or changed not in model:
            tree.add_many([changed], id_)
            model[changed] = id_
        else:
            assert tree.remove(changed) == model.pop(changed)
    assert len(tree) == len(model)
    branches = {n[:i] for n in model for i, c in enumerate(n) if c == "."}
    for elements in patterns:
        hits = sorted(p for p in model.keys() | branches if slow_match(elements, p.split(".")))
        expected = [
            TreeNode(p, p.split(".")[-1], p in model, p in branches, model.get(p, NO_ID))
            for p in hits
        ]
        assert tree.find(".".join(elements)).rows() == expected
        ids = [model[p] for p in hits if p in model]
        assert tree.expand(".".join(elements)).tolist() == ids


@each_tree
def test_readers_see_a_whole_tree_while_names_are_added_and_removed(make):
    stay = [f"stay.s{i % 7}.x{i}" for i in range(700)]
    tree = tree_of(make, stay)
    failures = []

    def read():
        try:
            for _ in range(50):
                for pattern in ("stay.*.*", "stay.**", "stay.s[0-9].x*"):
                    assert set(stay) <= set(paths(tree, pattern))
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for reader in readers:
            reader.start()
        while any(reader.is_alive() for reader in readers):
            more = [f"stay.s{i % 7}.y{i % 11}.z{i}" for i in range(100)]
            tree.add_many(more, 1_000)
            for extra in more:
                tree.remove(extra)
    finally:
        sys.setswitchinterval(interval_s)
    assert failures == []
    assert len(tree) == 700


@each_tree
@pytest.mark.parametrize("pattern", ["stay.*", "**", "stay.x[0-9]*", "stay.**"])
def test_a_writer_that_runs_wherever_memory_is_allocated(make, pattern):
    """Up to Python 3.11 the collector, and with it another thread, may run inside of list(dict.items())."""
    stay = [f"stay.x{i}" for i in range(100)]
    tree = tree_of(make, stay)
    added = []

    def write(phase, info):
        if phase == "stop":
            return
        added.append(f"stay.y{len(added)}")
        tree.add_many(added[-1:], 0)
        if len(added) % 50 == 0:
            for name in added[-50:]:
                tree.remove(name)

    thresholds = gc.get_threshold()
    gc.set_threshold(7)
    gc.callbacks.append(write)
    try:
        for _ in range(50):
            assert set(stay) <= set(paths(tree, pattern))
    finally:
        gc.callbacks.remove(write)
        gc.set_threshold(*thresholds)
    assert len(added) > 50
