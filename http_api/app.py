"""The HTTP application: routes, and what it needs of the server.

A trailing slash is answered as the path without it, directly: a redirect would lose the body of a
POST.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from aiohttp import web

from http_api import openapi, pages, shortlinks
from http_api.admin import Admin
from http_api.cluster import Cluster, name_failed
from http_api.events import Events, EventSettings
from http_api.find import Find, FindSettings
from http_api.functions import Functions
from http_api.guard import Access, guarding, sharing
from http_api.info import Info
from http_api.json_errors import errors_as_json
from http_api.meters import Meters, metering
from http_api.queries import Handler, Queries, QueriesSettings, in_turn
from http_api.render import Render, RenderSettings
from http_api.reply import errors_as_text, reply, reply_error
from http_api.tags import Tags, TagSettings, wrong_method
from http_api.tokens import TokenCheck
from tgres_py.errors import TgresError
from tgres_py.functions.registry import functions
from tgres_py.kernels.arrays import count_arrays
from tgres_py.query.limits import DefaultLimits
from tgres_py.query.source import Source

GRAPHITE_VERSION = "1.1.10"
THREADS = 4


class HttpSettings(
    RenderSettings, FindSettings, TagSettings, EventSettings, QueriesSettings, Protocol
):
    """The settings that the HTTP side uses, by the settings' own names."""

    @property
    def body_bytes_max(self) -> int: ...


@dataclass(frozen=True)
class DefaultHttpSettings(DefaultLimits):
    response_bytes_max: int = 200 << 20
    body_bytes_max: int = 1 << 20
    query_concurrent_max: int = 32
    query_queue_max: int = 256
    render_workers: int = 0
    find_nodes_max: int = 2_000_000
    find_queries_max: int = 1_000
    tag_paths_max: int = 10_000
    events_max: int = 50_000
    picture_pixels_max: int = 10_000_000
    picture_series_max: int = 1_000


class Status(Protocol):
    """What the server says of itself."""

    async def ready(self) -> None:
        """Returns when requests can be answered; raises TgresError (its text goes out with status
        503) otherwise.
        """

    def metrics(self) -> bytes:
        """The server's own metrics in Prometheus text format."""


def make_app(
    source: Source,
    status: Status,
    settings: HttpSettings | None = None,
    cluster: Cluster | None = None,
    admin: Admin | None = None,
    meters: Meters | None = None,
    access: Callable[[], Access] = Access,
    tokens: TokenCheck | None = None,
    queries: Queries | None = None,
) -> web.Application:
    """The application, for aiohttp's AppRunner; it owns its worker threads and processes and its connections to
    other nodes, and ends them with itself. ``access`` is asked at each request; ``queries``: what they share.
    """
    settings = settings or DefaultHttpSettings()
    meters = meters or Meters()
    functions()  # loading them would keep the first query, and all else meanwhile
    threads = ThreadPoolExecutor(THREADS, "render", initializer=count_arrays)
    finders = ThreadPoolExecutor(THREADS, "find", initializer=count_arrays)
    queries = queries or Queries.of(settings)

    async def end_threads(app: web.Application) -> AsyncIterator[None]:
        yield
        for pool in (threads, finders):
            pool.shutdown(wait=False, cancel_futures=True)

    middlewares = [errors_as_text, metering(meters), guarding(access, tokens or TokenCheck())]
    app = web.Application(middlewares=middlewares, client_max_size=settings.body_bytes_max)
    app.cleanup_ctx.append(end_threads)
    app.cleanup_ctx.append(queries.workers.running)
    app.on_response_prepare.append(sharing(access))
    if cluster is not None:
        app.cleanup_ctx.append(cluster.running)
        app.on_response_prepare.append(name_failed)
    find = Find(source, settings, queries, finders, cluster)
    about = Functions()
    finding = partial(in_turn, queries, settings.query_timeout_s)
    render = Render(source, settings, threads, queries, cluster, meters)
    _add(app, "/render", render.view, "GET", "POST")
    _add(app, "/metrics/find", finding(find.find), "GET", "POST")
    _add(app, "/metrics/expand", finding(find.expand), "GET", "POST")
    _add(app, "/metrics/index.json", finding(find.index), "GET", "POST")
    _add(app, "/info", Info(source).view, "GET", "POST")
    _add_tags(app, Tags(source, settings, queries, finders, cluster), finding)
    _add_events(app, Events(source, settings, queries), finding)
    _add(app, "/functions", about.all, "GET")
    _add(app, "/functions/{name}", about.one, "GET")
    _add(app, "/version", _version, "GET")
    _add(app, "/openapi.json", openapi.view, "GET")
    _add(app, "/healthz", _healthz, "GET")
    _add(app, "/readyz", _readyz(status), "GET")
    _add(app, "/metrics", _metrics(status, finding(find.find)), "GET", "POST")
    _add_pages(app)
    if admin is not None:
        _add(app, "/admin", admin.list, "GET")
        app.router.add_route("POST", r"/admin/{verb:[a-z0-9_.-]+}", admin.run)
    return app


