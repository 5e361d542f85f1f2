"""``tgres blast``: sends a known load to a carbon receiver and says how fast it went."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import click

from tgres_py import clock
from tgres_py.cli.blast_payload import (
    SERIES_MAX,
    TIMESTAMP_MAX,
    TIMESTAMP_MIN,
    LinePayload,
    Payload,
    PicklePayload,
    name_of,
)
from tgres_py.cli.common import ServerUnreachable, json_option, print_json
from tgres_py.errors import BadRequest

DATAGRAM_BYTES = 1_400  # fits an Ethernet frame
UDP_SEGMENT = 103  # Linux, since 4.18
SEGMENTS_MAX = 64
SEND_BYTES_MAX = 65_000
PIECE_BYTES = 262_144
PIECES_PER_S = 20  # with a given rate: how even the load is
STALL_S_MAX = 60.0
UNPACED_POINTS_PER_S = (
    3_000_000  # only to guess a start time when neither rounds nor rate are given
)
PORTS = {"line": 2003, "pickle": 2004, "udp": 2003}


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. ``rate``: points/s of all connections together, 0 = as fast as possible; ``duration_s``
    0 = until ``rounds`` are sent; ``rounds`` 0 = until the time is over."""

    host: str
    port: int
    protocol: str
    series: int
    connections: int
    rate: float
    rounds: int
    duration_s: float
    step_s: int
    start_s: int
    prefix: str
    name_bytes: int
    datagram_lines: int


@dataclass(slots=True)
class Sent:
    """What a connection has sent, and what ended it."""

    points: int = 0
    bytes: int = 0
    error: str = ""


