"""The server's listeners: the places, networks, certificate and counts that they share, and how each is opened."""

from __future__ import annotations

import logging
from typing import Protocol

from http_api.gate import GateLimits
from receivers import carbon_line, carbon_pickle, tcp, udp
from receivers.sink import Sink
from receivers.statsd_service import StatsdService, StreamLimits
from tgres_py.accept import TlsShare
from tgres_py.config import Settings
from tgres_py.errors import ConfigError
from tgres_py.memory import Shares
from tgres_py.model.networks import Networks
from tgres_py.places import OWN_FILES, Places, places, raise_open_files
from tgres_py.tls import Tls

log = logging.getLogger("tgres")


class Listener(Protocol):
    """What the receivers' transports have in common."""

    @property
    def address(self) -> tuple[str, int]: ...

    def close(self) -> None: ...

    async def drain(self, timeout_s: float = 2.0) -> None: ...


def find_places(settings: Settings) -> Places:
    """The places for connections, as many as the settings ask for and open files allow."""
    asked = Places(settings.connections_max, settings.http_connections_max, raise_open_files())
    found = places(asked)
    if asked.missing:
        log.warning(
            "%d files may be open, connections_max and http_connections_max need %d: %d connections of senders and "
            "%d of HTTP are accepted; raise the limit (LimitNOFILE, ulimit -Hn) or lower the settings",
            asked.files,
            asked.tcp + asked.http + OWN_FILES,
            found.tcp,
            found.http,
        )
    return found


class Doors:
    """``open_...`` once each, ConfigError when it can't be. ``receivers``: by their labels in metrics."""

    def __init__(self, settings: Settings, shares: Shares) -> None:
        self._settings = settings
        self._shares = shares
        self._places = Places(0, 0, 0)  # until ``prepare``
        self._tls: Tls | None = None
        self.tls_share: TlsShare | None = None
        self._allowed = {name: Networks(texts) for name, texts in _allow_lists(settings).items()}
        self.receivers: dict[str, Listener] = {}
        self.tcp_totals: tcp.Totals = tcp.Totals()

    def prepare(self, places: Places) -> None:
        """Before the first is opened. ConfigError: the certificate can't be used."""
        self._places = places
        if self._settings.tls_cert is not None:
            self._tls = Tls(self._settings.tls_cert, self._settings.tls_key)
            self.tls_share = TlsShare(self._tls.context, self._shares.tls_connections)
            asked = self._tls_places()
            if self._shares.tls_connections < asked:
                log.warning(
                    "memory_max has room for %d TLS connections at a time, connections_max and http_connections_max "
                    "allow %d: further ones are refused; raise memory_max or let a proxy do TLS",
                    self._shares.tls_connections,
                    asked,
                )

    async def open_carbon(self, host: str, port: int, sink: Sink) -> None:
        """Lines over TCP, and over UDP at the same port."""
        lines = carbon_line.wire_format(self._settings.line_bytes_max)
        tcp_limits, udp_limits = self._tcp_limits("carbon"), self._udp_limits("carbon")
        self.receivers["carbon"] = await tcp.start(
            "carbon", host, port, lines, sink, tcp_limits, self.tcp_totals
        )
        port = self.receivers["carbon"].address[1]
        self.receivers["carbon_udp"] = await udp.start(
            "carbon_udp", host, port, lines.parse, sink, udp_limits
        )

    async def open_pickle(self, host: str, port: int, sink: Sink) -> None:
        frames = carbon_pickle.wire_format(self._settings.frame_bytes_max)
        self.receivers["pickle"] = await tcp.start(
            "pickle", host, port, frames, sink, self._tcp_limits("pickle"), self.tcp_totals
        )

    async def open_statsd(self, service: StatsdService) -> None:
        settings = self._settings
        self.receivers |= await service.listen(
            settings.statsd_servers,
            settings.statsd_mgmt,
            StreamLimits(self._tcp_limits("statsd"), self.tcp_totals),
            self._udp_limits("statsd"),
            self._tls_of("statsd_mgmt"),
        )

    def gate(self) -> tuple[GateLimits, TlsShare | None]:
        """How HTTP's clients are let in."""
        settings = self._settings
        limits = GateLimits(
            self._places.http,
            settings.http_read_timeout_s,
            settings.http_idle_s,
            self._allowed["http"],
            max(self._shares.requests, 2 * settings.body_bytes_max),
        )
        return limits, self._tls_of("http")

    def tell_receivers(self) -> None:
        for name, opened in self.receivers.items():
            where, port = opened.address  # a unix socket has a path and no port
            log.info("%s listens on %s", name, f"{where}:{port}" if port else where)

    def reload(self, settings: Settings) -> None:
        """Certificate and allow-lists hold for new connections and datagrams; open ones go on."""
        for name, texts in _allow_lists(settings).items():
            self._allowed[name].change(texts)
        if self._tls is None:
            if settings.tls_cert is not None:
                log.warning("reload: tls_cert is new; TLS begins with a restart")
        elif settings.tls_cert is None:
            log.warning("reload: tls_cert is gone; TLS goes on with the old certificate")
        else:
            try:
                self._tls.reload(settings.tls_cert, settings.tls_key)
            except ConfigError as e:
                log.error("reload: %s; going on with the old certificate", e)

    async def close_receivers(self) -> None:
        """No new connections; what was received is parsed."""
        for listener in self.receivers.values():
            listener.close()
        for listener in self.receivers.values():
            await listener.drain()

    def _tls_of(self, listener: str) -> TlsShare | None:
        return self.tls_share if listener in self._settings.tls_listeners else None

    def _tls_places(self) -> int:
        """TLS connections that the settings allow."""
        http = "http" in self._settings.tls_listeners
        receivers = set(self._settings.tls_listeners) - {"http", "statsd_mgmt"}
        return self._places.http * http + self._places.tcp * bool(receivers)

    def _tcp_limits(self, listener: str) -> tcp.TcpLimits:
        return tcp.TcpLimits(
            connections_max=self._places.tcp,
            tail_bytes_max=max(self._shares.tails, 2 * self._settings.frame_bytes_max),
            allowed=self._allowed[listener],
            tls=self._tls_of(listener),
        )

    def _udp_limits(self, listener: str) -> udp.UdpLimits:
        return udp.UdpLimits(
            rcvbuf_bytes=self._settings.udp_buffer_bytes, allowed=self._allowed[listener]
        )


def _allow_lists(settings: Settings) -> dict[str, tuple[str, ...]]:
    """The networks that each listener talks to, by the listeners' names in settings."""
    return {
        "http": settings.http_allow,
        "carbon": settings.carbon_allow,
        "pickle": settings.pickle_allow,
        "statsd": settings.statsd_allow,
    }
