"""statsd as one thing: its Aggregator, listeners, flushes, management port and reports, put together."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from receivers import statsd_mgmt, tcp, udp
from receivers.sink import Sink
from receivers.statsd import StatsdReceiver
from receivers.statsd_flush import StatsdFlush
from tgres_py import clock
from tgres_py.accept import TlsShare
from tgres_py.model.points import Ids
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.key_report import key_report
from tgres_py.statsd.listen import StatsdServer
from tgres_py.statsd.mgmt import Management
from tgres_py.statsd.settings import StatsdSettings

log = logging.getLogger("tgres.statsd")

Opened = tcp.TcpListener | udp.UdpListener | statsd_mgmt.MgmtListener


class StreamLimits(NamedTuple):
    """Limits that statsd's streams share with other receivers."""

    tcp: tcp.TcpLimits
    totals: tcp.Totals


class StatsdService:
    """``given``: the ``[statsd]`` table as it was written, for the management port's ``config``; ``bytes_max``: see Aggregator."""

    def __init__(
        self,
        settings: StatsdSettings,
        given: Mapping[str, Any],
        sink: Sink,
        on_new: Callable[[Ids], None] = lambda ids: None,
        bytes_max: int = sys.maxsize,
    ) -> None:
        self.aggregator = Aggregator(settings, clock.now_s(), bytes_max)
        self.flush = StatsdFlush(self.aggregator, sink, on_new)
        self.management = Management(self.aggregator, given)
        self._receiver = StatsdReceiver(self.aggregator, sink)

    async def listen(
        self,
        servers: Sequence[StatsdServer],
        mgmt: tuple[str, int] | None,
        streams: StreamLimits,
        udp_limits: udp.UdpLimits,
        mgmt_tls: TlsShare | None = None,
    ) -> dict[str, Opened]:
        """Opens all listeners, by their labels in metrics; ConfigError when one of them can't be."""
        opened: dict[str, Opened] = {}
        try:
            for number, server in enumerate(servers):
                name = "statsd" if server.transport == "udp" else "statsd_tcp"
                name = f"{name}{number}" if name in opened else name
                datagrams = any(isinstance(of, udp.UdpListener) for of in opened.values())
                opened[name] = await self._open(name, server, streams, udp_limits, not datagrams)
            if mgmt:
                opened["statsd_mgmt"] = await statsd_mgmt.start(
                    "statsd_mgmt", *mgmt, self.management, udp_limits.allowed, mgmt_tls
                )
        except BaseException:
            for listener in opened.values():
                listener.close()
            raise
        return opened

    async def _open(
        self,
        name: str,
        server: StatsdServer,
        streams: StreamLimits,
        udp_limits: udp.UdpLimits,
        first: bool,
    ) -> Opened:
        of = self._receiver
        if server.socket:
            return await of.listen_unix(name, server.socket, server.mode, *streams)
        if server.transport == "tcp":
            return await of.listen_tcp(name, server.host, server.port, *streams)
        table = self.aggregator.settings
        unix = (table.socket, table.socket_mod) if first else ("", "")
        return await of.listen_udp(name, server.host, server.port, udp_limits, *unix)

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs until the server stops, by name."""
        tasks = {"statsd-flush": self.flush.run()}
        if self.aggregator.settings.keyFlush.interval:
            tasks["statsd-keys"] = self._report_keys()
        return tasks

    async def reconfigure(self, settings: StatsdSettings, given: Mapping[str, Any]) -> None:
        """Takes new settings over from the next line and flush on; those of RESTART are as before."""
        if settings != self.aggregator.settings:
            log.info("changed settings of [statsd] are taken over")
        self.aggregator.reconfigure(settings)
        self.management.reconfigure(settings, given)
        await self.flush.reconfigure(settings)

    async def _report_keys(self) -> None:
        """The most frequent keys, to the log or the file that keyFlush names."""
        aggregator = self.aggregator
        while True:
            of = aggregator.settings.keyFlush
            await asyncio.sleep(of.interval / 1000)
            counts, aggregator.key_counts = aggregator.key_counts, Counter()
            report = await asyncio.to_thread(key_report, counts, of.percent, clock.now_s())
            if not of.log:
                for line in report.splitlines():
                    log.info("%s", line)
                continue
            try:
                await asyncio.to_thread(_append, of.log, report)
            except OSError as e:
                log.error("keyFlush.log %s: %s", of.log, e.strerror)


def _append(path: str, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)
