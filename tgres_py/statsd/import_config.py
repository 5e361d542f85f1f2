"""From a config.js of etsy's statsd to the TOML table ``[statsd]``; what can't be carried over is listed.

All keys that mean something here keep their names. Keys about where etsy's daemon sends its numbers (backends,
graphiteHost, repeater) have no meaning any more: the numbers go into this server's own store.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from tgres_py.errors import ConfigError
from tgres_py.statsd.js_literal import Expression, read_object
from tgres_py.statsd.listen import LISTEN_KEYS, listen_from_table
from tgres_py.statsd.settings import StatsdSettings, from_table

ETSY_ADDRESS = "0.0.0.0"  # where etsy listens when the file doesn't say

_OTHERS = {
    "backends": "the numbers go into this server's own store",
    "graphiteHost": "the numbers go into this server's own store",
    "graphitePort": "the numbers go into this server's own store",
    "graphitePicklePort": "the numbers go into this server's own store",
    "graphiteProtocol": "the numbers go into this server's own store",
    "console": "there is no console backend",
    "log": "the log's level is the setting log_level",
    "title": "the process keeps its title",
    "automaticConfigReload": "a changed [statsd] needs a restart",
    "repeater": "packets are not repeated; send them to both servers",
    "repeaterProtocol": "packets are not repeated; send them to both servers",
    "server": "write servers = [{server = …}] to have one transport only",
}
_HARMLESS = {"backends": ["./backends/graphite"], "automaticConfigReload": True}
_SERVERS = ("./servers/udp", "./servers/tcp")
_ONE_SERVER = ("server", "address", "port", "address_ipv6", "socket", "socket_mod")
_KNOWN = {f.name for f in fields(StatsdSettings)} | LISTEN_KEYS


class Left(NamedTuple):
    """A key that was not carried over, and why."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """``table``: the checked keys of ``[statsd]``; ``left``: what could not be carried over."""

    table: dict[str, Any]
    left: list[Left]

    def toml(self, source: str) -> str:
        """The table as a TOML file, with what is left as comments at its head."""
        lines = [f"# From {_comment(source)}, by `tgres config import-statsd`."]
        if self.left:
            lines.append("# Not carried over:")
            lines += [f"#   {_comment(f'{key}: {reason}')}" for key, reason in self.left]
        return "\n".join([*lines, "", *_toml_tables(self.table), ""])


def _comment(text: str) -> str:
    """One line; control characters may not stand in TOML."""
    line = " ".join(text.split())
    return "".join(sign if sign.isprintable() else "?" for sign in line)


def import_config(text: str) -> Imported:
    """What the settings of a config.js are here. ConfigError when it is no literal object."""
    left: list[Left] = []
    table: dict[str, Any] = {}
    for key, value in _without_expressions(_with_servers(read_object(text)), left):
        if value is None or (key in _HARMLESS and _HARMLESS[key] == value):
            continue
        if isinstance(value, dict):
            members = {k: v for k, v in value.items() if _is_taken(key, k, v, left)}
            table |= {key: members} if members else {}
        elif _is_taken(key, "", value, left):
            table[key] = _bent(key, value)
    _say_where(table)
    return Imported(table, left)


def _with_servers(members: dict[str, Any]) -> dict[str, Any]:
    """A ``server`` at the top is the only one, with the address or socket beside it: a list of one says the same."""
    if "servers" in members or members.get("server") not in _SERVERS:
        return members
    alone = {k: members[k] for k in _ONE_SERVER if k in members}
    rest = {k: v for k, v in members.items() if k not in _ONE_SERVER}
    return {**rest, "servers": [alone]}


def _is_taken(key: str, member: str, value: Any, left: list[Left]) -> bool:
    """Whether this server takes a value (of a table's member, if there is one); else says why in ``left``."""
    name = f"{key}.{member}" if member else key
    if value is None:
        return False
    if key in _OTHERS:
        reason: str | None = _OTHERS[key]
    elif key not in _KNOWN:
        reason = "not a setting of statsd 0.9"
    else:
        reason = _refusal(key, {member: value} if member else _bent(key, value))
    if reason is not None:
        left.append(Left(name, reason))
    return reason is None


def _say_where(table: dict[str, Any]) -> None:
    """etsy listens everywhere unless told otherwise; here that has to be said. The management port stays local."""
    if "servers" not in table:
        table.setdefault("address", "::" if table.get("address_ipv6") else ETSY_ADDRESS)
        table.setdefault("port", 8125)
        return
    for server in table["servers"]:
        if "socket" not in server:
            server.setdefault("address", "::" if server.get("address_ipv6") else ETSY_ADDRESS)


def _without_expressions(
    members: Mapping[str, Any], left: list[Left], path: str = ""
) -> Iterator[tuple[str, Any]]:
    """The members that are literals all through; tables lose only the members that aren't."""
    for key, value in members.items():
        name = f"{path}{key}"
        if found := _expression_in(value):
            if isinstance(value, dict):
                yield key, dict(_without_expressions(value, left, f"{name}."))
            else:
                left.append(Left(name, f"line {found.line}: {found.text} is no literal value"))
        else:
            yield key, value


def _expression_in(value: Any) -> Expression | None:
    if isinstance(value, Expression):
        return value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for part in parts if (found := _expression_in(part))), None)


def _bent(key: str, value: Any) -> Any:
    """A value as JavaScript understands it where it wants another type: texts of numbers, 0 and 1 as truth."""
    default = next((f.default for f in fields(StatsdSettings) if f.name == key), None)
    if (isinstance(default, bool) or key.startswith("delete")) and isinstance(value, int | str):
        return bool(value)
    if isinstance(value, str) and key in ("flushInterval", "port", "mgmt_port"):
        try:
            return int(value)
        except ValueError:
            return value
    return [_bent(key, v) for v in value] if key == "percentThreshold" and value == [] else value


def _refusal(key: str, value: Any) -> str | None:
    """Why this server doesn't take a value; None if it does."""
    try:
        if key in LISTEN_KEYS:
            listen_from_table({key: value})
        else:
            from_table({key: value})
    except ConfigError as error:
        return (
            str(error)
            .removeprefix("statsd: ")
            .removeprefix(f"statsd.{key}: ")
            .removeprefix(f"{key}: ")
        )
    return None


def _toml_tables(table: Mapping[str, Any]) -> Iterator[str]:
    yield "[statsd]"
    inner = {k: v for k, v in table.items() if isinstance(v, dict)}
    for key, value in table.items():
        if key not in inner:
            yield f"{key} = {_toml(value)}"
    for key, members in inner.items():
        yield ""
        yield f"[statsd.{key}]"
        for name, value in members.items():
            yield f"{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    """A value in TOML; tables inside lists stand on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value) if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    return "[" + ", ".join(_toml(v) for v in value) + "]"
