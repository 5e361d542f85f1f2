"""What graphite-web shows people, as far as programs and checks ask for it: pages and stored dashboards.

There are none here: pages are one plain text that says where to look, and the store of dashboards is
an empty one, in graphite-web's words.
"""

from __future__ import annotations

from aiohttp import web

from http_api.reply import read_params, reply, reply_json

PAGES = ("/", "/composer", "/browser", "/dashboard")
_TEXT = b"""This is tgres-py, a store of time series that answers Graphite's HTTP API: /render, /metrics/find, /tags,
/functions, /events, /version; /metrics for Prometheus. It draws /render?target=NAME&format=png and has no other
pages: add it to Grafana as a data source of type Graphite.
"""


async def page(request: web.Request) -> web.Response:
    return reply(_TEXT, "text/plain; charset=utf-8")


async def find_dashboards(request: web.Request) -> web.Response:
    return await reply_json(lambda: {"dashboards": []}, await read_params(request), request)


async def find_templates(request: web.Request) -> web.Response:
    return await reply_json(lambda: {"templates": []}, await read_params(request), request)


async def no_dashboard(request: web.Request) -> web.Response:
    message = f"Dashboard '{request.match_info['name']}' does not exist. "
    return await reply_json(lambda: {"error": message}, await read_params(request), request)


async def no_template(request: web.Request) -> web.Response:
    message = f"Template '{request.match_info['name']}' does not exist. "
    return await reply_json(lambda: {"error": message}, await read_params(request), request)
