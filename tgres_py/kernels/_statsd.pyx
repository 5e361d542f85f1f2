# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Native cells of statsd, which read plain lines by themselves; the pure twin is ``statsd_py.py``.

A plain line is ``key:number|c`` (``g``, ``ms``) or ``key:member|s``, with ``|@rate`` and ``|#tag:value,tag`` or without; its key and
tags of letters, digits and ``_-.`` only, a member of ASCII without ``:``. All others are left to the caller where they stand, so
that the order within a packet is kept and etsy's rules are written once, in Python.

Cells lie in one array, and a cell keeps its number as long as its key lives. A key costs one memcmp when it follows the same key
as last time, else one hash look-up (linear probing; keys that go are taken out by shifting back what follows).
"""

from libc.math cimport INFINITY, isnan
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython cimport view

from tgres_py.kernels._hash cimport hash_bytes
from tgres_py.kernels._number cimport number

import os

import numpy as np

from tgres_py.kernels.statsd_py import Taken, TakenTimers

cdef enum:
    COUNTER = 0
    GAUGE = 1
    TIMER = 2
    SET = 3
    KINDS = 4
    KEY_PLAIN_MAX = 1_024       # longer keys are left to the caller
    VALUES_MIN = 4_096
    MEMBERS_MIN = 8
    KEY_AROUND = 16             # of a key's text, the allocator's

cdef struct Members:            # of one set: hashes, 0 = empty place
    uint64_t* slots
    uint64_t room               # a power of two
    int64_t n
    int32_t level               # only hashes whose lowest bits, this many, are 0 are kept

cdef struct Cell:
    char* key                   # NULL: the cell is free
    uint64_t hash
    uint32_t length
    int32_t next                # the cell that followed last time; of a free cell: the next free one
    uint8_t[4] live             # by type
    uint8_t kept                # the counter never goes
    uint8_t fresh               # got its key since the last take
    uint32_t[4] age
    uint32_t[4] born            # order in which the types became live
    double[3] value             # counter, gauge, weight of the timer's values
    int64_t size                # the timer's values
    Members members

cdef uint8_t[256] PLAIN
for _c in range(256):
    PLAIN[_c] = 48 <= _c <= 57 or 65 <= _c <= 90 or 97 <= _c <= 122 or _c == 95 or _c == 45 or _c == 46


cdef class StatsdCells:
    """As ``statsd_py.StatsdCells``."""

    cdef Cell* cells
    cdef int32_t n, room, spare  # spare: the first free cell
    cdef uint64_t* slots        # high 32 bits of the hash, then cell + 1
    cdef uint64_t mask, seed
    cdef int32_t last
    cdef uint32_t births
    cdef int64_t used           # cells with a key
    cdef int32_t* log_cells     # the timers' values in order of arrival
    cdef double* log_values
    cdef int64_t log_n, log_room
    cdef int64_t members        # of all sets
    cdef int64_t text_bytes, set_bytes      # of keys, of the tables of all sets
    cdef public int64_t keys_max, values_max, set_max, members_max
    cdef tuple kept
    cdef readonly int64_t keys, refused_keys, refused_values, refused_members

    def __cinit__(self, int64_t keys_max, int64_t values_max, int64_t set_max, int64_t members_max, kept=()):
        self.keys_max, self.values_max = keys_max, values_max
        self.set_max, self.members_max = set_max, members_max
        self.kept = tuple([part.encode() for part in kept])
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.last = self.spare = -1
        self.room = 1024
        self.mask = 4095
        self.cells = <Cell*>malloc(self.room * sizeof(Cell))
        self.slots = <uint64_t*>calloc(self.mask + 1, sizeof(uint64_t))
        if not (self.cells and self.slots):
            raise MemoryError

    def __dealloc__(self):
        cdef int32_t i
        for i in range(self.n):
            if self.cells[i].key != NULL:
                free(self.cells[i].key)
                free(self.cells[i].members.slots)
        free(self.cells)
        free(self.slots)
        free(self.log_cells)
        free(self.log_values)

    @property
    def bytes_used(self):
        return self.keys_bytes + self.log_n * <int64_t>(sizeof(int32_t) + sizeof(double)) + self.set_bytes

    @property
    def keys_bytes(self):
        return self.n * <int64_t>sizeof(Cell) + <int64_t>((self.mask + 1) * sizeof(uint64_t)) + self.text_bytes

    @property
    def values_held(self):
        return self.log_n

    @property
    def members_bytes(self):
        return self.set_bytes

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

    cdef void take_out(self, int32_t k) noexcept nogil:
        """Forgets a key and shifts back what was put further on because of it."""
        cdef uint64_t at = self.cells[k].hash & self.mask, on, home
        while <int32_t>(<uint32_t>self.slots[at] - 1) != k:
            at = (at + 1) & self.mask
        on = at
        while True:
            on = (on + 1) & self.mask
            if self.slots[on] == 0:
                break
            home = self.cells[<uint32_t>self.slots[on] - 1].hash & self.mask
            if (on - home) & self.mask >= (on - at) & self.mask:
                self.slots[at] = self.slots[on]
                at = on
        self.slots[at] = 0

    cdef bint grow(self) noexcept nogil:
        """Room for one more cell; False when memory is out."""
        cdef Cell* more
        cdef uint64_t* slots
        cdef int32_t i
        if self.spare < 0 and self.n == self.room:
            more = <Cell*>realloc(self.cells, 2 * self.room * sizeof(Cell))
            if more == NULL:
                return False
            self.cells = more
            self.room *= 2
        if <uint64_t>self.used * 2 > self.mask:
            slots = <uint64_t*>calloc(2 * (self.mask + 1), sizeof(uint64_t))
            if slots == NULL:
                return False
            free(self.slots)
            self.slots = slots
            self.mask = 2 * self.mask + 1
            for i in range(self.n):
                if self.cells[i].key != NULL:
                    self.put(self.cells[i].hash, i)
        return True

    cdef int32_t insert(self, const char* p, Py_ssize_t n, uint64_t h) noexcept nogil:
        """A cell for a new key, of no type yet; -1 when memory is out."""
        cdef Cell* cell
        cdef int32_t i, k
        cdef char* key
        if not self.grow():
            return -1
        key = <char*>malloc(n + 1)
        if key == NULL:
            return -1
        memcpy(key, p, n)
        if self.spare >= 0:
            k = self.spare
            self.spare = self.cells[k].next
        else:
            k = self.n
            self.n += 1
        cell = &self.cells[k]
        cell.key, cell.length, cell.hash = key, <uint32_t>n, h
        cell.next = -1
        cell.size = 0
        cell.fresh = 1
        cell.members.slots = NULL
        cell.members.room = cell.members.n = cell.members.level = 0
        for i in range(KINDS):
            cell.live[i] = 0
        cell.kept = self.is_kept(p, n)
        self.text_bytes += n + KEY_AROUND
        self.put(h, k)
        self.used += 1
        return k

    cdef bint is_kept(self, const char* p, Py_ssize_t n) noexcept with gil:
        cdef bytes key = PyBytes_FromStringAndSize(p, n)
        for part in self.kept:
            if part in key:
                return True
        return False

    cdef int32_t cell_of(self, key, int kind) except -2:
        """-1: there is no room for it."""
        cdef bytes raw = key.encode()
        cdef const char* p = raw
        cdef uint64_t h = hash_bytes(p, len(raw), self.seed)
        cdef int32_t k = self.find(p, len(raw), h)
        if k < 0:
            if self.refuses(kind):
                return -1
            k = self.insert(p, len(raw), h)
            if k < 0:
                raise MemoryError
        return k

    cdef bint refuses(self, int kind) noexcept nogil:
        """Whether an event of a new key finds no room; no cell is made for it then."""
        if kind == TIMER and self.log_n >= self.values_max:
            self.refused_values += 1
            return True
        if self.keys >= self.keys_max:
            self.refused_keys += 1
            return True
        return False

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
        self.births += 1
        cell.born[kind] = self.births
        if kind != SET:
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

    # -- sets --------------------------------------------------------------------------------

    cdef bint take_member(self, int32_t k, const char* p, Py_ssize_t n) noexcept nogil:
        """False when memory is out."""
        cdef Members* of
        cdef uint64_t h, at
        if not self.use(k, SET):
            return True
        of = &self.cells[k].members
        h = hash_bytes(p, n, self.seed)
        if h == 0:
            h = 1ULL << 63
        if h & ((1ULL << of.level) - 1):
            return True
        if 2 * of.n >= <int64_t>of.room and not self.resize(of, 2 * of.room if of.room else MEMBERS_MIN):
            return False
        at = (h >> 32) & (of.room - 1)
        while of.slots[at]:
            if of.slots[at] == h:
                return True
            at = (at + 1) & (of.room - 1)
        if self.members >= self.members_max:
            self.refused_members += 1
            return True
        of.slots[at] = h
        of.n += 1
        self.members += 1
        while of.n > self.set_max:
            of.level += 1
            if not self.resize(of, of.room):
                return False
        return True

    cdef bint resize(self, Members* of, uint64_t room) noexcept nogil:
        """Puts the hashes that the level allows into a new table; False when memory is out."""
        cdef uint64_t* slots = <uint64_t*>calloc(room, sizeof(uint64_t))
        cdef uint64_t i, at, h, low = (1ULL << of.level) - 1
        cdef int64_t n = 0
        if slots == NULL:
            return False
        for i in range(of.room):
            h = of.slots[i]
            if h == 0 or h & low:
                continue
            at = (h >> 32) & (room - 1)
            while slots[at]:
                at = (at + 1) & (room - 1)
            slots[at] = h
            n += 1
        free(of.slots)
        self.set_bytes += <int64_t>(room - of.room) * <int64_t>sizeof(uint64_t)
        self.members += n - of.n
        of.slots, of.room, of.n = slots, room, n
        return True

    # -- events ------------------------------------------------------------------------------

    def count(self, key, double amount):
        cdef int32_t k = self.cell_of(key, COUNTER)
        if k >= 0:
            self.take_count(k, amount)

    def gauge(self, key, double value, bint signed):
        cdef int32_t k = self.cell_of(key, GAUGE)
        if k >= 0:
            self.take_gauge(k, value, signed)

    def time(self, key, double value, double weight):
        cdef int32_t k = self.cell_of(key, TIMER)
        if k >= 0 and not self.take_time(k, value, weight):
            raise MemoryError

    def member(self, key, member):
        cdef int32_t k = self.cell_of(key, SET)
        cdef bytes raw = member.encode()
        if k >= 0 and not self.take_member(k, raw, len(raw)):
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
        cdef const char* name
        cdef char[KEY_PLAIN_MAX] tagged
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
                if cell.key != NULL and e - p > n and p[n] == 58 and memcmp(p, cell.key, n) == 0:
                    q = p + n
                else:
                    k = -1
        if k < 0:
            q = p
            while q < e and PLAIN[<uint8_t>q[0]]:
                q += 1
            if q == p or q == e or q[0] != 58 or q - p > KEY_PLAIN_MAX:
                return False
        name, n = p, q - p
        q += 1
        bar = <const char*>memchr(q, 124, e - q)
        if bar == NULL:
            return False
        p = q
        signed_ = q[0] == 43 or q[0] == 45
        kind = type_of(bar + 1, e, &q)
        if kind == SET:
            if not is_member(p, bar):
                return False
        elif kind < 0 or not number_of(p, bar, &value) or (kind == TIMER and value < 0):
            return False
        if q < e and not (e - q > 1 and q[1] == 35):
            q = rate_of(q, e, &rate)
            if q == NULL:
                return False
        if q < e:
            n = with_tags(name, n, q + 2, e, tagged)
            if n < 0:
                return False
            name, k = tagged, -1
        if k < 0:
            h = hash_bytes(name, n, self.seed)
            k = self.find(name, n, h)
            if k < 0:
                if self.refuses(kind):
                    return True
                k = self.insert(name, n, h)
                if k < 0:
                    return False
        if self.last >= 0:
            self.cells[self.last].next = k
        self.last = k
        if kind == COUNTER:
            self.take_count(k, value * (1 / rate))
        elif kind == GAUGE:
            self.take_gauge(k, value, signed_)
        elif kind == TIMER:
            return self.take_time(k, value, 1 / rate)
        else:
            return self.take_member(k, p, bar - p)
        return True

    # -- the end of an interval --------------------------------------------------------------

    def take(self, uint32_t counters_ttl, uint32_t timers_ttl, uint32_t gauges_ttl, uint32_t sets_ttl):
        """As the twin's; a pass over the cells, no text and no sorting."""
        cdef int64_t[4] counts = [0, 0, 0, 0]
        cdef uint32_t[4] ttl = [counters_ttl, gauges_ttl, timers_ttl, sets_ttl]
        cdef int64_t[4] at = [0, 0, 0, 0]
        cdef int32_t i
        cdef int kind
        cdef Cell* cell
        cdef double value
        fresh, key_bytes, key_ends = self.fresh_keys()
        with nogil:
            for i in range(self.n):
                if self.cells[i].key != NULL:
                    for kind in range(KINDS):
                        counts[kind] += self.cells[i].live[kind]
        cells = [np.empty(counts[kind], np.int32) for kind in range(KINDS)]
        values = [np.empty(counts[kind], np.float64) for kind in range(KINDS)]
        sizes = np.empty(counts[TIMER], np.int64)
        estimated = np.empty(counts[SET], np.bool_)
        cdef int32_t[::1] c0 = cells[0], c1 = cells[1], c2 = cells[2], c3 = cells[3]
        cdef double[::1] v0 = values[0], v1 = values[1], v2 = values[2], v3 = values[3]
        cdef int64_t[::1] sizes_v = sizes
        cdef uint8_t[::1] estimated_v = estimated.view(np.uint8)
        with nogil:
            for i in range(self.n):
                cell = &self.cells[i]
                if cell.key == NULL:
                    continue
                if cell.live[COUNTER]:
                    c0[at[0]], v0[at[0]] = i, cell.value[COUNTER]
                    at[0] += 1
                if cell.live[GAUGE]:
                    c1[at[1]], v1[at[1]] = i, cell.value[GAUGE]
                    at[1] += 1
                if cell.live[TIMER]:
                    c2[at[2]], v2[at[2]], sizes_v[at[2]] = i, cell.value[TIMER], cell.size
                    at[2] += 1
                if cell.live[SET]:
                    c3[at[3]], v3[at[3]] = i, <double>(cell.members.n) * <double>(1ULL << cell.members.level)
                    estimated_v[at[3]] = cell.members.level > 0
                    at[3] += 1
                self.end_interval(i, ttl)
            self.members = 0
        log_cells, log_values = self.take_log()
        return Taken(
            fresh, key_bytes, key_ends, (cells[COUNTER], values[COUNTER]), (cells[GAUGE], values[GAUGE]),
            TakenTimers(cells[TIMER], values[TIMER], sizes, log_cells, log_values),
            (cells[SET], values[SET], estimated),
        )

    cdef fresh_keys(self):
        """(cells that got a key since the last take, their keys one after the other, where each ends)."""
        cdef int32_t i, n = 0
        cdef int64_t length = 0
        cdef Cell* cell
        for i in range(self.n):
            if self.cells[i].key != NULL and self.cells[i].fresh:
                n += 1
                length += self.cells[i].length
        fresh, ends = np.empty(n, np.int32), np.empty(n, np.int64)
        cdef int32_t[::1] fresh_v = fresh
        cdef int64_t[::1] ends_v = ends
        cdef bytes text = PyBytes_FromStringAndSize(NULL, length)
        cdef char* p = PyBytes_AS_STRING(text)
        n = 0
        length = 0
        for i in range(self.n if len(fresh) else 0):
            cell = &self.cells[i]
            if cell.key != NULL and cell.fresh:
                cell.fresh = 0
                memcpy(p + length, cell.key, cell.length)
                length += cell.length
                fresh_v[n], ends_v[n] = i, length
                n += 1
        return fresh, text, ends

    cdef void end_interval(self, int32_t k, uint32_t* ttl) noexcept nogil:
        """Starts a cell's next interval, or frees it when nothing of it is left."""
        cdef Cell* cell = &self.cells[k]
        cdef int kind
        cdef bint left = False
        for kind in range(KINDS):
            if not cell.live[kind]:
                continue
            cell.age[kind] += 1
            if ttl[kind] and cell.age[kind] >= ttl[kind] and not (kind == COUNTER and cell.kept):
                cell.live[kind] = 0
                self.keys -= 1
                continue
            left = True
            if kind == COUNTER or kind == TIMER:
                cell.value[kind] = 0
        cell.size = 0
        if cell.members.slots != NULL:
            self.set_bytes -= <int64_t>(cell.members.room * sizeof(uint64_t))
            free(cell.members.slots)
            cell.members.slots = NULL
            cell.members.room = cell.members.n = cell.members.level = 0
        if not left:
            self.take_out(k)
            free(cell.key)
            self.text_bytes -= cell.length + KEY_AROUND
            cell.key = NULL
            cell.length = 0
            cell.next = self.spare
            self.spare = k
            self.used -= 1
            if self.last == k:
                self.last = -1

    cdef take_log(self):
        """(cells int32, values float64) of the timers' values; the memory goes with them."""
        cdef view.array cells, values
        if self.log_n == 0:
            return np.empty(0, np.int32), np.empty(0, np.float64)
        cells = <int32_t[:self.log_n]>self.log_cells
        values = <double[:self.log_n]>self.log_values
        cells.callback_free_data = free
        values.callback_free_data = free
        self.log_cells, self.log_values = NULL, NULL
        self.log_n = self.log_room = 0
        return np.asarray(cells), np.asarray(values)

    # -- readings ----------------------------------------------------------------------------

    cdef live_cells(self, int kind):
        """In the order in which they became live."""
        cdef int32_t i
        live = [(self.cells[i].born[kind], i) for i in range(self.n) if self.cells[i].key != NULL and self.cells[i].live[kind]]
        return [i for _, i in sorted(live)]

    cdef key_of(self, int32_t k):
        return PyBytes_FromStringAndSize(self.cells[k].key, self.cells[k].length).decode()

    def counters(self):
        cdef int32_t i
        return {self.key_of(i): self.cells[i].value[COUNTER] for i in self.live_cells(COUNTER)}

    def gauges(self):
        cdef int32_t i
        return {self.key_of(i): self.cells[i].value[GAUGE] for i in self.live_cells(GAUGE)}

    def timers(self):
        cdef int32_t i
        cdef int64_t j
        values = {i: [] for i in self.live_cells(TIMER)}
        for j in range(self.log_n):
            i = self.log_cells[j]
            if i >= 0:
                values[i].append(self.log_values[j])
        return {self.key_of(i): of for i, of in values.items()}

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
        k = self.cell_of(key, TIMER)
        self.cells[k].size = 0
        for j in range(self.log_n):
            if self.log_cells[j] == k:
                self.log_cells[j] = -1
        return True


