"""What the HTTP API takes and answers, as OpenAPI 3.1, for client generators and API browsers.

    GET /openapi.json

One declaration for each path; tests/test_openapi.py holds it equal to the router's routes and to the
parameters that the views read. HEAD is answered wherever GET is, and a trailing slash is ignored:
neither is described. Parameters may stand in the query, in a form or in a JSON object.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from http_api import find
from http_api.answer import PICTURES
from http_api.encoding import dump_json
from http_api.formats import FORMATS
from http_api.reply import reply
from tgres_py import __version__

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Param:
    """``type``: of JSON Schema, or "list" (may be repeated)."""

    name: str
    help: str
    type: str = "string"
    required: bool = False
    values: Sequence[str] = ()

    def schema(self) -> JsonObject:
        if self.type == "list":
            return {"type": "array", "items": {"type": "string"}}
        return {"type": self.type} | ({"enum": list(self.values)} if self.values else {})


@dataclass(frozen=True, slots=True)
class Operation:
    """One path. ``body``: JSON fields that a POST takes instead of the parameters; ``says``: what such
    a POST answers.
    """

    path: str
    tag: str
    summary: str
    params: tuple[Param, ...] = ()
    methods: tuple[str, ...] = ("get",)
    produces: tuple[str, ...] = ("application/json",)
    body: tuple[Param, ...] | None = None
    says: tuple[str, ...] = ()


def _named(help_: str, type_: str, names: str) -> tuple[Param, ...]:
    return tuple(Param(name, help_, type_) for name in names.split())


_BOTH = ("get", "post")
_TEXT = ("text/plain",)
_JSON = (
    Param("jsonp", "name of a JavaScript function that the JSON is wrapped in"),
    Param("pretty", "1: indented JSON"),
)
_FROM = Param("from", "start: epoch seconds or words as in -2h, noon_yesterday")
_UNTIL = Param("until", "end, as from; now when left out")
_CLOCK = (
    Param("tz", "time zone of from and until, a name of the IANA database; UTC when left out"),
    Param("now", "the time that counts as now, as from"),
)
_LOCAL = Param("local", "1: other nodes of the cluster aren't asked", "integer")
_LEAVES = Param("leavesOnly", "1: series only, no branches", "integer")
_LIMIT = Param("limit", "how many are listed at most", "integer")
_FILTER = Param("filter", "regular expression that the listed begin with")
_EXPR = Param("expr", "expression on a tag: tag=value, tag!=value, tag=~regex, tag!=~regex", "list")
_PATH = Param("path", "series with tags: name;tag=value", "list", required=True)
_PIE = Param("type", "pie: the functions that pies take")

PICTURE_PARAMS = (
    Param("template", "pictures: set of colours; template[x]=y: the value of $x in template()"),
    *_named("pixels", "integer", "width height margin"),
    *_named(
        "colour: a name, RRGGBB or RRGGBBAA",
        "string",
        "bgcolor fgcolor majorGridLineColor minorGridLineColor leftColor rightColor valueLabelsColor",
    ),
    *_named(
        "pictures: a flag",
        "boolean",
        "fontBold fontItalic hideLegend uniqueLegend graphOnly hideAxes hideXAxis hideYAxis hideGrid "
        "hideNullFromLegend drawNullAsZero",
    ),
    *_named(
        "pictures: a number",
        "number",
        "fontSize lineWidth thickness minXStep connectedLimit areaAlpha minorY valueLabelsMin min yMin "
        "yMinLeft yMinRight yLimit yLimitLeft yLimitRight yStep yStepLeft yStepRight leftWidth "
        "rightWidth leftDashed rightDashed",
    ),
    *_named(
        "pictures: a number, or max: the greatest value",
        "string",
        "max yMax yMaxLeft yMaxRight",
    ),
    *_named(
        "pictures: a text or a choice, as in graphite-web",
        "string",
        "colorList fontName title vtitle vtitleRight yUnitSystem pieMode lineMode areaMode "
        "yAxisSide logBase yDivisors xFormat pieLabels valueLabels",
    ),
)

RENDER_PARAMS = (
    Param("target", "series, pattern or expression of functions", "list"),
    replace(_FROM, help=f"{_FROM.help}; -1d when left out"),
    _UNTIL,
    *_CLOCK,
    Param("format", "a picture when left out or unknown", values=(*FORMATS, *PICTURES)),
    Param("rawData", "present, without format: raw"),
    Param("pickle", "present, without format: pickle"),
    *_JSON,
    Param("maxDataPoints", "points of each series are consolidated to this many", "integer"),
    Param("noNullPoints", "present: points without a value are left out"),
    Param("xFilesFactor", "part of the points that a consolidated one needs, 0 to 1", "number"),
    Param("cacheTimeout", "seconds that caches may keep the answer", "integer"),
    Param("noCache", "present: caches must not keep it"),
    Param("graphType", "kind of picture", values=("line", "pie")),
    Param("meta", "1: where each series' points come from, in JSON"),
    Param("explain", "1: how the query was answered; plan: how it would be"),
    _LOCAL,
)

_DASHBOARDS = tuple(
    Operation(f"/dashboard/{path}", "pages", "No dashboards are stored here", _JSON, _BOTH)
    for path in (
        "find",
        "find_template",
        "load/{name}",
        "delete/{name}",
        "load_template/{name}/{value}",
        "delete_template/{name}",
    )
)
_NO_SAVING = tuple(
    Operation(f"/dashboard/{path}", "pages", "Refused", (), _BOTH, _TEXT)
    for path in ("save/{name}", "save_template/{name}/{key}", "create-temporary")
)

OPERATIONS = (
    Operation(
        "/render",
        "query",
        "Values of series, or a picture of them",
        (*RENDER_PARAMS, *PICTURE_PARAMS),
        _BOTH,
        (
            *dict.fromkeys(one.content_type.partition(";")[0] for one in FORMATS.values()),
            "image/png",
            "image/svg+xml",
            "application/pdf",
        ),
    ),
    Operation(
        "/metrics/find",
        "names",
        "Nodes of the tree of names that match a pattern",
        (
            Param("query", "pattern", required=True),
            Param("format", "treejson when left out", values=find.FORMATS),
            _FROM,
            _UNTIL,
            *_CLOCK,
            _LEAVES,
            Param("wildcards", "1: an entry * for more than one node", "integer"),
            Param("automatic_variants", "1: a,b is {a,b} (completer)", "integer"),
            Param("position", "which element of the paths (nodelist)", "integer"),
            _LOCAL,
            *_JSON,
        ),
        _BOTH,
        ("application/json", "application/pickle", "application/x-msgpack"),
    ),
    Operation(
        "/metrics/expand",
        "names",
        "Paths that match patterns",
        (
            Param("query", "pattern", "list"),
            Param("groupByExpr", "1: the paths of each pattern apart", "integer"),
            _LEAVES,
            _LOCAL,
            *_JSON,
        ),
        _BOTH,
    ),
    Operation("/metrics/index.json", "names", "All names", (_LOCAL, *_JSON), _BOTH),
    Operation(
        "/info",
        "names",
        "Retention of a series",
        (
            Param("target", "name of the series", required=True),
            Param("format", "json when left out"),
            *_JSON,
        ),
        _BOTH,
        ("application/json", "application/x-protobuf"),
    ),
    Operation("/tags", "tags", "All tags", (_FILTER, _LIMIT, *_JSON)),
    Operation("/tags/{tag}", "tags", "Values of a tag", (_FILTER, _LIMIT, *_JSON)),
    Operation("/tags/findSeries", "tags", "Series with tags", (_EXPR, _LOCAL, *_JSON), _BOTH),
    Operation(
        "/tags/autoComplete/tags",
        "tags",
        "Tags that begin so",
        (_EXPR, Param("tagPrefix", "their start"), _LIMIT, _LOCAL, *_JSON),
        _BOTH,
    ),
    Operation(
        "/tags/autoComplete/values",
        "tags",
        "Values of a tag that begin so",
        (
            Param("tag", "the tag", required=True),
            _EXPR,
            Param("valuePrefix", "their start"),
            _LIMIT,
            _LOCAL,
            *_JSON,
        ),
        _BOTH,
    ),
    Operation("/tags/tagSeries", "tags", "Makes a series", (_PATH, *_JSON), ("post",)),
    Operation("/tags/tagMultiSeries", "tags", "Makes series", (_PATH, *_JSON), ("post",)),
    Operation(
        "/tags/delSeries", "tags", "Takes series out of the index", (_PATH, *_JSON), ("post",)
    ),
    Operation(
        "/events",
        "events",
        "Events of a time; POST: adds one",
        (
            _FROM,
            _UNTIL,
            *_CLOCK,
            Param("tags", "separated by blanks"),
            Param("set", "union: one of the tags is enough"),
            *_JSON,
        ),
        _BOTH,
        body=(
            Param("what", "headline", required=True),
            Param("tags", "tags of the event", "list"),
            Param("data", "text"),
            Param("when", "epoch seconds; now when left out", "number"),
        ),
        says=_TEXT,
    ),
    Operation(
        "/events/get_data",
        "events",
        "Events of a time",
        (
            _FROM,
            _UNTIL,
            *_CLOCK,
            Param("tags", "separated by blanks"),
            Param("set", "union: one of the tags is enough"),
            *_JSON,
        ),
        _BOTH,
    ),
    Operation("/events/{id}", "events", "One event", _JSON),
    Operation(
        "/functions",
        "functions",
        "Descriptions of all functions",
        (Param("group", "of this group only"), Param("grouped", "1: by group"), _PIE, *_JSON),
    ),
    Operation("/functions/{name}", "functions", "Description of a function", (_PIE, *_JSON)),
    Operation(
        "/version", "server", "Version of Graphite whose API this is", produces=("text/html",)
    ),
    Operation("/openapi.json", "server", "This description"),
    Operation("/healthz", "server", "200: the process is up", produces=_TEXT),
    Operation("/readyz", "server", "200: PostgreSQL answers and takes what is written; else 503", produces=_TEXT),
    Operation(
        "/metrics",
        "server",
        "The server's metrics in Prometheus text format; with query, and as POST: /metrics/find",
        (),
        _BOTH,
        _TEXT,
    ),
    Operation("/", "pages", "A page to look at series", produces=("text/html",)),
    Operation("/composer", "pages", "A page to look at series", produces=("text/html",)),
    Operation("/browser", "pages", "A page to look at series", produces=("text/html",)),
    Operation("/dashboard", "pages", "A page to look at series", produces=("text/html",)),
    Operation(
        "/ui/{name}",
        "pages",
        "Parts of the page",
        produces=("text/html", "text/javascript", "text/css"),
    ),
    Operation("/s/{path}", "pages", "A short link to a path", produces=_TEXT),
    Operation("/S/{id}", "pages", "Leads where a short link leads (301)", produces=()),
    *_DASHBOARDS,
    *_NO_SAVING,
    Operation("/admin", "admin", "Operator verbs and their arguments"),
    Operation(
        "/admin/{verb}",
        "admin",
        "Runs an operator verb; one row of JSON a line",
        methods=("post",),
        produces=("application/x-ndjson",),
        body=(),
    ),
)
_OPEN = ("/healthz", "/readyz")


def describe() -> JsonObject:
    """The OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tgres-py",
            "version": __version__,
            "description": "Graphite's HTTP API. HEAD is answered wherever GET is; a trailing slash "
            'is ignored. Errors are one plain line, or {"error": …} under /tags and /events.',
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"bearer": []}, {"basic": []}],
        "paths": {
            operation.path: {method: _method(operation, method) for method in operation.methods}
            for operation in OPERATIONS
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "http_token"},
                "basic": {"type": "http", "scheme": "basic", "description": "http_token"},
                "admin": {"type": "http", "scheme": "bearer", "description": "admin_token"},
            }
        },
    }


