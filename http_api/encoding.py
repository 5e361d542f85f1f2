"""JSON and gzip, as all answers have them. Nothing here knows requests, so render workers can use it."""

from __future__ import annotations

import gzip
from typing import Any

import orjson

GZIP_BYTES_MIN = 1_400  # what fits into one packet isn't worth it
GZIP_LEVEL = 1


def dump_json(value: Any, pretty: bool = False) -> bytes:
    """UTF-8 JSON; NaN and infinities are null. Lone surrogates, which no JSON can hold, become "?"."""
    options = orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if pretty else 0)
    try:
        return orjson.dumps(value, option=options)
    except orjson.JSONEncodeError:
        return orjson.dumps(_without_surrogates(value), option=options)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value


def gzip_worthwhile(body: bytes) -> bytes | None:
    """The body, gzipped; None when it is too short to be worth it."""
    return gzip.compress(body, GZIP_LEVEL, mtime=0) if len(body) >= GZIP_BYTES_MIN else None
