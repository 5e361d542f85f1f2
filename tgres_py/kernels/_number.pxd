# cython: language_level=3
"""Decimal numbers as text, read natively; used by the kernels that read wire formats."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport strtod
from libc.string cimport memcpy

cdef enum:
    NUMBER_BYTES_MAX = 63

cdef extern from *:
    """
    static const double TGRES_POW10[23] = {
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
        1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    """
    const double* POW10 "TGRES_POW10"


cdef inline const char* number(const char* p, const char* e, double* value) noexcept nogil:
    """Reads a decimal number up to a blank or ``e``: where it ends, as Python's float() rounds it.

    NULL when it isn't a number, or is one that only Python reads (1_000, inf, +1).
    """
    cdef const char* begin = p
    cdef uint64_t m = 0
    cdef int digits = 0, fraction = 0, negative = 0, plain = 1
    cdef char[NUMBER_BYTES_MAX + 1] text
    cdef char* stop
    cdef Py_ssize_t n
    cdef double v
    if p < e and p[0] == 45:
        negative = 1
        p += 1
    while p < e and 48 <= p[0] <= 57:
        m = m * 10 + (p[0] - 48)
        digits += 1
        p += 1
    if p < e and p[0] == 46:
        p += 1
        while p < e and 48 <= p[0] <= 57:
            m = m * 10 + (p[0] - 48)
            digits += 1
            fraction += 1
            p += 1
    if digits == 0:
        return NULL
    if p < e and p[0] != 32:
        plain = 0
        while p < e and (48 <= p[0] <= 57 or p[0] == 43 or p[0] == 45 or p[0] == 101 or p[0] == 69):
            p += 1
    # both the digits and the power of ten are exact doubles: one correctly rounded division
    if plain and digits <= 18 and m <= (1ULL << 53) and fraction <= 22:
        v = <double>m
        if fraction:
            v /= POW10[fraction]
        value[0] = -v if negative else v
        return p
    n = p - begin
    if n > NUMBER_BYTES_MAX:
        return NULL
    memcpy(text, begin, n)
    text[n] = 0
    value[0] = strtod(text, &stop)
    return p if stop == text + n else NULL
