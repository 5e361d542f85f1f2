"""Metrics of the connections to PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tgres_py.metrics.declare import Declared, Group, Kind, Labelled, Value
from tgres_py.storage.connection import Pool
from tgres_py.storage.postgres import PostgresStore

if TYPE_CHECKING:
    from tgres_py.server import Server

POOL = ("pool",)


def _pools(value: Callable[[Pool], Value]) -> Callable[[Server], Labelled | None]:
    def read(server: Server) -> Labelled | None:
        if not isinstance(server.store, PostgresStore):
            return None
        return [((name,), value(pool)) for name, pool in server.store.pools.items()]

    return read


GROUPS = (
    Group(
        "PostgreSQL (pool `shared`: reads and new series; `writer`: chunks; `ping`: whether it is there)",
        (
            Declared(
                "tgres_postgres_connections_max",
                Kind.GAUGE,
                "Connections that the pool may have.",
                _pools(lambda p: p.size),
                POOL,
            ),
            Declared(
                "tgres_postgres_connections_in_use",
                Kind.GAUGE,
                "Connections in use.",
                _pools(lambda p: p.in_use),
                POOL,
            ),
            Declared(
                "tgres_postgres_waiting",
                Kind.GAUGE,
                "Operations that wait for a connection.",
                _pools(lambda p: p.waiting),
                POOL,
            ),
            Declared(
                "tgres_postgres_connections_opened_total",
                Kind.COUNTER,
                "Connections made.",
                _pools(lambda p: p.opened),
                POOL,
            ),
            Declared(
                "tgres_postgres_failures_total",
                Kind.COUNTER,
                "Connections that were refused or lost, and operations that took too long.",
                _pools(lambda p: p.failures),
                POOL,
            ),
            Declared(
                "tgres_postgres_duration_seconds",
                Kind.HISTOGRAM,
                "Time that one operation held its connection.",
                _pools(lambda p: p.used_seconds),
                POOL,
            ),
        ),
    ),
)
