"""Metrics of the HTTP API: requests, /render, limits, other nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from http_api.cluster import Peer
from tgres_py.metrics.declare import Declared, Group, Kind, Labelled, Value

if TYPE_CHECKING:
    from tgres_py.server import Server


def _requests(server: Server) -> Labelled:
    for (route, code), count in sorted(server.meters.requests.items()):
        yield (route, str(code)), count


def _refused_connections(server: Server) -> Labelled | None:
    if server.http is None:
        return None
    counts = server.http.counts
    acceptor = server.http.acceptor
    reasons = {
        "crowded": counts.crowded,
        "forbidden": acceptor.forbidden,
        "handshake": acceptor.failed,
        "limit": server.http.refused,
        "malformed": counts.malformed,
        "slow": counts.timed_out,
    }
    return [((reason,), n) for reason, n in reasons.items()]


def _peers(value: Callable[[Peer], Value]) -> Callable[[Server], Labelled | None]:
    """A value of each other node, where there are any."""

    def read(server: Server) -> Labelled | None:
        if server.cluster is None:
            return None
        return [((peer.name,), value(peer)) for peer in server.cluster.peers]

    return read


GROUPS = (
    Group(
        "HTTP",
        (
            Declared(
                "tgres_http_requests_total",
                Kind.COUNTER,
                "Requests answered; 499: the client was gone first.",
                _requests,
                ("route", "code"),
            ),
            Declared(
                "tgres_http_request_duration_seconds",
                Kind.HISTOGRAM,
                "Time of a request, sending of long answers included.",
                lambda s: [((route,), h) for route, h in sorted(s.meters.seconds.items())],
                ("route",),
            ),
            Declared(
                "tgres_http_requests_in_flight",
                Kind.GAUGE,
                "Requests that are being answered.",
                lambda s: s.meters.in_flight,
            ),
            Declared(
                "tgres_http_connections",
                Kind.GAUGE,
                "Open HTTP connections.",
                lambda s: None if s.http is None else s.http.counts.open,
            ),
            Declared(
                "tgres_http_connections_refused_total",
                Kind.COUNTER,
                "HTTP connections closed, by reason: crowded (the requests that come in are too many bytes together, "
                "memory_max), forbidden (http_allow), handshake (of TLS), limit (http_connections_max, tgres_tls_connections_max), malformed (no "
                "HTTP), slow (http_read_timeout_s).",
                _refused_connections,
                ("reason",),
            ),
            Declared(
                "tgres_http_tokens_refused_total",
                Kind.COUNTER,
                "Requests without the token that they need: missing, wrong, or limited (a wrong one from an address that "
                "sent too many, answered 429).",
                lambda s: [((why,), n) for why, n in s.tokens.refused.items()],
                ("why",),
            ),
            Declared(
                "tgres_http_response_bytes_total",
                Kind.COUNTER,
                "Bytes of answers' bodies as they were sent, of long ones with their headers.",
                lambda s: s.meters.response_bytes,
            ),
            Declared(
                "tgres_http_errors_total",
                Kind.COUNTER,
                "Requests refused, by kind of error.",
                lambda s: [((kind,), n) for kind, n in sorted(s.meters.errors.items())],
                ("error",),
            ),
            Declared(
                "tgres_query_refused_total",
                Kind.COUNTER,
                "Requests that a limit refused, by setting.",
                lambda s: [((name,), n) for name, n in sorted(s.meters.refused.items())],
                ("setting",),
            ),
        ),
    ),
    Group(
        "Render",
        (
            Declared(
                "tgres_render_duration_seconds",
                Kind.HISTOGRAM,
                "Time of a /render that was answered.",
                lambda s: [((name,), h) for name, h in sorted(s.meters.render_seconds.items())],
                ("format",),
            ),
            Declared(
                "tgres_render_stage_seconds_total",
                Kind.COUNTER,
                "Time by stage: plan (names), fetch (points), functions.",
                lambda s: [((name,), n) for name, n in sorted(s.meters.stage_seconds.items())],
                ("stage",),
            ),
            Declared(
                "tgres_queries_waiting",
                Kind.GAUGE,
                "Queries that wait for their turn, by lane: light renders, heavy ones, small pictures, find (names and tags); memory: "
                "those that wait for that.",
                lambda s: [
                    ((lane,), n)
                    for lane, n in {
                        **s.queries.lanes.waiting(),
                        "memory": s.queries.room.waiting,
                    }.items()
                ],
                ("lane",),
            ),
            Declared(
                "tgres_queries_reserved_bytes",
                Kind.GAUGE,
                "Memory set aside for the queries that are being answered, of the share queries.",
                lambda s: s.queries.room.taken,
            ),
            Declared(
                "tgres_render_workers",
                Kind.GAUGE,
                "Processes that make heavy answers and pictures.",
                lambda s: len(s.queries.workers.processes),
            ),
            Declared(
                "tgres_render_workers_total",
                Kind.COUNTER,
                "Such processes started, stopped (their query took too long, or its client hung up) and died (by themselves).",
                lambda s: [
                    (("started",), s.queries.workers.started),
                    (("stopped",), s.queries.workers.stopped),
                    (("died",), s.queries.workers.died),
                ],
                ("event",),
            ),
            Declared(
                "tgres_render_points_read_total",
                Kind.COUNTER,
                "Points (slots) that /render read.",
                lambda s: s.meters.points_read,
            ),
            Declared(
                "tgres_render_series_read_total",
                Kind.COUNTER,
                "Series that /render read.",
                lambda s: s.meters.series_read,
            ),
        ),
    ),
    Group(
        "Other nodes",
        (
            Declared(
                "tgres_peer_requests_total",
                Kind.COUNTER,
                "Requests to a peer.",
                _peers(lambda p: p.requests),
                ("peer",),
            ),
            Declared(
                "tgres_peer_failures_total",
                Kind.COUNTER,
                "Requests that a peer did not answer well.",
                _peers(lambda p: p.failures),
                ("peer",),
            ),
            Declared(
                "tgres_peer_available",
                Kind.GAUGE,
                "1 when the peer's last answer was good.",
                _peers(lambda p: int(p.available)),
                ("peer",),
            ),
        ),
    ),
)
