"""Reads data, and nothing but data, from Python's pickle format, protocols 0 to 5.

Python's own reader runs whatever code a pickle names. This one knows the opcodes of plain data only:
None, bools, ints, floats, text, bytes, tuples, lists, and the memo. What would look up a name, call
or build something (GLOBAL, REDUCE, BUILD, INST, ...) and all other opcodes are refused.

The opcodes are described in the standard library's ``pickletools``. Strings of Python 2 (STRING, BINSTRING,
SHORT_BINSTRING) are read as bytes. Limits besides the length of ``data``: nesting DEPTH_MAX,
integers of INT_BYTES_MAX bytes, and a number of containers and memo entries in proportion to the
data, so that memory stays below about 100 bytes per byte read.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any, Final

DEPTH_MAX = 32
INT_BYTES_MAX = 128
PROTOCOL_MAX = 5
# Containers and memo entries: so many anyway, and one more per so many bytes of data.
OBJECTS_MIN = 1_024
BYTES_PER_OBJECT = 2

_REFUSED_NAMES = {
    0x63: "GLOBAL",
    0x93: "STACK_GLOBAL",
    0x52: "REDUCE",
    0x62: "BUILD",
    0x69: "INST",
    0x6F: "OBJ",
    0x81: "NEWOBJ",
    0x92: "NEWOBJ_EX",
    0x50: "PERSID",
    0x51: "BINPERSID",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
}

_float8 = struct.Struct(">d").unpack_from
_int4 = struct.Struct("<i").unpack_from
_uint2 = struct.Struct("<H").unpack_from
_uint4 = struct.Struct("<I").unpack_from
_uint8 = struct.Struct("<Q").unpack_from


class PickleRefused(ValueError):
    """Not a pickle of plain data, or more than the limits allow; the text says which."""


class _Mark:
    """Where a MARK opcode stood on the stack."""


_MARK: Final = _Mark()


def load(data: bytes) -> Any:
    """The value pickled in ``data``; bytes after its end are ignored. PickleRefused for all else."""
    try:
        return _Reader(data).run()
    except PickleRefused:
        raise
    except (IndexError, KeyError, ValueError, OverflowError, TypeError, struct.error) as error:
        raise PickleRefused(f"broken pickle: {error}") from None


class _Reader:
    """The pickle machine: a stack, a memo, and a position in the data.

    ``depths`` holds the nesting of each container by id(); ``kept`` keeps all containers alive, so that
    an id stays one object's. A list can't be taken from the memo: that is what cycles are made of.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.kept: list[Any] = []
        self.depths: dict[int, int] = {}
        self.objects_max = OBJECTS_MIN + len(data) // BYTES_PER_OBJECT

    def run(self) -> Any:
        data, handlers = self.data, _HANDLERS
        while True:
            opcode = data[self.at]
            self.at += 1
            if opcode == 0x2E:  # STOP
                value = self.stack.pop()
                if value is _MARK or self.stack:
                    raise PickleRefused("broken pickle: the stack holds more than one value")
                return value
            handler = handlers[opcode]
            if handler is None:
                name = _REFUSED_NAMES.get(opcode, f"0x{opcode:02x}")
                raise PickleRefused(f"opcode {name} at byte {self.at - 1} is not plain data")
            handler(self)

    # Reading

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise PickleRefused("broken pickle: it ends too early")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def take_line(self) -> bytes:
        end = self.data.index(b"\n", self.at)
        line = self.data[self.at : end]
        self.at = end + 1
        return line

    def number(self, unpack: Callable[[bytes, int], tuple[int, ...]], size: int) -> int:
        """A length or an index of ``size`` bytes."""
        value = unpack(self.data, self.at)[0]
        self.at += size
        return value

    # The stack

    def keep(self, container: list[Any] | tuple[Any, ...], depth: int) -> None:
        if depth > DEPTH_MAX:
            raise PickleRefused(f"nested deeper than {DEPTH_MAX}")
        if len(self.kept) >= self.objects_max:
            raise PickleRefused("too many lists and tuples for its length")
        self.kept.append(container)
        self.depths[id(container)] = depth

    def depth_over(self, items: tuple[Any, ...] | list[Any]) -> int:
        """Depth of a container of ``items``; a MARK among them is refused."""
        depth = 0
        for item in items:
            if item.__class__ is tuple or item.__class__ is list:
                depth = max(depth, self.depths[id(item)])
            elif item is _MARK:
                raise PickleRefused("broken pickle: a MARK in a container")
        return depth + 1

    def push_tuple(self, items: tuple[Any, ...]) -> None:
        self.keep(items, self.depth_over(items))
        self.stack.append(items)

    def push_list(self, items: list[Any]) -> None:
        self.keep(items, self.depth_over(items))
        self.stack.append(items)

    def since_mark(self) -> list[Any]:
        """Takes what lies above the last MARK, and the MARK."""
        stack = self.stack
        for above in range(1, len(stack) + 1):
            if stack[-above] is _MARK:
                items = stack[len(stack) - above + 1 :]
                del stack[-above:]
                return items
        raise PickleRefused("broken pickle: no MARK")

    def extend_list(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if target.__class__ is not list:
            raise PickleRefused("broken pickle: items for what is not a list")
        depth = max(self.depths[id(target)], self.depth_over(items))
        if depth > DEPTH_MAX:
            raise PickleRefused(f"nested deeper than {DEPTH_MAX}")
        self.depths[id(target)] = depth
        target.extend(items)

    def push_tuple_of(self, size: int) -> None:
        stack = self.stack
        if len(stack) < size:
            raise PickleRefused("broken pickle: too few values for a tuple")
        items = tuple(stack[-size:])
        del stack[-size:]
        self.push_tuple(items)

    # The memo

    def put(self, index: int) -> None:
        value = self.stack[-1]
        if value is _MARK:
            raise PickleRefused("broken pickle: a MARK for the memo")
        if len(self.memo) >= self.objects_max:
            raise PickleRefused("too many memo entries for its length")
        self.memo[index] = value

    def get(self, index: int) -> None:
        value = self.memo[index]
        if value.__class__ is list:
            raise PickleRefused("a list that is referred to twice")
        self.stack.append(value)


def _protocol(r: _Reader) -> None:
    if r.take(1)[0] > PROTOCOL_MAX:
        raise PickleRefused(f"protocol newer than {PROTOCOL_MAX}")


def _int_text(r: _Reader) -> None:
    line = r.take_line()
    if line in (b"00", b"01"):  # how protocols 0 and 1 spell bools
        r.stack.append(line == b"01")
    else:
        r.stack.append(_bounded_int(line))


def _long_text(r: _Reader) -> None:
    r.stack.append(_bounded_int(r.take_line().removesuffix(b"L")))


def _bounded_int(text: bytes) -> int:
    if len(text) > 2 * INT_BYTES_MAX:
        raise PickleRefused(f"an integer of {len(text)} digits")
    return int(text)


def _long(r: _Reader, size: int) -> None:
    if not 0 <= size <= INT_BYTES_MAX:
        raise PickleRefused(f"an integer of {size} bytes")
    r.stack.append(int.from_bytes(r.take(size), "little", signed=True))


def _string_text(r: _Reader) -> None:
    line = r.take_line()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[:1] != line[-1:]:
        raise PickleRefused("broken pickle: a string without quotes")
    r.stack.append(codecs.escape_decode(line[1:-1])[0])


def _float(r: _Reader) -> None:
    r.stack.append(_float8(r.data, r.at)[0])
    r.at += 8


def _text(r: _Reader, size: int) -> None:
    r.stack.append(r.take(size).decode("utf-8", "surrogatepass"))


def _list_from_mark(r: _Reader) -> None:
    r.push_list(r.since_mark())


def _append(r: _Reader) -> None:
    r.extend_list([r.stack.pop()])


def _handlers() -> list[Callable[[_Reader], None] | None]:
    """The table of opcodes, by byte."""
    push = {
        "N": lambda r: r.stack.append(None),
        "\x88": lambda r: r.stack.append(True),
        "\x89": lambda r: r.stack.append(False),
        "I": _int_text,
        "L": _long_text,
        "J": lambda r: r.stack.append(r.number(_int4, 4)),
        "K": lambda r: r.stack.append(r.take(1)[0]),
        "M": lambda r: r.stack.append(r.number(_uint2, 2)),
        "\x8a": lambda r: _long(r, r.take(1)[0]),
        "\x8b": lambda r: _long(r, r.number(_int4, 4)),
        "F": lambda r: r.stack.append(float(r.take_line())),
        "G": _float,
        "S": _string_text,
        "T": lambda r: r.stack.append(r.take(r.number(_uint4, 4))),
        "U": lambda r: r.stack.append(r.take(r.take(1)[0])),
        "B": lambda r: r.stack.append(r.take(r.number(_uint4, 4))),
        "C": lambda r: r.stack.append(r.take(r.take(1)[0])),
        "\x8e": lambda r: r.stack.append(r.take(r.number(_uint8, 8))),
        "V": lambda r: r.stack.append(r.take_line().decode("raw-unicode-escape")),
        "X": lambda r: _text(r, r.number(_uint4, 4)),
        "\x8c": lambda r: _text(r, r.take(1)[0]),
        "\x8d": lambda r: _text(r, r.number(_uint8, 8)),
    }
    build = {
        "(": lambda r: r.stack.append(_MARK),
        ")": lambda r: r.push_tuple(()),
        "]": lambda r: r.push_list([]),
        "t": lambda r: r.push_tuple(tuple(r.since_mark())),
        "l": _list_from_mark,
        "\x85": lambda r: r.push_tuple_of(1),
        "\x86": lambda r: r.push_tuple_of(2),
        "\x87": lambda r: r.push_tuple_of(3),
        "a": _append,
        "e": lambda r: r.extend_list(r.since_mark()),
        "p": lambda r: r.put(_bounded_int(r.take_line())),
        "q": lambda r: r.put(r.take(1)[0]),
        "r": lambda r: r.put(r.number(_uint4, 4)),
        "\x94": lambda r: r.put(len(r.memo)),
        "g": lambda r: r.get(_bounded_int(r.take_line())),
        "h": lambda r: r.get(r.take(1)[0]),
        "j": lambda r: r.get(r.number(_uint4, 4)),
        "\x80": _protocol,
        "\x95": lambda r: r.take(8),  # FRAME: its length says nothing that the opcodes don't
    }
    table: list[Callable[[_Reader], None] | None] = [None] * 256
    for opcode, handler in {**push, **build}.items():
        table[ord(opcode)] = handler
    return table


_HANDLERS = _handlers()