def grouped(const int32_t[::1] cells, const double[::1] values, const int32_t[::1] timers, const int64_t[::1] sizes):
    """As ``statsd_py.grouped``."""
    cdef Py_ssize_t i, total = 0
    cdef int32_t k, top = -1
    for i in range(timers.shape[0]):
        top = max(top, timers[i])
    starts = np.empty(top + 1, np.int64)
    cdef int64_t[::1] starts_v = starts
    for i in range(timers.shape[0]):
        starts_v[timers[i]] = total
        total += sizes[i]
    out = np.empty(total, np.float64)
    cdef double[::1] out_v = out
    with nogil:
        for i in range(cells.shape[0]):
            k = cells[i]
            if k >= 0:
                out_v[starts_v[k]] = values[i]
                starts_v[k] += 1
    return out


def filled_rows(const double[::1] values, const int64_t[::1] starts, const int64_t[::1] sizes, Py_ssize_t width):
    """As ``statsd_py.filled_rows``."""
    cdef Py_ssize_t i, j
    rows = np.empty((starts.shape[0], width), np.float64)
    cdef double[:, ::1] rows_v = rows
    with nogil:
        for i in range(starts.shape[0]):
            if sizes[i]:
                memcpy(&rows_v[i, 0], &values[starts[i]], sizes[i] * sizeof(double))
            for j in range(sizes[i], width):
                rows_v[i, j] = INFINITY
    return rows


