"""Allow-lists of networks: which addresses a listener talks to.

    192.0.2.0/24, 2001:db8::/32, 127.0.0.1

An IPv4 address that comes as ``::ffff:192.0.2.1`` (a socket for both kinds) is the IPv4 one. Unix
sockets have no address and are always allowed: their file's mode says who may write to them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

KNOWN_MAX = 4_096  # answers that are kept; forged senders of datagrams can't make it more


def parse_networks(value: object) -> tuple[str, ...]:
    """Networks of a text (separated by commas) or a list, in the usual form. ValueError otherwise."""
    texts = value if isinstance(value, list | tuple) else str(value).split(",")
    return tuple(str(_network(str(text).strip())) for text in texts if str(text).strip())


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no network: {error}; write 192.0.2.0/24") from None


class Networks:
    """A set of networks; an empty one holds every address. Safe for several threads."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.change(texts)

    def change(self, texts: Iterable[str]) -> None:
        """Takes other networks in place of the present ones."""
        self._networks = tuple(map(_network, texts))
        self._known: dict[str, bool] = {}

    @property
    def open(self) -> bool:
        """True when every address is allowed."""
        return not self._networks

    def __contains__(self, host: object) -> bool:
        if not self._networks:
            return True
        host = str(host)
        known = self._known
        if (answer := known.get(host)) is None:
            if len(known) >= KNOWN_MAX:
                known = self._known = {}
            answer = known[host] = self._find(host)
        return answer

    def _find(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return host == ""
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


def host_of(peername: object) -> str:
    """The address part of a socket's peer; empty for a unix socket."""
    return str(peername[0]) if isinstance(peername, tuple) and peername else ""
