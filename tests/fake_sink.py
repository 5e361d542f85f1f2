"""A registry and a sink for tests of receivers: names get ids in order of arrival."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from receivers.sink import Data
from tgres_py.kernels.pickle_frames import Sizes, Starts
from tgres_py.model.points import Ids, Parsed, Reason


class FakeRegistry:
    """Takes all names but those that start with ``refused`` (UNMATCHED) or aren't UTF-8."""

    def __init__(self) -> None:
        self.ids: dict[bytes, int] = {}
        self.names: list[bytes] = []
        self.names_gone = 0

    def resolve(self, names: Sequence[bytes]) -> tuple[Ids, dict[int, Reason]]:
        ids = np.empty(len(names), np.int32)
        reasons: dict[int, Reason] = {}
        for position, name in enumerate(names):
            if name.startswith(b"refused"):
                reasons[position] = Reason.UNMATCHED
            else:
                try:
                    name.decode()
                except UnicodeDecodeError:
                    reasons[position] = Reason.UTF8
            ids[position] = -1 if position in reasons else self._id(name)
        return ids, reasons

    def _id(self, name: bytes) -> int:
        id = self.ids.setdefault(name, len(self.ids))
        if id == len(self.names):
            self.names.append(name)
        return id

    def points(self, parsed: Parsed) -> list[tuple[bytes, int, float]]:
        """(name, time, value) of a block's points, in order."""
        block = parsed.block
        rows = zip(block.ids.tolist(), block.times.tolist(), block.values.tolist(), strict=True)
        return [(self.name(i), t, v) for i, t, v in rows]

    def name(self, id: int) -> bytes:
        return self.names[id]


class ScanningRegistry(FakeRegistry):
    """Finds plain names by itself, with one of the kernels; the others as above."""

    def __init__(self, table: Any, name_bytes_max: int = 1_024) -> None:
        super().__init__()
        self.table = table
        self.name_bytes_max = name_bytes_max

    def scan_names(self, data: Data, starts: Starts, sizes: Sizes) -> Ids:
        ids: Ids = self.table.look_up(data, starts, sizes, self.name_bytes_max)
        return ids

    def resolve(self, names: Sequence[bytes]) -> tuple[Ids, dict[int, Reason]]:
        ids, reasons = super().resolve(names)
        for position, name in enumerate(names):
            if position not in reasons:
                ids[position] = self.table.add(name)
        return ids, reasons

    def name(self, id: int) -> bytes:
        name: bytes = self.table.name(id)
        return name


class FakeSink:
    """Keeps what it is given; pauses after ``room`` points until ``make_room`` is called."""

    def __init__(self, room: int | None = None) -> None:
        self.registry = FakeRegistry()
        self.room = room
        self.points: list[tuple[bytes, int, float]] = []
        self.rejected: Counter[Reason] = Counter()
        self.samples: list[tuple[Reason, bytes]] = []
        self.calls: list[tuple[str, int, str]] = []
        self.waiting: list[Callable[[], None]] = []

    @property
    def paused(self) -> bool:
        return self.room is not None and len(self.points) >= self.room

    @property
    def piece_bytes_max(self) -> int:
        return 1 << 30

    def accept(self, receiver: str, parsed: Parsed, peer: str) -> None:
        self.calls.append((receiver, parsed.received, peer))
        self.points += self.registry.points(parsed)
        self.rejected += parsed.rejected
        self.samples += parsed.samples

    def on_room(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def make_room(self, room: int | None = None) -> None:
        self.room = room
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()
