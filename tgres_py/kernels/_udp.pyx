# cython: language_level=3, boundscheck=False, wraparound=False
"""Native ``drain``: whole batches of datagrams per system call (recvmmsg); the pure twin is ``udp.py``."""

from libc.errno cimport EAGAIN, ECONNREFUSED, EINTR, errno
from libc.string cimport memmove, memset

cdef extern from "sys/socket.h" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    cdef struct msghdr:
        void* msg_name
        unsigned int msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    enum: MSG_DONTWAIT

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    """
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int recvmmsg(int fd, mmsghdr* messages, unsigned int n, int flags, void* timeout) nogil

cdef enum:
    BATCH = 64
    CELL = 65_536          # a datagram and its line feed

DATAGRAM_BYTES_MAX = 65_535


def drain(sock, buffer, Py_ssize_t datagrams_max):
    """As ``udp.drain``: (bytes used, datagrams read) of all that is there and fits."""
    cdef unsigned char[::1] view = buffer
    cdef unsigned char* p = &view[0]
    cdef Py_ssize_t size = view.shape[0], used = 0, total = 0, n, i, length, at
    cdef int fd = sock.fileno(), got, problem = 0
    cdef mmsghdr[BATCH] messages
    cdef iovec[BATCH] cells
    if fd < 0:
        raise OSError("socket is closed")
    with nogil:
        while total < datagrams_max:
            n = (size - used) // CELL
            if n > BATCH:
                n = BATCH
            if n > datagrams_max - total:
                n = datagrams_max - total
            if n <= 0:
                break
            # each datagram gets a cell of its own; the cells are then moved together
            memset(messages, 0, n * sizeof(mmsghdr))
            for i in range(n):
                cells[i].iov_base = p + used + i * CELL
                cells[i].iov_len = CELL - 1
                messages[i].msg_hdr.msg_iov = &cells[i]
                messages[i].msg_hdr.msg_iovlen = 1
            got = recvmmsg(fd, messages, <unsigned int>n, MSG_DONTWAIT, NULL)
            if got < 0:
                if errno == EINTR:
                    continue
                if errno != EAGAIN and errno != ECONNREFUSED:
                    problem = errno
                break
            at = used
            for i in range(got):
                length = messages[i].msg_len
                if length:
                    memmove(p + used, p + at + i * CELL, length)
                    used += length
                    if p[used - 1] != 10:
                        p[used] = 10
                        used += 1
            total += got
            if got < n:
                break
    if problem:
        raise OSError(problem, "recvmmsg")
    return used, total