def running_sums(const double[:, ::1] rows, const int64_t[:, ::1] counts):
    """As ``statsd_py.running_sums``."""
    cdef Py_ssize_t i, j, n, wanted = counts.shape[1]
    cdef double x, total, square
    sums = np.zeros((counts.shape[0], wanted), np.float64)
    squares = np.zeros((counts.shape[0], wanted), np.float64)
    cdef double[:, ::1] sums_v = sums, squares_v = squares
    scratch = np.empty((2, rows.shape[1] + 1), np.float64)
    cdef double[:, ::1] scratch_v = scratch
    scratch_v[0, 0] = scratch_v[1, 0] = 0
    with nogil:
        for i in range(counts.shape[0]):
            n = 0
            for j in range(wanted):
                n = max(n, counts[i, j])
            total = square = 0
            for j in range(n):
                x = rows[i, j]
                total += x
                square += x * x
                scratch_v[0, j + 1] = total
                scratch_v[1, j + 1] = square
            for j in range(wanted):
                sums_v[i, j] = scratch_v[0, counts[i, j]]
                squares_v[i, j] = scratch_v[1, counts[i, j]]
    return sums, squares


def square_deviations(const double[:, ::1] rows, const int64_t[::1] sizes, const double[::1] means):
    """As ``statsd_py.square_deviations``."""
    cdef Py_ssize_t i, j
    cdef double total, off
    out = np.empty(sizes.shape[0], np.float64)
    cdef double[::1] out_v = out
    with nogil:
        for i in range(sizes.shape[0]):
            total = 0
            for j in range(sizes[i]):
                off = rows[i, j] - means[i]
                total += off * off
            out_v[i] = total
    return out


