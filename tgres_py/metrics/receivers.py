"""Metrics of what comes in: points by receiver and reason, connections, datagrams, statsd's lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from receivers.statsd_mgmt import MgmtListener
from receivers.tcp import TcpListener
from receivers.udp import UdpListener
from tgres_py.metrics.declare import Declared, Group, Kind, Labelled, Value
from tgres_py.model.points import Reason
from tgres_py.statsd.aggregate import Aggregator

if TYPE_CHECKING:
    from tgres_py.server import Server

Read = Callable[["Server"], Labelled | None]
RECEIVER = ("receiver",)


def _tcp(value: Callable[[TcpListener], Value]) -> Read:
    """A value of each TCP listener."""

    def read(server: Server) -> Labelled:
        for name, listener in server.listeners.items():
            if isinstance(listener, TcpListener):
                yield (name,), value(listener)

    return read


def _udp(value: Callable[[UdpListener], Value]) -> Read:
    """A value of each UDP listener."""

    def read(server: Server) -> Labelled:
        for name, listener in server.listeners.items():
            if isinstance(listener, UdpListener):
                yield (name,), value(listener)

    return read


def _both(value: Callable[[TcpListener | UdpListener], Value]) -> Read:
    def read(server: Server) -> Labelled:
        for name, listener in server.listeners.items():
            if isinstance(listener, TcpListener | UdpListener):
                yield (name,), value(listener)

    return read


def _statsd(value: Callable[[Aggregator], float]) -> Callable[[Server], float | None]:
    return lambda server: None if server.statsd is None else value(server.statsd.aggregator)


def _received(server: Server) -> Iterator[tuple[tuple[str, ...], Value]]:
    for receiver, count in sorted(server.intake.ledger.received.items()):
        yield (receiver,), count


def _dropped(server: Server) -> Iterator[tuple[tuple[str, ...], Value]]:
    for reason in Reason:
        yield (reason.value,), server.intake.ledger.rejected[reason]


def _refused(server: Server) -> Labelled:
    for name, listener in server.listeners.items():
        if isinstance(listener, TcpListener | MgmtListener):
            yield (name,), listener.refused


def _forbidden(server: Server) -> Labelled:
    for name, listener in server.listeners.items():
        if isinstance(listener, UdpListener):
            yield (name,), listener.forbidden
        elif isinstance(listener, TcpListener | MgmtListener):
            yield (name,), listener.acceptor.forbidden


def _handshakes_failed(server: Server) -> Labelled:
    for name, listener in server.listeners.items():
        if isinstance(listener, TcpListener | MgmtListener):
            yield (name,), listener.acceptor.failed


def _statsd_refused(server: Server) -> Labelled | None:
    if server.statsd is None:
        return None
    limits = server.statsd.aggregator.limits()
    return [((limit,), count) for limit, count in limits.items()]


GROUPS = (
    Group(
        "Points in",
        (
            Declared(
                "tgres_points_received_total",
                Kind.COUNTER,
                "Points that came in, refused ones included.",
                _received,
                RECEIVER,
            ),
            Declared(
                "tgres_points_dropped_total", Kind.COUNTER, "Points refused.", _dropped, ("reason",)
            ),
            Declared(
                "tgres_points_stored_total",
                Kind.COUNTER,
                "Points that met an empty slot.",
                lambda s: s.intake.ledger.stored,
            ),
            Declared(
                "tgres_points_overwritten_total",
                Kind.COUNTER,
                "Points that met a slot with a value.",
                lambda s: s.intake.ledger.overwritten,
            ),
            Declared(
                "tgres_points_held",
                Kind.GAUGE,
                "Late points that wait for their merge. received = stored + overwritten + dropped + "
                "held, at every moment.",
                lambda s: s.intake.ledger.held,
            ),
            Declared(
                "tgres_paused",
                Kind.GAUGE,
                "1 while TCP receivers don't read, because there is no room.",
                lambda s: int(s.intake.paused),
            ),
        ),
    ),
    Group(
        "Receivers",
        (
            Declared(
                "tgres_receiver_connections",
                Kind.GAUGE,
                "Open TCP connections.",
                _tcp(lambda o: len(o.connections)),
                RECEIVER,
            ),
            Declared(
                "tgres_receiver_connections_accepted_total",
                Kind.COUNTER,
                "TCP connections taken.",
                _tcp(lambda o: o.accepted),
                RECEIVER,
            ),
            Declared(
                "tgres_receiver_connections_refused_total",
                Kind.COUNTER,
                "TCP connections closed at once, beyond connections_max (statsd_mgmt: beyond 32) or tgres_tls_connections_max.",
                _refused,
                RECEIVER,
            ),
            Declared(
                "tgres_receiver_forbidden_total",
                Kind.COUNTER,
                "Connections (TCP) and datagrams (UDP) that an allow-list kept out.",
                _forbidden,
                RECEIVER,
            ),
            Declared(
                "tgres_receiver_handshakes_failed_total",
                Kind.COUNTER,
                "TCP connections whose TLS handshake failed, took longer than 10 s, or gave way to newer ones.",
                _handshakes_failed,
                RECEIVER,
            ),
            Declared(
                "tgres_tls_connections",
                Kind.GAUGE,
                "Open TLS connections of all listeners, HTTP's too.",
                lambda s: None if s.doors.tls_share is None else s.doors.tls_share.open,
            ),
            Declared(
                "tgres_tls_connections_max",
                Kind.GAUGE,
                "TLS connections that memory_max has room for, handshakes included; further ones are refused.",
                lambda s: None if s.doors.tls_share is None else s.doors.tls_share.connections_max,
            ),
            Declared(
                "tgres_receiver_reads_total",
                Kind.COUNTER,
                "Reads from TCP connections.",
                _tcp(lambda o: o.reads),
                RECEIVER,
            ),
            Declared(
                "tgres_receiver_datagrams_total",
                Kind.COUNTER,
                "Datagrams read.",
                _udp(lambda o: o.datagrams),
                RECEIVER,
            ),
            Declared(
                "tgres_receiver_bytes_total",
                Kind.COUNTER,
                "Bytes read.",
                _both(lambda o: o.bytes),
                RECEIVER,
            ),
            Declared(
                "tgres_receiver_queue_bytes",
                Kind.GAUGE,
                "Datagrams read, not yet parsed.",
                _udp(lambda o: o.queued_bytes),
                RECEIVER,
            ),
            Declared(
                "tgres_receiver_socket_buffer_bytes",
                Kind.GAUGE,
                "The kernel's buffer of the UDP socket.",
                _udp(lambda o: o.rcvbuf_bytes),
                RECEIVER,
            ),
            Declared(
                "tgres_receiver_tail_bytes",
                Kind.GAUGE,
                "Unfinished lines and frames of all TCP connections.",
                lambda s: s.tcp_totals.tail_bytes,
            ),
            Declared(
                "tgres_receiver_buffer_duration_seconds",
                Kind.HISTOGRAM,
                "Time that the event loop took for one buffer: parsing, ring and journal.",
                _both(lambda o: o.busy),
                RECEIVER,
            ),
        ),
    ),
    Group(
        "statsd (lines are no points before they are flushed)",
        (
            Declared(
                "tgres_statsd_packets_total",
                Kind.COUNTER,
                "Packets of statsd's clients.",
                _statsd(lambda a: a.packets_seen),
            ),
            Declared(
                "tgres_statsd_lines_total",
                Kind.COUNTER,
                "Lines of statsd's clients, bad ones included.",
                _statsd(lambda a: a.lines_seen),
            ),
            Declared(
                "tgres_statsd_bad_lines_total",
                Kind.COUNTER,
                "Lines of statsd that were not understood.",
                _statsd(lambda a: a.bad_lines_seen),
            ),
            Declared(
                "tgres_statsd_events_total",
                Kind.COUNTER,
                "Events of DogStatsD clients.",
                _statsd(lambda a: a.inbox.seen),
            ),
            Declared(
                "tgres_statsd_service_checks_total",
                Kind.COUNTER,
                "Service checks, counted only.",
                _statsd(lambda a: a.inbox.checks),
            ),
            Declared(
                "tgres_statsd_events_waiting",
                Kind.GAUGE,
                "Events that wait for PostgreSQL.",
                _statsd(lambda a: len(a.inbox.events)),
            ),
            Declared(
                "tgres_statsd_estimated_sets_total",
                Kind.COUNTER,
                "Sizes of sets that were estimates, since there were more members than setExactMax.",
                lambda server: (
                    None if server.statsd is None else server.statsd.flush.numbers.estimated
                ),
            ),
            Declared(
                "tgres_statsd_refused_total",
                Kind.COUNTER,
                "What limits of statsd refused.",
                _statsd_refused,
                ("limit",),
            ),
        ),
    ),
)
