"""/metrics/find, /metrics/expand, /metrics/index.json: names from the tree in memory.

Source of formats and parameters: graphite-web 1.1.10. ``from`` and ``until`` are checked but don't
narrow the result (nor do they there, with whisper files). Grafana 12 sends the words
from=undefined; graphite-web refuses them, and so does this. A node that is branch and leaf is listed
twice, the branch first, but for treejson, where it is a branch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote_plus

import numpy as np
from aiohttp import web

from http_api import gently
from http_api.cluster import Cluster, Found, failed_of, with_found
from http_api.formats import msgpack_writer, pickle_writer
from http_api.render_params import now_of, zone_of
from http_api.reply import (
    INLINE_ENTRIES_MAX,
    Params,
    compress_for,
    read_params,
    reply,
    reply_json,
)
from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.query.source import FindNode, SeriesSource, is_wide
from tgres_py.target.attime import parse_at_time

FORMATS = ("treejson", "completer", "json", "nodelist", "pickle", "msgpack")
_PACKED = {
    "pickle": (pickle_writer.dump_list, "application/pickle"),
    "msgpack": (msgpack_writer.dump_list, "application/x-msgpack"),
}
_by_name = itemgetter(1)
T = TypeVar("T")


class FindSettings(Protocol):
    @property
    def response_bytes_max(self) -> int: ...
    @property
    def find_nodes_max(self) -> int: ...
    @property
    def find_queries_max(self) -> int: ...


class Find:
    """The three views over one source, and over other nodes when there is a ``cluster``."""

    def __init__(
        self, source: SeriesSource, settings: FindSettings, cluster: Cluster | None = None
    ) -> None:
        self.source = source
        self.settings = settings
        self.bytes_max = settings.response_bytes_max
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

    async def find(self, request: web.Request) -> web.Response:
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
        nodes = await self.in_thread([pattern], partial(self.nodes, pattern, found))
        if leaves_only:
            nodes = [node._replace(is_branch=False) for node in nodes if node.is_leaf]
        make: Callable[[], Any]
        if wanted == "treejson":
            make = partial(tree_json, nodes, query, wildcards)
        elif wanted == "completer":
            make = partial(completer, nodes, wildcards)
        elif wanted == "nodelist":
            make = partial(node_list, nodes, position)
        else:
            make = partial(self.with_intervals, nodes, found, now_s, wanted)
        failed_of(request).update(found.failed)
        if wanted in _PACKED:
            return await self.reply_packed(make, request, wanted, len(nodes))
        return await reply_json(make, params, request, len(nodes), self.bytes_max)

    async def in_thread(self, patterns: Sequence[str], look_up: Callable[[], T]) -> T:
        """What ``look_up`` finds; where it may take long, the event loop goes on meanwhile."""
        if is_wide(self.source, patterns):
            return await asyncio.to_thread(look_up)
        return look_up()

    def nodes(self, query: str, found: Found) -> list[FindNode]:
        """The nodes that match, sorted by name. LimitExceeded, BadRequest."""
        nodes = with_found(self.local(query), found)
        self.check_count(len(nodes))
        return gently.sort(nodes, _by_name)

    def check_count(self, nodes: int) -> None:
        most = self.settings.find_nodes_max
        if nodes > most:
            raise LimitExceeded("nodes to list", nodes, most, "find_nodes_max")

    def local(self, query: str) -> list[FindNode]:
        """This node's own. ``a.`` is the branch ``a`` with nothing after its dot (as graphite-web)."""
        pattern = _plain(query)
        if ";" in pattern or len(pattern) < 2 or pattern[-1] != "." or pattern[-2] == ".":
            return self.source.find(pattern)
        branches = [node for node in self.source.find(pattern[:-1]) if node.is_branch]
        return [FindNode(node.path + ".", "", False, True, -1) for node in branches]

    def with_intervals(
        self, nodes: Sequence[FindNode], found: Found, now_s: int, wanted: str
    ) -> Iterator[dict[str, Any]]:
        """For programs: a leaf may have points since its longest retention ago.

        json is sorted by path, and its intervals are objects; the others have ``isLeaf``, too, which
        carbonapi reads.
        """
        is_json = wanted == "json"
        for part in gently.parts(gently.sort(nodes) if is_json else nodes):
            yield from self._intervals(part, found, now_s, is_json)

    def _intervals(
        self, nodes: Sequence[FindNode], found: Found, now_s: int, is_json: bool
    ) -> Iterator[dict[str, Any]]:
        ids = np.array([node.id for node in nodes if node.id >= 0], np.int32)
        retentions = iter([spec.archives[-1].retention_s for spec in self.source.bundles(ids)])
        for node in nodes:
            kinds = ([False] if node.is_branch else []) + ([True] if node.is_leaf else [])
            for is_leaf in kinds:
                row: dict[str, Any] = {"path": node.path, "is_leaf": is_leaf}
                if not is_json:
                    row["isLeaf"] = is_leaf
                if is_leaf:
                    start = now_s - next(retentions) if node.id >= 0 else now_s
                    if node.path in found.nodes:
                        start = min(start, found.nodes[node.path].since_s)
                    row["intervals"] = (
                        [{"start": start, "end": now_s}] if is_json else [(start, now_s)]
                    )
                yield row

    async def reply_packed(
        self, make: Callable[[], Any], request: web.Request, wanted: str, entries: int
    ) -> web.Response:
        dump, content_type = _PACKED[wanted]

        def write() -> tuple[bytes, dict[str, str]]:
            return compress_for(request, gently.joined(dump(make()), self.bytes_max))

        small = entries <= INLINE_ENTRIES_MAX
        body, headers = write() if small else await asyncio.to_thread(write)
        return reply(body, content_type, headers)

    async def expand(self, request: web.Request) -> web.Response:
        params = await read_params(request)
        by_query, leaves_only = params.number("groupByExpr"), params.number("leavesOnly")
        queries = params.all("query")
        most = self.settings.find_queries_max
        if len(queries) > most:
            raise LimitExceeded("queries", len(queries), most, "find_queries_max")
        remote = await self.elsewhere(queries, params)

        def look_up() -> dict[str, set[str]]:
            return {query: self.paths(query, remote[query], bool(leaves_only)) for query in queries}

        found = await self.in_thread(queries, look_up)
        entries = sum(map(len, found.values()))
        self.check_count(entries)
        make = partial(_expanded, found, bool(by_query))
        failed_of(request).update(*(one.failed for one in remote.values()))
        return await reply_json(make, params, request, entries, self.bytes_max)

    def paths(self, query: str, found: Found, leaves_only: bool) -> set[str]:
        if not query:
            return set()
        return {
            node.path
            for node in with_found(self.local(query), found)
            if node.is_leaf or not leaves_only
        }

    async def index(self, request: web.Request) -> web.Response:
        params = await read_params(request)
        local = params.number("local")

        def all_names() -> list[str]:
            return gently.names(self.source, self.source.expand("**"))

        names = await self.in_thread(["**"], all_names)
        if self.cluster is not None and not local:
            others, failed = await self.cluster.texts("metrics/index.json", [])
            failed_of(request).update(failed)
            if others:
                names = await asyncio.to_thread(gently.sort, others.union(names))
        # ours come in order, each once
        return await reply_json(lambda: names, params, request, len(names), self.bytes_max)


