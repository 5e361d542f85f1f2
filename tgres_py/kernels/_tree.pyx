# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Native tree of names; the pure twin is ``model/nametree.py``, which says what each method does.

A node is one element of a name below its parent. All nodes are in one hash by (parent, element), which
look-ups and additions use, and the children of a node are a list, which patterns walk. A name with tags is one
node, whole, below a parent of its own that no walk reaches.

Readers and one writer may work at the same time: everything that follows links or hash holds the GIL, and
lets others have it only between two names or two nodes (``breathe``). Nodes never move and are never used
for something else: a name that is removed leaves a dead node, which lives again when the name comes back,
so what a reader holds while others work stays good, and paths are made and sorted without the GIL.
(The memory of removed names comes back at a restart, as that of the name table does.)
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memchr, memcmp, memcpy
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8

from tgres_py.kernels._hash cimport hash_bytes

import os

import numpy as np

from tgres_py.errors import LimitExceeded
from tgres_py.model.glob import GLOBSTAR, compile_element, has_magic, split_pattern
from tgres_py.model import nodes
from tgres_py.model.nodes import NO_ID, TreeNode

cdef enum:
    BLOCK_BITS = 16
    BLOCK = 1 << 16
    BLOCKS_MAX = 1 << 14
    ARENA_BITS = 20
    ARENA = 1 << 20
    ARENAS_MAX = 1 << 12
    TEXT_BYTES_MAX = 65_535
    BREATH = 1 << 10        # names or nodes, about 1 ms
    TAKE_OVER = 16          # slots of an old hash that each new node brings into the new one
    FILTER_NAMES = 1 << 16  # names that are Python strings at one time
    SLOTS_BYTES = 14        # of a node in the hash, which is between half and three quarters full
    ROOT = 0
    TAGGED = 1
    NONE = -1
    LEAF = 1
    BRANCH = 2

cdef struct Node:
    int32_t parent
    int32_t first_child     # the one that was added last
    int32_t next            # the child of the same parent that was added before
    int32_t id              # of the name that ends here, or NONE
    uint32_t text           # place of the element in the arenas: its length (uint16), its bytes
    int32_t living          # children that are a name or lead to one

cdef struct Path:
    uint64_t key            # the first bytes that follow what all paths share
    const char* text
    uint32_t length
    uint32_t shared
    int32_t place           # node, or row of a table
    int32_t id


cdef int compare_paths(const void* left, const void* right) noexcept nogil:
    """By code points, which UTF-8 sorts as bytes."""
    cdef const Path* a = <const Path*>left
    cdef const Path* b = <const Path*>right
    if a.key != b.key:
        return -1 if a.key < b.key else 1
    cdef int order = memcmp(
        a.text + a.shared, b.text + b.shared, min(a.length, b.length) - a.shared
    )
    if order == 0:
        order = <int>(a.length > b.length) - <int>(a.length < b.length)
    return order if order else <int>(a.place > b.place) - <int>(a.place < b.place)


cdef void sort_paths(Path* paths, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint32_t shared, j
    if n < 2:
        return
    shared = paths[0].length
    for i in range(1, n):
        shared = min(shared, paths[i].length)
        j = 0
        while j < shared and paths[0].text[j] == paths[i].text[j]:
            j += 1
        shared = j
    for i in range(n):
        paths[i].shared = shared
        for j in range(shared, shared + 8):
            paths[i].key <<= 8
            if j < paths[i].length:
                paths[i].key |= <uint8_t>paths[i].text[j]
    qsort(paths, n, sizeof(Path), compare_paths)


cdef class Nodes:
    """A growing array of nodes."""

    cdef int32_t* at
    cdef Py_ssize_t n, room

    def __dealloc__(self):
        free(self.at)

    cdef int push(self, int32_t k) except -1:
        cdef int32_t* more
        if self.n == self.room:
            more = <int32_t*>realloc(self.at, (self.room * 2 + 16) * sizeof(int32_t))
            if more == NULL:
                raise MemoryError
            self.at = more
            self.room = self.room * 2 + 16
        self.at[self.n] = k
        self.n += 1
        return 0


cdef class Paths:
    """Paths of nodes or rows, and the buffer that holds them."""

    cdef Path* at
    cdef bytes text
    cdef Py_ssize_t n

    def __cinit__(self, Py_ssize_t room):
        self.at = <Path*>calloc(room + 1, sizeof(Path))
        if self.at == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.at)


