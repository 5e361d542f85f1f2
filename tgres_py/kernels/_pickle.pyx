# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Native reader of carbon's pickle frames; how frames are cut, and the model it is tested against: ``pickle_frames.py``.

One pass over a receive buffer turns frames of points into columns (where the name lies, time, value). It is a
pickle machine that knows lists of (name, (timestamp, value)) and nothing else: no opcode that looks up, calls or
builds anything, one list at the bottom of the stack, pairs of numbers, pairs of a name and such a pair.
A frame that holds anything else, or a text that only Python's float() or codecs read, is an odd frame: left to the
caller as a whole, so that the rules are written once, in Python (receivers/pickle_reader.py).

What is taken here is taken there with the same result; so limits are the same or narrower (that of tuples
can't be reached: two numbers and a tuple's opcode take five bytes). Memory: 32 bytes for each
entry of stack and memo and for each point; none takes less than one byte of data (most take 10 to 60).
"""

from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy

import numpy as np

from tgres_py.kernels._number cimport number

cdef enum:
    LENGTH_BYTES = 4
    PROTOCOL_MAX = 5
    MARKS_MAX = 8               # a list of points needs three
    MEMO_GAP_MAX = 1024         # memo entries are numbered one after the other, here from 0, there from 1
    MEMO_MIN = 1024             # entries of the memo, and one more for so many bytes: as pickle_reader.py has it
    BYTES_PER_MEMO = 2
    DIGITS_MAX = 18

cdef double TIMESTAMP_ABS_MAX = 9007199254740992.0      # 2**53; receivers/block.py

cdef enum Kind:
    NOTHING     # memo entry that isn't set
    MARK
    LIST
    NUMBER      # a: the number
    TEXT        # start, size: where it lies in the data
    PAIR        # a: timestamp, b: value
    POINT       # start, size: name; a: timestamp, b: value

cdef struct Item:
    int32_t kind
    int32_t size
    Py_ssize_t start
    double a
    double b

cdef struct Items:
    Item* at
    Py_ssize_t n
    Py_ssize_t room

cdef struct Machine:
    const uint8_t* data         # the buffer
    const uint8_t* p            # what is read next
    const uint8_t* end          # of the frame
    Items stack
    Items memo
    Items points                # of all frames so far
    Py_ssize_t[MARKS_MAX] marks # where they are on the stack
    int marks_n
    uint64_t memo_set           # entries of the memo that are set
    uint64_t memo_max


def read_frames(data, int64_t now_s, Py_ssize_t frame_bytes_max):
    """Columns of the points of the complete frames at the beginning of ``data``.

    Returns (starts int64, sizes int32, times int64, values float64, odd, used): ``starts`` and ``sizes`` say where
    in ``data`` the names lie; values may be NaN; ``odd``: a list of (position in the columns, start, end) of frames
    that are left to the caller; ``used``: bytes up to the end of the last complete frame, or to
    one that is longer than ``frame_bytes_max``.
    """
    cdef const uint8_t[::1] view = data
    cdef Py_ssize_t end = view.shape[0], at = 0, before
    cdef uint64_t size
    cdef Machine m
    m.stack = m.memo = m.points = Items(NULL, 0, 0)
    m.data = &view[0] if end else NULL
    odd = []
    try:
        with nogil:
            while end - at >= LENGTH_BYTES:
                size = big_endian(m.data + at, LENGTH_BYTES)
                if size > <uint64_t>frame_bytes_max or size > <uint64_t>(end - at - LENGTH_BYTES):
                    break
                at += LENGTH_BYTES
                before = m.points.n
                m.p = m.data + at
                m.end = m.p + size
                if not read_frame(&m):
                    m.points.n = before
                    with gil:
                        odd.append((before, at, at + <Py_ssize_t>size))
                at += <Py_ssize_t>size
        return *columns(&m, now_s), odd, at
    finally:
        free(m.stack.at)
        free(m.memo.at)
        free(m.points.at)


cdef tuple columns(Machine* m, int64_t now_s):
    """The points as arrays: starts, sizes, times, values."""
    cdef Py_ssize_t n = m.points.n, i
    cdef Item* item
    starts = np.empty(n, np.int64)
    sizes = np.empty(n, np.int32)
    times = np.empty(n, np.int64)
    values = np.empty(n, np.float64)
    cdef int64_t[::1] starts_v = starts
    cdef int32_t[::1] sizes_v = sizes
    cdef int64_t[::1] times_v = times
    cdef double[::1] values_v = values
    cdef int64_t time
    with nogil:
        for i in range(n):
            item = &m.points.at[i]
            starts_v[i] = item.start
            sizes_v[i] = item.size
            time = <int64_t>item.a      # cuts towards zero, as int() does
            times_v[i] = now_s if time == -1 else time
            values_v[i] = item.b
    return starts, sizes, times, values


cdef bint read_frame(Machine* m) noexcept nogil:
    """Runs the opcodes of one frame; its points are added. False when it is odd."""
    cdef const uint8_t* begin
    cdef Py_ssize_t size
    cdef uint8_t op
    cdef bint good = True
    m.stack.n = m.memo.n = m.marks_n = 0
    m.memo_set = 0
    m.memo_max = MEMO_MIN + <uint64_t>(m.end - m.p) / BYTES_PER_MEMO
    while good and m.p < m.end:
        op = m.p[0]
        m.p += 1
        if op == c"X":                                      # text
            good = take_text(m, take_length(m, 4), True)
        elif op == 0x8C:
            good = take_text(m, take_length(m, 1), True)
        elif op == 0x8D:
            good = take_text(m, take_length(m, 8), True)
        elif op == c"U" or op == c"C":
            good = take_text(m, take_length(m, 1), False)
        elif op == c"T" or op == c"B":
            good = take_text(m, take_length(m, 4), False)
        elif op == 0x8E:
            good = take_text(m, take_length(m, 8), False)
        elif op == c"S":
            good = take_line(m, &begin, &size) and quoted(m, begin, size)
        elif op == c"V":
            good = take_line(m, &begin, &size) and unquoted(m, begin, size)
        elif op == c"G":                                    # numbers
            good = take_float(m)
        elif op == c"K":
            good = take_int(m, 1, False)
        elif op == c"M":
            good = take_int(m, 2, False)
        elif op == c"J":
            good = take_int(m, 4, True)
        elif op == 0x8A:
            good = take_int(m, take_length(m, 1), True)
        elif op == 0x8B:
            good = take_int(m, take_length(m, 4), True)
        elif op == 0x88 or op == 0x89:
            good = push_number(m, op == 0x88)
        elif op == c"I" or op == c"L":
            good = take_line(m, &begin, &size) and integer(m, begin, size, op == c"L")
        elif op == c"F":
            good = take_line(m, &begin, &size) and decimal(m, begin, size)
        elif op == 0x86:                                    # tuples and the list
            good = pair(m)
        elif op == c"t":
            good = pair_from_mark(m)
        elif op == c"(":
            good = mark(m)
        elif op == c"]":
            good = empty_list(m)
        elif op == c"l":
            good = list_from_mark(m)
        elif op == c"a":
            good = m.stack.n > 0 and append_from(m, m.stack.n - 1)
        elif op == c"e":
            good = append_from_mark(m)
        elif op == c"q":                                    # the memo
            good = put(m, take_length(m, 1))
        elif op == c"r":
            good = put(m, take_length(m, 4))
        elif op == 0x94:
            good = put(m, m.memo_set)
        elif op == c"p":
            good = take_line(m, &begin, &size) and put(m, index_of(begin, size))
        elif op == c"h":
            good = get(m, take_length(m, 1))
        elif op == c"j":
            good = get(m, take_length(m, 4))
        elif op == c"g":
            good = take_line(m, &begin, &size) and get(m, index_of(begin, size))
        elif op == 0x95:                                    # FRAME: cuts nothing that matters here
            if m.end - m.p < 8:
                return False
            m.p += 8
        elif op == 0x80:
            good = take_length(m, 1) <= PROTOCOL_MAX
        else:
            # STOP is good with the list alone; whatever follows it is ignored. All else is odd.
            return op == c"." and m.stack.n == 1 and m.stack.at[0].kind == LIST
    return False


# Bytes to numbers, lengths and lines. Never beyond the frame's end.

cdef inline uint64_t big_endian(const uint8_t* p, int size) noexcept nogil:
    cdef uint64_t n = 0
    cdef int i
    for i in range(size):
        n = n << 8 | p[i]
    return n


cdef inline uint64_t little_endian(const uint8_t* p, int size) noexcept nogil:
    cdef uint64_t n = 0
    cdef int i
    for i in range(size):
        n |= <uint64_t>p[i] << 8 * i
    return n


cdef inline uint64_t take_length(Machine* m, int size) noexcept nogil:
    """A length or an index of ``size`` bytes; one that is too large for anything when they aren't there."""
    cdef uint64_t n
    if m.end - m.p < size:
        return <uint64_t>-1
    n = little_endian(m.p, size)
    m.p += size
    return n


