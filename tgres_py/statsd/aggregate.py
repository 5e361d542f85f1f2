"""Packets in, what a flush needs out: what etsy's daemon keeps between two flushes.

No socket, no wall clock: times come in. What is idle is flushed again (counters, sets and a timer's count as 0, gauges
as they were), unless the delete* settings say otherwise: then it goes after ``…MaxTTL`` flushes without an event.
``packets_received``, ``metrics_received`` and ``bad_lines_seen`` are counters like others, but never go.
Source: stats.js, backends/graphite.js of npm statsd 0.9.0.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from typing import NamedTuple

from tgres_py.kernels.statsd import StatsdCells
from tgres_py.statsd.dogstatsd import CHECK, Inbox
from tgres_py.statsd.flush import Interval
from tgres_py.statsd.names import Names
from tgres_py.statsd.parser import LINE_BYTES_MAX, Event, Kind, LineParser
from tgres_py.statsd.settings import StatsdSettings

log = logging.getLogger("tgres.statsd")

OWN_COUNTERS = ("bad_lines_seen", "packets_received", "metrics_received")
TIMED_MAX = 1_000_000  # points with a time of their own that wait for the flush
POINT_BYTES = 16  # a time and a value
FLUSH_KEY_BYTES = 140  # measured: of a key what the flush remembers, its text and its ids
TIMED_BYTES = 250  # of a point that waits with its time
VALUE_BYTES = 28  # of a timer's value, from its arrival to the end of its flush


class Timed(NamedTuple):
    """A point that was sent with its time."""

    name: str
    time_s: int
    value: float


class Aggregator:
    """One owner, one thread. ``bytes_max``: of its keys, and as much again of what one interval brings for them; what is
    beyond is refused, as beyond ``keysMax`` and its like. It is looked at with each buffer.
    """

    def __init__(
        self, settings: StatsdSettings, started_s: int = 0, bytes_max: int = sys.maxsize
    ) -> None:
        self.bytes_max = bytes_max
        self.keys_full = False
        self.events_full = False  # of values, members and points with a time
        self._flushing_bytes = 0  # what an interval holds that was taken and isn't flushed yet
        self.started_s = started_s
        self.last_msg_seen_s = started_s
        self.bad_lines_seen = 0  # since the start, as the two below
        self.packets_seen = 0
        self.lines_seen = 0
        self.refused_timed = 0  # by TIMED_MAX
        self.timed: list[Timed] = []
        self.key_counts: Counter[str] = Counter()
        self.inbox = Inbox(settings)
        self._cells = StatsdCells(
            settings.keysMax,
            settings.timerValuesMax,
            settings.setExactMax,
            settings.setMembersMax,
            OWN_COUNTERS,
        )
        self._own = {leaf: f"{settings.prefixStats}.{leaf}" for leaf in OWN_COUNTERS}
        for key in self._own.values():
            self._cells.count(key, 0.0)
        self._lag_key = f"{settings.prefixStats}.timestamp_lag"
        self._flushed_s = 0
        self._last_flush_s = started_s
        self._flush_ms = 0.0
        self._flush_bytes = 0
        self.reconfigure(settings)

    def reconfigure(self, settings: StatsdSettings) -> None:
        """Reads lines by other settings from now on, and keeps what was counted; prefixStats stays."""
        self.settings = settings
        self.names = Names(settings)
        self.inbox.reconfigure(settings)
        self._parser = LineParser(settings)
        self._counts_keys = settings.keyFlush.interval > 0
        self._native = self._parser.plain and not self._counts_keys and not settings.dumpMessages
        self._cells.set_max = settings.setExactMax
        self._set_limits()

    def _set_limits(self) -> None:
        settings, cells = self.settings, self._cells
        cells.keys_max = 0 if self.keys_full else settings.keysMax
        cells.values_max = 0 if self.events_full else settings.timerValuesMax
        cells.members_max = 0 if self.events_full else settings.setMembersMax

    def _keep_within_memory(self) -> None:
        """Closes for what would not fit, and opens again when there is room."""
        full = self._keys_bytes >= self.bytes_max, self._events_bytes >= self.bytes_max
        if full != (self.keys_full, self.events_full):
            self.keys_full, self.events_full = full
            self._set_limits()

    @property
    def _keys_bytes(self) -> int:
        cells = self._cells
        return cells.keys_bytes + FLUSH_KEY_BYTES * cells.keys

    @property
    def _events_bytes(self) -> int:
        """What the interval's values, members and points with a time take until they are flushed, with those of the one before
        if that isn't yet."""
        cells = self._cells
        values = VALUE_BYTES * cells.values_held + cells.members_bytes
        return values + TIMED_BYTES * len(self.timed) + self._flushing_bytes

    # -- packets in --------------------------------------------------------------------------

    def add(self, data: bytes, packets: int, now_s: int) -> None:
        """Takes the lines of ``packets`` whole packets, an LF between them; the last LF may be missing."""
        self._keep_within_memory()
        lines = at = bad = 0
        size = len(data)
        while at < size:
            if self._native:
                at, taken = self._cells.scan(data, at)
                lines += taken
            end = data.find(b"\n", at)
            end = size if end < 0 else end
            if end > at:
                lines += 1
                bad += self._line(data[at:end], now_s)
            at = end + 1
        self.bad_lines_seen += bad
        self.packets_seen += packets
        self.lines_seen += lines
        count = self._cells.count
        for leaf, number in zip(OWN_COUNTERS, (bad, packets, lines), strict=True):
            if number:
                count(self._own[leaf], number)
        if packets:
            self.last_msg_seen_s = now_s

    def _line(self, raw: bytes, now_s: int) -> int:
        """Takes one line; how many of its specs were bad."""
        if len(raw) > LINE_BYTES_MAX:
            return 1
        if self._native and b":" not in raw and not raw.startswith(CHECK) and not self.settings.debug:
            return 1  # no spec; most of what garbage is made of
        line = raw.decode(errors="replace")
        if self.settings.dumpMessages:
            log.info("%r", line)
        if (well_formed := self.inbox.take(raw, now_s)) is not None:
            return not well_formed
        key, events, bad = self._parser.parse(line)
        if bad and self.settings.debug:
            log.info("bad line: %r", line)
        for event in events:
            self._take(event)
        if self._counts_keys:
            self._count_key(key)
        return bad

    def _take(self, event: Event) -> None:
        kind, key, value, weight, time_s = event
        cells = self._cells
        if isinstance(value, str):
            cells.member(key, value)
        elif time_s is not None:
            self._timed(event, value, time_s)
        elif kind is Kind.COUNT:
            cells.count(key, value)
        elif kind is Kind.TIME:
            cells.time(key, value, weight)
        else:
            cells.gauge(key, value, kind is Kind.GAUGE_SIGNED)

    def _timed(self, event: Event, value: float, time_s: int) -> None:
        if len(self.timed) >= TIMED_MAX or self.events_full:
            self.refused_timed += 1
        elif event.kind is Kind.COUNT:
            rate = value / self.settings.interval_s
            self.timed.append(Timed(self.names.rate(event.key), time_s, rate))
            if self.settings.flush_counts:
                self.timed.append(Timed(self.names.count(event.key), time_s, value))
        else:
            self.timed.append(Timed(self.names.gauge(event.key), time_s, value))

    def _count_key(self, key: str) -> None:
        has_room = len(self.key_counts) < self.settings.keysMax and not self.keys_full
        if has_room or key in self.key_counts:
            self.key_counts[key] += 1

    # -- a flush -----------------------------------------------------------------------------

    def take(self, now_s: int) -> Interval:
        """Ends the interval: what it held, to be worked out in any thread. Quick."""
        settings, cells = self.settings, self._cells
        if self._flushed_s:
            lag = now_s - self._flushed_s - settings.interval_s
            cells.gauge(self._lag_key, lag, False)
        self._flushed_s = now_s
        values = VALUE_BYTES * cells.values_held
        self._flushing_bytes = values + TIMED_BYTES * len(self.timed)
        taken = cells.take(
            settings.countersMaxTTL if settings.deletes_counters else 0,
            settings.timersMaxTTL if settings.deletes_timers else 0,
            settings.gaugesMaxTTL if settings.deletes_gauges else 0,
            settings.setsMaxTTL if settings.deletes_sets else 0,
        )
        own = {
            "graphiteStats.calculationtime": self._flush_ms,
            "graphiteStats.last_exception": 0.0,
            "graphiteStats.last_flush": float(self._last_flush_s),
            "graphiteStats.flush_time": self._flush_ms,
            "graphiteStats.flush_length": float(self._flush_bytes),
        }
        return Interval(taken, own)

    def flushed(self, now_s: int, numbers: int, seconds: float) -> None:
        """Says what became of the last flush: when it was stored, how many numbers, how long it took."""
        self._flushing_bytes = 0
        self._last_flush_s = now_s
        self._flush_ms = float(int(seconds * 1000))
        self._flush_bytes = POINT_BYTES * numbers

    def take_timed(self) -> list[Timed]:
        """Points that were sent with a time of their own, each once."""
        timed, self.timed = self.timed, []
        return timed

    # -- for the management port -------------------------------------------------------------

    def counters(self) -> dict[str, float]:
        """In the order in which they came, as the others."""
        return self._cells.counters()

    def gauges(self) -> dict[str, float]:
        return self._cells.gauges()

    def timers(self) -> dict[str, list[float]]:
        """The values of this interval, in order of arrival."""
        return self._cells.timers()

    def delete_counter(self, key: str) -> bool:
        """False when there is no such counter."""
        return self._cells.delete_counter(key)

    def delete_gauge(self, key: str) -> bool:
        return self._cells.delete_gauge(key)

    def delete_timer(self, key: str) -> bool:
        return self._cells.delete_timer(key)

    def backend_status(self) -> dict[str, float]:
        """What the management port's ``stats`` shows as ``graphite.…``; ``last_…`` are Unix seconds."""
        return {
            "last_flush": self._last_flush_s,
            "last_exception": 0,
            "flush_time": self._flush_ms,
            "flush_length": self._flush_bytes,
        }

    @property
    def keys(self) -> int:
        """Counters, timers and gauges that are held."""
        return self._cells.keys

    @property
    def bytes_used(self) -> int:
        """Memory of all that is held, and of what the flush remembers of it, about; quick."""
        cells = self._cells
        held = cells.bytes_used + FLUSH_KEY_BYTES * cells.keys + TIMED_BYTES * len(self.timed)
        return held + self._flushing_bytes

    def limits(self) -> dict[str, int]:
        """What limits refused since the start, by limit."""
        cells = self._cells
        return {
            "keys": cells.refused_keys,
            "timer_values": cells.refused_values,
            "set_members": cells.refused_members,
            "timed": self.refused_timed,
            "events": self.inbox.refused,
        }
