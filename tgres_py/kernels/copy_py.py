"""Pure twin of ``_copy.pyx``: used where the extension isn't built, and the model it is tested against."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_HEAD = struct.Struct(">hiqi").pack
_TAIL = struct.Struct(">iiq").pack
_TAGGED = struct.Struct(">iB").pack
_BUNDLE = struct.Struct(">iq").pack


def series_rows(
    rrd_ids: NDArray[np.int64],
    names: list[str],
    tags: list[bytes | None],
    bundle_ids: NDArray[np.int32],
) -> bytes:
    """COPY rows (id bigint, name text, tags jsonb, bundle_id bigint) of new series.

    ``rrd_ids``: int64 (k,); ``tags``: JSON text of each, or None for NULL; ``bundle_ids``: int32 (k,).
    """
    parts: list[bytes] = []
    columns = zip(rrd_ids.tolist(), names, tags, bundle_ids.tolist(), strict=True)
    for rrd_id, name, tag, bundle_id in columns:
        raw = name.encode()
        parts += (_HEAD(4, 8, rrd_id, len(raw)), raw)
        if tag is None:
            parts.append(_TAIL(-1, 8, bundle_id))
        else:  # jsonb's binary form: version 1, then the text
            parts += (_TAGGED(len(tag) + 1, 1), tag, _BUNDLE(8, bundle_id))
    return b"".join(parts)
