"""Pure twin of ``_names.pyx``: used where the extension isn't built, and the model it is tested against."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from tgres_py.kernels.budget_py import Budget

ODD = -2
REFUSED = -3  # a new name beyond new_max
UNBUDGETED = -4  # a new name that the budget has nothing for

_BYTES_PER_NAME = 130  # measured: places in dict and list, the numbers, the head of the text

_NUMBER = re.compile(rb"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[0-9+\-eE]*\Z")
_TIME = re.compile(rb"(?:[0-9]{1,11}|-0*1)(?:\.[0-9]*)?\Z")


def is_plain(name: bytes) -> bool:
    """ASCII, no tags, no empty nodes: a name that is canonical as it stands."""
    return (
        name.isascii()
        and not any(c <= 32 or c == 127 for c in name)
        and b";" not in name
        and b".." not in name
        and name[:1] != b"."
        and name[-1:] != b"."
        and name != b""
        and name[:1] != b"~"  # ~name and name{tag="value"} have another canonical form
        and name[-1:] != b"}"
    )


class NameTable:
    """Names (and other spellings of them) to ids; ids are given in order from 0.

    Writers (parse, add, alias, unmap …) belong to one thread; ``name`` may be called from any.
    """

    def __init__(self) -> None:
        self._ids: dict[bytes, int] = {}
        self._names: list[bytes] = []
        self._text_bytes = 0

    def __len__(self) -> int:
        return len(self._names)

    @property
    def size(self) -> int:
        return len(self._names)

    @property
    def bytes_used(self) -> int:
        return self._text_bytes + _BYTES_PER_NAME * max(len(self._ids), len(self._names))

    def add(self, name: bytes) -> int:
        """Id of a name, new if it wasn't known."""
        found = self._ids.get(name)
        if found is None:
            found = self._ids[name] = len(self._names)
            self._names.append(name)
            self._text_bytes += len(name)
        return found

    def add_lines(self, blob: bytes) -> NDArray[np.int32]:
        """Ids (int32) of many names, given as one bytes with an LF after each."""
        return np.array([self.add(name) for name in blob.split(b"\n")[:-1]], np.int32)

    def alias(self, raw: bytes, id: int) -> None:
        """Another spelling of a known name (tags in another order …)."""
        if self._ids.setdefault(raw, id) == id:
            self._text_bytes += len(raw)

    def get(self, name: bytes) -> int:
        """Id of a name or spelling, -1 when unknown."""
        return self._ids.get(name, -1)

    def unmap(self, ids: NDArray[np.int32]) -> None:
        """Ids without names from here on: neither their names nor other spellings of them are known.

        ``name`` still tells the old name. One pass over all names.
        """
        gone = set(np.asarray(ids).tolist())
        self._ids = {name: id for name, id in self._ids.items() if id not in gone}

    def rename(self, id: int, name: bytes) -> None:
        """Gives an id without name (``unmap``, ``detached``) a new one. ValueError: the name is another's."""
        if id < 0 or id >= len(self._names):
            raise IndexError(id)
        if name in self._ids:
            raise ValueError(f"{name!r} is the name of {self._ids[name]}")
        self._ids[name] = id
        self._names[id] = name
        self._text_bytes += len(name)

    def detached(self, name: bytes) -> int:
        """A new id that ``name`` tells the name of, but which the name doesn't lead to."""
        self._names.append(name)
        self._text_bytes += len(name)
        return len(self._names) - 1

    def name(self, id: int) -> bytes:
        """The name that was given the id."""
        if id < 0:
            raise IndexError(id)
        return self._names[id]

    def names(self, ids: NDArray[np.int32]) -> list[bytes]:
        """Names of many ids."""
        return [self.name(i) for i in np.asarray(ids).tolist()]

    def name_lines(self, first: int, end: int) -> bytes:
        """The names of ids first <= id < end as one bytes, an LF after each."""
        if first < 0 or end > len(self._names):
            raise IndexError(end)
        return b"".join(name + b"\n" for name in self._names[first:end])

    def parse(
        self,
        data: bytes | bytearray | memoryview,
        now_s: int,
        name_bytes_max: int = 1024,
        new_max: int = 1 << 30,
        budget: Budget | None = None,
    ) -> tuple[
        NDArray[np.int32],
        NDArray[np.int64],
        NDArray[np.float64],
        list[tuple[int, bytes]],
        int,
    ]:
        """Columns of the complete lines of ``data``.

        Returns (ids int32, times int64, values float64, odd, used): an id of -2 marks an odd line
        (``odd``: list of (position in the columns, line bytes)), -3 a new name beyond ``new_max``, -4 one that
        the budget refuses; ``used``: bytes up to and with the last LF. NaN values are odd lines.
        """
        text = bytes(data)
        used = text.rfind(b"\n") + 1
        lines = text[:used].split(b"\n")[:-1]
        ids = np.empty(len(lines), np.int32)
        times = np.zeros(len(lines), np.int64)
        values = np.zeros(len(lines), np.float64)
        odd: list[tuple[int, bytes]] = []
        for i, line in enumerate(lines):
            parsed = self._line(line, now_s, name_bytes_max)
            if parsed is None:
                ids[i] = ODD
                odd.append((i, line))
                continue
            name, times[i], values[i] = parsed
            found = self._ids.get(name, -1)
            if found < 0:
                if new_max <= 0:
                    ids[i] = REFUSED
                    continue
                if budget is not None and not budget.take(name):
                    ids[i] = UNBUDGETED
                    continue
                new_max -= 1
                found = self.add(name)
            ids[i] = found
        return ids, times, values, odd, used

    def look_up(
        self,
        data: bytes | bytearray | memoryview,
        starts: NDArray[np.int64],
        sizes: NDArray[np.int32],
        name_bytes_max: int = 1024,
        new_max: int = 1 << 30,
        budget: Budget | None = None,
    ) -> NDArray[np.int32]:
        """Ids (int32) of the names that lie in ``data`` at ``starts`` (int64), ``sizes`` (int32) bytes long.

        -2 marks an odd name, -3 a new one beyond ``new_max``, -4 one that the budget refuses; -1 stands where
        the size is below 0.
        IndexError when a name doesn't lie in ``data``; the names before it are taken.
        """
        text = bytes(data)
        ids = np.full(len(starts), -1, np.int32)
        for i, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
            if size < 0:
                continue
            if not 0 <= start <= len(text) - size:
                raise IndexError("a name beyond the data")
            name = text[start : start + size]
            found = self._ids.get(name, -1) if name else -1
            if found < 0:
                if size > name_bytes_max or not is_plain(name):
                    ids[i] = ODD
                    continue
                if new_max <= 0:
                    ids[i] = REFUSED
                    continue
                if budget is not None and not budget.take(name):
                    ids[i] = UNBUDGETED
                    continue
                new_max -= 1
                found = self.add(name)
            ids[i] = found
        return ids

    def _line(
        self, line: bytes, now_s: int, name_bytes_max: int
    ) -> tuple[bytes, int, float] | None:
        if line[-1:] == b"\r":
            line = line[:-1]
        parts = line.split(b" ")
        if len(parts) != 3:
            return None
        name, value, time = parts
        if len(name) > name_bytes_max or (name not in self._ids and not is_plain(name)):
            return None
        if len(value) > 63 or not _NUMBER.match(value) or not _TIME.match(time):
            return None
        try:
            number = float(value)
        except ValueError:
            return None
        seconds = int(time.partition(b".")[0])
        return name, now_s if seconds < 0 else seconds, number
