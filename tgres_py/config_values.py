"""The kinds of values that settings have: addresses, sizes, lists of names, networks and URLs, tokens.
Each is checked and made from text or from a TOML value.
"""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator

from tgres_py.masks import masked
from tgres_py.model.networks import parse_networks

TOKEN_CHARS_MIN = 16
TLS_LISTENERS = ("http", "carbon", "pickle", "statsd", "statsd_mgmt")


class Address(NamedTuple):
    """Where a listener listens; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(value: object) -> Address | None:
    """``host:port``, ``[v6]:port`` or ``:port`` (all interfaces); ``off`` is None. ValueError otherwise."""
    if value is None or isinstance(value, Address):
        return value
    text = str(value).strip()
    if text.lower() in ("off", "false"):
        return None
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]\s/]*)):(\d{1,5})", text)
    if match is None or int(match[3]) > 65_535:
        raise ValueError(f"{text!r} is no address; write host:port or off")
    return Address(match[1] or match[2] or "0.0.0.0", int(match[3]))


def parse_size(value: object) -> object:
    """Bytes of ``2G``, ``512M`` or ``1.5 GiB``, letters are powers of 1,024; plain numbers as they are.
    ValueError: a text that is neither.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(
        r"([\d_]+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?)?", value.strip(), re.IGNORECASE
    )
    if match is None or (not match[2] and "." in match[1]):
        raise ValueError(f"{value!r} is no size; write bytes, or 512M, 2G and the like")
    if not match[2]:
        return match[1]
    return int(float(match[1]) * 1_024 ** (1 + "KMGT".index(match[2].upper())))


def format_size(size: int) -> str:
    """The shortest text that ``parse_size`` reads as ``size`` bytes: ``8G``, ``200M``, ``1000``."""
    for place, letter in reversed(list(enumerate("KMGT", start=1))):
        if size and size % 1_024**place == 0:
            return f"{size // 1_024**place}{letter}"
    return str(size)


def parse_urls(value: object) -> tuple[str, ...]:
    """``http://a:8080, http://b:8080`` or a list of these: base addresses, without query. ValueError
    otherwise.
    """
    texts = value if isinstance(value, list | tuple) else str(value).split(",")
    urls = [str(text).strip().rstrip("/") for text in texts if str(text).strip()]
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _has_port(parts):
            raise ValueError(f"{masked(url)!r} is no address; write http://host:port")
        if parts.query or parts.fragment:
            raise ValueError(f"{masked(url)!r}: an address without ? and # is needed")
    if len(set(urls)) != len(urls):
        raise ValueError("an address is given twice")
    return tuple(urls)


def _has_port(parts: SplitResult) -> bool:
    """Whether the port is a possible one, or none is written."""
    try:
        return parts.port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        return False


def check_token(token: str) -> str:
    """The token. ValueError: one that is quickly guessed or can't stand in a header."""
    if len(token) < TOKEN_CHARS_MIN or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"at least {TOKEN_CHARS_MIN} printable ASCII characters are needed, "
            "for example those of `openssl rand -hex 24`"
        )
    return token


def parse_names(value: object) -> tuple[str, ...]:
    """Names of listeners that can do TLS, separated by commas or a list. ValueError otherwise."""
    names = _texts(value)
    for name in names:
        if name not in TLS_LISTENERS:
            raise ValueError(f"{name!r} is none of {', '.join(TLS_LISTENERS)}")
    return names


def parse_origins(value: object) -> tuple[str, ...]:
    """Origins of web pages, ``https://grafana.example`` or ``*``. ValueError otherwise."""
    origins = _texts(value)
    for origin in origins:
        if not re.fullmatch(r"\*|https?://[^/\s?#@,]+", origin):
            raise ValueError(f"{origin!r} is no origin; write https://host or https://host:port")
    return origins


def _texts(value: object) -> tuple[str, ...]:
    texts = value if isinstance(value, list | tuple) else str(value).split(",")
    return tuple(str(text).strip() for text in texts if str(text).strip())


Size = Annotated[int, BeforeValidator(parse_size)]
Names = Annotated[tuple[str, ...], BeforeValidator(parse_names)]
Origins = Annotated[tuple[str, ...], BeforeValidator(parse_origins)]
Networks = Annotated[tuple[str, ...], BeforeValidator(parse_networks)]
Urls = Annotated[tuple[str, ...], BeforeValidator(parse_urls)]
Listen = Annotated[Address | None, BeforeValidator(parse_address)]
