"""Mixed load of three senders whose every point is known, and what may be left of it after a kill.

Each series belongs to one sender, whose points arrive in order; so after a kill those that are left of a slot are
the first ones. How many at least, the server itself has said: its counters, read some time before the kill.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from receivers.carbon_pickle import encode
from tests.acceptance.process import Known, ServerProcess
from tgres_py.model.retention import OnDuplicate

Point = tuple[str, int, float]
Cell = tuple[str, int]  # series, slot of one second
State = tuple[float, int] | None  # value and count of points of a slot; None: nothing known

SENDERS = ("carbon", "carbon_udp", "pickle")  # as the counter of received points calls them
SERIES = 2  # of each sender and rule, besides new ones
PAUSE_S = 0.02
ASK_S = 0.1
DATAGRAM_LINES = 20
BACK_S = (1, 4), (40, 120)  # how far second points go back, and late ones


def fold(rule: OnDuplicate, state: State, value: float) -> State:
    """A slot after one more point. Counts only matter to the mean."""
    if state is None:
        return value, 1
    held, count = state
    match rule:
        case OnDuplicate.LAST:
            return value, 1
        case OnDuplicate.FIRST:
            return held, 1
        case OnDuplicate.SUM:
            return held + value, 1
        case OnDuplicate.MEAN:
            return (held * count + value) / (count + 1), count + 1
        case OnDuplicate.MIN:
            return min(held, value), 1
        case OnDuplicate.MAX:
            return max(held, value), 1


def rule_of(name: str) -> OnDuplicate:
    """Series are called load.SENDER.RULE.NUMBER."""
    return OnDuplicate(name.split(".")[2])


@dataclass(slots=True)
class Expected:
    """What each slot may hold."""

    states: defaultdict[Cell, set[State]] = field(
        default_factory=lambda: defaultdict(lambda: {None})
    )
    points: defaultdict[Cell, int] = field(
        default_factory=lambda: defaultdict(int)
    )  # that were sent

    def sent(self, points: list[Point], sure: int) -> None:
        """Points of one sender up to a kill; the first ``sure`` of them are on disk."""
        cells: dict[Cell, list[tuple[bool, float]]] = {}
        for number, (name, time_s, value) in enumerate(points):
            cells.setdefault((name, time_s), []).append((number < sure, value))
        for cell, of_cell in cells.items():
            rule, found = rule_of(cell[0]), set()
            for state in self.states[cell]:
                if not of_cell[0][0]:
                    found.add(state)
                for number, (_, value) in enumerate(of_cell, 1):
                    state = fold(rule, state, value)
                    if number == len(of_cell) or not of_cell[number][0]:
                        found.add(state)
            self.states[cell] = found

    def look(self, got: Known, from_s: int) -> list[str]:
        """Compares with what is there from a time on, which is what is known of it from now on; complaints."""
        wrong = []
        for name, slots in got.items():
            wrong += [
                f"{name} at {time_s}: {value}, nothing was sent"
                for time_s, value in slots.items()
                if (name, time_s) not in self.states
            ]
        for (name, time_s), states in self.states.items():
            if time_s < from_s:
                continue
            value = got.get(name, {}).get(time_s)
            fitting = {state for state in states if same(state, value)}
            if not fitting:
                wrong.append(f"{name} at {time_s}: {value}, not one of {states}")
            self.states[name, time_s] = fitting or states
        return wrong


def same(state: State, value: float | None) -> bool:
    if state is None or value is None:
        return state is None and value is None
    return abs(state[0] - value) <= 1e-9 * max(1.0, abs(value))


class MixedLoad:
    """``with MixedLoad(server, expected, first_s, rng) as load``: sends until the block ends."""

    def __init__(
        self, server: ServerProcess, expected: Expected, first_s: int, rng: random.Random
    ) -> None:
        self.next_s = first_s
        self.sent: dict[str, list[Point]] = {sender: [] for sender in SENDERS}
        self._server = server
        self._expected = expected
        self._rng = rng
        self._told: list[
            tuple[float, dict[str, float]]
        ] = []  # when an answer came, received by sender
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._send, self._ask)
        ]

    def __enter__(self) -> MixedLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def settle(self, before: float) -> None:
        """After the end: notes what was sent; what was received before a moment is on disk."""
        for sender, points in self.sent.items():
            told = [counts.get(sender, 0) for moment, counts in self._told if moment < before]
            self._expected.sent(points, int(max(told, default=0)))

    # -- threads -------------------------------------------------------------------------------

    def _ask(self) -> None:
        while not self._ended.wait(ASK_S):
            try:
                metrics = self._server.metrics()
            except AssertionError:  # killed
                return
            counts = {
                s: metrics.get(f'tgres_points_received_total{{receiver="{s}"}}', 0) for s in SENDERS
            }
            self._told.append((time.monotonic(), counts))

    def _send(self) -> None:
        ports = self._server.ports
        try:
            with (
                socket.create_connection(("127.0.0.1", ports["carbon"]), 30) as lines,
                socket.create_connection(("127.0.0.1", ports["pickle"]), 30) as frames,
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            ):
                datagrams.connect(("127.0.0.1", ports["carbon_udp"]))
                while not self._ended.wait(PAUSE_S):
                    batches = {sender: list(self._batch(sender)) for sender in SENDERS}
                    self.next_s += 1
                    for sender, batch in batches.items():
                        self.sent[sender] += batch  # first: what may have left has been sent
                    lines.sendall(text(batches["carbon"]))
                    names, times, values = zip(*batches["pickle"], strict=True)
                    frames.sendall(encode([name.encode() for name in names], times, values))
                    batch = batches["carbon_udp"]
                    for at in range(0, len(batch), DATAGRAM_LINES):
                        datagrams.send(text(batch[at : at + DATAGRAM_LINES]))
        except OSError:
            return  # killed

    def _batch(self, sender: str) -> Iterator[Point]:
        """A slot of each series, second and late points of some, and sometimes a new series."""
        rng = self._rng
        for rule in OnDuplicate:
            names = [f"load.{sender}.{rule}.s{i}" for i in range(SERIES)]
            if rng.random() < 0.05:
                names.append(f"load.{sender}.{rule}.new{self.next_s}")
            for name in names:
                yield self._point(name, self.next_s)
                for share, (least, most) in zip((0.3, 0.1), BACK_S, strict=True):
                    if rng.random() < share:
                        yield self._point(name, self.next_s - rng.randint(least, most))

    def _point(self, name: str, time_s: int) -> Point:
        """Values that tell which points met: none is the sum of others, doubled or not."""
        self._expected.points[name, time_s] += 1
        number = self._expected.points[name, time_s]
        value = 4.0**number if rule_of(name) == OnDuplicate.SUM else self._rng.randint(1, 1 << 20)
        return name, time_s, float(value)


def text(points: list[Point]) -> bytes:
    return "".join(f"{name} {value!r} {time_s}\n" for name, time_s, value in points).encode()
