"""/info: how one series is kept, as go-carbon answers it; carbonapi asks its backends for it.

    GET|POST /info/?target=a.b[&format=json]    {"name": "a.b", "aggregationMethod": "average", "maxRetention": 21600,
                                                 "xFilesFactor": 0.5, "retentions": [{"secondsPerPoint": 10,
                                                                                      "numberOfPoints": 2160}]}

``format=protobuf`` (or msgpack, as carbonapi calls it of a graphite backend) gives the same as InfoResponse of
carbonapi's protocol v2: 1 name, 2 aggregationMethod, 3 maxRetention, 4 xFilesFactor (float), 5 retentions
(1 secondsPerPoint, 2 numberOfPoints). A name that isn't there is a 404. Of this node's own series only.
"""

from __future__ import annotations

import struct
from typing import Any

from aiohttp import web

from http_api.reply import Params, read_params, reply, reply_error, reply_json
from tgres_py.errors import BadRequest
from tgres_py.model.glob import has_magic
from tgres_py.model.retention import BundleSpec
from tgres_py.query.source import SeriesSource

PROTOBUF = "application/x-protobuf"
_PACKED = ("protobuf", "carbonapi_v2_pb", "msgpack")
_VARINT, _LENGTH, _FIXED32 = 0, 2, 5  # wire types of protocol buffers


class Info:
    """The view over one source."""

    def __init__(self, source: SeriesSource) -> None:
        self.source = source

    async def view(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        name = _target(params)
        form = params.get("format") or "json"
        if form != "json" and form not in _PACKED:
            raise BadRequest(f"format: {form!r} isn't served; json and protobuf are")
        ids = self.source.expand(name, 1)
        if len(ids) == 0:
            return reply_error(404, f"target: there is no series {name!r}")
        [spec] = self.source.bundles(ids)
        told = describe(name, spec)
        if form in _PACKED:
            return reply(to_protobuf(told), PROTOBUF)
        return await reply_json(lambda: told, params, request)


def _target(params: Params) -> str:
    name = params.get("target") or ""
    if not name:
        raise BadRequest("target: is missing")
    if has_magic(name):
        raise BadRequest(f"target: {name!r} is a pattern; one series is needed")
    return name


def describe(name: str, spec: BundleSpec) -> dict[str, Any]:
    return {
        "name": name,
        "aggregationMethod": str(spec.cf),
        "maxRetention": spec.archives[-1].retention_s,
        "xFilesFactor": spec.xff,
        "retentions": [
            {"secondsPerPoint": archive.step_s, "numberOfPoints": archive.size}
            for archive in spec.archives
        ],
    }


def to_protobuf(told: dict[str, Any]) -> bytes:
    """What ``describe`` tells, as InfoResponse."""
    out = _text(1, told["name"]) + _text(2, told["aggregationMethod"])
    out += _number(3, told["maxRetention"])
    out += bytes([4 << 3 | _FIXED32]) + struct.pack("<f", told["xFilesFactor"])
    for one in told["retentions"]:
        inner = _number(1, one["secondsPerPoint"]) + _number(2, one["numberOfPoints"])
        out += _bytes(5, inner)
    return out


def _number(field: int, value: int) -> bytes:
    """A field that is a whole number; int32 holds no more than 2**31 - 1 seconds."""
    return bytes([field << 3 | _VARINT]) + _varint(min(value, 2**31 - 1))


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode("utf-8", "replace"))


def _bytes(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | _LENGTH]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
