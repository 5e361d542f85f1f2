"""The way in: a parsed block goes to the journal and the ring, what can't go there to the late queue.

One call for a whole receive buffer, in the loop's thread, never waiting. Receivers look at ``paused``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tgres_py import clock
from tgres_py.ingest.footprint import cache_bytes
from tgres_py.ingest.journal import Journal, Kind, Record
from tgres_py.ingest.ledger import Ledger, RejectLog
from tgres_py.ingest.registry import Registry
from tgres_py.memory import HARD
from tgres_py.model.points import Ids, Parsed, PointBlock, Reason, Times, Values

JOURNAL_PENDING_MAX = 256 << 20  # bytes that may wait for the journal's disk
COPIED = 1 << 31  # set in the numbers of late records that are copies of a foreign journal's

# A line of 20 bytes may be the first of its slot: the ring takes a row of 32 KiB for all series of its segment.
NEED_PER_BYTE = 32_768 // 20
PIECE_BYTES = 4_096, 262_144  # parsed at a time: at least (7 MB of rows), at most
LATE_BATCH_MIN, LATE_BATCH_MAX = 1_000, 200_000
LATE_NEED_BYTES = 65_536  # of a late point: such a row, or a chunk of each archive on its way to the store


@dataclass(slots=True)
class Late:
    """Points that go to the store by a merge; ``now_s``: when they came, ``seq``: of their journal record."""

    ids: Ids
    times: Times
    values: Values
    now_s: int
    seq: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Limits:
    """``cache_bytes_max``: of ring, late points and pending records together; senders wait from
    ``cache_pause_bytes`` on, so that those that can't wait have room for a while.
    """

    cache_bytes_max: int
    late_points_max: int = 2_000_000
    journal_bytes_max: int = 8 << 30
    future_s_max: int = 86_400

    @property
    def cache_pause_bytes(self) -> float:
        return self.cache_bytes_max / HARD

    @property
    def late_batch(self) -> int:
        """Late points that are merged together: what each may need must fit."""
        return max(LATE_BATCH_MIN, min(LATE_BATCH_MAX, self.cache_bytes_max // LATE_NEED_BYTES))


class Intake:
    """Implements the receivers' Sink."""

    def __init__(self, registry: Registry, journal: Journal | None, limits: Limits) -> None:
        self._registry = registry
        self.ring = registry.ring
        self.journal = journal
        self.limits = limits
        self.ledger = Ledger()
        self.late: list[Late] = []
        self.late_points = 0
        self.landed = False  # whether some went to the ring, which the journal's disk may not know yet
        # numbers of each run are higher than those of the runs before, even of records that are gone
        self.late_seq = journal.incarnation << 32 if journal else 0
        self.on_late: Callable[[], None] = lambda: None
        self.rejects = RejectLog()
        self.taps: list[Callable[[str, Parsed, str], None]] = []  # see traffic.py
        self._waiting: list[Callable[[], None]] = []
        self._paused = False

    @property
    def registry(self) -> Registry:
        return self._registry

    # -- points in ---------------------------------------------------------------------------

    def accept(self, receiver: str, parsed: Parsed, peer: str = "") -> None:
        """Takes points and refusals; quick, never waits."""
        ledger = self.ledger
        ledger.received[receiver] += parsed.received
        if parsed.rejected:
            ledger.rejected.update(parsed.rejected)
            self.rejects.show(receiver, peer, parsed.samples)
        for tap in self.taps:
            tap(receiver, parsed, peer)
        self.journal_names()
        if len(parsed.block):
            if self._over(HARD):
                ledger.rejected[Reason.OVERLOAD] += len(parsed.block)
            else:
                self._store(parsed.block, clock.now_s(), receiver, peer)
            self._paused = self._over(1)

    def refuse(self, receiver: str, reason: Reason, count: int) -> None:
        """Points that were lost before they could be parsed (the kernel's drops …)."""
        self.ledger.received[receiver] += count
        self.ledger.rejected[reason] += count

    def _store(self, block: PointBlock, now_s: int, receiver: str, peer: str) -> None:
        ids, times, values = block.ids, block.times, block.values
        if not self._registry.opened:
            self.add_late(ids, times, values, now_s)
            return
        limits, ledger = self.limits, self.ledger
        stored, overwritten, late, too_old, future, unplaced = self.ring.store(
            ids, times, values, now_s, limits.future_s_max
        )
        ledger.stored += stored
        ledger.overwritten += overwritten
        if len(late) or len(too_old) or len(future) or len(unplaced):
            for at, reason in (
                (too_old, Reason.TOO_OLD),
                (future, Reason.FUTURE),
                (unplaced, Reason.UNMATCHED),
            ):
                if len(at):
                    ledger.rejected[reason] += len(at)
                    name = self._registry.names(ids[at[:1]])[0].encode()
                    sample = b"%b %r %d" % (name, float(values[at[0]]), times[at[0]])
                    self.rejects.show(receiver, peer, [(reason, sample)])
            if len(late):
                self.add_late(ids[late], times[late], values[late], now_s)
            taken = np.ones(len(ids), np.bool_)
            for at in (late, too_old, future, unplaced):
                taken[at] = False
            ids, times, values = ids[taken], times[taken], values[taken]
        if len(ids) and self.journal is not None:
            self.journal.append(Record(Kind.POINTS, ids, times, values, now_s))

    def journal_names(self) -> None:
        """Tells the journal of new series (and rows) before the first record that uses their ids.

        Floors come first: a name without its floor would look like a series that the store has nothing of.
        """
        if self.journal is None:
            return
        for ids, floor_s in self._registry.fresh_floors():
            self.journal.append(Record(Kind.FLOOR, ids, now_s=floor_s))
        for ids, lines in self._registry.fresh_names():
            self.journal.append(Record(Kind.NAMES, ids, blob=lines))
        for ids in self._registry.fresh_rows():
            self.journal.append(Record(Kind.ROWS, ids, self._registry.rrd_id[ids]))

    # -- late points -------------------------------------------------------------------------

    def add_late(self, ids: Ids, times: Times, values: Values, now_s: int) -> None:
        """Queues points for the merge; they are held until it is done."""
        self.late_seq += 1
        self.late.append(Late(ids, times, values, now_s, self.late_seq))
        self.late_points += len(ids)
        self.ledger.late += len(ids)
        self.ledger.held += len(ids)
        if self.journal is not None:
            self.journal.append(Record(Kind.LATE, ids, times, values, now_s, self.late_seq))
        self.on_late()

    def copy_late(self, foreign: list[Late]) -> int:
        """Queues the points of a journal that isn't the store's before those of this run; how many."""
        assert self.journal is not None
        # above all numbers of the run before, below those of this run
        first = (self.journal.incarnation << 32) - COPIED
        count = sum(map(len, foreign))
        for number, late in enumerate(foreign, first):
            late.seq = number
            self.journal.append(
                Record(Kind.LATE, late.ids, late.times, late.values, late.now_s, number)
            )
        self.late = foreign + self.late
        self.late_points += count
        self.ledger.late += count
        self.ledger.held += count
        self.ledger.received["journal"] += count
        self.on_late()
        return count

    def requeue_late(self, late: Late) -> int:
        """Queues what is left of a record of an earlier run, which stays in its file, in the record's old place.

        Takes the place of what is queued of that record. Returns by how many points the queue grew.
        """
        at = bisect_left(self.late, late.seq, key=lambda other: other.seq)
        known = at < len(self.late) and self.late[at].seq == late.seq
        grown = len(late) - (len(self.late[at]) if known else 0)
        self.late[at : at + known] = [late] if len(late) else []
        self.late_points += grown
        self.ledger.late += grown
        self.ledger.held += grown
        self.on_late()
        return grown

    def land(self, late: Late) -> Late:
        """Puts points of the queue where the ring has places for them by now; what is left is for the store."""
        stored, overwritten, below, *refused = self.ring.store(
            late.ids, late.times, late.values, late.now_s, self.limits.future_s_max
        )
        rejected = {
            reason: len(at)
            for reason, at in zip(
                (Reason.TOO_OLD, Reason.FUTURE, Reason.UNMATCHED), refused, strict=True
            )
            if len(at)
        }
        left = Late(late.ids[below], late.times[below], late.values[below], late.now_s, late.seq)
        if stored + overwritten and self.journal is not None:
            taken = np.ones(len(late), np.bool_)
            for at in (below, *refused):
                taken[at] = False
            rest = Record(Kind.LATE, left.ids, left.times, left.values, left.now_s, left.seq)
            self.journal.append(
                Record(
                    Kind.LANDED,
                    late.ids[taken],
                    late.times[taken],
                    late.values[taken],
                    late.now_s,
                    rest=rest,
                )
            )
            self.landed = True
        self._done(len(late) - len(left), stored, overwritten, rejected)
        return left

    def land_since(self, seq: int) -> None:
        """The same with all records after number ``seq``, before newer points come to their slots."""
        at = bisect_right(self.late, seq, key=lambda late: late.seq)
        self.late[at:] = [left for late in self.late[at:] if len(left := self.land(late))]

    def take_late(self, most: int) -> list[Late]:
        """The oldest queued points, about ``most``; still counted as held."""
        count = 0
        for i, late in enumerate(self.late):
            count += len(late)
            if count >= most:
                taken, self.late = self.late[: i + 1], self.late[i + 1 :]
                return taken
        taken, self.late = self.late, []
        return taken

    def take_late_until(self, seq: int) -> list[Late]:
        """All queued points of records up to number ``seq``; still counted as held."""
        taken = [late for late in self.late if late.seq <= seq]
        self.late = [late for late in self.late if late.seq > seq]
        return taken

    def give_back_late(self, taken: list[Late]) -> None:
        """Points that could not be merged; they keep their place."""
        self.late = taken + self.late

    def late_done(
        self, taken: list[Late], stored: int, overwritten: int, rejected: dict[Reason, int]
    ) -> None:
        """The queue's points found their places."""
        self._done(sum(map(len, taken)), stored, overwritten, rejected)

    def _done(
        self, count: int, stored: int, overwritten: int, rejected: dict[Reason, int]
    ) -> None:
        self.late_points -= count
        self.ledger.held -= count
        self.ledger.stored += stored
        self.ledger.overwritten += overwritten
        self.ledger.rejected.update(rejected)
        self.room()

    # -- back-pressure -----------------------------------------------------------------------

    def _over(self, factor: float) -> bool:
        limits = self.limits
        journal = self.journal
        return (
            cache_bytes(self) > limits.cache_pause_bytes * factor
            or self.late_points > limits.late_points_max * factor
            or (
                journal is not None
                and (
                    journal.pending_bytes > JOURNAL_PENDING_MAX * factor
                    or journal.total_bytes > limits.journal_bytes_max * factor
                )
            )
        )

    @property
    def paused(self) -> bool:
        """True while there is no room."""
        return self._paused

    @property
    def piece_bytes_max(self) -> int:
        """How much may be parsed at a time, so that it finds room whatever it is."""
        left = self.limits.cache_pause_bytes - cache_bytes(self)
        least, most = PIECE_BYTES
        return max(least, min(most, int(left / NEED_PER_BYTE)))

    def on_room(self, callback: Callable[[], None]) -> None:
        """Has ``callback`` called once, as soon as there is room again."""
        self._waiting.append(callback)

    def room(self) -> None:
        """Called whenever something was freed: lets waiting senders go on."""
        if self._paused:
            self._paused = self._over(1)
        if not self._paused and self._waiting:
            waiting, self._waiting = self._waiting, []
            for callback in waiting:
                callback()
