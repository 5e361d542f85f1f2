"""/tags: the index of tags, as graphite-web 1.1.10 answers (with its SQLite store: case counts).

    GET       /tags                       filter, limit             [{"id": 1, "tag": "rack"}]
    GET       /tags/NAME                  filter, limit             {"id", "tag", "values": [{"id", "value", "count"}]}
    GET POST  /tags/findSeries            expr                      ["name;tag=value", …]
    GET POST  /tags/autoComplete/tags     expr, tagPrefix, limit    ["rack", …]
    GET POST  /tags/autoComplete/values   tag, expr, valuePrefix, limit
    POST      /tags/tagSeries             path                      "name;tag=value"
    POST      /tags/tagMultiSeries        path                      ["name;tag=value", …]
    POST      /tags/delSeries             path                      true

``expr`` and ``path`` may be repeated, and be called ``expr[]`` and ``path[]``. ``limit=0`` gives nothing, a
negative one all (autoComplete: all but so many, or nothing where there are expressions). ``from`` and
``until`` are ignored, but beside both limit=0 means that no limit is given. Errors are ``{"error": "…"}``.

Decided: tagSeries makes the series, so that it can be found at once; of a name without tags the index
knows until the server starts again. delSeries takes a series out of the index of tags until tagSeries
puts it back; its points and its exact name stay (as in graphite-web, where carbon brings it back with
new points). A tag that no series has any more isn't listed. Numbers (``id``) hold for one run of the
server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain
from typing import Any, Protocol, TypeVar

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from http_api import gently
from http_api.chunks import CHUNK_BYTES
from http_api.cluster import Cluster, failed_of
from http_api.find import LINE_BYTES, NODE_BYTES, bytes_at_most, text_bytes
from http_api.queries import Queries, memory
from http_api.reply import INLINE_ENTRIES_MAX, Params, read_params, reply_json
from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.kernels import NodeTable
from tgres_py.model.tagindex import Regex, TagIndex, parse_expression
from tgres_py.query.source import Source

LIMIT_DEFAULT = 100  # of autoComplete
ELSEWHERE_MAX = 10_000  # that other nodes are asked for when all are wanted
# indexes of fewer series are searched without a thread's help
INLINE_SERIES_MAX = 20_000

CHAR_BYTES, ENTRY_BYTES = 6, 80  # in JSON: of a character at most, of a value besides its text

T = TypeVar("T")


class TagSettings(Protocol):
    @property
    def response_bytes_max(self) -> int: ...
    @property
    def tag_paths_max(self) -> int: ...


class Tags:
    """The views over one source; findSeries and autoComplete also over other nodes, when there is a
    ``cluster`` and ``local`` doesn't forbid to ask them.
    """

    def __init__(
        self,
        source: Source,
        settings: TagSettings,
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

    async def all(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        limit = _list_limit(params)
        index = self.source.tags()
        found = await _search(index, lambda: index.tags(params.get("filter")))
        rows = [{"id": number, "tag": tag} for number, tag in found[:limit]]
        return await self._reply(rows, params, request)

    async def one(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        limit = _list_limit(params)
        tag = request.match_info["tag"]
        index = self.source.tags()
        number = index.tag_number(tag)
        if number == 0:
            return await self._reply(None, params, request)
        async with self.memory(request, index.value_count(tag)):
            found, counts = await _search(index, partial(_values, index, tag, params.get("filter")))
            found = found.first(limit)

            def make() -> dict[str, Any]:
                values = chain.from_iterable(_counted(part, counts) for part in found.parts())
                return {"id": number, "tag": tag, "values": values if len(found) else []}

            at_most = bytes_at_most([found], ENTRY_BYTES) + 2 * ENTRY_BYTES + CHAR_BYTES * len(tag)
            return await reply_json(
                make, params, request, len(found), self.bytes_max, at_most, self.threads
            )

    async def find_series(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        expressions = _repeated(params, "expr")
        if not expressions:
            raise BadRequest("no tag expressions specified")
        index = self.source.tags()
        ids = await _search(index, lambda: index.find(expressions))

        def find() -> NodeTable:
            return NodeTable.of_texts(gently.names(self.source, ids)).by_path()

        asked = [("expr", text) for text in expressions]
        names = await _search(index, partial(text_bytes, self.source, ids))
        async with self.memory(request, len(ids), names):
            found = await _search(index, find)
            return await self._reply_joined(found, "tags/findSeries", asked, None, params, request)

    async def complete_tags(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        expressions, prefix = _repeated(params, "expr"), params.get("tagPrefix") or ""
        limit = _complete_limit(params, bool(expressions))
        index = self.source.tags()

        def complete() -> list[str]:
            if not expressions:
                return [tag for _, tag in index.tags()]
            searched = {parse_expression(text).tag for text in expressions}
            return [tag for tag in index.tags_of(index.find(expressions)) if tag not in searched]

        asked = [("tagPrefix", prefix), *(("expr", text) for text in expressions)]
        path = "tags/autoComplete/tags"
        found = await _search(index, lambda: _starting(complete(), prefix))
        return await self._reply_joined(found, path, asked, limit, params, request)

    async def complete_values(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        expressions, prefix = _repeated(params, "expr"), params.get("valuePrefix") or ""
        tag = params.get("tag")
        if not tag:
            raise BadRequest("no tag specified")
        limit = _complete_limit(params, bool(expressions))
        index = self.source.tags()

        def complete() -> NodeTable:
            if expressions:
                texts = index.values_of(tag, index.find([*expressions, f"{tag}!="]))
                return _starting(texts, prefix)
            return _values(index, tag, None, prefix)[0]

        asked = [("tag", tag), ("valuePrefix", prefix), *(("expr", text) for text in expressions)]
        path = "tags/autoComplete/values"
        async with self.memory(request, index.value_count(tag)):
            found = await _search(index, complete)
            return await self._reply_joined(found, path, asked, limit, params, request)

    @asynccontextmanager
    async def memory(
        self, request: web.Request, entries: int, texts: int = 0
    ) -> AsyncIterator[None]:
        """While a long list is looked up and sent it has its share of the queries' memory. ``texts``: bytes of them all, where
        they are long."""
        if entries <= INLINE_ENTRIES_MAX:
            yield
            return
        size = entries * NODE_BYTES + texts + 8 * CHUNK_BYTES
        async with memory(request, self.room, size):
            yield

    async def _reply_joined(
        self,
        found: NodeTable,
        path: str,
        asked: list[tuple[str, str]],
        limit: int | None,
        params: Params,
        request: web.Request,
    ) -> web.StreamResponse:
        """What we have and what other nodes have, sorted when they have something; ``limit``: as of
        a slice.
        """
        if self.cluster is not None and not params.number("local") and limit != 0:
            # others cut their list at its start, too: so many of each are enough
            most = limit if limit is not None and limit > 0 else ELSEWHERE_MAX
            others, failed = await self.cluster.texts(path, [*asked, ("limit", str(most))])
            failed_of(request).update(failed)
            if any(map(len, others)):
                found = NodeTable.together([found, *others]).by_path()
        found = found.first(limit)
        at_most = bytes_at_most([found], LINE_BYTES)
        return await reply_json(
            found.each_path, params, request, len(found), self.bytes_max, at_most, self.threads
        )

    async def tag_series(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        path = params.get("path")
        if not path:
            raise BadRequest("no path specified")
        return await self._reply((await self.source.tag_series([path]))[0], params, request)

    async def tag_many(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        paths = self._paths(params, "no paths specified")
        return await self._reply(await self.source.tag_series(paths), params, request)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        await self.source.untag_series(self._paths(params, "no path specified"))
        return await self._reply(True, params, request)

    def _paths(self, params: Params, message: str) -> list[str]:
        paths = _repeated(params, "path")
        if not paths:
            raise BadRequest(message)
        most = self.settings.tag_paths_max
        if len(paths) > most:
            raise LimitExceeded("paths", len(paths), most, "tag_paths_max")
        return paths

    async def _reply(self, value: Any, params: Params, request: web.Request) -> web.StreamResponse:
        entries = len(value) if isinstance(value, list) else 1
        return await reply_json(
            lambda: value, params, request, entries, self.settings.response_bytes_max
        )


async def wrong_method(request: web.Request) -> web.Response:
    """For the paths that would else be taken for a tag's name."""
    raise web.HTTPMethodNotAllowed(request.method, ["POST"])


