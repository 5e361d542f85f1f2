"""What senders do, seen while the doctor watches: a tap that keeps a few numbers for each series and sender."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from tgres_py import clock
from tgres_py.ingest.traffic import host_of
from tgres_py.model.points import Ids, Parsed, Times

SENDERS_MAX = 1_000
LAGS_MAX = 1_000  # buffers of one sender whose lag is remembered
TIME_NONE = np.iinfo(np.int64).max


class Watch:
    """A tap. Of each series: points, first and last time, sender (or that there were several); of each
    sender: how far its points are behind our clock, by buffer."""

    def __init__(self, size: int) -> None:
        self.count = np.zeros(size, np.int64)
        self.first_s = np.full(size, TIME_NONE, np.int64)
        self.last_s = np.full(size, -TIME_NONE, np.int64)
        self.sender = np.full(size, -1, np.int32)
        self.other_sender = np.full(size, -1, np.int32)  # one that differs, -1: none
        self.senders: list[str] = []
        self.lags_s: dict[str, list[float]] = defaultdict(list)
        self._numbers: dict[str, int] = {}

    def __call__(self, receiver: str, parsed: Parsed, peer: str) -> None:
        block = parsed.block
        if not len(block):
            return
        self._grow(int(block.ids.max()) + 1)
        np.add.at(self.count, block.ids, 1)
        np.minimum.at(self.first_s, block.ids, block.times)
        np.maximum.at(self.last_s, block.ids, block.times)
        sender = host_of(peer, receiver)
        if peer:
            self._note_sender(sender, block.ids)
        self._note_lag(sender, block.times)

    def _note_sender(self, sender: str, ids: Ids) -> None:
        number = self._numbers.get(sender)
        if number is None:
            if len(self.senders) >= SENDERS_MAX:
                return
            number = self._numbers[sender] = len(self.senders)
            self.senders.append(sender)
        before = self.sender[ids]
        others = (before >= 0) & (before != number)
        self.other_sender[ids[others]] = number
        self.sender[ids[before < 0]] = number

    def _note_lag(self, sender: str, times: Times) -> None:
        if len(self.lags_s) < SENDERS_MAX or sender in self.lags_s:
            lags = self.lags_s[sender]
            if len(lags) < LAGS_MAX:
                # the newest point of a buffer: what waited longer is no sign of a wrong clock
                lags.append(clock.now() - float(times.max()))

    def _grow(self, size: int) -> None:
        if size <= len(self.count):
            return
        more = max(size, 2 * len(self.count)) - len(self.count)
        for name, empty in (
            ("count", 0),
            ("first_s", TIME_NONE),
            ("last_s", -TIME_NONE),
            ("sender", -1),
            ("other_sender", -1),
        ):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.full(more, empty, array.dtype)]))

    def intervals_s(self) -> tuple[Ids, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        """Series with three points or more, and the mean seconds between the times of their points."""
        ids = np.flatnonzero(self.count >= 3).astype(np.int32)
        span = self.last_s[ids] - self.first_s[ids]
        return ids, span / (self.count[ids] - 1)

    def twice(self) -> Ids:
        """Series that came from two addresses or more."""
        return np.flatnonzero(self.other_sender >= 0).astype(np.int32)
