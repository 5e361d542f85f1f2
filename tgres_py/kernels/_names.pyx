# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Native name table and carbon line parser; the pure twin is ``names_py.py``.

One pass over a receive buffer turns lines into columns (id, time, value). A name costs one memcmp
when it follows the same name as last time (senders repeat their order each round), else one hash
look-up. What is not a plain line (tags not seen before, runs of blanks, exponents with signs that
strtod must see, bad bytes …) is left to the caller as an odd line, so that the rules of carbon are
written once, in Python.

Memory never moves: names lie in blocks of 1 MiB, keys in blocks of 65,536, so that readers of
known keys need no lock while a parse (which releases the GIL) adds others.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy
from cpython.bytes cimport PyBytes_FromStringAndSize

from tgres_py.kernels._hash cimport hash_bytes
from tgres_py.kernels._number cimport number

import os

import numpy as np

cdef enum:
    BLOCK_BITS = 16
    BLOCK = 1 << 16
    BLOCKS_MAX = 1 << 14
    ARENA = 1 << 20
    ARENAS_MAX = 1 << 16

cdef int32_t ODD = -2
cdef int32_t REFUSED = -3

cdef struct Key:
    char* text
    int32_t id
    int32_t next          # the key that followed last time
    uint16_t length
    uint8_t dead          # leads nowhere any more; its slot stays, so that others behind it are found


