"""Points as text, quickly: values written by orjson straight from the array, put into a template of
their times, which many series share.

    times 1700000000, 1700000010    template  b"[%b,1700000000],[%b,1700000010]"

So there is one bytes object for a point and no Python number: 40 µs instead of 124 for 360 points
(75 with a template made point by point). A template holds a few thousand points: longer ones fall
out of the processor's caches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import orjson

from tgres_py.functions.series import Matrix

PART_POINTS = 2_048
NAME = b"\0"  # in a template: where a series' name goes


def numbers(values: Matrix) -> bytes:
    """``1.5,null,3.0``: NaN and infinities are null."""
    return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def python_numbers(values: Matrix, unknown: bytes) -> bytes:
    """``1.5,None,inf,1e+17``: as Python writes floats, NaN as ``unknown``.

    orjson writes the same where no exponent is needed, in a fifth of the time.
    """
    size = np.abs(values)
    plain = (size >= 1e-4) & (size < 1e16) | (size == 0) | np.isnan(values)
    if plain.all():
        return numbers(values).replace(b"null", unknown)
    text = repr(values.tolist())[1:-1].replace(", ", ",").encode()
    return text.replace(b"nan", unknown)


def epochs(times: range) -> bytes:
    """``1700000000,1700000010``"""
    array = np.arange(times.start, times.stop, times.step, dtype=np.int64)
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


class Points:
    """Writer of the points of many series.

    ``before``, ``after``: what stands around the time of a point, one of them with ``%b`` for the
    value; ``between``: what stands between two points; ``times``: times as text, with commas;
    ``write``: values as text, with commas.
    """

    def __init__(
        self,
        before: bytes,
        after: bytes,
        between: bytes = b",",
        times: Callable[[range], bytes] = epochs,
        write: Callable[[Matrix], bytes] = numbers,
    ) -> None:
        self.before = before
        self.after = after
        self.between = between
        self.times = times
        self.write = write
        self.templates: dict[range, bytes] = {}

    def text(self, times: range, values: Matrix, name: bytes | None = None) -> bytes:
        """The points of one series, ``times`` as many as values or more; ``name`` goes where the
        template says NAME.
        """
        out = []
        times = times[: len(values)]
        for first in range(0, len(values), PART_POINTS):
            part = times[first : first + PART_POINTS]
            template = self.templates.get(part)
            if template is None:
                template = self.templates[part] = self.template(part)
            if name is not None:
                template = template.replace(NAME, name.replace(b"%", b"%%"))
            texts = self.write(values[first : first + PART_POINTS]).split(b",")
            out.append(template % tuple(texts))
        return self.between.join(out)

    def template(self, times: range) -> bytes:
        joint = self.after + self.between + self.before
        return self.before + self.times(times).replace(b",", joint) + self.after