def _method(operation: Operation, method: str) -> JsonObject:
    given = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]
    told: JsonObject = {
        "operationId": method + re.sub(r"\W+", "_", operation.path),
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if method == "post":
        told["requestBody"] = _body(operation)
    else:
        given += [_query(param) for param in operation.params]
    if given:
        told["parameters"] = given
    if operation.tag == "admin":
        told["security"] = [{"admin": []}]
    elif operation.path in _OPEN:
        told["security"] = []
    good = "200" if operation.produces else "301"
    produces = operation.says if method == "post" and operation.says else operation.produces
    content: JsonObject = {kind: {} for kind in produces}
    if produces is operation.produces and any(one.name == "jsonp" for one in operation.params):
        content["text/javascript"] = {}
    told["responses"] = {
        good: {"description": operation.summary} | ({"content": content} if content else {}),
        **_refusals(operation),
    }
    return told


def _refusals(operation: Operation) -> JsonObject:
    """What is answered instead: JSON where the API's clients read JSON; a missing token is plain text."""
    content: JsonObject = {"text/plain": {"schema": {"type": "string"}}}
    if operation.tag in ("tags", "events", "functions"):
        error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
        content["application/json"] = {"schema": error}
    told: JsonObject = {
        "4XX": {"description": "refused; the text says what to do", "content": content},
        "503": {"description": "not at the moment; Retry-After says when", "content": content},
    }
    if operation.path == "/render":
        told["501"] = {"description": "pictures aren't installed", "content": content}
    return told


def _query(param: Param) -> JsonObject:
    return {
        "name": param.name,
        "in": "query",
        "description": param.help,
        "required": param.required,
        "schema": param.schema(),
    }


def _body(operation: Operation) -> JsonObject:
    fields = operation.params if operation.body is None else operation.body
    schema = {
        "type": "object",
        "properties": {one.name: {**one.schema(), "description": one.help} for one in fields},
        "required": [one.name for one in fields if one.required],
    }
    kinds = ["application/json"]
    if operation.body is None:
        kinds.insert(0, "application/x-www-form-urlencoded")
    return {"content": {kind: {"schema": schema} for kind in kinds}}


async def view(request: web.Request) -> web.Response:
    return reply(dump_json(describe()))