cdef class NameTable:
    """Names (and other spellings of them) to ids; ids are given in order from 0.

    Writers (parse, add, alias, unmap …) belong to one thread; ``name`` may be called from any.
    """

    cdef Key** keys
    cdef char** arenas
    cdef int32_t** key_of_id        # blocks of BLOCK
    cdef Py_ssize_t key_n, arena_n, arena_used
    cdef readonly Py_ssize_t size   # ids given
    cdef uint64_t* slots            # high 32 bits of the hash, then key + 1
    cdef uint64_t mask
    cdef uint64_t seed
    cdef int32_t last
    cdef readonly Py_ssize_t bytes_used

    def __cinit__(self):
        self.keys = <Key**>calloc(BLOCKS_MAX, sizeof(Key*))
        self.key_of_id = <int32_t**>calloc(BLOCKS_MAX, sizeof(int32_t*))
        self.arenas = <char**>calloc(ARENAS_MAX, sizeof(char*))
        self.mask = (1 << 12) - 1
        self.slots = <uint64_t*>calloc(self.mask + 1, sizeof(uint64_t))
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.arena_used = ARENA
        self.last = -1
        if not (self.keys and self.key_of_id and self.arenas and self.slots):
            raise MemoryError

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(BLOCKS_MAX):
            if self.keys:
                free(self.keys[i])
            if self.key_of_id:
                free(self.key_of_id[i])
        for i in range(self.arena_n):
            free(self.arenas[i])
        free(self.keys)
        free(self.key_of_id)
        free(self.arenas)
        free(self.slots)

    def __len__(self):
        return self.size

    cdef int32_t find(self, const char* p, Py_ssize_t n, uint64_t h) noexcept nogil:
        cdef uint64_t at = h & self.mask, slot
        cdef uint32_t tag = <uint32_t>(h >> 32)
        cdef Key* key
        cdef int32_t k
        while True:
            slot = self.slots[at]
            if slot == 0:
                return -1
            if <uint32_t>(slot >> 32) == tag:
                k = <int32_t>(<uint32_t>slot - 1)
                key = &self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)]
                if key.length == n and not key.dead and memcmp(key.text, p, n) == 0:
                    return k
            at = (at + 1) & self.mask

    cdef int put(self, uint64_t h, int32_t k) noexcept nogil:
        cdef uint64_t at = h & self.mask
        while self.slots[at]:
            at = (at + 1) & self.mask
        self.slots[at] = (h >> 32 << 32) | <uint64_t>(<uint32_t>(k + 1))
        return 0

    cdef int32_t insert(
        self, const char* p, Py_ssize_t n, uint64_t h, int32_t id, uint8_t dead=0
    ) noexcept nogil:
        """A new key; id < 0 gives it a new id. -1 when memory is out."""
        cdef int32_t k = <int32_t>self.key_n
        cdef Key* key
        cdef uint64_t* old
        cdef uint64_t old_mask, i
        cdef char* text
        if k >> BLOCK_BITS >= BLOCKS_MAX or n > 65535:
            return -1
        if self.keys[k >> BLOCK_BITS] == NULL:
            self.keys[k >> BLOCK_BITS] = <Key*>malloc(BLOCK * sizeof(Key))
            if self.keys[k >> BLOCK_BITS] == NULL:
                return -1
            self.bytes_used += BLOCK * sizeof(Key)
        if self.arena_used + n > ARENA:
            text = <char*>malloc(ARENA)
            if text == NULL or self.arena_n >= ARENAS_MAX:
                return -1
            self.arenas[self.arena_n] = text
            self.arena_n += 1
            self.arena_used = 0
            self.bytes_used += ARENA
        text = self.arenas[self.arena_n - 1] + self.arena_used
        if id < 0:
            id = <int32_t>self.size
            if self.key_of_id[id >> BLOCK_BITS] == NULL:
                self.key_of_id[id >> BLOCK_BITS] = <int32_t*>malloc(BLOCK * sizeof(int32_t))
                if self.key_of_id[id >> BLOCK_BITS] == NULL:
                    return -1
                self.bytes_used += BLOCK * sizeof(int32_t)
            self.key_of_id[id >> BLOCK_BITS][id & (BLOCK - 1)] = k
            self.size += 1
        memcpy(text, p, n)
        self.arena_used += n
        key = &self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)]
        key.text = text
        key.length = <uint16_t>n
        key.id = id
        key.next = -1
        key.dead = dead
        self.key_n += 1
        if <uint64_t>self.key_n * 2 > self.mask:
            old, old_mask = self.slots, self.mask
            self.slots = <uint64_t*>calloc((old_mask + 1) * 2, sizeof(uint64_t))
            if self.slots == NULL:
                self.slots = old
                self.key_n -= 1
                return -1
            self.mask = old_mask * 2 + 1
            self.bytes_used += <Py_ssize_t>(old_mask + 1) * 8
            for i in range(<uint64_t>k):
                key = &self.keys[i >> BLOCK_BITS][i & (BLOCK - 1)]
                if not key.dead:
                    self.put(hash_bytes(key.text, key.length, self.seed), <int32_t>i)
            free(old)
        if not dead:
            self.put(h, k)
        return k

    def add(self, name):
        """Id of a name, new if it wasn't known. ``name``: bytes."""
        cdef const char* p = name
        cdef Py_ssize_t n = len(name)
        cdef uint64_t h = hash_bytes(p, n, self.seed)
        cdef int32_t k = self.find(p, n, h)
        if k < 0:
            k = self.insert(p, n, h, -1)
            if k < 0:
                raise MemoryError
        return self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)].id

    def add_lines(self, blob):
        """Ids (int32) of many names, given as one bytes with an LF after each."""
        cdef const char* p = blob
        cdef const char* end = p + <Py_ssize_t>len(blob)
        cdef const char* e
        cdef Py_ssize_t n = blob.count(b"\n"), i = 0
        ids = np.empty(n, np.int32)
        cdef int32_t[::1] out = ids
        cdef uint64_t h
        cdef int32_t k
        with nogil:
            while p < end:
                e = <const char*>memchr(p, 10, end - p)
                if e == NULL:
                    break
                h = hash_bytes(p, e - p, self.seed)
                k = self.find(p, e - p, h)
                if k < 0:
                    k = self.insert(p, e - p, h, -1)
                out[i] = self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)].id if k >= 0 else -1
                i += 1
                p = e + 1
        return ids

    def alias(self, raw, int32_t id):
        """Another spelling of a known name (tags in another order …)."""
        cdef const char* p = raw
        cdef Py_ssize_t n = len(raw)
        cdef uint64_t h = hash_bytes(p, n, self.seed)
        if self.find(p, n, h) < 0 and self.insert(p, n, h, id) < 0:
            raise MemoryError

    def get(self, name):
        """Id of a name or spelling, -1 when unknown."""
        cdef const char* p = name
        cdef Py_ssize_t n = len(name)
        cdef int32_t k = self.find(p, n, hash_bytes(p, n, self.seed))
        return self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)].id if k >= 0 else -1

    def unmap(self, ids):
        """Ids without names from here on: neither their names nor other spellings of them are known.

        ``name`` still tells the old name. One pass over all names (2 ms for a million).
        """
        gone = np.zeros(self.size, np.uint8)
        gone[ids] = 1
        cdef const uint8_t[::1] marks = gone
        cdef Py_ssize_t i
        cdef Key* key
        for i in range(self.key_n):
            key = &self.keys[i >> BLOCK_BITS][i & (BLOCK - 1)]
            if marks[key.id]:
                key.dead = 1

    def rename(self, int32_t id, name):
        """Gives an id without name (``unmap``, ``detached``) a new one. ValueError: the name is another's."""
        cdef const char* p = name
        cdef Py_ssize_t n = len(name)
        cdef uint64_t h = hash_bytes(p, n, self.seed)
        cdef int32_t k
        if id < 0 or id >= self.size:
            raise IndexError(id)
        if self.find(p, n, h) >= 0:
            raise ValueError(f"{name!r} is the name of {self.get(name)}")
        k = self.insert(p, n, h, id)
        if k < 0:
            raise MemoryError
        self.key_of_id[id >> BLOCK_BITS][id & (BLOCK - 1)] = k

    def detached(self, name):
        """A new id that ``name`` tells the name of, but which the name doesn't lead to."""
        cdef const char* p = name
        cdef Py_ssize_t n = len(name)
        cdef int32_t k = self.insert(p, n, hash_bytes(p, n, self.seed), -1, 1)
        if k < 0:
            raise MemoryError
        return self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)].id

    def name(self, int32_t id):
        """The name that was given the id, as bytes."""
        if id < 0 or id >= self.size:
            raise IndexError(id)
        cdef int32_t k = self.key_of_id[id >> BLOCK_BITS][id & (BLOCK - 1)]
        cdef Key* key = &self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)]
        return PyBytes_FromStringAndSize(key.text, key.length)

    def names(self, ids):
        """Names of many ids (int32 array), as a list of bytes."""
        cdef const int32_t[::1] a = np.ascontiguousarray(ids, np.int32)
        cdef Py_ssize_t i
        return [self.name(a[i]) for i in range(a.shape[0])]

    def name_lines(self, int32_t first, int32_t end):
        """The names of ids first <= id < end as one bytes, an LF after each."""
        cdef Py_ssize_t total = 0
        cdef int32_t i, k
        cdef Key* key
        if first < 0 or end > self.size:
            raise IndexError(end)
        for i in range(first, end):
            k = self.key_of_id[i >> BLOCK_BITS][i & (BLOCK - 1)]
            total += self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)].length + 1
        out = PyBytes_FromStringAndSize(NULL, total)
        cdef char* p = out
        for i in range(first, end):
            k = self.key_of_id[i >> BLOCK_BITS][i & (BLOCK - 1)]
            key = &self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)]
            memcpy(p, key.text, key.length)
            p[key.length] = 10
            p += key.length + 1
        return out

    def parse(self, data, int64_t now_s, Py_ssize_t name_bytes_max=1024, Py_ssize_t new_max=1 << 30):
        """Columns of the complete lines of ``data``.

        Returns (ids int32, times int64, values float64, odd, used): an id of -2 marks an odd line
        (``odd``: list of (position in the columns, line bytes)), -3 a new name beyond ``new_max``;
        ``used``: bytes up to and with the last LF. NaN values are odd lines.
        """
        cdef const uint8_t[::1] view = data
        cdef Py_ssize_t size = view.shape[0]
        if size == 0:
            return np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0), [], 0
        cdef const char* start = <const char*>&view[0]
        cdef const char* end = start + size
        cdef const char* p = start
        cdef const char* e
        cdef Py_ssize_t i = 0, odd_n = 0, j
        cdef Py_ssize_t room = 0
        with nogil:
            while p < end:
                p = <const char*>memchr(p, 10, end - p)
                if p == NULL:
                    break
                room += 1
                p += 1
            p = start
        ids = np.empty(room, np.int32)
        times = np.empty(room, np.int64)
        values = np.empty(room, np.float64)
        cdef int32_t[::1] ids_v = ids
        cdef int64_t[::1] times_v = times
        cdef double[::1] values_v = values
        cdef Py_ssize_t odd_room = 64
        cdef Py_ssize_t* odd_at = <Py_ssize_t*>malloc(odd_room * 3 * sizeof(Py_ssize_t))
        cdef Py_ssize_t* more
        cdef int32_t id
        if odd_at == NULL:
            raise MemoryError
        with nogil:
            while p < end:
                e = <const char*>memchr(p, 10, end - p)
                if e == NULL:
                    break
                id = self.line(p, e, now_s, name_bytes_max, &new_max, &times_v[i], &values_v[i])
                ids_v[i] = id
                if id == ODD:
                    if odd_n == odd_room:
                        more = <Py_ssize_t*>malloc(odd_room * 6 * sizeof(Py_ssize_t))
                        if more == NULL:
                            break
                        memcpy(more, odd_at, odd_room * 3 * sizeof(Py_ssize_t))
                        free(odd_at)
                        odd_at = more
                        odd_room *= 2
                    odd_at[odd_n * 3] = i
                    odd_at[odd_n * 3 + 1] = p - start
                    odd_at[odd_n * 3 + 2] = e - start
                    odd_n += 1
                i += 1
                p = e + 1
        odd = [
            (odd_at[j * 3], PyBytes_FromStringAndSize(start + odd_at[j * 3 + 1], odd_at[j * 3 + 2] - odd_at[j * 3 + 1]))
            for j in range(odd_n)
        ]
        free(odd_at)
        return ids[:i], times[:i], values[:i], odd, p - start

    cdef int32_t line(
        self, const char* p, const char* e, int64_t now_s, Py_ssize_t name_bytes_max,
        Py_ssize_t* new_max, int64_t* time, double* value,
    ) noexcept nogil:
        cdef Key* key
        cdef const char* q
        cdef Py_ssize_t n
        cdef int32_t k = -1
        cdef uint64_t h
        cdef int64_t t
        cdef int negative, digits
        if e > p and e[-1] == 13:
            e -= 1
        # name: the one that followed last time, else the table
        if self.last >= 0:
            k = self.keys[self.last >> BLOCK_BITS][self.last & (BLOCK - 1)].next
            if k >= 0:
                key = &self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)]
                n = key.length
                if not (e - p > n and p[n] == 32 and not key.dead and memcmp(p, key.text, n) == 0):
                    k = -1
        if k < 0:
            q = <const char*>memchr(p, 32, e - p)
            if q == NULL or q == p:
                return ODD
            n = q - p
            if n > name_bytes_max:
                return ODD
            h = hash_bytes(p, n, self.seed)
            k = self.find(p, n, h)
            if k < 0 and not is_plain(p, n):
                return ODD
        q = number(p + n + 1, e, value)
        if q == NULL or q >= e or q[0] != 32:
            return ODD
        # time stamp: whole seconds, -1 = now; a fraction is cut
        q += 1
        negative = 0
        if q < e and q[0] == 45:
            negative = 1
            q += 1
        t = 0
        digits = 0
        while q < e and 48 <= q[0] <= 57:
            t = t * 10 + (q[0] - 48)
            digits += 1
            q += 1
        if digits == 0 or digits > 11:
            return ODD
        if q < e and q[0] == 46:
            q += 1
            while q < e and 48 <= q[0] <= 57:
                q += 1
        if q != e:
            return ODD
        if negative:
            if t != 1:
                return ODD
            t = now_s
        time[0] = t
        if k < 0:
            if new_max[0] <= 0:
                return REFUSED
            k = self.insert(p, n, h, -1)
            if k < 0:
                return REFUSED
            new_max[0] -= 1
        if self.last >= 0:
            self.keys[self.last >> BLOCK_BITS][self.last & (BLOCK - 1)].next = k
        self.last = k
        return self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)].id

    def look_up(self, data, starts, sizes, Py_ssize_t name_bytes_max=1024, Py_ssize_t new_max=1 << 30):
        """Ids (int32) of the names that lie in ``data`` at ``starts`` (int64), ``sizes`` (int32) bytes long.

        -2 marks an odd name, -3 a new one beyond ``new_max``; -1 stands where the size is below 0.
        IndexError when a name doesn't lie in ``data``; the names before it are taken.
        """
        cdef const uint8_t[::1] view = data
        cdef const int64_t[::1] starts_v = starts
        cdef const int32_t[::1] sizes_v = sizes
        cdef Py_ssize_t n = starts_v.shape[0], room = view.shape[0], i
        if sizes_v.shape[0] != n:
            raise ValueError("starts and sizes differ in length")
        ids = np.empty(n, np.int32)
        cdef int32_t[::1] out = ids
        cdef const char* p = <const char*>&view[0] if room else NULL
        cdef bint inside = True
        with nogil:
            for i in range(n):
                if sizes_v[i] < 0:
                    out[i] = -1
                    continue
                inside = 0 <= starts_v[i] <= room - sizes_v[i]
                if not inside:
                    break
                out[i] = self.look_up_one(p + starts_v[i], sizes_v[i], name_bytes_max, &new_max)
        if not inside:
            raise IndexError("a name beyond the data")
        return ids

    cdef int32_t look_up_one(
        self, const char* p, Py_ssize_t n, Py_ssize_t name_bytes_max, Py_ssize_t* new_max
    ) noexcept nogil:
        cdef Key* key
        cdef int32_t k = -1
        cdef uint64_t h
        if self.last >= 0:
            k = self.keys[self.last >> BLOCK_BITS][self.last & (BLOCK - 1)].next
            if k >= 0:
                key = &self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)]
                if key.length != n or key.dead or memcmp(p, key.text, n) != 0:
                    k = -1
        if k < 0:
            if n == 0:
                return ODD
            h = hash_bytes(p, n, self.seed)
            k = self.find(p, n, h)
            if k < 0:
                if n > name_bytes_max or not is_plain(p, n):
                    return ODD
                if new_max[0] <= 0:
                    return REFUSED
                k = self.insert(p, n, h, -1)
                if k < 0:
                    return REFUSED
                new_max[0] -= 1
        if self.last >= 0:
            self.keys[self.last >> BLOCK_BITS][self.last & (BLOCK - 1)].next = k
        self.last = k
        return self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)].id


cdef inline bint is_plain(const char* p, Py_ssize_t n) noexcept nogil:
    """ASCII, no tags, no empty nodes: a name that is canonical as it stands."""
    cdef Py_ssize_t i
    cdef char before = 46
    if p[0] == 126 or p[n - 1] == 125:      # ~name and name{tag="value"} have another canonical form
        return False
    for i in range(n):
        if p[i] <= 32 or p[i] >= 127 or p[i] == 59 or (p[i] == 46 and before == 46):
            return False
        before = p[i]
    return before != 46
