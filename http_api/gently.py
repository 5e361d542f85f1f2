"""Work on very long lists that lets other threads have Python's lock in between: one call of sorted() or of orjson holds it to
its end, which with a million names is most of a second, and nothing is received meanwhile.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from http_api.encoding import dump_json
from tgres_py.model.nodes import AT_ONCE
from tgres_py.model.points import Ids
from tgres_py.query.source import SeriesSource

T = TypeVar("T")


def names(source: SeriesSource, ids: Ids) -> Iterator[str]:
    for first in range(0, len(ids), AT_ONCE):
        yield from source.names(ids[first : first + AT_ONCE])


def _itself(item: Any) -> Any:
    return item


def sort(items: Iterable[T], key: Callable[[T], Any] = _itself) -> list[T]:
    """As sorted(); stable, too."""
    items = list(items)
    if len(items) <= AT_ONCE:
        return sorted(items, key=key)
    firsts = range(0, len(items), AT_ONCE)
    runs = [sorted(items[first : first + AT_ONCE], key=key) for first in firsts]
    return list(heapq.merge(*runs, key=key))


def dump(value: Any, pretty: bool = False, indent: bytes = b"") -> Iterator[bytes]:
    """JSON in pieces. An iterator stands for a list, and its items needn't be there at the same time; it may be a value of an
    object, and of objects in that. Lists are in pieces, too, where they stand alone.
    """
    line = b"\n" + indent if pretty else b""
    if isinstance(value, dict) and _holds_iterators(value):
        before, colon = b"{", b": " if pretty else b":"
        inner_indent = indent + b"  "
        inner_line = b"\n" + inner_indent if pretty else b""
        for name, inner in value.items():
            yield before + inner_line + dump_json(name) + colon
            yield from dump(inner, pretty, inner_indent)
            before = b","
        yield line + b"}"
    elif isinstance(value, list | Iterator):
        ending = b"\n]" if pretty else b"]"
        before = b"["
        items = iter(value)
        while part := list(islice(items, AT_ONCE)):
            yield before + _indented(dump_json(part, pretty)[1 : -len(ending)], indent)
            before = b","
        yield b"[]" if before == b"[" else line + b"]"
    else:
        yield _indented(dump_json(value, pretty), indent)


def _holds_iterators(value: dict[str, Any]) -> bool:
    return any(
        isinstance(inner, Iterator) or (isinstance(inner, dict) and _holds_iterators(inner))
        for inner in value.values()
    )


def _indented(text: bytes, indent: bytes) -> bytes:
    """Pretty JSON further in: no text in it holds a newline."""
    return text.replace(b"\n", b"\n" + indent) if indent else text
