"""The front of a cluster: asks other nodes (tgres or graphite-web) for what they have.

    GET|POST PEER/render/?format=msgpack&local=1&noCache=1&from=&until=&now=&target=…
    GET      PEER/metrics/find/?format=msgpack&local=1&query=…[&from=&until=]
    GET      PEER/metrics/index.json?local=1
    GET      PEER/tags/autoComplete/tags|values, PEER/tags/findSeries  &local=1

``local=1``: a node that is asked so asks no other one, so that nodes may all name each other. No
request goes to anywhere but the configured peers: redirects aren't followed, proxies and cookies
not used. A node that fails is named in the answer's header ``X-Tgres-Peers-Failed`` and counted,
and left alone for REST_S; the answer holds what the others have. Each change of a node's state is
one line in the log. What answers take while they are read comes out of the queries' memory. Source of the requests:
graphite-web 1.1.10 as a front.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from yarl import URL

from http_api.peer_answers import (
    BadAnswer,
    Beyond,
    Body,
    read_find,
    read_render,
    read_texts,
    reckon_find,
    reckon_render,
    reckon_texts,
)
from http_api.room import Room, Share
from tgres_py import clock
from tgres_py.errors import LimitExceeded
from tgres_py.kernels import NodeTable
from tgres_py.model import nodes as model
from tgres_py.query.remote import Answers, RemoteKey, RemoteSeries, group

log = logging.getLogger("tgres.cluster")

FAILED_HEADER = "X-Tgres-Peers-Failed"
REST_S = 10.0
CONNECTIONS_MAX = 8  # to one peer
URL_CHARS_MAX = 2_000  # longer requests are sent as a form
INLINE_BYTES_MAX = 32_768  # longer answers are read in a worker thread
CHUNK_BYTES = 65_536
STEP_BYTES = 1 << 20  # memory for an answer is taken so much at a time
# aiohttp before 3.14 knows texts only
_FAILED: Any = getattr(web, "RequestKey", lambda name, kind: name)("tgres.peers_failed", set)
_SPECIAL = re.compile(r"([()'\"|\\])")

Pairs = list[tuple[str, str]]
Nodes = model.NodeTable
T = TypeVar("T")


class PeerFailed(Exception):
    """The text says why. ``rest``: the node is better left alone for a while."""

    def __init__(self, reason: str, rest: bool) -> None:
        super().__init__(reason)
        self.rest = rest


@dataclass(slots=True)
class Peer:
    """One other node. ``name``: host and port, for people; ``url``: without user and password, which no error can tell so."""

    url: URL
    name: str
    headers: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    failures: int = 0
    rests_until_s: float = 0.0
    available: bool = True

    def answered(self) -> None:
        if not self.available:
            log.warning("peer %s answers again", self.name)
        self.available = True

    def failed(self, error: PeerFailed) -> None:
        self.failures += 1
        if not error.rest:
            log.debug("peer %s: %s", self.name, error)
            return
        self.rests_until_s = clock.monotonic() + REST_S
        if self.available:
            log.warning("peer %s: %s; answers go on without it", self.name, error)
        self.available = False


@dataclass(slots=True)
class Found:
    """What each of the other nodes listed, in no order. ``failed``: names of those that didn't answer."""

    nodes: list[Nodes] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Cluster:
    """All peers. ``start`` within a running loop, ``close`` at the end. ``bytes_max``: of an answer; ``room``: of all."""

    def __init__(
        self, urls: Sequence[str], timeout_s: float, bytes_max: int, room: Room | None = None
    ) -> None:
        self.room = room or Room(sys.maxsize)
        self.peers = [_peer(url) for url in urls]
        self.timeout_s = timeout_s
        self.bytes_max = bytes_max
        self._session: aiohttp.ClientSession | None = None

    @property
    def names(self) -> list[str]:
        return [peer.name for peer in self.peers]

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        """Opens for an application, and closes at its end (one of its ``cleanup_ctx``)."""
        await self.start()
        yield
        await self.close()

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit_per_host=CONNECTIONS_MAX),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            auto_decompress=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "tgres"},
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    # -- series ------------------------------------------------------------------------------

    async def fetch(self, keys: Sequence[RemoteKey], now_s: int, points_max: int) -> Answers:
        """See query.remote.Peers."""
        counts: dict[str, tuple[int, int]] = {}

        async def one(peer: Peer) -> dict[RemoteKey, list[RemoteSeries]]:
            jobs = [self._render(peer, asked, now_s, points_max) for asked in _batches(keys)]
            found: dict[RemoteKey, list[RemoteSeries]] = {}
            for answer in await _together(jobs):
                found.update(answer)
            series = [series for same in found.values() for series in same]
            counts[peer.name] = len(series), sum(len(one.values) for one in series)
            return found

        answers, failed = await self._all(one)
        series = {key: [answer[key] for answer in answers if key in answer] for key in keys}
        return Answers(series, failed, counts)

    async def _render(
        self, peer: Peer, keys: Sequence[RemoteKey], now_s: int, points_max: int
    ) -> dict[RemoteKey, list[RemoteSeries]]:
        """Of keys of one range."""
        asked = {key.expression: key for key in keys}
        targets = {_target(key): key for key in keys}
        pairs = [("format", "msgpack"), ("local", "1"), ("noCache", "1")]
        pairs += [("from", str(keys[0].from_s)), ("until", str(keys[0].until_s))]
        pairs += [("now", str(now_s)), *(("target", target) for target in targets)]
        expressions = {**targets, **asked}  # a node may answer the expression as it was sent
        with self.room.share() as share:
            body = await self._ask(peer, "render/", pairs, share)
            if len(body) <= INLINE_BYTES_MAX:
                return read_render(body, expressions, points_max)
            likely, most = await asyncio.to_thread(reckon_render, body)
            for reckoned in (likely, most):
                share.grow_now(reckoned.bytes)
                read = partial(read_render, body, expressions, points_max, reckoned)
                try:
                    return await asyncio.to_thread(read)
                except Beyond:
                    pass
        raise AssertionError("an answer holds more values than bytes")

    # -- names -------------------------------------------------------------------------------

    async def find(self, queries: Iterable[str], times: Pairs) -> dict[str, Found]:
        """The nodes of each query that other nodes have. ``times``: from and until, as far as given."""
        wanted = list(dict.fromkeys(queries))
        found = await _together([self._find(query, times) for query in wanted])
        return dict(zip(wanted, found, strict=True))

    async def _find(self, query: str, times: Pairs) -> Found:
        pairs = [("local", "1"), ("format", "msgpack"), ("query", query), *times]

        async def one(peer: Peer) -> NodeTable:
            return await self._read(peer, "metrics/find/", pairs, reckon_find, read_find)

        answers, failed = await self._all(one)
        return Found(answers, failed)

    async def texts(self, path: str, pairs: Pairs) -> tuple[list[Nodes], list[str]]:
        """The texts that each of the other nodes lists under a path (names, tags, values), and who failed."""

        async def one(peer: Peer) -> Nodes:
            return await self._read(peer, path, [("local", "1"), *pairs], reckon_texts, read_texts)

        return await self._all(one)

    # -- asking ------------------------------------------------------------------------------

    async def _all(self, ask: Callable[[Peer], Awaitable[T]]) -> tuple[list[T], list[str]]:
        """The answers of all peers in the order of the settings, and the names of those without."""

        async def one(peer: Peer) -> T | None:
            if peer.rests_until_s > clock.monotonic():
                return None
            try:
                answer = await ask(peer)
            except PeerFailed as error:
                peer.failed(error)
                return None
            except BadAnswer as error:
                peer.failed(PeerFailed(f"a bad answer: {error}", rest=True))
                return None
            peer.answered()
            return answer

        answers = await _together([one(peer) for peer in self.peers])
        named = zip(self.peers, answers, strict=True)
        failed = [peer.name for peer, answer in named if answer is None]
        return [answer for answer in answers if answer is not None], failed

    async def _read(
        self,
        peer: Peer,
        path: str,
        pairs: Pairs,
        reckon: Callable[[Body], int],
        read: Callable[[Body], NodeTable],
    ) -> NodeTable:
        """What ``read`` finds in an answer, with the memory that ``reckon`` says."""
        with self.room.share() as share:
            body = await self._ask(peer, path, pairs, share)
            if len(body) <= INLINE_BYTES_MAX:
                return read(body)
            share.grow_now(await asyncio.to_thread(reckon, body))
            return await asyncio.to_thread(read, body)

    async def _ask(self, peer: Peer, path: str, pairs: Pairs, share: Share) -> bytearray:
        """The body of an answer with status 200. PeerFailed; LimitExceeded: it is too long; Overloaded."""
        assert self._session is not None, "start() comes first"
        peer.requests += 1
        query = urlencode(pairs)
        url = peer.url.joinpath(path)
        if len(query) <= URL_CHARS_MAX:
            request = self._session.get(
                URL(f"{url}?{query}", encoded=True), headers=peer.headers, allow_redirects=False
            )
        else:
            form = {"Content-Type": "application/x-www-form-urlencoded", **peer.headers}
            request = self._session.post(url, data=query, headers=form, allow_redirects=False)
        try:
            async with request as response:
                return await self._body(response, share)
        except TimeoutError:
            raise PeerFailed(f"no answer within {self.timeout_s:g} s", rest=True) from None
        except aiohttp.ClientError as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise PeerFailed(reason, rest=True) from None

    async def _body(self, response: aiohttp.ClientResponse, share: Share) -> bytearray:
        if response.status != 200:
            # what it doesn't like is the request: the next one may be answered
            refused = 400 <= response.status < 500
            raise PeerFailed(f"status {response.status}", rest=not refused)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise PeerFailed("a packed answer, which wasn't asked for", rest=True)
        out = bytearray()
        held = INLINE_BYTES_MAX  # so little needn't be taken
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            out += chunk
            if len(out) > self.bytes_max:
                raise LimitExceeded(
                    "bytes of a peer's answer", len(out), self.bytes_max, "response_bytes_max"
                )
            if len(out) > held:
                held = len(out) + STEP_BYTES
                share.grow_now(held)
        return out  # a copy of a long one would take some ten milliseconds


