"""/metrics/find, /metrics/expand, /metrics/index.json: names from the tree in memory.

Source of formats and parameters: graphite-web 1.1.10. ``from`` and ``until`` are checked but don't
narrow the result (nor do they there, with whisper files). Grafana 12 sends the words
from=undefined; graphite-web refuses them, and so does this. A node that is branch and leaf is listed
twice, the branch first, but for treejson, where it is a branch.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote_plus

from aiohttp import web

from http_api import gently
from http_api.chunks import CHUNK_BYTES, limited
from http_api.cluster import Cluster, Found, failed_of, with_found
from http_api.encoding import dump_json
from http_api.formats import msgpack_writer, pickle_writer
from http_api.queries import Queries, memory
from http_api.render_params import now_of, zone_of
from http_api.reply import (
    INLINE_ENTRIES_MAX,
    Params,
    read_params,
    reply_json,
    reply_pieces,
)
from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.kernels import NodeTable
from tgres_py.model import nodes as model
from tgres_py.model.nodes import AT_ONCE, BRANCH, LEAF, NO_ID, TreeNode
from tgres_py.model.points import Ids
from tgres_py.query.source import SeriesSource, is_wide
from tgres_py.target.attime import parse_at_time

FORMATS = ("treejson", "completer", "json", "nodelist", "pickle", "msgpack")
_PACKED = {
    "pickle": (pickle_writer.dump_list, "application/pickle"),
    "msgpack": (msgpack_writer.dump_list, "application/x-msgpack"),
}
# what an answer has beside its texts, for each entry; measured: up to 95
ENTRY_BYTES_MAX = 100
PRETTY_TIMES_MAX = 3
LINE_BYTES = 8  # around a text in a list of them, pretty or not
# memory for each node while it is looked up, sorted and merged, without its text: measured 84 to 172 with texts of 21 bytes
NODE_BYTES = 128
Nodes = model.NodeTable
T = TypeVar("T")


class FindSettings(Protocol):
    @property
    def response_bytes_max(self) -> int: ...
    @property
    def find_nodes_max(self) -> int: ...
    @property
    def find_queries_max(self) -> int: ...


class Find:
    """The three views over one source, and over other nodes when there is a ``cluster``. What may take long is done by
    ``threads``, in pieces, so that all have their turn.
    """

    def __init__(
        self,
        source: SeriesSource,
        settings: FindSettings,
        queries: Queries,
        threads: Executor,
        cluster: Cluster | None = None,
    ) -> None:
        self.source = source
        self.settings = settings
        self.bytes_max = settings.response_bytes_max
        self.room = queries.room
        self.threads = threads
        self.cluster = cluster

    async def elsewhere(
        self, queries: Sequence[str], params: Params, times: Sequence[tuple[str, str]] = ()
    ) -> dict[str, Found]:
        """What other nodes have of each query; nothing when ``local`` forbids to ask them.
        ``times``: from and until that they are asked with.
        """
        local = params.number("local")
        wanted = [query for query in queries if query]
        if self.cluster is None or local or not wanted:
            return {query: Found() for query in queries}
        return {"": Found(), **await self.cluster.find(wanted, list(times))}

    async def find(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        wanted = params.get("format", "treejson")
        leaves_only = bool(params.number("leavesOnly"))
        wildcards = bool(params.number("wildcards"))
        variants = bool(params.number("automatic_variants"))
        position = params.number("position", -1)
        now_s = _check_range(params)
        query = params.get("query")
        if not query:
            raise BadRequest("query: Required parameter 'query' is missing or empty")
        if wanted not in FORMATS:
            raise BadRequest(f"format: Invalid value {wanted!r}; {', '.join(FORMATS)} are served")
        pattern = _completer_query(query, variants) if wanted == "completer" else query
        found = (await self.elsewhere([pattern], params, times_of(params)))[pattern]
        look_up = partial(self.nodes, pattern, found, leaves_only)
        nodes = await self.look_up([pattern], [found], look_up)
        self.check_count(len(nodes))
        failed_of(request).update(found.failed)
        make: Callable[[], Any]
        if wanted == "treejson":
            make = partial(tree_json, nodes, query, wildcards)
        elif wanted == "completer":
            make = partial(completer, nodes, wildcards)
        elif wanted == "nodelist":
            make = partial(node_list, nodes, position)
        else:
            make = partial(self.with_intervals, nodes, now_s, wanted)
        if wanted in _PACKED:
            return await self.reply_packed(make, request, wanted, nodes)
        prefix_bytes = len(dump_json(_prefix(query))) if wanted == "treejson" else 0
        return await self.reply(make, params, request, [nodes], ENTRY_BYTES_MAX + prefix_bytes)

    async def look_up(
        self, patterns: Sequence[str], others: Sequence[Found], work: Callable[[], T]
    ) -> T:
        """What ``work`` finds; where it may take long, the event loop goes on meanwhile. ``others``: what it takes in."""
        if is_wide(self.source, patterns) or any(_is_long(one.nodes) for one in others):
            return await asyncio.get_running_loop().run_in_executor(self.threads, work)
        return work()

    def nodes(self, query: str, found: Found, leaves_only: bool) -> Nodes:
        """The nodes that match, sorted by path. BadRequest."""
        nodes = with_found(self.local(query), found)
        return nodes.leaves() if leaves_only else nodes

    def check_count(self, nodes: int) -> None:
        most = self.settings.find_nodes_max
        if nodes > most:
            raise LimitExceeded("nodes to list", nodes, most, "find_nodes_max")

    def local(self, query: str) -> Nodes:
        """This node's own. ``a.`` is the branch ``a`` with nothing after its dot (as graphite-web)."""
        pattern = _plain(query)
        if ";" in pattern or len(pattern) < 2 or pattern[-1] != "." or pattern[-2] == ".":
            return self.source.find(pattern)
        branches = self.source.find(pattern[:-1]).branches()
        return NodeTable.of(
            TreeNode(path + ".", "", False, True, NO_ID) for path in branches.each_path()
        )

    def with_intervals(self, nodes: Nodes, now_s: int, wanted: str) -> Iterator[dict[str, Any]]:
        """For programs: a leaf may have points since its longest retention ago.

        json is sorted by path, and its intervals are objects; the others have ``isLeaf``, too, which
        carbonapi reads.
        """
        is_json = wanted == "json"
        for part in (nodes if is_json else nodes.by_name()).parts():
            yield from self._intervals(part, now_s, is_json)

    def _intervals(self, nodes: Nodes, now_s: int, is_json: bool) -> Iterator[dict[str, Any]]:
        ids = nodes.ids[nodes.ids != NO_ID]
        retentions = iter([spec.archives[-1].retention_s for spec in self.source.bundles(ids)])
        columns = (
            nodes.path_texts(),
            nodes.kinds.tolist(),
            nodes.ids.tolist(),
            nodes.since_s.tolist(),
        )
        for path, kinds, id_, since_s in zip(*columns, strict=True):
            start = now_s - next(retentions) if id_ != NO_ID else now_s
            for kind in (BRANCH, LEAF):
                if not kinds & kind:
                    continue
                row: dict[str, Any] = {"path": path, "is_leaf": kind == LEAF}
                if not is_json:
                    row["isLeaf"] = kind == LEAF
                if kind == LEAF:
                    start = min(start, since_s)
                    row["intervals"] = (
                        [{"start": start, "end": now_s}] if is_json else [(start, now_s)]
                    )
                yield row

    async def expand(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        by_query, leaves_only = params.number("groupByExpr"), bool(params.number("leavesOnly"))
        queries = params.all("query")
        most = self.settings.find_queries_max
        if len(queries) > most:
            raise LimitExceeded("queries", len(queries), most, "find_queries_max")
        remote = await self.elsewhere(queries, params)

        def look_up() -> dict[str, Nodes]:
            return {
                query: self.nodes(query, remote[query], leaves_only) if query else NodeTable.of(())
                for query in queries
            }

        found = await self.look_up(queries, list(remote.values()), look_up)
        self.check_count(sum(map(len, found.values())))
        failed_of(request).update(*(one.failed for one in remote.values()))
        make = partial(_expanded, found, bool(by_query))
        query_bytes = sum(len(dump_json(query)) for query in found)
        return await self.reply(make, params, request, list(found.values()), 8 + query_bytes)

    async def index(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        local = params.number("local")
        ids = await self.look_up(["**"], [], partial(self.source.expand, "**"))
        make: Callable[[], Iterator[str]] = partial(gently.names, self.source, ids)
        others: list[Nodes] = []
        if self.cluster is not None and not local:
            others, failed = await self.cluster.texts("metrics/index.json", [])
            failed_of(request).update(failed)
        entries = len(ids) + sum(map(len, others))
        if entries <= INLINE_ENTRIES_MAX:
            if any(map(len, others)):
                make = partial(_joined, self.source, ids, others)
            return await reply_json(make, params, request, entries, self.bytes_max)
        measure = partial(text_bytes, self.source, ids)
        texts = await asyncio.get_running_loop().run_in_executor(self.threads, measure)
        texts += sum(2 * len(table.text) for table in others)
        size = ids.nbytes
        if any(map(len, others)):
            make = partial(_joined, self.source, ids, others)
            size += texts + entries * NODE_BYTES
        at_most = texts + entries * LINE_BYTES
        async with memory(request, self.room, size + body_bytes(at_most, self.bytes_max)):
            return await reply_json(
                make, params, request, entries, self.bytes_max, at_most, self.threads
            )

    async def reply(
        self,
        make: Callable[[], Any],
        params: Params,
        request: web.Request,
        tables: Sequence[Nodes],
        entry_bytes: int,
    ) -> web.StreamResponse:
        """``entry_bytes``: see bytes_at_most."""
        entries = sum(map(len, tables))
        at_most = math.inf
        if entries > INLINE_ENTRIES_MAX:
            times = PRETTY_TIMES_MAX if params.get("pretty") else 1
            at_most = times * bytes_at_most(tables, entry_bytes)
        async with self.memory(request, tables, at_most):
            return await reply_json(
                make, params, request, entries, self.bytes_max, at_most, self.threads
            )

    async def reply_packed(
        self, make: Callable[[], Any], request: web.Request, wanted: str, nodes: Nodes
    ) -> web.StreamResponse:
        dump, content_type = _PACKED[wanted]

        def write() -> Iterator[bytes]:
            return limited(dump(make(), nodes.entries), self.bytes_max)

        at_most = bytes_at_most([nodes], ENTRY_BYTES_MAX)
        async with self.memory(request, [nodes], at_most):
            collect = at_most > self.bytes_max
            return await reply_pieces(
                write, request, content_type, len(nodes), collect, self.threads
            )

    @asynccontextmanager
    async def memory(
        self, request: web.Request, tables: Sequence[Nodes], at_most: float
    ) -> AsyncIterator[None]:
        """While a long answer is made it has its share of the queries' memory, for which it may have to wait.
        ``at_most``: bytes of the body.
        """
        if not _is_long(tables):
            yield
            return
        nodes = sum(len(table.text) + len(table) * NODE_BYTES for table in tables)
        async with memory(request, self.room, nodes + body_bytes(at_most, self.bytes_max)):
            yield


def body_bytes(at_most: float, bytes_max: int) -> int:
    """Memory for a body of so many bytes at most: some chunks of it, or all where it may be too long (see reply_json)."""
    return 8 * CHUNK_BYTES if at_most <= bytes_max else bytes_max + CHUNK_BYTES


def _is_long(tables: Sequence[Nodes]) -> bool:
    return sum(map(len, tables)) > INLINE_ENTRIES_MAX


def bytes_at_most(tables: Sequence[Nodes], entry_bytes: int) -> int:
    """No answer is longer that has each node's path and name in at most one entry for each kind, which takes ``entry_bytes``
    beside. Names hold no character that JSON writes in six.
    """
    size = 0
    for table in tables:
        escaped = b'"' in table.text or b"\\" in table.text
        size += len(table.text) * 4 * (2 if escaped else 1) + table.entries * entry_bytes
    return size + entry_bytes


def text_bytes(source: SeriesSource, ids: Ids) -> int:
    """The names of these take no more in JSON, without what is around each."""
    size = 0
    for first in range(0, len(ids), AT_ONCE):
        text = "".join(source.names(ids[first : first + AT_ONCE]))
        size += len(text) * 4 if not text.isascii() or '"' in text or "\\" in text else len(text)
    return size


def _joined(source: SeriesSource, ids: Ids, others: Sequence[Nodes]) -> Iterator[str]:
    """The names of all, sorted, each once."""
    ours = NodeTable.of_texts(gently.names(source, ids))
    return NodeTable.together([ours, *others]).by_path().each_path()


def _expanded(found: Mapping[str, Nodes], by_query: bool) -> dict[str, Any]:
    """The tables are sorted."""
    if by_query:
        return {"results": {query: nodes.each_path() for query, nodes in found.items()}}
    tables = list(found.values())
    joined = tables[0] if len(tables) == 1 else NodeTable.together(tables).by_path()
    return {"results": joined.each_path()}


def _plain(query: str) -> str:
    """Backslashes are dropped before matching, as in graphite-web."""
    return query.replace("\\", "")


def _completer_query(query: str, variants: bool) -> str:
    query = query.replace("..", "*.")
    if not query.endswith("*"):
        query += "*"
    if not variants:
        return query
    parts = query.split(".")
    return ".".join(f"{{{part}}}" if "," in part and "{" not in part else part for part in parts)


def _check_range(params: Params) -> int:
    """Checks from, until, tz and now; the time that counts as now."""
    ends = dict(times_of(params))
    if len(ends) == 2 and int(ends["from"]) > int(ends["until"]):
        raise BadRequest("from: is later than until")
    return now_of(params, zone_of(params))


def times_of(params: Params) -> list[tuple[str, str]]:
    """from and until in seconds, those that are given: what other nodes are asked with."""
    zone = zone_of(params)
    now_s = now_of(params, zone)
    return [
        (name, str(parse_at_time(text or "now", now_s, zone, name)))
        for name in ("from", "until")
        if (text := params.get(name)) is not None and text != "-1"
    ]


def _prefix(query: str) -> str:
    return query[: query.rfind(".") + 1]


def tree_json(nodes: Nodes, query: str, wildcards: bool) -> Iterator[dict[str, str | int]]:
    """One entry for each name, branches first; a node that is branch and leaf shows as a branch.

    ``id`` is the query up to its last dot, wildcards included, and the name.
    """
    prefix = _prefix(query)
    names = nodes.last_elements().by_path()
    if wildcards and nodes.entries > 1:
        yield _tree_node("*", prefix, bool((names.kinds & BRANCH).any()))
    for branches in (True, False):
        for part in names.parts():
            for name, kinds in zip(part.path_texts(), part.kinds.tolist(), strict=True):
                if (kinds != LEAF) is branches:
                    yield _tree_node(name, prefix, branches)


def _tree_node(name: str, prefix: str, branch: bool) -> dict[str, str | int]:
    return {
        "text": unquote_plus(name),
        "id": prefix + name,
        "allowChildren": int(branch),
        "expandable": int(branch),
        "leaf": int(not branch),
    }


def completer(nodes: Nodes, wildcards: bool) -> dict[str, Iterator[dict[str, str]]]:
    """A branch's path ends with a dot."""

    def rows() -> Iterator[dict[str, str]]:
        for part in nodes.by_name().parts():
            columns = part.path_texts(), part.name_texts(), part.kinds.tolist()
            for path, name, kinds in zip(*columns, strict=True):
                if kinds & BRANCH:
                    yield {"path": path + ".", "name": name, "is_leaf": "0"}
                if kinds & LEAF:
                    yield {"path": path, "name": name, "is_leaf": "1"}
        if wildcards and nodes.entries > 1:
            yield {"name": "*"}

    return {"metrics": rows()}


def node_list(nodes: Nodes, position: int) -> dict[str, Iterator[str]]:
    """The distinct elements at one position of the paths; negative positions count from the end."""
    try:
        parts = [
            NodeTable.of_texts({path.split(".")[position] for path in part.path_texts()})
            for part in nodes.parts()
        ]
    except IndexError:
        raise BadRequest(f"position: {position} is beyond the paths that match") from None
    return {"nodes": NodeTable.together(parts).by_path().each_path()}
