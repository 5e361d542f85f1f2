# cython: language_level=3
"""Counts the bytes of numpy's arrays: an allocator handler (NEP 49) before numpy's own; ``arrays.py`` says what for.

Each block begins with its size, since numpy doesn't tell the old one when it makes a block larger or smaller.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.string cimport memcpy, memset

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void* ctx
        void* (*malloc)(void* ctx, size_t size) noexcept nogil
        void* (*calloc)(void* ctx, size_t n, size_t each) noexcept nogil
        void* (*realloc)(void* ctx, void* p, size_t size) noexcept nogil
        void (*free)(void* ctx, void* p, size_t size) noexcept nogil

    ctypedef struct PyDataMem_Handler:
        char name[127]
        unsigned char version
        PyDataMemAllocator allocator

    int _import_array() except -1
    object PyDataMem_SetHandler(object handler)
    object PyDataMem_GetHandler()

cdef extern from *:
    """
    static long long held = 0;
    static void held_add(long long n) { __atomic_fetch_add(&held, n, __ATOMIC_RELAXED); }
    static long long held_now(void) { return __atomic_load_n(&held, __ATOMIC_RELAXED); }
    """
    void held_add(long long n) noexcept nogil
    long long held_now() noexcept nogil

cdef enum:
    HEAD = 16      # keeps blocks aligned as numpy's own are

cdef PyDataMemAllocator own      # numpy's
cdef PyDataMem_Handler counting
cdef object capsule = None


cdef inline void* begin(char* block, size_t size) noexcept nogil:
    if block == NULL:
        return NULL
    memcpy(block, &size, sizeof(size_t))
    held_add(<long long>size)
    return block + HEAD


cdef void* count_malloc(void* ctx, size_t size) noexcept nogil:
    return begin(<char*>own.malloc(own.ctx, size + HEAD), size)


cdef void* count_calloc(void* ctx, size_t n, size_t each) noexcept nogil:
    if each and n > (<size_t>-1 - HEAD) // each:
        return NULL
    return begin(<char*>own.calloc(own.ctx, 1, n * each + HEAD), n * each)


cdef void* count_realloc(void* ctx, void* p, size_t size) noexcept nogil:
    cdef char* block = <char*>p - HEAD if p != NULL else NULL
    cdef size_t before = 0
    if block != NULL:
        memcpy(&before, block, sizeof(size_t))
    block = <char*>own.realloc(own.ctx, block, size + HEAD)
    if block != NULL:
        held_add(-<long long>before)
    return begin(block, size)


cdef void count_free(void* ctx, void* p, size_t size) noexcept nogil:
    cdef char* block
    cdef size_t held
    if p == NULL:
        return
    block = <char*>p - HEAD
    memcpy(&held, block, sizeof(size_t))
    held_add(-<long long>held)
    own.free(own.ctx, block, held + HEAD)


_import_array()
own = (<PyDataMem_Handler*>PyCapsule_GetPointer(PyDataMem_GetHandler(), "mem_handler")).allocator
memset(&counting, 0, sizeof(PyDataMem_Handler))
memcpy(counting.name, b"tgres counts", 12)
counting.version = 1
counting.allocator.malloc = count_malloc
counting.allocator.calloc = count_calloc
counting.allocator.realloc = count_realloc
counting.allocator.free = count_free
capsule = PyCapsule_New(&counting, "mem_handler", NULL)


def count_arrays():
    PyDataMem_SetHandler(capsule)


def array_bytes():
    return held_now()
