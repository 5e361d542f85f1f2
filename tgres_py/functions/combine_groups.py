"""Functions that sort series into groups and make one of each group. Groups come in the order of
their first members.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import TypeVar

from tgres_py.errors import BadRequest
from tgres_py.functions.aggregation import AGGREGATE_NAMES, reducer, short_name
from tgres_py.functions.alias import nodes_name
from tgres_py.functions.combine import aggregate_block
from tgres_py.functions.params import (
    AggOrSeriesFunc,
    LooseNode,
    Node,
    NodeOrTag,
    OldAggFunc,
    String,
    Tag,
)
from tgres_py.functions.reads import Context, Further, common_step
from tgres_py.functions.registry import RenderFunction, find_function, functions, render_function
from tgres_py.functions.series import BlockLists, Grid, Label, Row, SeriesBlock

K = TypeVar("K", bound=Hashable)


@render_function(group="Combine", steps=common_step)
def groupByNode(
    seriesList: SeriesBlock,
    nodeNum: NodeOrTag,
    callback: AggOrSeriesFunc = "average",
    *,
    context: Context,
) -> SeriesBlock:
    """One series for each value of a node or tag: ``callback`` of those that have it.

    load 10s  web.a 1 2
    load 10s  web.b 3 4
    load 10s  db.a 5 6
    eval groupByNode(*.*, 0, "sum")  => db: 5 6 | web: 4 6
    """
    return _by_nodes(seriesList, callback, (nodeNum,), context)


@render_function(group="Combine", steps=common_step, optional_list=True)
def groupByNodes(
    seriesList: SeriesBlock, callback: AggOrSeriesFunc, *nodes: NodeOrTag, context: Context
) -> SeriesBlock:
    """One series for each combination of nodes and tags: ``callback`` of those that have it.

    load 10s  web.a.x 1 2
    load 10s  web.b.x 3 4
    load 10s  web.a.y 5 6
    eval groupByNodes(*.*.*, "max", 0, 1)  => web.a: 5 6 | web.b: 3 4
    """
    return _by_nodes(seriesList, callback, nodes, context)


@render_function(group="Combine", steps=common_step)
def groupByTags(
    seriesList: SeriesBlock, callback: AggOrSeriesFunc, *tags: Tag, context: Context
) -> SeriesBlock:
    """One series for each combination of tags: ``callback`` of those that have it. The result has
    these tags, and the series' name if all have the same.

    load 10s  disk;dc=x;host=a 1 2
    load 10s  disk;dc=x;host=b 3 4
    eval groupByTags(seriesByTag("name=disk"), "sum", "dc")  => disk;dc=x: 4 6
    """
    if not tags:
        raise BadRequest("target: groupByTags(): no tags specified")
    callback_of = _callback(callback)
    names = {label.tags.get("name", label.name) for label in seriesList.labels}
    common = names.pop() if len(names) == 1 else callback
    wanted = tuple(tag for tag in tags if tag != "name")

    def key(label: Label) -> tuple[str, tuple[tuple[str, str], ...]]:
        name = label.tags.get("name", label.name) if "name" in tags else common
        return name, tuple((tag, label.tags.get(tag, "")) for tag in wanted)

    rows = []
    for (name, pairs), block in groups(seriesList, key):
        label, grid, values = _only_row(callback_of(block, context), callback)
        path = ";".join([name, *sorted(f"{tag}={value}" for tag, value in pairs)])
        # a tag that the series don't have stays in the name, empty; it is none of the result's tags
        known = {tag: value for tag, value in pairs if value}
        label = replace(label, name=path, path_expression=path, tags={"name": name, **known})
        rows.append((label, grid, values))
    return SeriesBlock.of_rows(rows)


@render_function(group="Combine", steps=common_step, optional_list=True)
def aggregateWithWildcards(
    seriesList: SeriesBlock, func: OldAggFunc, *position: LooseNode, context: Context
) -> SeriesBlock:
    """One series for all whose names differ only in the nodes at ``position``: ``func`` of them.

    load 10s  web.a.x 1 2
    load 10s  web.b.x 3 4
    eval aggregateWithWildcards(web.*.x, "max", 1)  => web.x: 3 4
    """
    return _with_wildcards(seriesList, func, position, context)


@render_function(group="Combine", steps=common_step, optional_list=True)
def sumSeriesWithWildcards(
    seriesList: SeriesBlock, *position: LooseNode, context: Context
) -> SeriesBlock:
    """The sums of the series whose names differ only in the nodes at ``position``.

    load 10s  web.a.x 1 2
    load 10s  web.b.x 3 4
    eval sumSeriesWithWildcards(web.*.x, 1)  => web.x: 4 6
    """
    return _with_wildcards(seriesList, "sum", position, context)


@render_function(group="Combine", steps=common_step, optional_list=True)
def averageSeriesWithWildcards(
    seriesList: SeriesBlock, *position: LooseNode, context: Context
) -> SeriesBlock:
    """The means of the series whose names differ only in the nodes at ``position``.

    load 10s  web.a.x 1 2
    load 10s  web.b.x 3 4
    eval averageSeriesWithWildcards(web.*.x, 1)  => web.x: 2 3
    """
    return _with_wildcards(seriesList, "average", position, context)


@render_function(group="Combine", steps=common_step, optional_list=True)
def multiplySeriesWithWildcards(
    seriesList: SeriesBlock, *position: LooseNode, context: Context
) -> SeriesBlock:
    """The products of the series whose names differ only in the nodes at ``position``.

    load 10s  web.a.x 1 2
    load 10s  web.b.x 3 4
    eval multiplySeriesWithWildcards(web.*.x, 1)  => web.x: 3 8
    """
    return _with_wildcards(seriesList, "multiply", position, context)


@render_function(group="Combine", aliases=("map",))
def mapSeries(seriesList: SeriesBlock, *mapNodes: NodeOrTag) -> SeriesBlock:
    """A list of lists for reduceSeries: the series with equal nodes and tags at ``mapNodes``.

    load 10s  a.x 1 2
    load 10s  b.x 3 4
    load 10s  a.y 5 6
    eval mapSeries(*.*, 0)  => a.x: 1 2 | a.y: 5 6 | b.x: 3 4
    """
    return BlockLists(
        [block for _, block in groups(seriesList, lambda label: nodes_name(label, mapNodes))]
    )


@render_function(group="Combine", aliases=("reduce",), steps=common_step)
def reduceSeries(
    seriesLists: BlockLists,
    reduceFunction: String,
    reduceNode: Node,
    *reduceMatchers: String,
    context: Context,
) -> SeriesBlock:
    """Calls ``reduceFunction`` for each group of series that differ in the node ``reduceNode``, with
    those whose node is the first of ``reduceMatchers``, the second, and so on.

    load 10s  web1.used 1 2
    load 10s  web1.size 4 4
    load 10s  web2.used 3 1
    load 10s  web2.size 4 4
    eval reduceSeries(map(*.*, 0), "divideSeries", 1, "used", "size")  => web1.reduce.divideSeries: 0.25 0.5 | web2.reduce.divideSeries: 0.75 0.25
    """
    function = find_function(reduceFunction)
    found: dict[str, list[Row | None]] = {}
    for row in (row for block in _lists_of(seriesLists) for row in block.rows()):
        nodes = row[0].name.split(".")
        if not -len(nodes) <= reduceNode < len(nodes):
            raise BadRequest(f"target: reduceSeries(): {row[0].name} has no node {reduceNode}")
        if nodes[reduceNode] in reduceMatchers:
            name = ".".join(nodes[:reduceNode]) + ".reduce." + reduceFunction
            matched = found.setdefault(name, [None] * len(reduceMatchers))
            matched[reduceMatchers.index(nodes[reduceNode])] = row
    rows = []
    for name, some in found.items():
        matched_rows = [row for row in some if row is not None]
        if len(matched_rows) < len(some):
            raise BadRequest(f"target: reduceSeries(): a series is missing for {name}")
        blocks = [SeriesBlock.of_rows([row]) for row in matched_rows]
        label, grid, values = _only_row(_call(function, blocks, context), reduceFunction)
        rows.append((label.renamed(name), grid, values))
    return SeriesBlock.of_rows(rows)


@render_function(group="Combine", steps=common_step)
def applyByNode(
    seriesList: SeriesBlock,
    nodeNum: Node,
    templateFunction: String,
    newName: String | None = None,
) -> SeriesBlock | Further:
    """Evaluates ``templateFunction`` for each distinct beginning of the names, up to and with node
    ``nodeNum``; ``%`` in it, and in ``newName``, stands for that beginning.

    load 10s  web1.used 1 2
    load 10s  web1.size 4 4
    eval applyByNode(*.used, 0, "divideSeries(%.used, %.size)", "% used")  => web1 used: 0.25 0.5
    """
    prefixes = sorted(
        {".".join(label.name.split(".")[: nodeNum + 1]) for label in seriesList.labels}
    )
    last = [grid for _, grid, _ in seriesList.rows()][-1:]

    def finish(blocks: list[SeriesBlock]) -> SeriesBlock:
        rows = []
        for prefix, block in zip(prefixes, blocks, strict=True):
            for label, grid, values in block.rows():
                name = newName.replace("%", prefix) if newName else label.name
                # all results are put where the last of the series is (as in graphite-web)
                grid = Grid(last[0].start_s, last[0].end_s, grid.step_s)
                rows.append((replace(label, name=name, path_expression=prefix), grid, values))
        return SeriesBlock.of_rows(rows)

    return Further(tuple(templateFunction.replace("%", prefix) for prefix in prefixes), finish)


def groups(block: SeriesBlock, key: Callable[[Label], K]) -> Iterable[tuple[K, SeriesBlock]]:
    """The series with equal keys, in the order of the first ones."""
    members: dict[K, list[Row]] = {}
    for row in block.rows():
        members.setdefault(key(row[0]), []).append(row)
    return ((found, SeriesBlock.of_rows(rows)) for found, rows in members.items())


def _by_nodes(
    block: SeriesBlock, callback: str, nodes: tuple[int | str, ...], context: Context
) -> SeriesBlock:
    callback_of = _callback(callback)
    rows = []
    for name, some in groups(block, lambda label: nodes_name(label, nodes)):
        label, grid, values = _only_row(callback_of(some, context), callback)
        rows.append((label.renamed(name), grid, values))
    return SeriesBlock.of_rows(rows)


def _with_wildcards(
    block: SeriesBlock, func: str, positions: tuple[int | float, ...], context: Context
) -> SeriesBlock:
    reducer(short_name(func))
    left_out = frozenset(positions)

    def key(label: Label) -> str:
        nodes = label.name.split(".")
        return ".".join(node for place, node in enumerate(nodes) if place not in left_out)

    rows = []
    for name, some in groups(block, key):
        for label, grid, values in aggregate_block(some, func, context.xff).rows():
            rows.append((label.renamed(name), grid, values))
    return SeriesBlock.of_rows(rows)


def _callback(name: str) -> Callable[[SeriesBlock, Context], SeriesBlock]:
    """The render function of that name, or the aggregation function.

    Where both exist (``count``) the aggregation counts, but for ``avg`` and ``sum``, which
    graphite-web has as render functions. BadRequest when there is neither, and when the function
    needs more than series.
    """
    function = (
        None if name in AGGREGATE_NAMES and name not in ("avg", "sum") else functions().get(name)
    )
    if function is None:
        reducer(short_name(name))
        return lambda block, context: aggregate_block(block, name, context.xff)
    return lambda block, context: _call(function, [block], context)


def _call(function: RenderFunction, blocks: list[SeriesBlock], context: Context) -> SeriesBlock:
    """A render function called with series alone. BadRequest when it needs more, or reads more."""
    params = function.params
    taken = [param.takes_series for param in params[: len(blocks)]]
    if params and params[-1].multiple:
        taken += [params[-1].takes_series] * (len(blocks) - len(params))
    lacking = [param for param in params[len(blocks) :] if param.required and not param.multiple]
    if len(taken) < len(blocks) or not all(taken) or lacking or function.reads:
        raise BadRequest(
            f"target: {function.signature} can't be called with {len(blocks)} series alone"
        )
    call_context = {"context": replace(context, windows=())} if function.wants_context else {}
    result = function.call(*blocks, **call_context)
    if isinstance(result, Further):
        raise BadRequest(f"target: {function.signature} can't be called by another function")
    return result


def _only_row(block: SeriesBlock, function: str) -> Row:
    """The first series of a result (graphite-web drops further ones). BadRequest without any."""
    for row in block.rows():
        return row
    raise BadRequest(f"target: {function}() gives no series for a group")


def _lists_of(block: SeriesBlock) -> list[SeriesBlock]:
    return block.lists if isinstance(block, BlockLists) else [block]