cdef inline bint take_line(Machine* m, const uint8_t** begin, Py_ssize_t* size) noexcept nogil:
    """The bytes up to the next LF, without it."""
    cdef const uint8_t* end = <const uint8_t*>memchr(m.p, 10, m.end - m.p)
    if end == NULL:
        return False
    begin[0] = m.p
    size[0] = end - m.p
    m.p = end + 1
    return True


cdef inline bint digits(const uint8_t* p, Py_ssize_t size, int64_t* n) noexcept nogil:
    """A decimal integer that fits; others (blanks, underscores, a plus …) only Python reads."""
    cdef bint negative = size > 0 and p[0] == c"-"
    cdef int64_t sum = 0
    cdef Py_ssize_t i
    if negative:
        p += 1
        size -= 1
    if not 0 < size <= DIGITS_MAX:
        return False
    for i in range(size):
        if not c"0" <= p[i] <= c"9":
            return False
        sum = sum * 10 + (p[i] - c"0")
    n[0] = -sum if negative else sum
    return True


cdef inline uint64_t index_of(const uint8_t* p, Py_ssize_t size) noexcept nogil:
    """A memo entry's number as text; one that is too large for anything when it isn't one."""
    cdef int64_t n
    return <uint64_t>n if digits(p, size, &n) else <uint64_t>-1