def _expanded(found: Mapping[str, set[str]], by_query: bool) -> dict[str, Any]:
    if by_query:
        return {"results": {query: gently.sort(paths) for query, paths in found.items()}}
    return {"results": gently.sort(set[str]().union(*found.values()))}


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


def tree_json(nodes: Sequence[FindNode], query: str, wildcards: bool) -> list[dict[str, str | int]]:
    """One entry for each name, branches first; a node that is branch and leaf shows as a branch.

    ``id`` is the query up to its last dot, wildcards included, and the name. ``nodes``: by name.
    """
    prefix = query[: query.rfind(".") + 1]
    branches = dict.fromkeys(node.name for node in nodes if node.is_branch)
    # of one name in several branches the first node counts
    leaves = dict.fromkeys(node.name for node in nodes if node.name not in branches)
    out = [_tree_node(name, prefix, True) for name in branches]
    out += [_tree_node(name, prefix, False) for name in leaves]
    if wildcards and _entries(nodes) > 1:
        out.insert(0, _tree_node("*", prefix, bool(branches)))
    return out


def _entries(nodes: Sequence[FindNode]) -> int:
    """How many nodes graphite-web counts: those that are branch and leaf twice."""
    return sum(node.is_branch + node.is_leaf for node in nodes)


def _tree_node(name: str, prefix: str, branch: bool) -> dict[str, str | int]:
    return {
        "text": unquote_plus(name),
        "id": prefix + name,
        "allowChildren": int(branch),
        "expandable": int(branch),
        "leaf": int(not branch),
    }


def completer(nodes: Sequence[FindNode], wildcards: bool) -> dict[str, Iterator[dict[str, str]]]:
    """A branch's path ends with a dot. ``nodes``: by name."""

    def rows() -> Iterator[dict[str, str]]:
        for path, name, is_leaf, is_branch, _ in nodes:
            if is_branch:
                yield {"path": path + ".", "name": name, "is_leaf": "0"}
            if is_leaf:
                yield {"path": path, "name": name, "is_leaf": "1"}
        if wildcards and _entries(nodes) > 1:
            yield {"name": "*"}

    return {"metrics": rows()}


def node_list(nodes: Sequence[FindNode], position: int) -> dict[str, list[str]]:
    """The distinct elements at one position of the paths; negative positions count from the end."""
    try:
        return {"nodes": sorted({node.path.split(".")[position] for node in nodes})}
    except IndexError:
        raise BadRequest(f"position: {position} is beyond the paths that match") from None