def _add(
    app: web.Application,
    path: str,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    *methods: str,
) -> None:
    for method in ("HEAD", *methods):
        app.router.add_route(method, path, handler)
        app.router.add_route(method, path + "/", handler)


def _add_tags(app: web.Application, tags: Tags, finding: Callable[[Handler], Handler]) -> None:
    for path, handler, *methods in (
        ("/tags", tags.all, "GET"),
        ("/tags/findSeries", tags.find_series, "GET", "POST"),
        ("/tags/autoComplete/tags", tags.complete_tags, "GET", "POST"),
        ("/tags/autoComplete/values", tags.complete_values, "GET", "POST"),
    ):
        _add(app, path, errors_as_json(finding(handler)), *methods)
    for path, handler in (
        ("/tags/tagSeries", tags.tag_series),
        ("/tags/tagMultiSeries", tags.tag_many),
        ("/tags/delSeries", tags.delete),
    ):
        # without HEAD and GET these would be names of tags
        app.router.add_route("GET", path, wrong_method)
        app.router.add_route("POST", path, errors_as_json(handler))
        app.router.add_route("POST", path + "/", errors_as_json(handler))
    _add(app, "/tags/{tag}", errors_as_json(finding(tags.one)), "GET")


def _add_events(
    app: web.Application, events: Events, finding: Callable[[Handler], Handler]
) -> None:
    for path in ("/events", "/events/"):
        app.router.add_route("POST", path, errors_as_json(events.add))
    find = errors_as_json(finding(events.find))
    _add(app, "/events", find, "GET")
    _add(app, "/events/get_data", find, "GET", "POST")
    _add(app, r"/events/{id:[0-9]{1,18}}", errors_as_json(events.one), "GET")


def _add_pages(app: web.Application) -> None:
    for path in pages.PAGES:
        _add(app, path.rstrip("/"), pages.page, "GET")
    app.router.add_route("GET", "/ui/{name}", pages.file)
    app.router.add_route("GET", "/s/{path:.*}", shortlinks.shorten)
    _add(app, "/S/{id:[a-zA-Z0-9]+}", shortlinks.follow, "GET")
    _add(app, "/dashboard/find", pages.find_dashboards, "GET", "POST")
    _add(app, "/dashboard/find_template", pages.find_templates, "GET", "POST")
    for verb in ("load", "delete"):
        _add(app, f"/dashboard/{verb}/{{name}}", pages.no_dashboard, "GET", "POST")
    _add(app, "/dashboard/load_template/{name}/{value}", pages.no_template, "GET", "POST")
    _add(app, "/dashboard/delete_template/{name}", pages.no_template, "GET", "POST")
    _add(app, "/dashboard/save/{name}", pages.no_saving, "GET", "POST")
    _add(app, "/dashboard/save_template/{name}/{key}", pages.no_saving, "GET", "POST")
    _add(app, "/dashboard/create-temporary", pages.no_saving, "GET", "POST")


async def _version(request: web.Request) -> web.Response:
    """The Graphite version whose API this is; text/html as there, with a body that no browser reads
    anything into.
    """
    return reply(f"{GRAPHITE_VERSION}\n".encode(), "text/html")


async def _healthz(request: web.Request) -> web.Response:
    return reply(b"ok\n", "text/plain")


def _readyz(status: Status) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def readyz(request: web.Request) -> web.Response:
        try:
            await status.ready()
        except TgresError as error:
            return reply_error(503, str(error))
        return reply(b"ok\n", "text/plain")

    return readyz


def _metrics(status: Status, find: Handler) -> Handler:
    async def metrics(request: web.Request) -> web.StreamResponse:
        # in Graphite this path is another one for find
        if request.method == "POST" or "query" in request.query:
            return await find(request)
        return reply(status.metrics(), "text/plain; version=0.0.4; charset=utf-8")

    return metrics
