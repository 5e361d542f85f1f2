# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Native name table and carbon line parser; the pure twins are ``names_py.py`` and
``budget_py.py``.

One pass over a receive buffer turns lines into columns (id, time, value). A name costs one memcmp
when it follows the same name as last time (senders repeat their order each round), else one hash
look-up. What is not a plain line (tags not seen before, runs of blanks, exponents with signs that
strtod must see, bad bytes …) is left to the caller as an odd line, so that the rules of carbon are
written once, in Python.

Memory never moves: names lie in blocks of 1 MiB, keys in blocks of 65,536, so that readers of
known keys need no lock while a parse (which releases the GIL) adds others.

The hash grows in small steps: a larger table takes new keys at once and some old ones with each of them, and until it has
all, what isn't found there is looked for in the old one. All at once would stop the server for a second at a million names.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset
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
    TAKE_OVER = 16        # slots of an old table that each new key brings into the new one

cdef int32_t ODD = -2
cdef int32_t REFUSED = -3
cdef int32_t UNBUDGETED = -4

cdef struct Key:
    char* text
    int32_t id
    int32_t next          # the key that followed last time
    uint16_t length
    uint8_t dead          # leads nowhere any more; its slot stays, so that others behind it are found


cdef enum:
    PREFIX_BYTES_MAX = 255

cdef double SWEEP_EVERY_S = 10.0
cdef double FORGET_S = 600.0

cdef struct Bucket:
    char* prefix
    double tokens
    double since
    double refused_at
    int64_t refused
    uint32_t tag          # of its hash
    uint8_t length


cdef class Budget:
    """How many new series may be made; ``budget_py.py`` says what each method means."""

    cdef readonly int64_t refused
    cdef double rate, burst, prefix_rate, prefix_burst, now, swept, tokens
    cdef Py_ssize_t depth, prefixes_max, n, room
    cdef Bucket* buckets
    cdef Bucket others
    cdef int32_t* slots      # bucket + 1, by hash
    cdef uint64_t mask, seed

    def __init__(self, double rate, double burst, double prefix_rate, double prefix_burst,
                 Py_ssize_t depth=2, Py_ssize_t prefixes_max=32_768):
        self.rate, self.burst = rate, burst
        self.prefix_rate, self.prefix_burst = prefix_rate, prefix_burst
        self.depth, self.prefixes_max = depth, prefixes_max
        self.tokens = burst
        memset(&self.others, 0, sizeof(Bucket))
        self.others.tokens = prefix_burst
        self.seed = int.from_bytes(os.urandom(8), "little")

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.n):
            free(self.buckets[i].prefix)
        free(self.buckets)
        free(self.slots)

    def at(self, double now):
        self.tokens = min(self.burst, self.tokens + (now - self.now) * self.rate)
        self.now = now
        if self.n >= self.prefixes_max and now - self.swept >= SWEEP_EVERY_S:
            self.sweep()

    def take(self, name):
        cdef const char* p = name
        return self.take_one(p, len(name))

    cdef bint take_one(self, const char* p, Py_ssize_t n) noexcept nogil:
        cdef Bucket* one = self.bucket(p, n)
        one.tokens = min(self.prefix_burst, one.tokens + (self.now - one.since) * self.prefix_rate)
        one.since = self.now
        if (self.rate > 0 and self.tokens < 1) or (self.prefix_rate > 0 and one.tokens < 1):
            self.refused += 1
            one.refused += 1
            one.refused_at = self.now
            return False
        self.tokens -= 1
        one.tokens -= 1
        return True

    cdef Bucket* bucket(self, const char* p, Py_ssize_t n) noexcept nogil:
        """The bucket of a name's prefix; that of the others where there is no room for it."""
        cdef Py_ssize_t size = prefix_length(p, n, self.depth)
        cdef uint64_t h = hash_bytes(p, size, self.seed), at
        cdef uint32_t tag = <uint32_t>(h >> 32)
        cdef Bucket* one
        if self.slots != NULL:
            at = h & self.mask
            while self.slots[at]:
                one = &self.buckets[self.slots[at] - 1]
                if one.tag == tag and one.length == size and memcmp(one.prefix, p, size) == 0:
                    return one
                at = (at + 1) & self.mask
        if self.n >= self.prefixes_max or (self.n == self.room and not self.grow()):
            return &self.others
        one = &self.buckets[self.n]
        memset(one, 0, sizeof(Bucket))
        one.prefix = <char*>malloc(size + 1)
        if one.prefix == NULL:
            return &self.others
        memcpy(one.prefix, p, size)
        one.length = <uint8_t>size
        one.tag = tag
        one.tokens = self.prefix_burst
        one.since = self.now
        self.put(h, self.n)
        self.n += 1
        return one

    cdef void put(self, uint64_t h, Py_ssize_t number) noexcept nogil:
        cdef uint64_t at = h & self.mask
        while self.slots[at]:
            at = (at + 1) & self.mask
        self.slots[at] = <int32_t>(number + 1)

    cdef bint grow(self) noexcept nogil:
        """Room for twice as many buckets; False when memory is out."""
        cdef Py_ssize_t room = self.room * 2 if self.room else 64
        cdef Bucket* buckets = <Bucket*>malloc(room * sizeof(Bucket))
        cdef int32_t* slots = <int32_t*>calloc(room * 2, sizeof(int32_t))
        if buckets == NULL or slots == NULL:
            free(buckets)
            free(slots)
            return False
        if self.n:
            memcpy(buckets, self.buckets, self.n * sizeof(Bucket))
        free(self.buckets)
        free(self.slots)
        self.buckets, self.slots, self.room, self.mask = buckets, slots, room, room * 2 - 1
        self.put_all()
        return True

    cdef void put_all(self) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(self.n):
            self.put(hash_bytes(self.buckets[i].prefix, self.buckets[i].length, self.seed), i)

    cdef void sweep(self):
        cdef Py_ssize_t i, kept = 0
        cdef Bucket* one
        cdef bint told
        self.swept = self.now
        for i in range(self.n):
            one = &self.buckets[i]
            told = one.refused and self.now - one.refused_at < FORGET_S
            if told or (
                self.prefix_rate > 0
                and one.tokens + (self.now - one.since) * self.prefix_rate < self.prefix_burst
            ):
                self.buckets[kept] = self.buckets[i]
                kept += 1
            else:
                self.others.refused += one.refused
                free(one.prefix)
        self.n = kept
        memset(self.slots, 0, (self.mask + 1) * sizeof(int32_t))
        self.put_all()

    def prefixes(self):
        cdef Py_ssize_t i
        found = []
        for i in range(self.n):
            if self.buckets[i].refused:
                prefix = PyBytes_FromStringAndSize(self.buckets[i].prefix, self.buckets[i].length)
                found.append((prefix, self.buckets[i].refused))
        if self.others.refused:
            found.append((b"(others)", self.others.refused))
        return sorted(found, key=lambda one: (-one[1], one[0]))

    @property
    def bytes_used(self):
        return self.room * (sizeof(Bucket) + 2 * sizeof(int32_t)) + 48 * self.n


