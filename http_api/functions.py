"""/functions: what the render functions are called and take. Grafana builds its query editor from
this.

    GET /functions[?group=G][&grouped=1][&type=pie]     name -> description, or group -> name -> description
    GET /functions/NAME[?type=pie]                      one description; 404 {"error": "…"}

``type=pie`` asks for the functions that pies take instead. Infinity is written 1e9999, graphite-web's
spelling: valid JSON, which JavaScript reads as Infinity and which Grafana's Go side, itself replacing
the word, passes on.
"""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from http_api.json_errors import reply_json_error
from http_api.reply import Params, read_params, reply_json
from tgres_py.functions.registry import functions

_INFINITY = orjson.Fragment(b"1e9999")
_PIE = ("average", "maximum", "minimum")


class Functions:
    async def all(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        group = params.get("group")
        described = {
            name: function
            for name, function in _described(params).items()
            if group is None or function["group"] == group
        }
        if not params.get("grouped"):
            return await _reply(described, params, request)
        grouped: dict[str, dict[str, Any]] = {}
        for name, function in described.items():
            grouped.setdefault(function["group"], {})[name] = function
        return await _reply(grouped, params, request)

    async def one(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        name = request.match_info["name"]
        function = _described(params).get(name)
        if function is None:
            return reply_json_error(404, f"Function not found: {name}")
        return await _reply(function, params, request)


def _described(params: Params) -> dict[str, dict[str, Any]]:
    if params.get("type") == "pie":
        return {name: _pie_function(name) for name in _PIE}
    return {name: function.describe() for name, function in functions().items()}


def _pie_function(name: str) -> dict[str, Any]:
    """What pieMode takes."""
    return {
        "name": name,
        "function": f"{name}(series)",
        "description": f"The {name} of a series is the size of its slice.",
        "module": __name__,
        "group": "Pie",
        "params": [{"name": "series", "type": "series", "required": True}],
    }


async def _reply(value: Any, params: Params, request: web.Request) -> web.StreamResponse:
    return await reply_json(lambda: _spell_infinity(value), params, request)


def _spell_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spell_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spell_infinity(item) for item in value]
    return _INFINITY if value == float("inf") else value