cdef inline int type_of(const char* p, const char* e, const char** rest) noexcept nogil:
    """The type that starts at ``p``; -1 for one that isn't plain. ``rest``: behind it, at the next bar or the end."""
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
    elif p < e and p[0] == 115:
        kind = SET
        p += 1
    rest[0] = p
    return kind if p == e or p[0] == 124 else -1


cdef inline bint number_of(const char* p, const char* bar, double* value) noexcept nogil:
    """Reads all of the text up to ``bar`` as a decimal number, a sign in front or not."""
    if p[0] == 43:
        p += 1
        if p[0] == 45:
            return False
    return number(p, bar, value) == bar


cdef inline bint is_member(const char* p, const char* bar) noexcept nogil:
    """Whether a set's member can be taken as it stands: not empty, ASCII, and no further value in it."""
    if p == bar:
        return False
    while p < bar:
        if <uint8_t>p[0] >= 128 or p[0] == 58:
            return False
        p += 1
    return True


cdef inline const char* rate_of(const char* p, const char* e, double* rate) noexcept nogil:
    """Reads ``|@rate``, digits and one dot, more than 0; where it ends: at ``e`` or the tags. NULL if it isn't plain."""
    cdef const char* q
    if e - p < 3 or p[1] != 64:
        return NULL
    p += 2
    q = p
    while q < e and (48 <= q[0] <= 57 or q[0] == 46):
        q += 1
    if q < e and not (q[0] == 124 and e - q > 1 and q[1] == 35):
        return NULL
    return q if number(p, q, rate) == q and rate[0] > 0 else NULL


cdef inline Py_ssize_t with_tags(const char* key, Py_ssize_t n, const char* p, const char* e, char* out) noexcept nogil:
    """Writes a key and its tags, ``a:b,c`` as ``;a=b;c``; the length of both, -1 when they aren't plain."""
    cdef bint valued = False
    if n + 1 + (e - p) > KEY_PLAIN_MAX:
        return -1
    memcpy(out, key, n)
    if p == e:
        return n
    out[n] = 59
    n += 1
    while p < e:
        if p[0] == 44:
            out[n] = 59
            valued = False
        elif p[0] == 58:
            if valued:
                return -1
            valued = True
            out[n] = 61
        elif PLAIN[<uint8_t>p[0]]:
            out[n] = p[0]
        else:
            return -1
        n += 1
        p += 1
    return n
