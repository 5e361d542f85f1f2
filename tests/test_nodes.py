"""Tables of nodes: the native twin, the pure one and plain Python say the same."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgres_py import kernels
from tgres_py.model import nodes
from tgres_py.model.nodes import NEVER, NO_ID, TreeNode

TABLES = [nodes.NodeTable, kernels.NodeTable] if kernels.NATIVE else [nodes.NodeTable]
each_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__module__)

_element = st.sampled_from(["a", "b", "ab", "a-b", "ü", "日本", "x" * 20, "𝄞", "", "a\0"])
_node = st.builds(
    lambda elements, kind, id_, since_s: TreeNode(
        ".".join(elements), elements[-1], kind != 2, kind != 1, id_, since_s
    ),
    st.lists(_element, min_size=1, max_size=3),
    st.integers(1, 3),
    st.sampled_from([NO_ID, 0, 7]),
    st.sampled_from([NEVER, 0, 50]),
)
_nodes = st.lists(_node, max_size=12)


def joined(rows: list[TreeNode]) -> list[TreeNode]:
    """As by_path."""
    out = []
    for path, same in groupby(sorted(rows, key=lambda node: node.path), lambda node: node.path):
        alike = list(same)
        out.append(
            TreeNode(
                path,
                alike[0].name,
                any(node.is_leaf for node in alike),
                any(node.is_branch for node in alike),
                max(node.id for node in alike),
                min(node.since_s for node in alike),
            )
        )
    return out


@each_table
@given(_nodes, _nodes)
@settings(max_examples=300, deadline=None)
def test_tables_equal_lists(
    table: type[nodes.NodeTable], rows: list[TreeNode], more: list[TreeNode]
) -> None:
    made = table.of(rows)
    assert made.rows() == rows
    assert len(made) == len(rows)
    assert made.entries == sum(node.is_leaf + node.is_branch for node in rows)
    assert made.by_path().rows() == joined(rows)
    assert made.by_name().rows() == sorted(rows, key=lambda node: node.name)
    assert made.leaves().rows() == [n._replace(is_branch=False) for n in rows if n.is_leaf]
    assert made.branches().rows() == [node for node in rows if node.is_branch]
    assert made.last_elements().rows() == [node._replace(path=node.name) for node in rows]
    both = table.together([made.by_path(), table.of(more), table.of(())])
    assert both.rows() == joined(rows) + more
    assert both.by_path().rows() == joined(rows + more)
    assert both.bytes_used >= len(both) * 29


@each_table
def test_many_rows_come_in_parts(table: type[nodes.NodeTable]) -> None:
    texts = [f"x.{number % 7}.{number}" for number in range(25_000)]
    made = table.of_texts(texts)
    assert [len(part) for part in made.parts()] == [10_000, 10_000, 5_000]
    assert list(made.each_path()) == texts
    assert list(table.together([made, made]).by_path().each_path()) == sorted(texts)
