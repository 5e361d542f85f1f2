# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Native ring store; the pure twin is ``ring_py.py`` and says what each method means.

A segment is up to 4,096 series of one bundle. Its finest archive lies slot-major: one row of doubles
a slot, allocated when a first point touches the slot and freed when its chunk is in PostgreSQL, so
that memory follows the data. Rows are found through a table of pointers that starts at slot ``base``.
Everything runs under the GIL: a block of 1 MiB of lines takes well under a millisecond.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset
from libc.math cimport NAN

import numpy as np

cdef enum:
    IDS_STEP = 1 << 14      # ids that get room together
    RULE_LAST = 0
    RULE_FIRST = 1
    RULE_SUM = 2
    RULE_MEAN = 3
    RULE_MIN = 4
    RULE_MAX = 5

cdef int64_t NO_FLOOR = -(1LL << 62)
FLOOR_NONE = NO_FLOOR

cdef struct Segment:
    int64_t step
    int64_t retention_s      # of the finest archive
    int64_t reach_s          # of the longest
    int64_t floor            # slots below live in the store; NO_FLOOR: none do
    int64_t seal             # slots below take no points (floor, or the end of a chunk being written)
    int64_t base             # slot of rows[0]
    int64_t rows_n           # length of the table
    int64_t lo, hi           # lowest and highest slot with a row; hi < lo: none
    int64_t written          # points stored so far; tells whether anything changed
    double** rows
    uint32_t** counts        # RULE_MEAN only: points of each slot
    int32_t capacity
    int32_t used
    int32_t rule


