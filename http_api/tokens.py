"""Whether a request has the token that it needs, and how many wrong ones an address may try.

A right token is let in whatever else came from its address: behind a reverse proxy all clients share one. A wrong
token is answered 401; further ones than WRONG_MAX within WINDOW_S from one address (of IPv6: from one /64) 429
with Retry-After. Each state of an address is logged once, so that tries can't fill the log. No token at all is no
try: browsers ask without one before they ask their user.

This calms senders with an old token and shows that somebody tries; what keeps guesses out is the length of the tokens.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aiohttp import web

from http_api.reply import reply_error
from tgres_py import clock

log = logging.getLogger(__name__)

WRONG_MAX = 10
WINDOW_S = 60.0
ADDRESSES_MAX = 4_096  # of which wrong tokens are remembered; the oldest goes first
IPV6_PREFIX = 64  # what one subscriber gets at least

BEARER = "Authorization: Bearer TOKEN"
HTTP_HELP = f"{BEARER}, or basic auth with it as password (setting http_token)"
HTTP_CHALLENGE = 'Basic realm="tgres", charset="UTF-8"'
ADMIN_HELP = f"{BEARER} (setting admin_token)"
ADMIN_CHALLENGE = 'Bearer realm="tgres"'


@dataclass(slots=True)
class _Tries:
    since: float
    wrong: int = 0


class TokenCheck:
    """Belongs to the event loop. ``refused``: answers since the start, by why: ``missing``, ``wrong`` or ``limited``."""

    def __init__(self, now: Callable[[], float] = clock.monotonic) -> None:
        self.refused: Counter[str] = Counter(missing=0, wrong=0, limited=0)
        self._now = now
        self._tries: dict[str, _Tries] = {}

    def reader(self, request: web.Request, *right: str) -> web.Response | None:
        """None: the request has one of these tokens, as bearer token or password. Else the answer that says so."""
        return self._check(
            request, _bearer(request) or _password(request), right, HTTP_HELP, HTTP_CHALLENGE
        )

    def operator(self, request: web.Request, right: str) -> web.Response | None:
        """As ``reader``, for /admin. Passwords aren't taken: browsers send those they know along with what
        other sites' pages ask.
        """
        return self._check(request, _bearer(request), [right], ADMIN_HELP, ADMIN_CHALLENGE)

    def _check(
        self, request: web.Request, given: str, right: Iterable[str], help_: str, challenge: str
    ) -> web.Response | None:
        if given and _is_one_of(given, right):
            return None
        wait_s = self._wrong(request.remote or "") if given else 0
        self.refused["limited" if wait_s else "wrong" if given else "missing"] += 1
        if wait_s:
            return reply_error(
                429, "too many wrong tokens from this address", {"Retry-After": str(wait_s)}
            )
        return reply_error(401, f"a token is needed: {help_}", {"WWW-Authenticate": challenge})

    def _wrong(self, host: str) -> int:
        """Counts a wrong token; seconds that the address should wait, 0 = it may try again."""
        now, key = self._now(), subscriber(host)
        tries = self._tries.get(key)
        if tries is None or now - tries.since >= WINDOW_S:
            self._tries.pop(key, None)
            if len(self._tries) >= ADDRESSES_MAX:
                del self._tries[next(iter(self._tries))]
            tries = self._tries[key] = _Tries(now)
            log.warning("http: %s: a wrong token", host)
        tries.wrong += 1
        if tries.wrong <= WRONG_MAX:
            return 0
        if tries.wrong == WRONG_MAX + 1:
            log.warning("http: %s: more than %d wrong tokens within %g s", key, WRONG_MAX, WINDOW_S)
        return math.ceil(tries.since + WINDOW_S - now)


def subscriber(host: str) -> str:
    """What wrong tokens are counted by: the address, of IPv6 its /64; texts that are no address as they are."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


def _is_one_of(given: str, right: Iterable[str]) -> bool:
    """Compares in constant time; texts that can't be sent in UTF-8 are equal to none."""
    sent = given.encode("utf-8", "replace")
    return any(hmac.compare_digest(sent, token.encode()) for token in right if token)


def _bearer(request: web.Request) -> str:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def _password(request: web.Request) -> str:
    """The password of basic auth; what isn't that is as good as none."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        user = base64.b64decode(text.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return ""
    return user.partition(":")[2]
