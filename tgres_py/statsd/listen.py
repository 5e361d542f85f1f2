"""Where statsd listens, by etsy's names: address, port, address_ipv6, mgmt_address, mgmt_port, servers.

``servers`` is a list of tables {server, address, port, address_ipv6, socket, socket_mod}; ``server`` is ``./servers/udp`` (the
default) or ``./servers/tcp``, and only the latter has a ``socket``: the path of a unix stream socket, instead of a port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tgres_py.statsd.settings import (
    Checks,
    check_bool,
    check_file_mode,
    check_text,
    checked,
    whole_number,
)

PORT, MGMT_PORT = 8125, 8126
LOOPBACK = "127.0.0.1"

_SERVERS: dict[str, Literal["udp", "tcp"]] = {
    "./servers/udp": "udp",
    "./servers/tcp": "tcp",
    "udp": "udp",
    "tcp": "tcp",
}


@dataclass(frozen=True, slots=True)
class StatsdServer:
    """One listener. ``socket``: path of a unix stream socket, which has neither host nor port; ``mode``: octal text."""

    transport: Literal["udp", "tcp"]
    host: str = LOOPBACK
    port: int = PORT
    socket: str = ""
    mode: str = ""


class Where(NamedTuple):
    """``address`` and ``mgmt``: (host, port), None where the table doesn't say."""

    address: tuple[str, int] | None
    mgmt: tuple[str, int] | None
    servers: tuple[StatsdServer, ...]


def _port(value: Any) -> int:
    number = whole_number(value)
    if number > 65_535:
        raise ValueError("a port from 0 to 65535 is wanted")
    return number


_PLACE: Checks = {"address": check_text, "port": _port, "address_ipv6": check_bool}
_SERVER: Checks = {
    **_PLACE,
    "server": lambda value: _transport(value),
    "socket": check_text,
    "socket_mod": check_file_mode,
}
_TABLE: Checks = {
    **_PLACE,
    "mgmt_address": check_text,
    "mgmt_port": _port,
    "servers": lambda value: _servers(value),
}
LISTEN_KEYS = frozenset(_TABLE)


def listen_from_table(table: Mapping[str, Any], where: str = "statsd") -> Where:
    """Reads the keys of a ``[statsd]`` table that are in LISTEN_KEYS; ConfigError when one is wrong."""
    known = checked({k: v for k, v in table.items() if k in LISTEN_KEYS}, _TABLE, where)
    mgmt = None
    if "mgmt_port" in known or "mgmt_address" in known:
        mgmt = (known.get("mgmt_address") or LOOPBACK, known.get("mgmt_port", MGMT_PORT))
    address = _place(known) if known.keys() & _PLACE.keys() else None
    return Where(address, mgmt, known.get("servers", ()))


def _place(known: Mapping[str, Any]) -> tuple[str, int]:
    host = known.get("address") or ("::1" if known.get("address_ipv6") else LOOPBACK)
    return host, known.get("port", PORT)


def _transport(value: Any) -> Literal["udp", "tcp"]:
    if value not in _SERVERS:
        raise ValueError("./servers/udp or ./servers/tcp is wanted")
    return _SERVERS[value]


def _servers(value: Any) -> tuple[StatsdServer, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, Mapping) for v in value):
        raise ValueError("a list of tables is wanted")
    return tuple(_server(checked(entry, _SERVER, "statsd.servers")) for entry in value)


def _server(known: Mapping[str, Any]) -> StatsdServer:
    transport = known.get("server", "udp")
    socket = known.get("socket", "") if transport == "tcp" else ""
    return StatsdServer(transport, *_place(known), socket, known.get("socket_mod", ""))
