"""Sets of one flush interval: how many different members came, exactly up to a limit, then estimated.

Members are kept as 64-bit hashes. When there are more than the limit, those whose lowest ``level`` bits aren't all 0 are
forgotten, one bit more each time; the size is then what is left times 2**level (adaptive sampling, Wegman; Flajolet 1990).
Its standard error is about 1.2/sqrt(limit): 0.4 % at 100,000.
"""

from __future__ import annotations


class MemberSet:
    __slots__ = ("_hashes", "_level", "age", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.age = 0
        self._hashes: set[int] = set()
        self._level = 0

    @property
    def estimated(self) -> bool:
        """True once the size is no longer exact."""
        return self._level > 0

    def add(self, member: str) -> None:
        number = hash(member)  # seeded anew for each process: nobody can send members that collide
        if number & ((1 << self._level) - 1):
            return
        self._hashes.add(number)
        while len(self._hashes) > self.limit:
            self._level += 1
            mask = (1 << self._level) - 1
            self._hashes = {kept for kept in self._hashes if not kept & mask}

    def size(self) -> int:
        return len(self._hashes) << self._level

    def clear(self) -> None:
        """Starts a new interval."""
        self._hashes = set()
        self._level = 0
        self.age += 1
