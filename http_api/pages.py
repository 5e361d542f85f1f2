"""What graphite-web shows people: one page to look at series, and an empty store of dashboards.

The page is static (ui/), asks /metrics/find and /render as any client, and puts what they answer into
text nodes only; its policy forbids scripts and styles from elsewhere. Dashboards are answered in
graphite-web's words for one that isn't there; to save one is refused.
"""

from __future__ import annotations

from importlib import resources

from aiohttp import web

from http_api.reply import read_params, reply, reply_error, reply_json

PAGES = ("/", "/composer", "/browser", "/dashboard")
FILES = {
    "browser.html": "text/html; charset=utf-8",
    "browser.js": "text/javascript; charset=utf-8",
    "browser.css": "text/css; charset=utf-8",
}
_POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "max-age=300",
}
_BODIES = {name: (resources.files("http_api") / "ui" / name).read_bytes() for name in FILES}


async def page(request: web.Request) -> web.Response:
    return _file("browser.html")


async def file(request: web.Request) -> web.Response:
    """A part of the page; 404 for other names."""
    name = request.match_info["name"]
    return _file(name) if name in FILES else reply_error(404, "not found")


def _file(name: str) -> web.Response:
    return reply(_BODIES[name], FILES[name], _POLICY)


async def find_dashboards(request: web.Request) -> web.StreamResponse:
    return await reply_json(lambda: {"dashboards": []}, await read_params(request), request)


async def find_templates(request: web.Request) -> web.StreamResponse:
    return await reply_json(lambda: {"templates": []}, await read_params(request), request)


async def no_dashboard(request: web.Request) -> web.StreamResponse:
    message = f"Dashboard '{request.match_info['name']}' does not exist. "
    return await reply_json(lambda: {"error": message}, await read_params(request), request)


async def no_template(request: web.Request) -> web.StreamResponse:
    message = f"Template '{request.match_info['name']}' does not exist. "
    return await reply_json(lambda: {"error": message}, await read_params(request), request)


async def no_saving(request: web.Request) -> web.Response:
    return reply_error(400, "dashboards are not stored here; keep them in Grafana")
