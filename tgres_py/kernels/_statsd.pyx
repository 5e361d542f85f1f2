# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Native cells of statsd, which read plain lines by themselves; the pure twin is ``statsd_py.py``.

A plain line is ``key:number|c`` (``g``, ``ms``), with ``|@rate`` or without, its key of letters, digits and ``_-.`` only. All
others are left to the caller where they stand, so that the order within a packet is kept and etsy's rules are written once, in
Python. Cells lie in one array; a key costs one memcmp when it follows the same key as last time, else one hash look-up.
"""

from libc.math cimport isnan
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy
from cpython.bytes cimport PyBytes_FromStringAndSize

from tgres_py.kernels._hash cimport hash_bytes
from tgres_py.kernels._number cimport number

import os

import numpy as np

cdef enum:
    COUNTER = 0
    GAUGE = 1
    TIMER = 2
    KEY_PLAIN_MAX = 1_024       # longer keys are left to the caller
    VALUES_MIN = 4_096

cdef struct Cell:
    char* key
    uint32_t length
    int32_t next                # the cell that followed last time
    uint8_t[3] live             # by type
    uint32_t[3] age
    double[3] value             # counter, gauge, weight of the timer's values
    int64_t size                # the timer's values

cdef uint8_t[256] PLAIN
for _c in range(256):
    PLAIN[_c] = 48 <= _c <= 57 or 65 <= _c <= 90 or 97 <= _c <= 122 or _c == 95 or _c == 45 or _c == 46


cdef class StatsdCells:
    """As ``statsd_py.StatsdCells``."""

    cdef Cell* cells
    cdef int32_t n, room
    cdef uint64_t* slots        # high 32 bits of the hash, then cell + 1
    cdef uint64_t mask, seed
    cdef int32_t last
    cdef int32_t* log_cells     # the timers' values in order of arrival
    cdef double* log_values
    cdef int64_t log_n, log_room
    cdef int64_t keys_max, values_max
    cdef readonly int64_t keys, refused_keys, refused_values

    def __cinit__(self, int64_t keys_max, int64_t values_max):
        self.keys_max, self.values_max = keys_max, values_max
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.last = -1
        self.room = 1024
        self.mask = 4095
        self.cells = <Cell*>malloc(self.room * sizeof(Cell))
        self.slots = <uint64_t*>calloc(self.mask + 1, sizeof(uint64_t))
        if not (self.cells and self.slots):
            raise MemoryError

    def __dealloc__(self):
        cdef int32_t i
        for i in range(self.n):
            free(self.cells[i].key)
        free(self.cells)
        free(self.slots)
        free(self.log_cells)
        free(self.log_values)

    # -- cells -------------------------------------------------------------------------------

    cdef int32_t find(self, const char* p, Py_ssize_t n, uint64_t h) noexcept nogil:
        cdef uint64_t at = h & self.mask, slot
        cdef int32_t k
        while True:
            slot = self.slots[at]
            if slot == 0:
                return -1
            if slot >> 32 == h >> 32:
                k = <int32_t>(<uint32_t>slot - 1)
                if self.cells[k].length == n and memcmp(self.cells[k].key, p, n) == 0:
                    return k
            at = (at + 1) & self.mask

    cdef void put(self, uint64_t h, int32_t k) noexcept nogil:
        cdef uint64_t at = h & self.mask
        while self.slots[at]:
            at = (at + 1) & self.mask
        self.slots[at] = (h >> 32 << 32) | <uint64_t>(<uint32_t>(k + 1))

    cdef int32_t insert(self, const char* p, Py_ssize_t n, uint64_t h) noexcept nogil:
        """A new cell, of no type yet; -1 when memory is out."""
        cdef Cell* cell
        cdef Cell* more
        cdef uint64_t* slots
        cdef int32_t i
        cdef char* key
        if self.n == self.room:
            more = <Cell*>realloc(self.cells, 2 * self.room * sizeof(Cell))
            if more == NULL:
                return -1
            self.cells = more
            self.room *= 2
        if <uint64_t>self.n * 2 > self.mask:
            slots = <uint64_t*>calloc(2 * (self.mask + 1), sizeof(uint64_t))
            if slots == NULL:
                return -1
            free(self.slots)
            self.slots = slots
            self.mask = 2 * self.mask + 1
            for i in range(self.n):
                self.put(hash_bytes(self.cells[i].key, self.cells[i].length, self.seed), i)
        key = <char*>malloc(n + 1)
        if key == NULL:
            return -1
        memcpy(key, p, n)
        cell = &self.cells[self.n]
        cell.key = key
        cell.length = <uint32_t>n
        cell.next = -1
        cell.size = 0
        for i in range(3):
            cell.live[i] = 0
            cell.age[i] = 0
            cell.value[i] = 0
        self.put(h, self.n)
        self.n += 1
        return self.n - 1

    cdef int32_t cell_of(self, key) except -2:
        cdef bytes raw = key.encode()
        cdef const char* p = raw
        cdef uint64_t h = hash_bytes(p, len(raw), self.seed)
        cdef int32_t k = self.find(p, len(raw), h)
        if k < 0:
            k = self.insert(p, len(raw), h)
            if k < 0:
                raise MemoryError
        return k

    cdef bint use(self, int32_t k, int kind) noexcept nogil:
        """Makes a cell's type live; False when there is no room for another key."""
        cdef Cell* cell = &self.cells[k]
        cell.age[kind] = 0
        if cell.live[kind]:
            return True
        if self.keys >= self.keys_max:
            self.refused_keys += 1
            return False
        self.keys += 1
        cell.live[kind] = 1
        cell.value[kind] = 0
        return True

    cdef void take_count(self, int32_t k, double amount) noexcept nogil:
        cdef double before
        if self.use(k, COUNTER):
            before = self.cells[k].value[COUNTER]
            self.cells[k].value[COUNTER] = amount if isnan(before) else before + amount

    cdef void take_gauge(self, int32_t k, double value, bint signed_) noexcept nogil:
        cdef double before
        if self.use(k, GAUGE):
            before = self.cells[k].value[GAUGE]
            if signed_ and not isnan(before):
                value += before     # a change to 0 is the value itself
            self.cells[k].value[GAUGE] = value

    cdef bint take_time(self, int32_t k, double value, double weight) noexcept nogil:
        """False when memory is out."""
        cdef int64_t room
        cdef int32_t* cells
        cdef double* values
        if self.log_n >= self.values_max:
            self.refused_values += 1
            return True
        if not self.use(k, TIMER):
            return True
        if self.log_n == self.log_room:
            room = 2 * self.log_room if self.log_room else VALUES_MIN
            cells = <int32_t*>realloc(self.log_cells, room * sizeof(int32_t))
            if cells == NULL:
                return False
            self.log_cells = cells
            values = <double*>realloc(self.log_values, room * sizeof(double))
            if values == NULL:
                return False
            self.log_values = values
            self.log_room = room
        self.log_cells[self.log_n] = k
        self.log_values[self.log_n] = value
        self.log_n += 1
        self.cells[k].size += 1
        self.cells[k].value[TIMER] += weight
        return True

    # -- events ------------------------------------------------------------------------------

    def count(self, key, double amount):
        self.take_count(self.cell_of(key), amount)

    def gauge(self, key, double value, bint signed):
        self.take_gauge(self.cell_of(key), value, signed)

    def time(self, key, double value, double weight):
        if not self.take_time(self.cell_of(key), value, weight):
            raise MemoryError

    def scan(self, bytes data, Py_ssize_t start):
        """(where it stopped, lines taken): takes plain lines of ``data`` from ``start`` on, up to one that isn't plain."""
        cdef const char* begin = data
        cdef const char* end = begin + len(data)
        cdef const char* p = begin + start
        cdef const char* e
        cdef Py_ssize_t lines = 0
        with nogil:
            while p < end:
                e = <const char*>memchr(p, 10, end - p)
                if e == NULL:
                    e = end
                if e > p:
                    if not self.line(p, e):
                        break
                    lines += 1
                p = e + 1
        return min(p - begin, end - begin), lines

    cdef bint line(self, const char* p, const char* e) noexcept nogil:
        """Takes one line; False when it isn't plain."""
        cdef const char* q = NULL
        cdef const char* bar
        cdef int32_t k = -1
        cdef uint64_t h
        cdef Py_ssize_t n
        cdef Cell* cell
        cdef double value = 0, rate = 1
        cdef int kind
        cdef bint signed_
        if self.last >= 0:
            k = self.cells[self.last].next
            if k >= 0:
                cell = &self.cells[k]
                n = cell.length
                if e - p > n and p[n] == 58 and memcmp(p, cell.key, n) == 0:
                    q = p + n
                else:
                    k = -1
        if k < 0:
            q = p
            while q < e and PLAIN[<uint8_t>q[0]]:
                q += 1
            if q == p or q == e or q[0] != 58 or q - p > KEY_PLAIN_MAX:
                return False
        n = q - p
        q += 1
        bar = <const char*>memchr(q, 124, e - q)
        if bar == NULL:
            return False
        signed_ = q[0] == 43 or q[0] == 45
        if q[0] == 43:
            q += 1
            if q[0] == 45:
                return False
        if number(q, bar, &value) != bar:
            return False
        kind = type_of(bar + 1, e, &q)
        if kind < 0 or (kind == TIMER and value < 0):
            return False
        if q < e and not rate_of(q, e, &rate):
            return False
        if k < 0:
            h = hash_bytes(p, n, self.seed)
            k = self.find(p, n, h)
            if k < 0:
                k = self.insert(p, n, h)
                if k < 0:
                    return False
        if self.last >= 0:
            self.cells[self.last].next = k
        self.last = k
        if kind == COUNTER:
            self.take_count(k, value * (1 / rate))
        elif kind == GAUGE:
            self.take_gauge(k, value, signed_)
        else:
            return self.take_time(k, value, 1 / rate)
        return True

    # -- readings ----------------------------------------------------------------------------

    cdef key_of(self, int32_t k):
        return PyBytes_FromStringAndSize(self.cells[k].key, self.cells[k].length).decode()

    cdef columns(self, int kind):
        cdef int32_t i
        live = [i for i in range(self.n) if self.cells[i].live[kind]]
        return [self.key_of(i) for i in live], np.array([self.cells[i].value[kind] for i in live], np.float64)

    def counters(self):
        return self.columns(COUNTER)

    def gauges(self):
        return self.columns(GAUGE)

    def timers(self):
        keys, weights = self.columns(TIMER)
        cdef int64_t[::1] starts = np.zeros(self.n + 1, np.int64)
        sizes = np.zeros(len(keys), np.int64)
        cdef int64_t[::1] sizes_v = sizes
        values = np.empty(self.log_n, np.float64)
        cdef double[::1] values_v = values
        cdef int32_t i, timer = 0
        cdef int64_t j, total = 0
        for i in range(self.n):
            starts[i] = total
            if self.cells[i].live[TIMER]:
                sizes_v[timer] = self.cells[i].size
                total += self.cells[i].size
                timer += 1
        with nogil:
            for j in range(self.log_n):
                i = self.log_cells[j]
                if i >= 0:
                    values_v[starts[i]] = self.log_values[j]
                    starts[i] += 1
        return keys, weights, sizes, values[:total]

    def end_interval(self, uint32_t counters_ttl, uint32_t timers_ttl, uint32_t gauges_ttl, kept):
        """Counters and timers start again; what was idle for its ttl in intervals goes (ttl 0: nothing goes).

        Counters whose key contains one of ``kept`` never go.
        """
        cdef uint32_t[3] ttl = [counters_ttl, gauges_ttl, timers_ttl]
        cdef int32_t i
        cdef int kind
        cdef Cell* cell
        for i in range(self.n):
            cell = &self.cells[i]
            for kind in range(3):
                if not cell.live[kind]:
                    continue
                cell.age[kind] += 1
                if ttl[kind] and cell.age[kind] >= ttl[kind] and not (kind == COUNTER and self.is_kept(i, kept)):
                    cell.live[kind] = 0
                    self.keys -= 1
                elif kind != GAUGE:
                    cell.value[kind] = 0
            cell.size = 0
        self.log_n = 0
        if self.log_room > 16 * VALUES_MIN:
            free(self.log_cells)
            free(self.log_values)
            self.log_cells, self.log_values, self.log_room = NULL, NULL, 0
        if self.n > 2 * self.keys + 1024:
            self.compact()

    cdef bint is_kept(self, int32_t k, kept):
        key = self.key_of(k)
        return any([part in key for part in kept])

    cdef void compact(self) noexcept:
        """Forgets the keys of which nothing is left; no values of timers may be held."""
        cdef int32_t i, n = 0
        cdef Cell* cell
        for i in range(<int32_t>(self.mask + 1)):
            self.slots[i] = 0
        for i in range(self.n):
            cell = &self.cells[i]
            if not (cell.live[0] or cell.live[1] or cell.live[2]):
                free(cell.key)
                continue
            cell.next = -1
            self.cells[n] = cell[0]
            self.put(hash_bytes(cell.key, cell.length, self.seed), n)
            n += 1
        self.n = n
        self.last = -1

    # -- deletions ---------------------------------------------------------------------------

    cdef bint delete(self, key, int kind):
        cdef bytes raw = key.encode()
        cdef int32_t k = self.find(raw, len(raw), hash_bytes(raw, len(raw), self.seed))
        if k < 0 or not self.cells[k].live[kind]:
            return False
        self.cells[k].live[kind] = 0
        self.keys -= 1
        return True

    def delete_counter(self, key):
        return bool(self.delete(key, COUNTER))

    def delete_gauge(self, key):
        return bool(self.delete(key, GAUGE))

    def delete_timer(self, key):
        cdef int64_t j
        cdef int32_t k
        if not self.delete(key, TIMER):
            return False
        k = self.cell_of(key)
        self.cells[k].size = 0
        for j in range(self.log_n):
            if self.log_cells[j] == k:
                self.log_cells[j] = -1
        return True


cdef inline int type_of(const char* p, const char* e, const char** rest) noexcept nogil:
    """The type that starts at ``p``; -1 for one that isn't plain. ``rest``: behind it, at the rate's bar or the end."""
    cdef int kind = -1
    if p < e and p[0] == 99:
        kind = COUNTER
        p += 1
    elif p < e and p[0] == 103:
        kind = GAUGE
        p += 1
    elif e - p > 1 and p[0] == 109 and p[1] == 115:
        kind = TIMER
        p += 2
    rest[0] = p
    return kind if p == e or p[0] == 124 else -1


cdef inline bint rate_of(const char* p, const char* e, double* rate) noexcept nogil:
    """Reads ``|@rate`` up to the end of the line: digits and one dot, more than 0."""
    cdef const char* q
    if e - p < 3 or p[1] != 64:
        return False
    p += 2
    q = p
    while q < e:
        if not (48 <= q[0] <= 57 or q[0] == 46):
            return False
        q += 1
    return number(p, e, rate) == e and rate[0] > 0