async def _search(index: TagIndex, work: Callable[[], T]) -> T:
    return work() if len(index) <= INLINE_SERIES_MAX else await asyncio.to_thread(work)


def _values(
    index: TagIndex, tag: str, pattern: str | None, prefix: str = ""
) -> tuple[NodeTable, NDArray[np.int64]]:
    """The values of a tag that are in use, sorted, and by their ids how many series have them."""
    texts, counts = index.value_counts(tag)
    wanted = counts > 0
    if pattern:
        wanted &= Regex(pattern).accepts(texts)
    if prefix:
        starts = (text.startswith(prefix) for text in texts)
        wanted &= np.fromiter(starts, np.bool_, len(texts))
    table = NodeTable.of_texts(texts)
    table.ids = np.arange(len(texts), dtype=np.int32)
    return table.take(np.flatnonzero(wanted)).by_path(), counts


def _counted(part: NodeTable, counts: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    numbers, series = (part.ids + 1).tolist(), counts[part.ids].tolist()
    for value, number, count in zip(part.path_texts(), numbers, series, strict=True):
        yield {"id": number, "value": value, "count": count}


def _starting(texts: list[str], prefix: str) -> NodeTable:
    return NodeTable.of_texts(text for text in texts if text.startswith(prefix))


def _repeated(params: Params, name: str) -> list[str]:
    return params.all(name) or params.all(f"{name}[]")


def _list_limit(params: Params) -> int | None:
    """Of /tags and /tags/NAME: empty or negative = all."""
    if not params.get("limit"):
        return None
    limit = params.number("limit")
    return None if limit < 0 else limit


def _complete_limit(params: Params, searched: bool) -> int:
    """Of autoComplete, for a slice; where expressions are searched, nothing is below 0.

    Grafana's back end writes all its parameters, and limit=0 when none is set; graphite-web then
    lists nothing.
    """
    limit = params.number("limit", LIMIT_DEFAULT)
    if limit == 0 and "from" in params and "until" in params:
        limit = LIMIT_DEFAULT
    return max(0, limit) if searched else limit
