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

    ``containers`` holds each list and tuple with its nesting, by id(); it keeps them alive, so that an
    id stays one object's. A list can't be taken from the memo: that is what cycles are made of.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.marks: list[int] = []
        self.containers: dict[int, tuple[int, Any]] = {}
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

    def byte(self) -> int:
        at = self.at
        self.at = at + 1
        return self.data[at]

    def number(self, unpack: Callable[[bytes, int], tuple[int, ...]], size: int) -> int:
        """A length or an index of ``size`` bytes."""
        at = self.at
        self.at = at + size
        return unpack(self.data, at)[0]

    # The stack

    def push(self, container: list[Any] | tuple[Any, ...]) -> None:
        if len(self.containers) >= self.objects_max:
            raise PickleRefused("too many lists and tuples for its length")
        self.containers[id(container)] = (self.depth_over(container), container)
        self.stack.append(container)

    def depth_over(self, items: list[Any] | tuple[Any, ...]) -> int:
        """Nesting of a container of ``items``; a MARK among them is refused."""
        depth = 0
        for item in items:
            kind = item.__class__
            if kind is tuple or kind is list:
                depth = max(depth, self.containers[id(item)][0])
            elif kind is _Mark:
                raise PickleRefused("broken pickle: a MARK in a container")
        if depth >= DEPTH_MAX:
            raise PickleRefused(f"nested deeper than {DEPTH_MAX}")
        return depth + 1

    def mark(self) -> None:
        self.marks.append(len(self.stack))
        self.stack.append(_MARK)

    def since_mark(self) -> list[Any]:
        """Takes what lies above the last MARK, and the MARK."""
        if not self.marks:
            raise PickleRefused("broken pickle: no MARK")
        at = self.marks.pop()
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def extend_list(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if target.__class__ is not list:
            raise PickleRefused("broken pickle: items for what is not a list")
        depth = max(self.containers[id(target)][0], self.depth_over(items))
        self.containers[id(target)] = (depth, target)
        target.extend(items)

    def push_tuple_of(self, size: int) -> None:
        stack = self.stack
        if len(stack) < size:
            raise PickleRefused("broken pickle: too few values for a tuple")
        items = tuple(stack[-size:])
        del stack[-size:]
        self.push(items)

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
    if r.byte() > PROTOCOL_MAX:
        raise PickleRefused(f"protocol newer than {PROTOCOL_MAX}")


def _int_text(r: _Reader) -> None:
    line = r.take_line()
    if line in (b"00", b"01"):  # how protocols 0 and 1 spell bools
        r.stack.append(line == b"01")
    else:
        r.stack.append(_bounded_int(line))


def _long_text(r: _Reader) -> None:
    r.stack.append(_bounded_int(r.take_line().removesuffix(b"L")))


def _index_text(r: _Reader) -> int:
    index = _bounded_int(r.take_line())
    if index < 0:
        raise PickleRefused("broken pickle: a memo entry below 0")
    return index


def _bounded_int(text: bytes) -> int:
    if len(text) > 3 * INT_BYTES_MAX:
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
    at = r.at
    r.at = at + 8
    r.stack.append(_float8(r.data, at)[0])


def _text(r: _Reader, size: int) -> None:
    r.stack.append(r.take(size).decode("utf-8", "surrogatepass"))


def _list_from_mark(r: _Reader) -> None:
    r.push(r.since_mark())


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
        "K": lambda r: r.stack.append(r.byte()),
        "M": lambda r: r.stack.append(r.number(_uint2, 2)),
        "\x8a": lambda r: _long(r, r.byte()),
        "\x8b": lambda r: _long(r, r.number(_int4, 4)),
        "F": lambda r: r.stack.append(float(r.take_line())),
        "G": _float,
        "S": _string_text,
        "T": lambda r: r.stack.append(r.take(r.number(_uint4, 4))),
        "U": lambda r: r.stack.append(r.take(r.byte())),
        "B": lambda r: r.stack.append(r.take(r.number(_uint4, 4))),
        "C": lambda r: r.stack.append(r.take(r.byte())),
        "\x8e": lambda r: r.stack.append(r.take(r.number(_uint8, 8))),
        "V": lambda r: r.stack.append(r.take_line().decode("raw-unicode-escape")),
        "X": lambda r: _text(r, r.number(_uint4, 4)),
        "\x8c": lambda r: _text(r, r.byte()),
        "\x8d": lambda r: _text(r, r.number(_uint8, 8)),
    }
    build = {
        "(": _Reader.mark,
        ")": lambda r: r.push(()),
        "]": lambda r: r.push([]),
        "t": lambda r: r.push(tuple(r.since_mark())),
        "l": _list_from_mark,
        "\x85": lambda r: r.push_tuple_of(1),
        "\x86": lambda r: r.push_tuple_of(2),
        "\x87": lambda r: r.push_tuple_of(3),
        "a": _append,
        "e": lambda r: r.extend_list(r.since_mark()),
        "p": lambda r: r.put(_index_text(r)),
        "q": lambda r: r.put(r.byte()),
        "r": lambda r: r.put(r.number(_uint4, 4)),
        "\x94": lambda r: r.put(len(r.memo)),
        "g": lambda r: r.get(_index_text(r)),
        "h": lambda r: r.get(r.byte()),
        "j": lambda r: r.get(r.number(_uint4, 4)),
        "\x80": _protocol,
        "\x95": lambda r: r.take(8),  # FRAME: its length says nothing that the opcodes don't
    }
    table: list[Callable[[_Reader], None] | None] = [None] * 256
    for opcode, handler in {**push, **build}.items():
        table[ord(opcode)] = handler
    return table


_HANDLERS = _handlers()
