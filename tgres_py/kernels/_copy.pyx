# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Native COPY rows of new series; the pure twin is ``copy_py.py``."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize

import numpy as np

cdef enum:
    FIXED_BYTES = 2 + 4 + 8 + 4 + 4 + 4 + 8     # all of a row but its name and tags


cdef inline char* put_int32(char* p, int32_t value) noexcept nogil:
    cdef int i
    for i in range(4):
        p[i] = <char>(<uint32_t>value >> (24 - 8 * i))
    return p + 4


cdef inline char* put_int64(char* p, int64_t value) noexcept nogil:
    cdef int i
    for i in range(8):
        p[i] = <char>(<uint64_t>value >> (56 - 8 * i))
    return p + 8


def series_rows(rrd_ids, list names, list tags, bundle_ids):
    """COPY rows (id bigint, name text, tags jsonb, bundle_id bigint) of new series.

    ``rrd_ids``: int64 (k,); ``tags``: JSON text of each, or None for NULL; ``bundle_ids``: int32 (k,).
    """
    cdef const int64_t[::1] ids = np.ascontiguousarray(rrd_ids, np.int64)
    cdef const int32_t[::1] bundles = np.ascontiguousarray(bundle_ids, np.int32)
    cdef Py_ssize_t count = len(names), total = count * FIXED_BYTES, i, n
    cdef const char* text
    cdef char* p
    if not (ids.shape[0] == bundles.shape[0] == len(tags) == count):
        raise ValueError("columns of unequal length")
    for i in range(count):
        PyUnicode_AsUTF8AndSize(names[i], &n)
        total += n
        if tags[i] is not None:
            total += 1 + len(<bytes?>tags[i])
    rows = PyBytes_FromStringAndSize(NULL, total)
    p = PyBytes_AS_STRING(rows)
    for i in range(count):
        p[0], p[1] = 0, 4                       # fields
        p = put_int64(put_int32(p + 2, 8), ids[i])
        text = PyUnicode_AsUTF8AndSize(names[i], &n)
        p = put_int32(p, <int32_t>n)
        memcpy(p, text, n)
        p += n
        if tags[i] is None:
            p = put_int32(p, -1)
        else:                                   # jsonb's binary form: version 1, then the text
            n = PyBytes_GET_SIZE(tags[i])
            p = put_int32(p, <int32_t>(n + 1))
            p[0] = 1
            memcpy(p + 1, PyBytes_AS_STRING(tags[i]), n)
            p += n + 1
        p = put_int64(put_int32(p, 8), bundles[i])
    return rows
