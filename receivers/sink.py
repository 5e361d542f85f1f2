"""What receivers ask of the rest of the server: names to ids, a place for points, and a sign to wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tgres_py.model.points import Ids, Parsed, Reason, Times, Values

Data = bytes | bytearray | memoryview


class NameRegistry(Protocol):
    """The part of the series registry that wire formats use.

    ``names_gone`` changes when ids lose their names (series removed, renamed): whoever remembers ids asks for
    them anew then.
    """

    @property
    def names_gone(self) -> int: ...

    def resolve(self, names: Sequence[bytes]) -> tuple[Ids, dict[int, Reason]]:
        """Ids of names as they were sent, int32 (n,); -1 where refused, with the reason by position.

        New series are created on the way; the canonical form (tags sorted), the check for UTF-8 and
        the match with the retention rules happen inside.
        """


@runtime_checkable
class LineScanner(Protocol):
    """A registry that reads carbon's lines by itself: the server's own, with its native kernel."""

    def scan(
        self, data: Data, now_s: int
    ) -> tuple[Ids, Times, Values, list[tuple[int, bytes]], int]:
        """(ids, times, values, odd, used) of the complete lines of a buffer.

        An id of -2 marks an odd line, left to the caller (``odd``: position in the columns, line); lower ones
        refused new series (REFUSED_IDS). ``used``: bytes up to the end of the last line.
        """

    @property
    def names_gone(self) -> int: ...

    def resolve(self, names: Sequence[bytes]) -> tuple[Ids, dict[int, Reason]]: ...


@runtime_checkable
class NameScanner(Protocol):
    """A registry that finds names where they lie in a buffer: the server's own, with its native kernel."""

    def scan_names(self, data: Data, starts: NDArray[np.int64], sizes: NDArray[np.int32]) -> Ids:
        """Ids of the names at ``starts`` that are ``sizes`` bytes long, int32 (n,).

        -2 marks an odd name, left to the caller; lower ones refused new series (REFUSED_IDS); -1 stands where the
        size is below 0.
        """

    @property
    def names_gone(self) -> int: ...

    def resolve(self, names: Sequence[bytes]) -> tuple[Ids, dict[int, Reason]]: ...


_line_scanners: dict[type, bool] = {}
_name_scanners: dict[type, bool] = {}


def scans_lines(registry: NameRegistry) -> TypeGuard[LineScanner]:
    """isinstance, which takes 30 µs of a buffer's 150 with a protocol, asked once for each class."""
    kind = type(registry)
    if kind not in _line_scanners:
        _line_scanners[kind] = isinstance(registry, LineScanner)
    return _line_scanners[kind]


def scans_names(registry: NameRegistry) -> TypeGuard[NameScanner]:
    """The same of names."""
    kind = type(registry)
    if kind not in _name_scanners:
        _name_scanners[kind] = isinstance(registry, NameScanner)
    return _name_scanners[kind]


class Sink(Protocol):
    """Where receivers put what they parsed. All members belong to the event loop's thread."""

    @property
    def registry(self) -> NameRegistry: ...

    @property
    def paused(self) -> bool:
        """True while there is no room: receivers that can wait stop reading."""

    @property
    def piece_bytes_max(self) -> int:
        """How much may be parsed at a time, so that it finds room whatever it is."""

    def accept(self, receiver: str, parsed: Parsed, peer: str) -> None:
        """Takes points and refusals, and the ownership of both; quick, never waits.

        ``receiver`` is the label of the metrics (``carbon``, ``carbon_udp``, ``pickle``);
        ``peer`` is the sender's address, empty where it is not known.
        """

    def on_room(self, callback: Callable[[], None]) -> None:
        """Has ``callback`` called once, in the loop's thread, as soon as there is room again."""


class Parse(Protocol):
    """A wire format's parser: no I/O, no clock; ``data`` is not kept after the call."""

    def __call__(self, data: Data, now_s: int, registry: NameRegistry) -> Parsed: ...


@dataclass(frozen=True, slots=True)
class WireFormat:
    """What a stream transport has to know of a wire format.

    ``finish`` parses what is left at the end of a stream. ``wanted(rest)`` is the length that ``rest``
    must reach before another parse can do more, or -1 when the stream can't be followed any longer.
    """

    parse: Parse
    finish: Parse
    wanted: Callable[[bytes], int]
