"""Work on very long lists that lets other threads have Python's lock in between: one call of sorted() or of orjson holds it to
its end, which with a million names is most of a second, and nothing is received meanwhile.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from http_api.encoding import dump_json
from tgres_py.errors import LimitExceeded
from tgres_py.model.points import Ids
from tgres_py.query.source import SeriesSource

AT_ONCE = 10_000  # some milliseconds

T = TypeVar("T")


def parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), AT_ONCE):
        yield items[first : first + AT_ONCE]


def names(source: SeriesSource, ids: Ids) -> list[str]:
    firsts = range(0, len(ids), AT_ONCE)
    return [name for first in firsts for name in source.names(ids[first : first + AT_ONCE])]


def _itself(item: Any) -> Any:
    return item


def sort(items: Iterable[T], key: Callable[[T], Any] = _itself) -> list[T]:
    """As sorted(); stable, too."""
    items = list(items)
    if len(items) <= AT_ONCE:
        return sorted(items, key=key)
    runs = [sorted(part, key=key) for part in parts(items)]
    return list(heapq.merge(*runs, key=key))


def joined(pieces: Iterable[bytes], bytes_max: int | None) -> bytes:
    """All pieces; LimitExceeded when they are longer than ``bytes_max``."""
    whole = bytearray()
    for piece in pieces:
        whole += piece
        if bytes_max is not None and len(whole) > bytes_max:
            raise LimitExceeded("bytes of the response", len(whole), bytes_max, "response_bytes_max")
    return bytes(whole)


def dump(value: Any, pretty: bool = False) -> Iterator[bytes]:
    """JSON in pieces of a list, of an object that holds one list, or of anything that is short. An iterator
    stands for a list whose items needn't be there at the same time.
    """
    if isinstance(value, dict) and len(value) == 1:
        [(name, inner)] = value.items()
        if isinstance(inner, list | Iterator) and not pretty:
            yield b"{" + dump_json(name) + b":"
            yield from _dump_items(inner, False)
            yield b"}"
            return
        value = {name: list(inner)} if isinstance(inner, Iterator) else value
    if isinstance(value, list | Iterator):
        yield from _dump_items(value, pretty)
    else:
        yield dump_json(value, pretty)


def _dump_items(items: Iterable[Any], pretty: bool) -> Iterator[bytes]:
    ending = b"\n]" if pretty else b"]"
    before = b"["
    items = iter(items)
    while part := list(islice(items, AT_ONCE)):
        yield before + dump_json(part, pretty)[1 : -len(ending)]
        before = b","
    yield b"[]" if before == b"[" else ending