class NodeTable(nodes.NodeTable):
    """Sorts without the GIL, and makes texts without slices of bytes."""

    __slots__ = ()

    def _sorted(self, const int64_t[::1] starts, const int32_t[::1] lengths):
        cdef bytes text = self.text
        cdef const char* p = text
        cdef Py_ssize_t i, n = starts.shape[0]
        cdef int order_
        with nogil:
            for i in range(1, n):
                order_ = memcmp(p + starts[i - 1], p + starts[i], min(lengths[i - 1], lengths[i]))
                if order_ > 0 or (order_ == 0 and lengths[i - 1] >= lengths[i]):
                    break
            else:
                i = n
        if i >= n:
            return None
        cdef Paths paths = Paths(n)
        order, same = np.empty(n, np.int64), np.zeros(n, np.uint8)
        cdef int64_t[::1] place = order
        cdef uint8_t[::1] is_same = same
        with nogil:
            for i in range(n):
                paths.at[i].text = p + starts[i]
                paths.at[i].length = lengths[i]
                paths.at[i].place = <int32_t>i
            sort_paths(paths.at, n)
            for i in range(n):
                place[i] = paths.at[i].place
                is_same[i] = i > 0 and (
                    paths.at[i].key == paths.at[i - 1].key
                    and paths.at[i].length == paths.at[i - 1].length
                    and memcmp(paths.at[i].text, paths.at[i - 1].text, paths.at[i].length) == 0
                )
        return order, same.view(np.bool_)

    def _texts(self, const int64_t[:] starts, const int32_t[:] lengths):
        cdef bytes text = self.text
        cdef const char* p = text
        cdef Py_ssize_t i
        return [
            PyUnicode_DecodeUTF8(p + starts[i], lengths[i], "replace") for i in range(starts.shape[0])
        ]