# The stack.

cdef bint grow(Items* items) noexcept nogil:
    """Makes room for one more. Out of memory: the frame is odd, and the caller fails with the proper error."""
    cdef Py_ssize_t room = items.room * 2 if items.room else 1024
    cdef Item* more = <Item*>realloc(items.at, <size_t>room * sizeof(Item))
    if more == NULL:
        return False
    items.at = more
    items.room = room
    return True


cdef inline bint push(Items* items, Item item) noexcept nogil:
    if items.n == items.room and not grow(items):
        return False
    items.at[items.n] = item
    items.n += 1
    return True


cdef inline bint push_number(Machine* m, double value) noexcept nogil:
    return push(&m.stack, Item(NUMBER, 0, 0, value, 0))


cdef inline bint push_text(Machine* m, const uint8_t* begin, Py_ssize_t size) noexcept nogil:
    if size > INT32_MAX:
        return False
    return push(&m.stack, Item(TEXT, <int32_t>size, begin - m.data, 0, 0))


# Numbers and texts.

cdef inline bint take_float(Machine* m) noexcept nogil:
    cdef uint64_t bits
    cdef double value
    if m.end - m.p < 8:
        return False
    bits = big_endian(m.p, 8)
    memcpy(&value, &bits, 8)
    m.p += 8
    return push_number(m, value)


cdef inline bint take_int(Machine* m, uint64_t size, bint signed) noexcept nogil:
    """An integer of up to 8 bytes."""
    cdef uint64_t n
    if size > 8 or m.end - m.p < <Py_ssize_t>size:
        return False
    n = little_endian(m.p, <int>size)
    if signed and 0 < size < 8 and n >> (8 * size - 1):
        n |= <uint64_t>-1 << 8 * size
    m.p += size
    return push_number(m, <double><int64_t>n)


cdef inline bint integer(Machine* m, const uint8_t* p, Py_ssize_t size, bint long) noexcept nogil:
    """INT and LONG; INT's bools (00, 01) are numbers like others."""
    cdef int64_t n
    if long and size and p[size - 1] == c"L":
        size -= 1
    return digits(p, size, &n) and push_number(m, <double>n)


cdef inline bint decimal(Machine* m, const uint8_t* p, Py_ssize_t size) noexcept nogil:
    cdef double value
    cdef const char* end = <const char*>p + size
    return number(<const char*>p, end, &value) == end and push_number(m, value)


cdef inline bint take_text(Machine* m, uint64_t size, bint unicode) noexcept nogil:
    cdef const uint8_t* begin = m.p
    if size > <uint64_t>(m.end - m.p):
        return False
    if unicode and not is_utf8(begin, <Py_ssize_t>size):
        return False
    m.p += size
    return push_text(m, begin, <Py_ssize_t>size)


cdef inline bint quoted(Machine* m, const uint8_t* p, Py_ssize_t size) noexcept nogil:
    """A STRING without escapes."""
    if size < 2 or p[0] != p[size - 1] or (p[0] != c"'" and p[0] != c'"'):
        return False
    return memchr(p, c"\\", size) == NULL and push_text(m, p + 1, size - 2)


cdef inline bint unquoted(Machine* m, const uint8_t* p, Py_ssize_t size) noexcept nogil:
    """A UNICODE without escapes, ASCII."""
    return memchr(p, c"\\", size) == NULL and ascii_bytes(p, size) == size and push_text(m, p, size)


cdef inline Py_ssize_t ascii_bytes(const uint8_t* p, Py_ssize_t size) noexcept nogil:
    """How many bytes at the beginning are surely ASCII: all of them, if all are."""
    cdef Py_ssize_t i = 0
    cdef uint64_t word
    while size - i >= 8:
        memcpy(&word, p + i, 8)
        if word & 0x8080808080808080ULL:
            return i
        i += 8
    while i < size and p[i] < 0x80:
        i += 1
    return i


