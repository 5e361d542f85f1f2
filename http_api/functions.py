"""/functions: what the render functions are called and take. Grafana builds its query editor from
this.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from http_api.reply import Params, check_jsonp, dump_json, read_params, reply, reply_error
from tgres_py.functions.registry import functions

# Infinity in JSON: graphite-web's spelling, which Grafana knows
_INFINITY = "1e9999"


class Functions:
    async def all(self, request: web.Request) -> web.Response:
        params = await read_params(request)
        group = params.get("group")
        described = {
            name: function.describe()
            for name, function in functions().items()
            if group is None or function.group == group
        }
        if params.get("type") == "pie":
            described = {}
        if not params.get("grouped"):
            return _reply(described, params)
        grouped: dict[str, dict[str, Any]] = {}
        for name, function in described.items():
            grouped.setdefault(function["group"], {})[name] = function
        return _reply(grouped, params)

    async def one(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        function = functions().get(name)
        if function is None:
            return reply_error(404, f"Function not found: {name}")
        return _reply(function.describe(), await read_params(request))


def _reply(value: Any, params: Params) -> web.Response:
    callback = check_jsonp(params)
    body = dump_json(_spell_infinity(value), bool(params.get("pretty")))
    body = body.replace(b'"' + _INFINITY.encode() + b'"', _INFINITY.encode())
    if callback:
        return reply(callback.encode() + b"(" + body + b")", "text/javascript")
    return reply(body)


def _spell_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spell_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spell_infinity(item) for item in value]
    return _INFINITY if value == float("inf") else value