cdef class RingStore:
    cdef Segment* segs
    cdef readonly Py_ssize_t segments
    cdef Py_ssize_t segs_room
    cdef int32_t* seg_of
    cdef int32_t* col_of
    cdef Py_ssize_t ids_room, ids_reserved     # ids with a place or none, room in all
    cdef readonly Py_ssize_t row_bytes     # bytes of rows held now
    cdef void** spare                      # freed rows of 4,096 columns, kept for the next slot
    cdef Py_ssize_t spare_n, spare_room

    def __cinit__(self):
        self.spare_room = 256
        self.spare = <void**>malloc(self.spare_room * sizeof(void*))
        if self.spare == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef Py_ssize_t s
        cdef int64_t r
        for s in range(self.segments):
            for r in range(self.segs[s].rows_n):
                free(self.segs[s].rows[r])
                if self.segs[s].counts:
                    free(self.segs[s].counts[r])
            free(self.segs[s].rows)
            free(self.segs[s].counts)
        for s in range(self.spare_n):
            free(self.spare[s])
        free(self.spare)
        free(self.segs)
        free(self.seg_of)
        free(self.col_of)

    # -- segments and series ----------------------------------------------------------------

    def add_segment(self, int64_t step_s, int64_t retention_s, int64_t reach_s, int32_t capacity,
                    int32_t rule, int64_t floor=NO_FLOOR):
        cdef Segment* g
        cdef Segment* more
        if self.segments == self.segs_room:
            self.segs_room = self.segs_room * 2 if self.segs_room else 64
            more = <Segment*>realloc(self.segs, self.segs_room * sizeof(Segment))
            if more == NULL:
                raise MemoryError
            self.segs = more
        g = &self.segs[self.segments]
        memset(g, 0, sizeof(Segment))
        g.step = step_s
        g.retention_s = retention_s
        g.reach_s = reach_s
        g.capacity = capacity
        g.rule = rule
        g.floor = g.seal = floor
        g.lo = 0
        g.hi = -1
        self.segments += 1
        return self.segments - 1

    def place(self, ids, int32_t segment):
        """Gives the series the next columns of a segment."""
        cdef const int32_t[::1] a = np.ascontiguousarray(ids, np.int32)
        cdef Py_ssize_t i, room
        cdef int32_t* more
        cdef Segment* g = self.segment(segment)
        if g.used + a.shape[0] > g.capacity:
            raise ValueError("segment is full")
        for i in range(a.shape[0]):
            if a[i] < 0:
                raise ValueError("negative id")
            if a[i] >= self.ids_room:
                if a[i] >= self.ids_reserved:
                    room = max(1024, self.ids_reserved * 2, a[i] + 1)
                    more = <int32_t*>realloc(self.seg_of, room * sizeof(int32_t))
                    if more == NULL:
                        raise MemoryError
                    self.seg_of = more
                    more = <int32_t*>realloc(self.col_of, room * sizeof(int32_t))
                    if more == NULL:
                        raise MemoryError
                    self.col_of = more
                    self.ids_reserved = room
                # all of it at once would hold others up
                room = min(self.ids_reserved, max(self.ids_room + IDS_STEP, a[i] + 1))
                memset(&self.seg_of[self.ids_room], 255, (room - self.ids_room) * sizeof(int32_t))
                self.ids_room = room
            self.seg_of[a[i]] = segment
            self.col_of[a[i]] = g.used
            g.used += 1

    cdef Segment* segment(self, Py_ssize_t s) except NULL:
        if s < 0 or s >= self.segments:
            raise IndexError(s)
        return &self.segs[s]

    def locate(self, ids):
        cdef const int32_t[::1] a = np.ascontiguousarray(ids, np.int32)
        segs = np.empty(a.shape[0], np.int32)
        cols = np.empty(a.shape[0], np.int32)
        cdef int32_t[::1] s = segs
        cdef int32_t[::1] c = cols
        cdef Py_ssize_t i
        for i in range(a.shape[0]):
            if 0 <= a[i] < self.ids_room:
                s[i] = self.seg_of[a[i]]
                c[i] = self.col_of[a[i]] if s[i] >= 0 else -1
            else:
                s[i] = c[i] = -1
        return segs, cols

    def used(self, Py_ssize_t s):
        return self.segment(s).used

    def capacity(self, Py_ssize_t s):
        return self.segment(s).capacity

    def floor(self, Py_ssize_t s):
        return self.segment(s).floor

    def seal(self, Py_ssize_t s):
        return self.segment(s).seal

    def set_seal(self, Py_ssize_t s, int64_t slot):
        cdef Segment* g = self.segment(s)
        g.seal = max(slot, g.floor)

    def span(self, Py_ssize_t s):
        cdef Segment* g = self.segment(s)
        return g.lo, g.hi + 1

    def written(self, Py_ssize_t s):
        return self.segment(s).written

    # -- rows ---------------------------------------------------------------------------------

    cdef double* row_for(self, Segment* g, int64_t slot) except? NULL:
        """The row of a slot >= seal, made if need be."""
        cdef int64_t at = slot - g.base, room, base
        cdef Py_ssize_t i
        cdef double* row
        cdef double** rows
        cdef uint32_t** counts
        if g.rows_n == 0 or at < 0 or at >= g.rows_n:
            if g.hi < g.lo:
                base = slot - 16
                room = max(g.rows_n, 64)
            elif at < 0:
                room = max(g.rows_n, 64)
                while room < g.hi - slot + 1:
                    room *= 2
                base = slot - (room - (g.hi - slot + 1)) // 2
            else:
                room = max(g.rows_n, 64)
                base = g.lo
                while room < slot - base + 1:
                    room *= 2
            rows = <double**>calloc(room, sizeof(double*))
            counts = <uint32_t**>calloc(room, sizeof(uint32_t*)) if g.rule == RULE_MEAN else NULL
            if rows == NULL or (g.rule == RULE_MEAN and counts == NULL):
                free(rows)
                free(counts)
                raise MemoryError
            if g.hi >= g.lo:
                memcpy(&rows[g.lo - base], &g.rows[g.lo - g.base], (g.hi - g.lo + 1) * sizeof(double*))
                if counts:
                    memcpy(&counts[g.lo - base], &g.counts[g.lo - g.base], (g.hi - g.lo + 1) * sizeof(uint32_t*))
            free(g.rows)
            free(g.counts)
            g.rows, g.counts, g.base, g.rows_n = rows, counts, base, room
            at = slot - base
        row = g.rows[at]
        if row == NULL:
            if g.capacity == 4096 and self.spare_n:
                self.spare_n -= 1
                row = <double*>self.spare[self.spare_n]
            else:
                row = <double*>malloc(g.capacity * sizeof(double))
            if row == NULL:
                raise MemoryError
            for i in range(g.capacity):
                row[i] = NAN
            g.rows[at] = row
            self.row_bytes += g.capacity * sizeof(double)
            if g.counts:
                g.counts[at] = <uint32_t*>calloc(g.capacity, sizeof(uint32_t))
                if g.counts[at] == NULL:
                    raise MemoryError
                self.row_bytes += g.capacity * sizeof(uint32_t)
            if g.hi < g.lo:
                g.lo = g.hi = slot
            else:
                g.lo = min(g.lo, slot)
                g.hi = max(g.hi, slot)
        return row

    def store(self, ids, times, values, int64_t now_s, int64_t future_s_max):
        """Puts points into their slots.

        Returns (stored, overwritten, late, too_old, future, unplaced): two counts, then int32 arrays of the
        positions in the block of the points that were not taken.
        """
        cdef const int32_t[::1] a = ids
        cdef const int64_t[::1] t = times
        cdef const double[::1] v = values
        cdef Py_ssize_t i, n = a.shape[0], stored = 0, overwritten = 0
        cdef Py_ssize_t others = 0
        cdef int32_t seg, col, last_seg = -1
        cdef int64_t time, slot = 0, row_slot = NO_FLOOR, oldest = 0, reach = 0
        cdef int64_t slot_from = 1, slot_until = 0      # times that belong to ``slot``
        cdef int64_t future = now_s + future_s_max
        cdef double old, value
        cdef double* row = NULL
        cdef Segment* g = NULL
        cdef uint32_t* count
        where = kind = None
        cdef int32_t[::1] where_v
        cdef signed char[::1] kind_v
        cdef signed char why
        for i in range(n):
            why = 0
            time = t[i]
            seg = self.seg_of[a[i]] if 0 <= a[i] < self.ids_room else -1
            if seg < 0:
                why = 4
            else:
                if seg != last_seg:
                    g = &self.segs[seg]
                    last_seg = seg
                    oldest = now_s - g.retention_s
                    reach = now_s - g.reach_s
                    slot_from = 1
                    slot_until = 0
                    row = NULL
                if not (slot_from <= time < slot_until):
                    slot = time // g.step
                    slot_from = slot * g.step
                    slot_until = slot_from + g.step
                    row = NULL
                if time < reach or time < 0:
                    why = 2
                elif time > future:
                    why = 3
                elif slot < g.seal or time < oldest:
                    why = 1
            if why:
                if where is None:
                    where = np.empty(n - i, np.int32)
                    kind = np.empty(n - i, np.int8)
                    where_v = where
                    kind_v = kind
                where_v[others] = <int32_t>i
                kind_v[others] = why
                others += 1
                continue
            if row == NULL:
                row = self.row_for(g, slot)
            col = self.col_of[a[i]]
            old = row[col]
            value = v[i]
            if old != old:
                stored += 1
                row[col] = value
                if g.counts:
                    g.counts[slot - g.base][col] = 1
            else:
                overwritten += 1
                if g.rule == RULE_LAST:
                    row[col] = value
                elif g.rule == RULE_SUM:
                    row[col] = old + value
                elif g.rule == RULE_MEAN:
                    count = &g.counts[slot - g.base][col]
                    count[0] += 1
                    row[col] = old + (value - old) / count[0]
                elif g.rule == RULE_MIN:
                    if value < old:
                        row[col] = value
                elif g.rule == RULE_MAX:
                    if value > old:
                        row[col] = value
            g.written += 1
        if where is None:
            where = np.empty(0, np.int32)
            return stored, overwritten, where, where, where, where
        where = where[:others]
        kind = kind[:others]
        return (stored, overwritten, where[kind == 1], where[kind == 2], where[kind == 3], where[kind == 4])

    def assign(self, ids, times, values, counts=None):
        """Sets slots to values (journal images), whatever they held. Points below the seal are skipped."""
        cdef const int32_t[::1] a = ids
        cdef const int64_t[::1] t = times
        cdef const double[::1] v = values
        cdef const uint32_t[::1] c
        cdef bint with_counts = counts is not None
        cdef Py_ssize_t i
        cdef Segment* g
        cdef double* row
        cdef int64_t slot
        if with_counts:
            c = counts
        for i in range(a.shape[0]):
            if not (0 <= a[i] < self.ids_room) or self.seg_of[a[i]] < 0:
                continue
            g = &self.segs[self.seg_of[a[i]]]
            slot = t[i] // g.step
            if t[i] < 0 or slot < g.seal:
                continue
            row = self.row_for(g, slot)
            row[self.col_of[a[i]]] = v[i]
            if g.counts:
                g.counts[slot - g.base][self.col_of[a[i]]] = c[i] if with_counts else 1
            g.written += 1

    def gather(self, Py_ssize_t s, cols, int64_t from_slot, int64_t until_slot):
        """float64 (len(cols), until_slot - from_slot), NaN where nothing is known."""
        cdef Segment* g = self.segment(s)
        cdef const int32_t[::1] c = np.ascontiguousarray(cols, np.int32)
        cdef Py_ssize_t n = max(0, until_slot - from_slot), k = c.shape[0], j
        out = np.full((k, n), np.nan)
        if g.hi < g.lo or n == 0 or k == 0:
            return out
        cdef double[:, ::1] o = out
        cdef int64_t slot
        cdef double* row
        for j in range(k):
            if c[j] < 0 or c[j] >= g.capacity:
                raise IndexError(c[j])
        for slot in range(max(from_slot, g.lo), min(until_slot, g.hi + 1)):
            row = g.rows[slot - g.base]
            if row != NULL:
                for j in range(k):
                    o[j, slot - from_slot] = row[c[j]]
        return out

    def block(self, Py_ssize_t s, int64_t from_slot, int64_t until_slot):
        """float64 (until_slot - from_slot, used), slot-major copy."""
        cdef Segment* g = self.segment(s)
        cdef Py_ssize_t n = max(0, until_slot - from_slot)
        out = np.full((n, g.used), np.nan)
        if g.hi < g.lo or n == 0 or g.used == 0:
            return out
        cdef double[:, ::1] o = out
        cdef int64_t slot
        for slot in range(max(from_slot, g.lo), min(until_slot, g.hi + 1)):
            if g.rows[slot - g.base] != NULL:
                memcpy(&o[slot - from_slot, 0], g.rows[slot - g.base], g.used * sizeof(double))
        return out

    def count_block(self, Py_ssize_t s, int64_t from_slot, int64_t until_slot):
        """Points of each slot, float64 like ``block`` (0 = none); only for the rule mean."""
        cdef Segment* g = self.segment(s)
        cdef Py_ssize_t n = max(0, until_slot - from_slot), j
        out = np.zeros((n, g.used))
        if g.counts == NULL or g.hi < g.lo or n == 0 or g.used == 0:
            return out
        cdef double[:, ::1] o = out
        cdef int64_t slot
        for slot in range(max(from_slot, g.lo), min(until_slot, g.hi + 1)):
            if g.counts[slot - g.base] != NULL:
                for j in range(g.used):
                    o[slot - from_slot, j] = g.counts[slot - g.base][j]
        return out

    def drop(self, Py_ssize_t s, int64_t until_slot):
        """Frees all rows below ``until_slot``, which becomes floor and seal."""
        cdef Segment* g = self.segment(s)
        cdef int64_t slot
        if g.hi >= g.lo:
            for slot in range(g.lo, min(until_slot, g.hi + 1)):
                self.free_row(g, slot - g.base)
            g.lo = max(g.lo, until_slot)
            while g.lo <= g.hi and g.rows[g.lo - g.base] == NULL:
                g.lo += 1
            if g.lo > g.hi:
                g.lo, g.hi = 0, -1
        g.floor = g.seal = until_slot

    cdef free_row(self, Segment* g, int64_t at):
        if g.rows[at] == NULL:
            return
        self.row_bytes -= g.capacity * sizeof(double)
        if g.capacity == 4096 and self.spare_n < self.spare_room:
            self.spare[self.spare_n] = g.rows[at]
            self.spare_n += 1
        else:
            free(g.rows[at])
        g.rows[at] = NULL
        if g.counts and g.counts[at] != NULL:
            self.row_bytes -= g.capacity * sizeof(uint32_t)
            free(g.counts[at])
            g.counts[at] = NULL