cdef class NameTree:
    """Names and their ids (int32, from 0). All names are canonical (model.ident)."""

    cdef Node** blocks
    cdef char** arenas
    cdef uint64_t* slots    # hash (32 bits), then node + 1; 0: free; about in order of the hashes
    cdef uint64_t slot_n, seed
    cdef uint64_t* old      # the hash before, while it is being taken over; NULL otherwise
    cdef uint64_t old_n, old_at     # slots below old_at are in the new one
    cdef Py_ssize_t node_n, arena_n, arena_used, count

    def __cinit__(self):
        self.blocks = <Node**>calloc(BLOCKS_MAX, sizeof(Node*))
        self.arenas = <char**>calloc(ARENAS_MAX, sizeof(char*))
        self.slot_n = 256
        self.slots = <uint64_t*>calloc(self.slot_n, sizeof(uint64_t))
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.arena_used = ARENA
        if not (self.blocks and self.arenas and self.slots):
            raise MemoryError
        if self.insert(NONE, b"", 0, 0) != ROOT or self.insert(NONE, b"", 0, 0) != TAGGED:
            raise MemoryError

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.blocks:
            for i in range(BLOCKS_MAX):
                free(self.blocks[i])
        if self.arenas:
            for i in range(self.arena_n):
                free(self.arenas[i])
        free(self.blocks)
        free(self.arenas)
        free(self.slots)
        free(self.old)

    def __len__(self):
        return self.count

    @property
    def bytes_used(self):
        """Memory of nodes, hash and texts, about: it grows evenly with what is added. What blocks have left is nowhere
        before it is written to.
        """
        return (
            self.node_n * (<Py_ssize_t>sizeof(Node) + SLOTS_BYTES)
            + (self.arena_n - 1) * ARENA + self.arena_used
        )

    # -- nodes -------------------------------------------------------------------------------

    cdef inline Node* node(self, int32_t k) noexcept nogil:
        return &self.blocks[k >> BLOCK_BITS][k & (BLOCK - 1)]

    cdef inline const char* text(self, int32_t k, uint16_t* length) noexcept nogil:
        cdef uint32_t place = self.node(k).text
        cdef const char* p = self.arenas[place >> ARENA_BITS] + (place & (ARENA - 1))
        memcpy(length, p, 2)
        return p + 2

    cdef str element(self, int32_t k):
        cdef uint16_t n
        cdef const char* p = self.text(k, &n)
        return PyUnicode_DecodeUTF8(p, n, "replace")

    cdef inline uint32_t hash(self, int32_t parent, const char* p, Py_ssize_t n) noexcept nogil:
        return <uint32_t>hash_bytes(p, n, self.seed + <uint64_t>parent * 0x9E3779B97F4A7C15ULL)

    cdef int32_t child(self, int32_t parent, const char* p, Py_ssize_t n, uint32_t h) noexcept nogil:
        """The child of that text, dead ones included, or NONE."""
        cdef int32_t k = self.child_in(self.slots, self.slot_n, parent, p, n, h)
        if k == NONE and self.old != NULL:
            k = self.child_in(self.old, self.old_n, parent, p, n, h)
        return k

    cdef inline int32_t child_in(
        self, uint64_t* slots, uint64_t slot_n, int32_t parent, const char* p, Py_ssize_t n, uint32_t h
    ) noexcept nogil:
        cdef uint64_t at = h * slot_n >> 32, slot
        cdef int32_t k
        cdef uint16_t length
        cdef const char* text
        while True:
            slot = slots[at]
            if slot == 0:
                return NONE
            if <uint32_t>(slot >> 32) == h:
                k = <int32_t>(<uint32_t>slot - 1)
                if self.node(k).parent == parent:
                    text = self.text(k, &length)
                    if length == n and memcmp(text, p, n) == 0:
                        return k
            at = at + 1 if at + 1 < slot_n else 0

    cdef int32_t insert(self, int32_t parent, const char* p, Py_ssize_t n, uint32_t h) noexcept nogil:
        """A new node, dead as yet; NONE when memory is out."""
        cdef int32_t k = <int32_t>self.node_n
        cdef Node* node
        cdef char* text
        cdef uint16_t length = <uint16_t>n
        if k >> BLOCK_BITS >= BLOCKS_MAX or not self.make_room(n + 2):
            return NONE
        text = self.arenas[self.arena_n - 1] + self.arena_used
        memcpy(text, &length, 2)
        memcpy(text + 2, p, n)
        node = self.node(k)
        node.parent = parent
        node.first_child = NONE
        node.id = NONE
        node.living = 0
        node.text = <uint32_t>((self.arena_n - 1) << ARENA_BITS | self.arena_used)
        node.next = NONE
        self.arena_used += n + 2
        self.node_n += 1
        if self.old != NULL:
            self.take_over(TAKE_OVER)
        if parent != NONE:
            self.put(<uint64_t>h << 32 | <uint64_t>(k + 1))
            node.next = self.node(parent).first_child
            self.node(parent).first_child = k
        return k

    cdef bint make_room(self, Py_ssize_t text_bytes) noexcept nogil:
        """Room for one more node; False when memory is out."""
        cdef Py_ssize_t block = self.node_n >> BLOCK_BITS
        if self.blocks[block] == NULL:
            self.blocks[block] = <Node*>malloc(BLOCK * sizeof(Node))
            if self.blocks[block] == NULL:
                return False
        if self.arena_used + text_bytes > ARENA:
            if self.arena_n == ARENAS_MAX:
                return False
            self.arenas[self.arena_n] = <char*>malloc(ARENA)
            if self.arenas[self.arena_n] == NULL:
                return False
            self.arena_n += 1
            self.arena_used = 0
        return <uint64_t>self.node_n * 4 < self.slot_n * 3 or self.grow()

    cdef bint grow(self) noexcept nogil:
        """Begins a hash half as large again; False when memory is out."""
        cdef uint64_t* more
        if self.old != NULL:
            self.take_over(self.old_n)
        more = <uint64_t*>calloc(self.slot_n + self.slot_n // 2, sizeof(uint64_t))
        if more == NULL:
            return False
        self.old, self.old_n, self.old_at = self.slots, self.slot_n, 0
        self.slots, self.slot_n = more, self.slot_n + self.slot_n // 2
        return True

    cdef void take_over(self, uint64_t count) noexcept nogil:
        """Puts the next ``count`` slots of the hash before into the new one: all at once would hold others up."""
        cdef uint64_t end = min(self.old_n, self.old_at + count), i
        for i in range(self.old_at, end):
            if self.old[i]:
                self.put(self.old[i])
        self.old_at = end
        if end == self.old_n:
            free(self.old)
            self.old = NULL

    cdef inline void put(self, uint64_t slot) noexcept nogil:
        cdef uint64_t at = (slot >> 32) * self.slot_n >> 32
        while self.slots[at]:
            at = at + 1 if at + 1 < self.slot_n else 0
        self.slots[at] = slot

    cdef int32_t walk(self, const char* p, const char* end, bint create) noexcept nogil:
        """The node of a path without tags; NONE when it is unknown, or memory is out."""
        cdef int32_t k = ROOT, below
        cdef const char* e
        cdef uint32_t h
        while True:
            e = <const char*>memchr(p, 46, end - p)
            if e == NULL:
                e = end
            h = self.hash(k, p, e - p)
            below = self.child(k, p, e - p, h)
            if below == NONE and create:
                below = self.insert(k, p, e - p, h)
            if below == NONE or e == end:
                return below
            k = below
            p = e + 1

    cdef int32_t lookup(self, name):
        """The node of a name, dead ones included, or NONE."""
        # JSON may hold lone surrogates; no name has them
        cdef bytes raw = name.encode("utf-8", "surrogatepass")
        cdef const char* p = raw
        cdef Py_ssize_t n = len(raw)
        if memchr(p, 59, n):
            return self.child(TAGGED, p, n, self.hash(TAGGED, p, n))
        return self.walk(p, p + n, False)

    # -- names -------------------------------------------------------------------------------

    def add_many(self, names, int32_t first_id):
        """Adds names with the ids first_id, first_id + 1, … A name that is known gets the new id."""
        if names:
            self.add_lines(("\n".join(names) + "\n").encode(), first_id)

    def add_lines(self, bytes lines, int32_t first_id):
        """As add_many; ``lines``: names in UTF-8, an LF after each. ValueError: one is over 65,535 bytes."""
        cdef const char* p = lines
        cdef const char* end = p + len(lines)
        cdef const char* e
        cdef const char* leaf
        cdef const char* branch = NULL      # names often follow others of their branch
        cdef Py_ssize_t branch_n = 0, added = 0
        cdef int32_t parent = ROOT, k
        cdef uint32_t h
        while p < end:
            e = <const char*>memchr(p, 10, end - p)
            if e == NULL:
                break
            if e - p > TEXT_BYTES_MAX:
                raise ValueError(f"a name of {e - p} bytes; at most {TEXT_BYTES_MAX} work")
            if memchr(p, 59, e - p):
                leaf, branch, parent = p, NULL, TAGGED
            else:
                leaf = e
                while leaf > p and (leaf - 1)[0] != 46:
                    leaf -= 1
                if leaf == p:
                    branch, parent = NULL, ROOT
                elif branch == NULL or leaf - p != branch_n or memcmp(p, branch, branch_n):
                    branch, branch_n = p, leaf - p
                    parent = self.walk(p, leaf - 1, True)
                    if parent == NONE:
                        raise MemoryError
            h = self.hash(parent, leaf, e - leaf)
            k = self.child(parent, leaf, e - leaf, h)
            if k == NONE:
                k = self.insert(parent, leaf, e - leaf, h)
                if k == NONE:
                    raise MemoryError
            self.give(k, <int32_t>(first_id + added))
            added += 1
            if added % BREATH == 0:
                breathe()
            p = e + 1

    cdef inline void give(self, int32_t k, int32_t id) noexcept nogil:
        """Gives a node its id; it and the nodes above come to life."""
        cdef Node* node = self.node(k)
        cdef bint lived = node.id != NONE or node.living
        self.count += node.id == NONE
        node.id = id
        while not lived and node.parent != NONE:
            node = self.node(node.parent)
            lived = node.id != NONE or node.living
            node.living += 1

    def remove(self, name):
        """Removes a name and the branches that become empty; its id, or -1 when it is unknown."""
        cdef int32_t k = self.lookup(name), id
        if k == NONE or self.node(k).id == NONE:
            return NO_ID
        cdef Node* node = self.node(k)
        id, node.id = node.id, NONE
        self.count -= 1
        while node.id == NONE and not node.living and node.parent != NONE:
            node = self.node(node.parent)
            node.living -= 1
        return id

    def get(self, name):
        """The id of a name, or -1."""
        cdef int32_t k = self.lookup(name)
        return NO_ID if k == NONE else self.node(k).id

    # -- patterns ----------------------------------------------------------------------------

    def find(self, pattern):
        """The nodes that match a path pattern (model.glob), sorted by path (code points): a NodeTable.

        LimitExceeded, BadRequest: the pattern is too large.
        """
        if ";" in pattern:
            id = self.get(pattern)
            return NodeTable.of([] if id == NO_ID else [TreeNode(pattern, pattern, True, False, id)])
        cdef Paths paths = self.select(self.match(pattern), False)
        self.spell(paths)
        cdef Py_ssize_t i, n = 0
        cdef const char* base = paths.text
        starts, lengths = np.empty(paths.n, np.int64), np.empty(paths.n, np.int32)
        names, ids = np.empty(paths.n, np.int32), np.empty(paths.n, np.int32)
        kinds = np.empty(paths.n, np.uint8)
        cdef int64_t[::1] start = starts
        cdef int32_t[::1] length = lengths, name = names, id_ = ids
        cdef uint8_t[::1] kind = kinds
        cdef Node* node
        cdef uint16_t element
        for i in range(paths.n):
            node = self.node(paths.at[i].place)
            if node.id != NONE or node.living:
                self.text(paths.at[i].place, &element)
                start[n] = paths.at[i].text - base
                length[n] = paths.at[i].length
                name[n] = element
                id_[n] = node.id
                kind[n] = (LEAF if node.id != NONE else 0) | (BRANCH if node.living else 0)
                n += 1
            if i % BREATH == BREATH - 1:
                breathe()
        since_s = np.full(n, nodes.NEVER, np.int64)
        return NodeTable(paths.text, starts[:n], lengths[:n], names[:n], ids[:n], kinds[:n], since_s)

    def expand(self, pattern, limit=None, setting="series_max"):
        """Ids of the series whose names match a path pattern, sorted by name: int32 (n,).

        LimitExceeded, naming ``setting``, when there are more than ``limit``, or the pattern is too large.
        """
        if ";" in pattern:
            id = self.get(pattern)
            return np.array([] if id == NO_ID else [id], np.int32)
        cdef Paths paths = self.select(self.match(pattern), True)
        if limit is not None and paths.n > limit:
            raise LimitExceeded(f"series that match {pattern!r}", paths.n, limit, setting)
        self.spell(paths)
        ids = np.empty(paths.n, np.int32)
        cdef int32_t[::1] out = ids
        cdef Py_ssize_t i
        for i in range(paths.n):
            out[i] = paths.at[i].id
        return ids

    cdef Nodes match(self, pattern):
        """All that match, in no order, each once."""
        cdef Nodes level = Nodes()
        level.push(ROOT)
        *inner, last = split_pattern(pattern)
        for element in inner:
            level = self.and_below(level) if element == GLOBSTAR else self.step(level, element, True)
        if last == GLOBSTAR:
            return self.children(self.and_below(level), False)
        return self.step(level, last, False)

    cdef Nodes step(self, Nodes level, element, bint branches):
        """The children (those that are branches) that match one element of a pattern."""
        if element == "*":
            return self.children(level, branches)
        if not has_magic(element):
            return self.literal(level, (element,), branches)
        matcher = compile_element(element)
        if matcher.literals:
            return self.literal(level, matcher.literals, branches)
        if matcher.ends:
            head, tail = matcher.ends
            return self.between(level, head, tail, branches)
        return self.filtered(self.children(level, branches), matcher)

    cdef inline bint is_wanted(self, int32_t k, bint branches) noexcept nogil:
        return self.node(k).living or (not branches and self.node(k).id != NONE)

    cdef Nodes children(self, Nodes level, bint branches):
        cdef Nodes found = Nodes()
        cdef Py_ssize_t i, seen = 0
        cdef int32_t k
        for i in range(level.n):
            k = self.node(level.at[i]).first_child
            while k != NONE:
                if self.is_wanted(k, branches):
                    found.push(k)
                k = self.node(k).next
                seen += 1
                if seen % BREATH == 0:
                    breathe()
        return found

    cdef Nodes literal(self, Nodes level, tuple elements, bint branches):
        cdef Nodes found = Nodes()
        cdef bytes raw
        cdef const char* p
        cdef Py_ssize_t i, n
        cdef int32_t k
        for element in elements:
            raw = element.encode("utf-8", "surrogatepass")
            p = raw
            n = len(raw)
            for i in range(level.n):
                k = self.child(level.at[i], p, n, self.hash(level.at[i], p, n))
                if k != NONE and self.is_wanted(k, branches):
                    found.push(k)
                if i % BREATH == BREATH - 1:
                    breathe()
        return found

    cdef Nodes between(self, Nodes level, str head, str tail, bint branches):
        """The children whose elements start with ``head`` and end with ``tail``."""
        cdef Nodes found = Nodes()
        cdef bytes first = head.encode("utf-8", "surrogatepass")
        cdef bytes last = tail.encode("utf-8", "surrogatepass")
        cdef const char* p = first
        cdef const char* q = last
        cdef Py_ssize_t n = len(first), m = len(last), i, seen = 0
        cdef const char* text
        cdef uint16_t length
        cdef int32_t k
        for i in range(level.n):
            k = self.node(level.at[i]).first_child
            while k != NONE:
                text = self.text(k, &length)
                if (
                    length >= n + m
                    and memcmp(text, p, n) == 0
                    and memcmp(text + length - m, q, m) == 0
                    and self.is_wanted(k, branches)
                ):
                    found.push(k)
                k = self.node(k).next
                seen += 1
                if seen % BREATH == 0:
                    breathe()
        return found

    cdef Nodes filtered(self, Nodes nodes, matcher):
        """The nodes whose elements match; the matcher gives back what matches, in order."""
        cdef Nodes found = Nodes()
        cdef Py_ssize_t first, i
        for first in range(0, nodes.n, FILTER_NAMES):
            texts = [
                self.element(nodes.at[i]) for i in range(first, min(nodes.n, first + FILTER_NAMES))
            ]
            matching = iter(matcher.filter(texts))
            match = next(matching, None)
            for i in range(len(texts)):
                if match is None:
                    break
                if texts[i] == match:
                    found.push(nodes.at[first + i])
                    match = next(matching, None)
        return found

    cdef Nodes and_below(self, Nodes level):
        """The branches and all branches below them, each once."""
        cdef Nodes found = Nodes()
        cdef Py_ssize_t size = self.node_n, i, seen = 0
        cdef bytearray marks = bytearray(size)
        cdef char* marked = marks
        cdef int32_t k
        for i in range(level.n):
            marked[level.at[i]] = 1
            found.push(level.at[i])
        i = 0
        while i < found.n:
            k = self.node(found.at[i]).first_child
            while k != NONE:
                # nodes beyond ``size`` came while others had the GIL
                if self.node(k).living and k < size and not marked[k]:
                    marked[k] = 1
                    found.push(k)
                k = self.node(k).next
                seen += 1
                if seen % BREATH == 0:
                    breathe()
            i += 1
        return found

    # -- paths -------------------------------------------------------------------------------

    cdef Paths select(self, Nodes nodes, bint leaves):
        """The nodes that live (have an id), with their ids as of now; not spelled yet."""
        cdef Paths paths = Paths(nodes.n)
        cdef Py_ssize_t i
        cdef Node* node
        for i in range(nodes.n):
            node = self.node(nodes.at[i])
            if node.id != NONE or (node.living and not leaves):
                paths.at[paths.n].place = nodes.at[i]
                paths.at[paths.n].id = node.id
                paths.n += 1
            if i % BREATH == BREATH - 1:
                breathe()
        return paths

    cdef int spell(self, Paths paths) except -1:
        """Writes the paths' texts and sorts them."""
        cdef Py_ssize_t i, total = 0
        cdef char* text
        with nogil:
            for i in range(paths.n):
                paths.at[i].length = self.path_length(paths.at[i].place)
                total += paths.at[i].length
        paths.text = PyBytes_FromStringAndSize(NULL, total)
        text = paths.text
        with nogil:
            for i in range(paths.n):
                self.write_path(paths.at[i].place, text + paths.at[i].length)
                paths.at[i].text = text
                text += paths.at[i].length
            sort_paths(paths.at, paths.n)
        return 0

    cdef uint32_t path_length(self, int32_t k) noexcept nogil:
        cdef uint32_t total = 0
        cdef uint16_t n
        while k != ROOT:
            self.text(k, &n)
            total += n + 1
            k = self.node(k).parent
        return total - 1

    cdef void write_path(self, int32_t k, char* end) noexcept nogil:
        cdef uint16_t n
        cdef const char* p
        while True:
            p = self.text(k, &n)
            end -= n
            memcpy(end, p, n)
            k = self.node(k).parent
            if k == ROOT:
                return
            end -= 1
            end[0] = 46


cdef inline void breathe():
    """Lets other threads have the GIL."""
    with nogil:
        pass
