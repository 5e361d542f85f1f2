"""The native tree of names and its pure twin give the same answers."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tgres_py.errors import LimitExceeded
from tgres_py.model import nametree

_tree = pytest.importorskip(
    "tgres_py.kernels._tree", reason="the extension isn't built: only the pure twin can run"
)

_element = st.one_of(
    st.text("ab-", min_size=1, max_size=3),
    st.sampled_from(["cpu", "ü", "日本", "𝄞", "a" * 300, "{", "[a]", "*"]),
)
_name = st.builds(
    lambda elements, tags: ".".join(elements) + tags,
    st.lists(_element, min_size=1, max_size=5),
    st.sampled_from(["", "", "", ";t=1", ";t=ü;u=2"]),
)
_pattern = st.one_of(
    _name,
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    "*",
                    "a*",
                    "*b",
                    "?",
                    "??",
                    "{a,b,cpu}",
                    "{a*,ü}",
                    "**",
                    "[!a]*",
                    "[a-c]",
                    "",
                    "*ü*",
                    "\ud800",
                    "{}",
                ]
            ),
            _element,
        ),
        min_size=1,
        max_size=5,
    ).map(".".join),
)
_step = st.one_of(
    st.tuples(st.just("add_many"), st.lists(_name, max_size=8)),
    st.tuples(st.just("add_lines"), st.lists(_name, max_size=8)),
    st.tuples(st.just("remove"), _name),
)


def _answer(method: Any, *args: Any) -> Any:
    """The answer in a form that can be compared; an error is its sentence."""
    try:
        answer = method(*args)
    except LimitExceeded as error:
        return str(error)
    return answer if isinstance(answer, list) else (str(answer.dtype), answer.tolist())


@given(st.lists(_step, max_size=8), st.lists(_pattern, min_size=1, max_size=6))
@settings(max_examples=400, deadline=None)
@example([("add_many", ["a", "a.b", "a-b", "a.b.c", "ab"])], ["**", "**.**", "*.*", "**.b"])
@example(
    [("add_many", ["a.b.c"]), ("remove", "a.b.c"), ("add_many", ["a.b"])], ["**", "a.b", "a.b.c"]
)
def test_twins_agree(steps: list[Any], patterns: list[str]) -> None:
    native, pure = _tree.NameTree(), nametree.NameTree()
    names: list[str] = []
    first_id = 0
    for step, given_ in steps:
        if step == "remove":
            known = names[len(given_) % len(names)] if names else given_
            for name in (given_, known):
                assert native.remove(name) == pure.remove(name)
            continue
        for tree in (native, pure):
            if step == "add_many":
                tree.add_many(given_, first_id)
            else:
                tree.add_lines("".join(f"{name}\n" for name in given_).encode(), first_id)
        names += given_
        first_id += len(given_)
        assert len(native) == len(pure)
    for name in names + patterns:
        assert native.get(name) == pure.get(name)
    for pattern in patterns:
        assert native.find(pattern).rows() == pure.find(pattern).rows()
        for limit in (None, 2):
            assert _answer(native.expand, pattern, limit, "x") == _answer(
                pure.expand, pattern, limit, "x"
            )


def test_lines_without_an_end_are_not_names() -> None:
    for make in (_tree.NameTree, nametree.NameTree):
        tree = make()
        tree.add_lines(b"", 0)
        tree.add_lines(b"a.b", 0)
        assert len(tree) == 0
        tree.add_lines(b"a.b\na.c", 7)
        assert tree.expand("**").tolist() == [7]


def test_a_name_that_no_table_would_hold_is_refused() -> None:
    tree = _tree.NameTree()
    with pytest.raises(ValueError, match="65536 bytes"):
        tree.add_lines(b"a\n" + b"x" * 65_536 + b"\nb\n", 0)
    assert tree.expand("**").tolist() == [0]
    tree.add_lines(b"x" * 65_535 + b"\n", 1)
    assert tree.get("x" * 65_535) == 1


def test_many_names_in_any_order() -> None:
    """Beyond the first block of nodes, the first arena, and several sizes of the hash."""
    names = [f"servers.host{i // 10}.metric{i % 10}.with.a.longer.tail{i}" for i in range(40_000)]
    random.Random(1).shuffle(names)
    tree = _tree.NameTree()
    empty = tree.bytes_used
    tree.add_lines("".join(f"{name}\n" for name in names).encode(), 0)
    assert len(tree) == 40_000
    assert tree.bytes_used > empty + 40_000 * 24
    assert all(tree.get(name) == i for i, name in enumerate(names))
    by_name = sorted(range(40_000), key=names.__getitem__)
    assert tree.expand("**").tolist() == by_name
    assert tree.expand("servers.host*.metric[0-9].*.*.*.*").tolist() == by_name
    assert [node.path for node in tree.find("servers.host77.*").rows()] == [
        f"servers.host77.metric{i}" for i in range(10)
    ]
    for name in names[:39_990]:
        tree.remove(name)
    assert tree.expand("**").tolist() == sorted(range(39_990, 40_000), key=names.__getitem__)


def test_readers_while_one_call_adds_many_names() -> None:
    """The writer lets readers in between two names; they see whole names only."""
    stay = [f"stay.s{i}.x" for i in range(500)]
    tree = _tree.NameTree()
    tree.add_many(stay, 0)
    done = threading.Event()
    counts: list[int] = []
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set() or not counts:
                assert tree.expand("stay.*.x").tolist() == tree.expand("stay.**").tolist()
                found = tree.find("more.*.*").rows()
                assert all(
                    node.is_leaf and node.path == f"more.{node.id % 97}.y{node.id}"
                    for node in found
                )
                counts.append(len(found))
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for first in range(0, 60_000, 20_000):
        lines = "".join(f"more.{i % 97}.y{i}\n" for i in range(first, first + 20_000))
        tree.add_lines(lines.encode(), first)
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(tree) == 60_500
    assert len(tree.find("more.*.*")) == 60_000


@pytest.mark.parametrize("make", [_tree.NameTree, nametree.NameTree])
def test_a_tree_knows_all_names_while_it_grows(make: Any) -> None:
    """Its hash grows in small steps: at no moment is a name missing, or one there that isn't."""
    tree = make()
    names = [f"a{i % 7}.b{i}" for i in range(12_000)]
    for i in range(0, len(names), 50):
        tree.add_lines("".join(f"{n}\n" for n in names[i : i + 50]).encode(), i)
        known = range(0, i + 50, 499)
        assert [tree.get(names[k]) for k in known] == list(known)
        assert tree.get(f"a0.c{i}") == -1
    assert len(tree) == len(names)