def _peer(text: str) -> Peer:
    url = URL(text)
    headers = {}
    if url.user or url.password:
        secret = b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()
        headers = {"Authorization": f"Basic {secret}"}
    return Peer(url.with_user(None), f"{url.host}:{url.port}{url.path.rstrip('/')}", headers)


def _batches(keys: Iterable[RemoteKey]) -> list[list[RemoteKey]]:
    """One request for each range. A seriesByTag() goes alone: its expression may come back written
    in another way.
    """
    out = []
    for same in group(keys).values():
        paths = [key for key in same if not key.by_tags]
        out += ([paths] if paths else []) + [[key] for key in same if key.by_tags]
    return out


def _target(key: RemoteKey) -> str:
    """The expression as a target: what the parser took off is put before special characters again."""
    return key.expression if key.by_tags else _SPECIAL.sub(r"\\\1", key.expression)


async def _together(jobs: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of them give; with the first that fails the others end."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def with_found(nodes: Nodes, found: Found) -> Nodes:
    """Our nodes and those that other nodes have, each path once, in the order of their paths."""
    others = [table for table in found.nodes if len(table)]
    return NodeTable.together([nodes, *others]).by_path() if others else nodes


def failed_of(request: web.Request) -> set[str]:
    """Who is missing in the answer to a request; to be filled before that is sent."""
    failed: set[str] = request.setdefault(_FAILED, set())
    return failed


async def name_failed(request: web.Request, response: web.StreamResponse) -> None:
    """A signal handler: says in the answer who is missing in it, and that it isn't to be kept."""
    if names := sorted(request.get(_FAILED, ())):
        response.headers[FAILED_HEADER] = ", ".join(names)
        response.headers["Cache-Control"] = "no-store"