cdef inline Py_ssize_t prefix_length(const char* p, Py_ssize_t n, Py_ssize_t depth) noexcept nogil:
    cdef Py_ssize_t i, parts = depth
    if n > PREFIX_BYTES_MAX:
        n = PREFIX_BYTES_MAX
    if n >= 6 and memcmp(p, "stats.", 6) == 0:
        parts += 1
    for i in range(n):
        if p[i] == 59:
            return i
        if p[i] == 46:
            parts -= 1
            if parts == 0:
                return i
    return n


cdef class NameTable:
    """Names (and other spellings of them) to ids; ids are given in order from 0.

    Writers (parse, add, alias, unmap …) belong to one thread; ``name`` may be called from any.
    """

    cdef Key** keys
    cdef char** arenas
    cdef int32_t** key_of_id        # blocks of BLOCK
    cdef Py_ssize_t key_n, arena_n, arena_used
    cdef readonly Py_ssize_t size   # ids given
    cdef uint64_t* slots            # high 32 bits of the hash, then key + 1; about in order of the hashes
    cdef uint64_t slot_n
    cdef uint64_t* old              # the table before, while it is being taken over; NULL otherwise
    cdef uint64_t old_n, old_at     # slots below old_at are in the new one
    cdef uint64_t seed
    cdef int32_t last

    def __cinit__(self):
        self.keys = <Key**>calloc(BLOCKS_MAX, sizeof(Key*))
        self.key_of_id = <int32_t**>calloc(BLOCKS_MAX, sizeof(int32_t*))
        self.arenas = <char**>calloc(ARENAS_MAX, sizeof(char*))
        self.slot_n = 1 << 12
        self.slots = <uint64_t*>calloc(self.slot_n, sizeof(uint64_t))
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
        free(self.old)

    def __len__(self):
        return self.size

    @property
    def bytes_used(self):
        """Memory of keys, texts and hash; what blocks have left is nowhere before it is written to."""
        return (
            self.key_n * <Py_ssize_t>sizeof(Key)
            + self.size * <Py_ssize_t>sizeof(int32_t)
            + max(0, self.arena_n - 1) * ARENA + (self.arena_used if self.arena_n else 0)
            + <Py_ssize_t>((self.slot_n + (self.old_n if self.old != NULL else 0)) * sizeof(uint64_t))
        )

    cdef int32_t find(self, const char* p, Py_ssize_t n, uint64_t h) noexcept nogil:
        cdef int32_t k = self.find_in(self.slots, self.slot_n, p, n, h)
        if k < 0 and self.old != NULL:
            k = self.find_in(self.old, self.old_n, p, n, h)
        return k

    cdef inline int32_t find_in(
        self, uint64_t* slots, uint64_t slot_n, const char* p, Py_ssize_t n, uint64_t h
    ) noexcept nogil:
        cdef uint64_t tag = h >> 32, at = tag * slot_n >> 32, slot
        cdef Key* key
        cdef int32_t k
        while True:
            slot = slots[at]
            if slot == 0:
                return -1
            if slot >> 32 == tag:
                k = <int32_t>(<uint32_t>slot - 1)
                key = &self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)]
                if key.length == n and not key.dead and memcmp(key.text, p, n) == 0:
                    return k
            at = at + 1 if at + 1 < slot_n else 0

    cdef inline void put(self, uint64_t slot) noexcept nogil:
        cdef uint64_t at = (slot >> 32) * self.slot_n >> 32
        while self.slots[at]:
            at = at + 1 if at + 1 < self.slot_n else 0
        self.slots[at] = slot

    cdef void take_over(self, uint64_t count) noexcept nogil:
        """Puts the next ``count`` slots of the old table into the new one."""
        cdef uint64_t end = min(self.old_n, self.old_at + count), i
        for i in range(self.old_at, end):
            if self.old[i]:
                self.put(self.old[i])
        self.old_at = end
        if end == self.old_n:
            free(self.old)
            self.old = NULL

    cdef bint grow(self) noexcept nogil:
        """Begins a table of twice the size; False when memory is out."""
        cdef uint64_t* more
        if self.old != NULL:
            self.take_over(self.old_n)
        more = <uint64_t*>calloc(self.slot_n * 2, sizeof(uint64_t))
        if more == NULL:
            return False
        self.old, self.old_n, self.old_at = self.slots, self.slot_n, 0
        self.slots, self.slot_n = more, self.slot_n * 2
        return True

    cdef int32_t insert(
        self, const char* p, Py_ssize_t n, uint64_t h, int32_t id, uint8_t dead=0
    ) noexcept nogil:
        """A new key; id < 0 gives it a new id. -1 when memory is out."""
        cdef int32_t k = <int32_t>self.key_n
        cdef Key* key
        cdef char* text
        if k >> BLOCK_BITS >= BLOCKS_MAX or n > 65535:
            return -1
        if self.keys[k >> BLOCK_BITS] == NULL:
            self.keys[k >> BLOCK_BITS] = <Key*>malloc(BLOCK * sizeof(Key))
            if self.keys[k >> BLOCK_BITS] == NULL:
                return -1
        if self.arena_used + n > ARENA:
            text = <char*>malloc(ARENA)
            if text == NULL or self.arena_n >= ARENAS_MAX:
                return -1
            self.arenas[self.arena_n] = text
            self.arena_n += 1
            self.arena_used = 0
        text = self.arenas[self.arena_n - 1] + self.arena_used
        if id < 0:
            id = <int32_t>self.size
            if self.key_of_id[id >> BLOCK_BITS] == NULL:
                self.key_of_id[id >> BLOCK_BITS] = <int32_t*>malloc(BLOCK * sizeof(int32_t))
                if self.key_of_id[id >> BLOCK_BITS] == NULL:
                    return -1
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
        if <uint64_t>self.key_n * 2 > self.slot_n and not self.grow():
            self.key_n -= 1
            return -1
        if self.old != NULL:
            self.take_over(TAKE_OVER)
        if not dead:
            self.put((h >> 32 << 32) | <uint64_t>(<uint32_t>(k + 1)))
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

    def parse(self, data, int64_t now_s, Py_ssize_t name_bytes_max=1024, Py_ssize_t new_max=1 << 30,
              Budget budget=None):
        """Columns of the complete lines of ``data``.

        Returns (ids int32, times int64, values float64, odd, used): an id of -2 marks an odd line
        (``odd``: list of (position in the columns, line bytes)), -3 a new name beyond ``new_max``, -4 one that
        the budget refuses; ``used``: bytes up to and with the last LF. NaN values are odd lines.
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
                id = self.line(p, e, now_s, name_bytes_max, &new_max, budget, &times_v[i], &values_v[i])
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
        Py_ssize_t* new_max, Budget budget, int64_t* time, double* value,
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
            if budget is not None and not budget.take_one(p, n):
                return UNBUDGETED
            k = self.insert(p, n, h, -1)
            if k < 0:
                return REFUSED
            new_max[0] -= 1
        if self.last >= 0:
            self.keys[self.last >> BLOCK_BITS][self.last & (BLOCK - 1)].next = k
        self.last = k
        return self.keys[k >> BLOCK_BITS][k & (BLOCK - 1)].id

    def look_up(self, data, starts, sizes, Py_ssize_t name_bytes_max=1024, Py_ssize_t new_max=1 << 30,
                Budget budget=None):
        """Ids (int32) of the names that lie in ``data`` at ``starts`` (int64), ``sizes`` (int32) bytes long.

        -2 marks an odd name, -3 a new one beyond ``new_max``, -4 one that the budget refuses; -1 stands where
        the size is below 0.
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
                out[i] = self.look_up_one(p + starts_v[i], sizes_v[i], name_bytes_max, &new_max, budget)
        if not inside:
            raise IndexError("a name beyond the data")
        return ids

    cdef int32_t look_up_one(
        self, const char* p, Py_ssize_t n, Py_ssize_t name_bytes_max, Py_ssize_t* new_max, Budget budget
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
                if budget is not None and not budget.take_one(p, n):
                    return UNBUDGETED
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
