"""/s/PATH gives a short link /S/ID to a path of this server, and /S/ID leads there.

graphite-web numbers the paths in its database; here the id is the path itself in base 62, so that links
hold with nothing stored, at the price of being longer than what they stand for.
"""

from __future__ import annotations

import re
import string

from aiohttp import web

from http_api.reply import reply
from tgres_py.errors import BadRequest

PATH_BYTES_MAX = 2_000
ID_CHARS_MAX = 2_700  # 8 / log2(62) characters for each byte

_DIGITS = string.digits + string.ascii_lowercase + string.ascii_uppercase
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
# what graphite-web's pages add so that nothing is cached
_UNIQUE = re.compile(r"&_(?:uniq|salt|dc)=[0-9.]+")
_PRINTABLE = re.compile(rb"[!-~]*")


async def shorten(request: web.Request) -> web.Response:
    path = request.rel_url.raw_path.removeprefix("/s/")
    if request.rel_url.raw_query_string:
        path += "?" + request.rel_url.raw_query_string
    path = _UNIQUE.sub("", path)
    if len(path) > PATH_BYTES_MAX:
        raise BadRequest(f"path: {len(path)} bytes are more than {PATH_BYTES_MAX}")
    return reply(f"/S/{encode(path.encode())}".encode(), "text/plain")


async def follow(request: web.Request) -> web.Response:
    path = decode(request.match_info["id"])
    # with two slashes in front it would name another server
    return web.Response(status=301, headers={"Location": "/" + path.decode().lstrip("/\\")})


def encode(path: bytes) -> str:
    """Base 62; nothing is "0"."""
    number = int.from_bytes(path, "big")
    digits = []
    while number:
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits)) or "0"


def decode(id_: str) -> bytes:
    """The path of an id. BadRequest: no id that ``encode`` makes."""
    if len(id_) > ID_CHARS_MAX or not id_ or not all(char in _VALUES for char in id_):
        raise BadRequest("link: it is not one of this server's")
    number = 0
    for char in id_:
        number = number * 62 + _VALUES[char]
    path = number.to_bytes((number.bit_length() + 7) // 8, "big")
    if not _PRINTABLE.fullmatch(path):
        raise BadRequest("link: it is not one of this server's")
    return path
