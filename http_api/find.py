"""/metrics/find, /metrics/expand, /metrics/index.json: names from the tree in memory.

Source of formats and parameters: graphite-web 1.1.10. ``from`` and ``until`` are checked but don't
narrow the result (nor do they there, with whisper files). Grafana 12 sends the words
from=undefined; graphite-web refuses them, and so does this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote_plus

from aiohttp import web

from http_api.render import now_of, zone_of
from http_api.reply import Params, read_params, reply_json
from tgres_py.errors import BadRequest
from tgres_py.query.source import FindNode, SeriesSource
from tgres_py.target.attime import parse_at_time

QUERIES_MAX = 1_000


class Find:
    """The three views over one source."""

    def __init__(self, source: SeriesSource, response_bytes_max: int) -> None:
        self.source = source
        self.bytes_max = response_bytes_max

    async def find(self, request: web.Request) -> web.Response:
        params = await read_params(request)
        wanted = params.get("format", "treejson")
        leaves_only = params.number("leavesOnly")
        wildcards = params.number("wildcards")
        variants = params.number("automatic_variants")
        params.number("local")
        _check_range(params)
        query = params.get("query")
        if not query:
            raise BadRequest("query: Required parameter 'query' is missing or empty")
        if wanted not in ("treejson", "completer"):
            raise BadRequest(f"format: {wanted!r} isn't served; treejson and completer are")
        if wanted == "completer":
            query = _completer_query(query, bool(variants))
        nodes = self.source.find(_plain(query))
        if leaves_only:
            nodes = [node for node in nodes if node.is_leaf]
        if wanted == "completer":
            make: Callable[[], Any] = partial(completer, nodes, bool(wildcards))
        else:
            make = partial(tree_json, nodes, query, bool(wildcards))
        return await reply_json(make, params, request, len(nodes), self.bytes_max)

    async def expand(self, request: web.Request) -> web.Response:
        params = await read_params(request)
        params.number("local")
        by_query, leaves_only = params.number("groupByExpr"), params.number("leavesOnly")
        queries = params.all("query")
        if len(queries) > QUERIES_MAX:
            raise BadRequest(f"query: {len(queries)} are more than {QUERIES_MAX}")
        found = {query: self.paths(query, bool(leaves_only)) for query in queries}
        entries = sum(map(len, found.values()))
        make = partial(_expanded, found, bool(by_query))
        return await reply_json(make, params, request, entries, self.bytes_max)

    def paths(self, query: str, leaves_only: bool) -> set[str]:
        if not query:
            return set()
        return {
            node.path for node in self.source.find(_plain(query)) if node.is_leaf or not leaves_only
        }

    async def index(self, request: web.Request) -> web.Response:
        params = await read_params(request)
        params.number("local")
        names = self.source.names(self.source.expand("**"))
        return await reply_json(partial(sorted, names), params, request, len(names), self.bytes_max)


def _expanded(found: Mapping[str, set[str]], by_query: bool) -> dict[str, Any]:
    if by_query:
        return {"results": {query: sorted(paths) for query, paths in found.items()}}
    return {"results": sorted(set[str]().union(*found.values()))}


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


def _check_range(params: Params) -> None:
    zone = zone_of(params)
    now_s = now_of(params, zone)
    ends: list[int | None] = []
    for name in ("from", "until"):
        text = params.get(name)
        given = text is not None and text != "-1"
        ends.append(parse_at_time(text or "now", now_s, zone, name) if given else None)
    if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
        raise BadRequest("from: is later than until")


def tree_json(nodes: Sequence[FindNode], query: str, wildcards: bool) -> list[dict[str, str | int]]:
    """One entry for each name, branches first; a node that is branch and leaf shows as a branch.

    ``id`` is the query up to its last dot, wildcards included, and the name.
    """
    prefix = query[: query.rfind(".") + 1]
    branches = sorted({node.name for node in nodes if node.is_branch})
    leaves = sorted({node.name for node in nodes if node.is_leaf} - set(branches))
    out = [_tree_node(name, prefix, True) for name in branches]
    out += [_tree_node(name, prefix, False) for name in leaves]
    if wildcards and len(nodes) > 1:
        out.insert(0, _tree_node("*", prefix, bool(branches)))
    return out


def _tree_node(name: str, prefix: str, branch: bool) -> dict[str, str | int]:
    return {
        "text": unquote_plus(name),
        "id": prefix + name,
        "allowChildren": int(branch),
        "expandable": int(branch),
        "leaf": int(not branch),
    }


def completer(nodes: Sequence[FindNode], wildcards: bool) -> dict[str, list[dict[str, str]]]:
    """A branch's path ends with a dot; a node that is branch and leaf shows twice."""
    out = []
    for node in sorted(nodes, key=lambda node: node.name):
        if node.is_branch:
            out.append({"path": node.path + ".", "name": node.name, "is_leaf": "0"})
        if node.is_leaf:
            out.append({"path": node.path, "name": node.name, "is_leaf": "1"})
    if wildcards and len(out) > 1:
        out.append({"name": "*"})
    return {"metrics": out}