class Sender:
    """One connection with its share of the series, in its own thread."""

    def __init__(self, plan: Plan, number: int) -> None:
        first = plan.series * number // plan.connections
        end = plan.series * (number + 1) // plan.connections
        self.plan = plan
        self.count = end - first
        self.sent = Sent()
        names = [name_of(i, plan.prefix, plan.name_bytes).encode() for i in range(first, end)]
        kind = PicklePayload if plan.protocol == "pickle" else LinePayload
        self.payload: Payload = kind(first, names)
        self.sock = _connect(plan)
        lines = plan.datagram_lines or max(1, DATAGRAM_BYTES // self.payload.record_bytes)
        datagram_bytes = lines * self.payload.record_bytes
        self.send_bytes = datagram_bytes * _datagrams_per_send(self.sock, datagram_bytes)

    def run(self, started: float) -> None:
        """Sends until the plan is fulfilled; an error of the network ends it and is kept."""
        plan = self.plan
        deadline = started + plan.duration_s if plan.duration_s else float("inf")
        round_number = 0
        try:
            while not plan.rounds or round_number < plan.rounds:
                timestamp_s = plan.start_s + round_number * plan.step_s
                if timestamp_s > TIMESTAMP_MAX or not self._send_round(
                    round_number, timestamp_s, started, deadline
                ):
                    break
                round_number += 1
        except OSError as error:
            self.sent.error = str(error)
        finally:
            self.sock.close()

    def _send_round(
        self, round_number: int, timestamp_s: int, started: float, deadline: float
    ) -> bool:
        """False when the time is over."""
        self.payload.render(round_number, timestamp_s)
        data, size = self.payload.data, self._piece_bytes()
        done = round_number * self.count
        for at in range(0, len(data), size):
            if clock.monotonic() >= deadline:
                return False
            piece = data[at : at + size]
            self._send(piece)
            self.sent.bytes += len(piece)
            self.sent.points = done + self.count * min(at + size, len(data)) // len(data)
            if self.plan.rate:
                self._wait(started, deadline)
        return True

    def _piece_bytes(self) -> int:
        """Bytes between two looks at the clock."""
        rate = self.plan.rate * self.count / self.plan.series
        points = int(rate / PIECES_PER_S) if rate else PIECE_BYTES
        size = min(max(points, 1) * self.payload.record_bytes, PIECE_BYTES)
        return size - size % self.payload.record_bytes

    def _send(self, piece: memoryview) -> None:
        if self.plan.protocol != "udp":
            self.sock.sendall(piece)
            return
        for at in range(0, len(piece), self.send_bytes):
            with suppress(ConnectionRefusedError):  # UDP: the answer to an earlier datagram
                self.sock.send(piece[at : at + self.send_bytes])

    def _wait(self, started: float, deadline: float) -> None:
        due = started + self.sent.points / (self.plan.rate * self.count / self.plan.series)
        pause = min(due, deadline) - clock.monotonic()
        if pause > 0:
            time.sleep(pause)


def _connect(plan: Plan) -> socket.socket:
    try:
        if plan.protocol != "udp":
            return socket.create_connection((plan.host, plan.port), timeout=STALL_S_MAX)
        family, kind, _, _, address = socket.getaddrinfo(
            plan.host, plan.port, type=socket.SOCK_DGRAM
        )[0]
        sock = socket.socket(family, kind)
        sock.connect(address)
        return sock
    except OSError as error:
        raise ServerUnreachable(
            f"nothing takes {plan.protocol} at {plan.host}:{plan.port}: {error.strerror or error}"
        ) from None


def _datagrams_per_send(sock: socket.socket, datagram_bytes: int) -> int:
    """How many datagrams one call may send: Linux cuts what it is given into datagrams of one length.

    A call for each costs 5 us here, which is less than 200,000 datagrams/s.
    """
    if sock.type != socket.SOCK_DGRAM or datagram_bytes > DATAGRAM_BYTES:
        return 1
    try:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, datagram_bytes)
    except OSError:
        return 1
    return min(SEGMENTS_MAX, SEND_BYTES_MAX // datagram_bytes)


@dataclass(frozen=True, slots=True)
class Result:
    points: int
    bytes: int
    seconds: float
    errors: list[str]

    @property
    def points_per_s(self) -> float:
        return self.points / self.seconds if self.seconds else 0.0


def send(plan: Plan) -> Result:
    """Runs a plan to its end. ServerUnreachable when a connection can't be made."""
    senders: list[Sender] = []
    try:
        for number in range(plan.connections):
            senders.append(Sender(plan, number))
    except ServerUnreachable:
        for sender in senders:
            sender.sock.close()
        raise
    started = clock.monotonic()
    threads = [threading.Thread(target=s.run, args=(started,), daemon=True) for s in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Result(
        points=sum(s.sent.points for s in senders),
        bytes=sum(s.sent.bytes for s in senders),
        seconds=clock.monotonic() - started,
        errors=[s.sent.error for s in senders if s.sent.error],
    )


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Receiver's host.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Default: 2003, for pickle 2004.")
@click.option("--protocol", type=click.Choice(list(PORTS)), default="line", show_default=True)
@click.option("--series", type=click.IntRange(1, SERIES_MAX), default=10_000, show_default=True)
@click.option("--rate", type=click.FloatRange(0), default=0.0, show_default=True,
              help="Points per second, 0 = as fast as possible.")  # fmt: skip
@click.option("--connections", type=click.IntRange(1, 1_000), default=1, show_default=True)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    help="Points per series.  [default: 10, with --duration no limit]",
)
@click.option("--duration", "duration_s", type=click.FloatRange(0, min_open=True), help="Seconds.")
@click.option("--step", "step_s", type=click.IntRange(1), default=10, show_default=True,
              help="Seconds from one round's timestamp to the next.")  # fmt: skip
@click.option("--start-at", "start_s", type=click.IntRange(TIMESTAMP_MIN, TIMESTAMP_MAX),
              help="Timestamp of the first round.  [default: so that the last round is now]")  # fmt: skip
@click.option("--prefix", default="blast", show_default=True, help="First part of the names.")
@click.option("--name-bytes", type=click.IntRange(0, 1_000), default=0, show_default=True,
              help="Fill names up to this length.")  # fmt: skip
@click.option("--datagram-lines", type=click.IntRange(0, 1_000), default=0, show_default=True,
              help="Lines per datagram, 0 = as many as fit 1,400 bytes.")  # fmt: skip
@json_option
def blast(
    host: str,
    port: int | None,
    protocol: str,
    series: int,
    rate: float,
    connections: int,
    rounds: int | None,
    duration_s: float | None,
    step_s: int,
    start_s: int | None,
    prefix: str,
    name_bytes: int,
    datagram_lines: int,
    as_json: bool,
) -> None:
    """Send load to a carbon receiver: known names, values and times, as fast as asked for.

    Stops after --rounds or --duration, whichever comes first, and prints the rate reached.
    """
    if connections > series:
        raise BadRequest(f"--connections {connections}: there are only {series} series to share")
    if not prefix.isprintable() or any(c in prefix for c in " ;") or not prefix:
        raise BadRequest("--prefix: a name without blanks and tags")
    plan = Plan(
        host=host,
        port=port or PORTS[protocol],
        protocol=protocol,
        series=series,
        connections=connections,
        rate=rate,
        rounds=rounds or (0 if duration_s else 10),
        duration_s=duration_s or 0.0,
        step_s=step_s,
        start_s=start_s or _start_s(series, rate, rounds, duration_s, step_s),
        prefix=prefix,
        name_bytes=name_bytes,
        datagram_lines=datagram_lines,
    )
    _report(plan, send(plan), as_json)


def _start_s(
    series: int, rate: float, rounds: int | None, duration_s: float | None, step_s: int
) -> int:
    """The slot of now, less the rounds that will be sent: nothing lies in the future."""
    if rounds is None:
        rounds = int(duration_s * (rate or UNPACED_POINTS_PER_S) / series) + 1 if duration_s else 10
    now_s = clock.now_s()
    return max(now_s - now_s % step_s - (rounds - 1) * step_s, TIMESTAMP_MIN)


def _report(plan: Plan, result: Result, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "points": result.points,
                "bytes": result.bytes,
                "seconds": round(result.seconds, 3),
                "points_per_s": round(result.points_per_s),
                "start_at": plan.start_s,
                "errors": result.errors,
            }
        )
    else:
        click.echo(
            f"sent {result.points:,} points of {plan.series:,} series in {result.seconds:.2f} s: "
            f"{result.points_per_s:,.0f} points/s ({plan.protocol}, {plan.connections} connection(s) "
            f"to {plan.host}:{plan.port}, first timestamp {plan.start_s})"
        )
    if result.errors:
        raise ServerUnreachable(f"{len(result.errors)} connection(s) broke: {result.errors[0]}")
