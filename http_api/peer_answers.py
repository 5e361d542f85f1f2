"""What other nodes answer, read strictly: msgpack of /render and /metrics/find, JSON lists of texts.

Keys as graphite-web's: name, start, end, step, values, pathExpression; path, is_leaf (or isLeaf),
intervals. Numbers of series are floats, whole numbers or nil. Anything else is a BadAnswer: a node
that answers nonsense is treated as one that doesn't answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgpack
import numpy as np
import orjson

from tgres_py.errors import LimitExceeded
from tgres_py.functions.series import Grid, Matrix
from tgres_py.kernels import NodeTable
from tgres_py.model.nodes import AT_ONCE, NEVER, NO_ID, TreeNode
from tgres_py.query.remote import RemoteKey, RemoteSeries

TEXT_BYTES_MAX = 65_536
KEYS_MAX = 64  # of one series or node
LIST_MAX = 20_000_000
# memory: of a series and of a node besides texts and values, of a value in the list that becomes an array, of a text that
# becomes a row of a table; measured: 480, 134, 8 to 32, 90
SERIES_BYTES, NODE_BYTES, VALUE_BYTES, TEXT_BYTES = 700, 160, 32, 110
ROW_BYTES = 400  # of a row while it is an object
ROW_VALUES = 10_000  # that a series may have whatever others have
TIME_S_MAX = 1 << 40
_NUMBERS = frozenset((float, int, type(None)))


Body = bytes | bytearray


class BadAnswer(Exception):
    """What a node sent isn't what was asked for."""


class Beyond(Exception):
    """An answer holds more values than were reckoned."""


class Reckoned(NamedTuple):
    """``bytes``: memory for the reading of a body and for what it gives, when it holds no more than ``points``, and no
    series more than ``row``.
    """

    bytes: int
    points: int
    row: int


WHATEVER = Reckoned(0, LIST_MAX, LIST_MAX)


