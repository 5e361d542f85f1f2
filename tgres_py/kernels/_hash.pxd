"""The kernels' hash of byte strings. ``seed`` is random, so that nobody can send names that collide."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy


cdef inline uint64_t mix(uint64_t a, uint64_t b) noexcept nogil:
    a ^= b
    a *= 0x9E3779B97F4A7C15ULL
    a ^= a >> 32
    a *= 0xD6E8FEB86659FD93ULL
    return a ^ (a >> 29)


cdef inline uint64_t hash_bytes(const char* p, Py_ssize_t n, uint64_t seed) noexcept nogil:
    cdef uint64_t h = seed ^ (<uint64_t>n * 0xA0761D6478BD642FULL), w
    while n >= 8:
        memcpy(&w, p, 8)
        h = mix(h, w)
        p += 8
        n -= 8
    if n:
        w = 0
        memcpy(&w, p, n)
        h = mix(h, w)
    return mix(h, seed)