cdef bint is_utf8(const uint8_t* p, Py_ssize_t size) noexcept nogil:
    """Strictly: no surrogates, which pickles may hold, but names may not."""
    cdef Py_ssize_t i = ascii_bytes(p, size)
    cdef uint32_t c
    cdef int more, k
    while i < size:
        c = p[i]
        i += 1
        if c < 0x80:
            continue
        more = 1 if c < 0xE0 else 2 if c < 0xF0 else 3
        if c < 0xC2 or c > 0xF4 or size - i < more:
            return False
        c &= 0x3F >> more
        for k in range(more):
            if p[i] & 0xC0 != 0x80:
                return False
            c = c << 6 | (p[i] & 0x3F)
            i += 1
        if (more == 2 and (c < 0x800 or 0xD800 <= c <= 0xDFFF)) or (
            more == 3 and not 0x10000 <= c <= 0x10FFFF
        ):
            return False
    return True


# Tuples and the list.

cdef inline bint as_number(Machine* m, Item* item, double* value) noexcept nogil:
    cdef const char* text
    if item.kind == NUMBER:
        value[0] = item.a
        return True
    if item.kind != TEXT:
        return False
    text = <const char*>m.data + item.start
    return number(text, text + item.size, value) == text + item.size


cdef inline bint pair(Machine* m) noexcept nogil:
    """TUPLE2: a name and a pair become a point, two numbers a pair."""
    cdef Item* first
    cdef Item* second
    cdef double time = 0, value = 0
    if m.stack.n < 2:
        return False
    m.stack.n -= 1
    second = &m.stack.at[m.stack.n]
    first = second - 1
    if first.kind == TEXT and second.kind == PAIR:
        first.kind = POINT
        first.a = second.a
        first.b = second.b
        return True
    if not as_number(m, first, &time) or not as_number(m, second, &value):
        return False
    first.kind = PAIR
    first.a = time
    first.b = value
    return -TIMESTAMP_ABS_MAX <= time <= TIMESTAMP_ABS_MAX


cdef inline bint mark(Machine* m) noexcept nogil:
    if m.marks_n == MARKS_MAX:
        return False
    m.marks[m.marks_n] = m.stack.n
    m.marks_n += 1
    return push(&m.stack, Item(MARK, 0, 0, 0, 0))


cdef inline bint pop_mark(Machine* m, Py_ssize_t* at) noexcept nogil:
    """Where the last MARK is."""
    if m.marks_n == 0:
        return False
    m.marks_n -= 1
    at[0] = m.marks[m.marks_n]
    return True


cdef inline bint pair_from_mark(Machine* m) noexcept nogil:
    cdef Py_ssize_t at
    if not pop_mark(m, &at) or m.stack.n != at + 3 or not pair(m):
        return False
    m.stack.at[at] = m.stack.at[at + 1]
    m.stack.n = at + 1
    return True


cdef inline bint empty_list(Machine* m) noexcept nogil:
    return m.stack.n == 0 and push(&m.stack, Item(LIST, 0, 0, 0, 0))


cdef inline bint append_from(Machine* m, Py_ssize_t at) noexcept nogil:
    """Takes all that lies on the stack from ``at`` on as points of the list below."""
    cdef Py_ssize_t i
    if at < 1 or m.stack.at[at - 1].kind != LIST:
        return False
    for i in range(at, m.stack.n):
        if m.stack.at[i].kind != POINT or not push(&m.points, m.stack.at[i]):
            return False
    m.stack.n = at
    return True


cdef inline bint append_from_mark(Machine* m) noexcept nogil:
    cdef Py_ssize_t at, i
    if not pop_mark(m, &at):
        return False
    # the items move down over the MARK
    m.stack.n -= 1
    for i in range(at, m.stack.n):
        m.stack.at[i] = m.stack.at[i + 1]
    return append_from(m, at)


cdef inline bint list_from_mark(Machine* m) noexcept nogil:
    cdef Py_ssize_t at
    if not pop_mark(m, &at) or at != 0:
        return False
    m.stack.at[0].kind = LIST
    return append_from(m, 1)


# The memo.

cdef inline bint put(Machine* m, uint64_t index) noexcept nogil:
    cdef Item* top
    if m.stack.n == 0 or m.memo_set >= m.memo_max or index > m.memo_set + MEMO_GAP_MAX:
        return False
    top = &m.stack.at[m.stack.n - 1]
    if top.kind == MARK:
        return False
    while <uint64_t>m.memo.n <= index:
        if not push(&m.memo, Item(NOTHING, 0, 0, 0, 0)):
            return False
    if m.memo.at[index].kind == NOTHING:
        m.memo_set += 1
    m.memo.at[index] = top[0]
    return True


cdef inline bint get(Machine* m, uint64_t index) noexcept nogil:
    """A value once more. NOTHING and the list fit nowhere on the stack, so they make the frame odd."""
    return index < <uint64_t>m.memo.n and push(&m.stack, m.memo.at[index])