def reckon_render(body: Body) -> tuple[Reckoned, Reckoned]:
    """What it takes if its values are what usual answers hold (floats, and nils of a byte each), and at most."""
    nils = body.count(0xC0)
    series = _length(body)
    likely = nils + (len(body) - nils) // 5

    def reckoned(points: int, row: int) -> Reckoned:
        size = 2 * len(body) + 8 * points + VALUE_BYTES * row + SERIES_BYTES * series
        return Reckoned(size, points, row)

    row = min(likely, ROW_VALUES + 4 * likely // max(1, series))
    return reckoned(likely, row), reckoned(len(body), len(body))


def reckon_find(body: Body) -> int:
    nodes = _length(body)
    return 2 * len(body) + NODE_BYTES * nodes + ROW_BYTES * min(nodes, AT_ONCE)


def reckon_texts(body: Body) -> int:
    texts = body.count(b'"') // 2
    return 3 * len(body) + TEXT_BYTES * texts + ROW_BYTES * min(texts, AT_ONCE)


def _length(body: Body) -> int:
    """Of a msgpack list, as its head says; no more than the bytes behind it can hold."""
    reader = msgpack.Unpacker()
    reader.feed(body[:5])
    try:
        length: int = reader.read_array_header()
    except (ValueError, msgpack.exceptions.UnpackException):
        return 0  # the reader will say what it is
    return min(length, len(body) // 8)


def read_render(
    body: Body,
    asked: Mapping[str, RemoteKey],
    points_max: int,
    reckoned: Reckoned = WHATEVER,
) -> dict[RemoteKey, list[RemoteSeries]]:
    """The series of each key. ``asked``: by pathExpression; when it is one only, all are its.

    Values become arrays series by series, so that a large answer never is a list of Python floats
    as a whole. BadAnswer; LimitExceeded: more points than ``points_max``; Beyond: than ``reckoned``.
    """
    out: dict[RemoteKey, list[RemoteSeries]] = {key: [] for key in asked.values()}
    points = 0
    for row in _rows(body, reckoned.row):
        expression = _text(row.get("pathExpression", row.get("name")))
        key = next(iter(out)) if len(out) == 1 else asked.get(expression)
        if key is None:
            raise BadAnswer(f"series of {expression[:100]!r}, which wasn't asked for")
        series = _series(row)
        points += len(series.values)
        if points > points_max:
            raise LimitExceeded("points of other nodes", points, points_max, "query_points_max")
        if points > reckoned.points:
            raise Beyond
        out[key].append(series)
    return out


def read_find(body: Body) -> NodeTable:
    """The nodes, in the order of the answer; one that is branch and leaf is there twice."""
    return NodeTable.of(map(_node, _rows(body, LIST_MAX)))


def _node(row: dict[str, Any]) -> TreeNode:
    path = _text(row.get("path", row.get("metric_path")))
    is_leaf = row.get("is_leaf", row.get("isLeaf"))
    if not isinstance(is_leaf, bool | int):
        raise BadAnswer("is_leaf is neither true nor false")
    since_s = _since(row.get("intervals")) if is_leaf else NEVER
    return TreeNode(path, path.rpartition(".")[2], bool(is_leaf), not is_leaf, NO_ID, since_s)


def read_texts(body: Body) -> NodeTable:
    """A JSON list of texts, in no order."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadAnswer(f"no JSON: {error}") from None
    if not isinstance(found, list) or len(found) > LIST_MAX:
        raise BadAnswer("no list")
    parts = []
    while found:  # and is given back in parts: a million texts at once would take long, too
        parts.append(NodeTable.of_texts(map(_text, found[-AT_ONCE:])))
        del found[-AT_ONCE:]
    return NodeTable.together(parts)


def _rows(body: Body, array_max: int) -> Any:
    """The maps of a msgpack list, one by one. Beyond: a list in them is longer than ``array_max``."""
    # else the head of a list would be enough to take the memory of a long one
    array_max = min(array_max, len(body))
    reader = msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        max_buffer_size=max(1, len(body)),
        max_str_len=TEXT_BYTES_MAX,
        max_bin_len=TEXT_BYTES_MAX,
        max_array_len=max(1, array_max),
        max_map_len=KEYS_MAX,
        max_ext_len=0,
    )
    reader.feed(body)
    try:
        for _ in range(reader.read_array_header()):
            row = reader.unpack()
            if not isinstance(row, dict):
                raise BadAnswer("an entry isn't a map")
            yield row
        if reader.tell() != len(body):
            raise BadAnswer("bytes after the end")
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        if array_max < len(body) and "max_array_len" in str(error):
            raise Beyond from None
        raise BadAnswer(f"no msgpack list: {error or type(error).__name__}") from None


def _series(row: dict[str, Any]) -> RemoteSeries:
    start_s, end_s, step_s = (_whole(row, key) for key in ("start", "end", "step"))
    if step_s < 1:
        raise BadAnswer(f"step is {step_s}")
    cf = row.get("consolidationFunc", "average")
    return RemoteSeries(
        _text(row.get("name")),
        Grid(start_s, end_s, step_s),
        _values(row.get("values")),
        _text(cf),
    )


def _values(values: Any) -> Matrix:
    if not isinstance(values, list) or not _NUMBERS.issuperset(map(type, values)):
        raise BadAnswer("values isn't a list of numbers")
    try:
        return np.array(values, dtype=np.float64)  # nil becomes NaN
    except (ValueError, OverflowError, TypeError) as error:
        raise BadAnswer(f"values: {error}") from None


def _whole(row: dict[str, Any], key: str) -> int:
    number = row.get(key)
    if type(number) is float and number.is_integer():
        number = int(number)
    if type(number) is not int or not 0 <= number <= TIME_S_MAX:
        raise BadAnswer(f"{key} is no time in seconds")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise BadAnswer("a name is missing or holds characters that no name can")
    return value


def _since(intervals: Any) -> int:
    """The earliest start of a list of (start, end); 0 when there is none."""
    starts = [
        one[0]
        for one in (intervals if isinstance(intervals, list) else ())
        if isinstance(one, list | tuple) and one and type(one[0]) in (int, float)
    ]
    start = min(starts, default=0)
    return int(start) if math.isfinite(start) and 0 <= start <= TIME_S_MAX else 0
