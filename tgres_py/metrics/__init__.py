"""/metrics: what the server counts, in Prometheus' text format; read from the owners when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from tgres_py.metrics import ingest, process, queries, receivers, store
from tgres_py.metrics.declare import Group

if TYPE_CHECKING:
    from tgres_py.server import Server

GROUPS: tuple[Group, ...] = (
    *receivers.GROUPS,
    *ingest.GROUPS,
    *store.GROUPS,
    *queries.GROUPS,
    *process.GROUPS,
)


class ServerCollector(Collector):
    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        for group in GROUPS:
            for declared in group.metrics:
                if (family := declared.family(self._server)) is not None:
                    yield family


def exporter(server: Server) -> Callable[[], bytes]:
    """A function that gives the text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServerCollector(server))
    return lambda: generate_latest(registry)
