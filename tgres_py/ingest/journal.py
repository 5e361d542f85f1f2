"""The journal: local append-only files of the points that are not yet in the store.

    file    = header record*
    header  = copy copy                      a flipped bit costs one of them, not the file      (72 bytes)
    copy    = "tgresjl1" journal_id:16 incarnation:u32 number:u32 crc32:u32
    record  = magic:u32 kind:u8 zero:u8[3] length:u32 crc32:u32 payload                 (16 + length)
    payload by kind (little endian, * = lz4 block with its size in front)
      NAMES   n:u32  *(ids:i32[n] name LF …)
      POINTS  now_s:i64 n:u32 c:u32  *(ids:i32[n] times:i32[n] or i64[n]; differences):c  values:f64[n]
      LATE    seq:u64 then as POINTS          points that go to the store by way of a merge; of records
                                              with one seq the last tells what is left of it
      FLOOR   time_s:i64 n:u32 *(ids)         all older points of these series are in the store (-2^60: none are)
      ROWS    n:u32  *(ids rrd_ids:i64[n])    rows of the series, which may have another name by now; negative: that row is gone for good
      IMAGE   as POINTS, values then counts:u32[n]   slots of the ring as they were: replaces, not merges
      LANDED  length:u32, a POINTS payload of that length, a LATE payload: late points that went to the
              ring, and what is left of their record. One checksum: neither counts without the other

Values are written raw: on measured gauges lz4 wins 15 % of their bytes for four times the time.
The crc covers kind, length and payload. A record that fails is skipped; where its length can't be
trusted, reading goes on at the next magic whose record is sound. FLOOR records are written twice: without
the newest one, older values of the journal would hide late points that the store has. Ids are those of one run of the
server (an incarnation); its NAMES, FLOOR and ROWS are read before its other records.

A thread of its own encodes, writes and calls fdatasync at least twice in ``sync_s``, so that what was
received ``sync_s`` ago is on disk. A new file starts with each checkpoint: the image of all rings;
when that is on disk all older files are dropped, but for those with late points not yet merged.

While the disk takes nothing, records wait in memory and are tried again. When that are too many they are
given up (``gaps``), since memory has all that they tell: the next checkpoint, as soon as the disk works,
makes the journal whole. A crash in between loses what came since.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import mmap
import os
import struct
import threading
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import lz4.block
import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.errors import ConfigError
from tgres_py.kernels.arrays import count_arrays
from tgres_py.measure import Histogram
from tgres_py.model.points import Ids, Times, Values

log = logging.getLogger(__name__)

FILE_HEADER = struct.Struct("<8s16sII")
FILE_HEADER_BYTES = 2 * (FILE_HEADER.size + 4)
RECORD_HEADER = struct.Struct("<IB3xII")
FILE_MAGIC = b"tgresjl1"
RECORD_MAGIC = 0x314A4754
RECORD_BYTES_MAX = 64 << 20
WRITE_BYTES = 4 << 20  # pending bytes that wake the writer before its time
POINT_BYTES = 20  # of a pending point, for the bound on memory
KEPT_BYTES = 64 << 20  # records that wait for a disk that takes nothing; of more an image is made
FULL = (errno.ENOSPC, errno.EDQUOT)
ROOM_BYTES = 1 << 20  # a disk that was full must have this much before it is written to again
LZ4_TIMES_MAX = 256  # a block of lz4 gets no larger than this many times itself
OBJECT_BYTES = 512  # of a pending record besides: the object and the heads of its arrays


class Kind(IntEnum):
    NAMES = 1
    POINTS = 2
    LATE = 3
    FLOOR = 4
    IMAGE = 5
    ROWS = 6
    LANDED = 7


@dataclass(slots=True)
class Record:
    """One decoded or pending record; fields that its kind doesn't have are empty."""

    kind: Kind
    ids: Ids
    times: Times | None = None  # ROWS: the rows' ids
    values: Values | None = None
    now_s: int = 0  # FLOOR: the floor's time
    seq: int = 0
    blob: bytes = b""  # NAMES: names, an LF after each
    counts: NDArray[np.uint32] | None = None
    rest: Record | None = None  # LANDED: the LATE record of what is left

    @property
    def pending_bytes(self) -> int:
        rest = self.rest.pending_bytes if self.rest else 0
        return len(self.ids) * POINT_BYTES + len(self.blob) + OBJECT_BYTES + rest


def _pack(*parts: bytes) -> bytes:
    packed: bytes = lz4.block.compress(b"".join(parts), mode="fast", acceleration=4)
    return packed


def _differences(a: NDArray[np.int32] | NDArray[np.int64]) -> bytes:
    return np.diff(a, prepend=a.dtype.type(0)).tobytes()


def encode(record: Record) -> bytes:
    """The record's bytes, header included."""
    payload = _payload(record)
    crc = zlib.crc32(payload, zlib.crc32(struct.pack("<BI", record.kind, len(payload))))
    return RECORD_HEADER.pack(RECORD_MAGIC, record.kind, len(payload), crc) + payload


def _payload(record: Record) -> bytes:
    n = len(record.ids)
    if record.kind == Kind.NAMES:
        payload = struct.pack("<I", n) + _pack(_differences(record.ids), record.blob)
    elif record.kind == Kind.ROWS:
        assert record.times is not None
        rows = record.times.astype(np.int64, copy=False)
        payload = struct.pack("<I", n) + _pack(_differences(record.ids), _differences(rows))
    elif record.kind == Kind.FLOOR:
        payload = struct.pack("<qI", record.now_s, n) + _pack(_differences(record.ids))
    else:
        assert record.times is not None and record.values is not None
        times = record.times
        if n and (times.min() < 0 or times.max() >= 1 << 31):
            packed, wide = _pack(_differences(record.ids), _differences(times)), 1
        else:
            packed, wide = (
                _pack(_differences(record.ids), _differences(times.astype(np.int32))),
                0,
            )
        head = struct.pack("<qII", record.now_s, n, len(packed) << 1 | wide)
        if record.kind == Kind.LATE:
            head = struct.pack("<Q", record.seq) + head
        payload = head + packed + np.ascontiguousarray(record.values, "<f8").tobytes()
        if record.kind == Kind.IMAGE:
            counts = record.counts if record.counts is not None else np.ones(n, np.uint32)
            payload += _pack(counts.astype("<u4").tobytes())
        if record.kind == Kind.LANDED:
            assert record.rest is not None
            payload = struct.pack("<I", len(payload)) + payload + _payload(record.rest)
    return payload


class DamagedRecord(ValueError):
    """A payload that no record has."""


def decode(kind: int, payload: bytes | memoryview) -> Record:
    """The record of a payload whose checksum was right. DamagedRecord."""
    try:
        return _decode(Kind(kind), payload)
    except (ValueError, struct.error, lz4.block.LZ4BlockError) as error:
        raise DamagedRecord(f"a damaged record of kind {kind}: {error}") from None


def _unpack(packed: bytes | memoryview) -> bytes:
    """The opposite of _pack. ValueError: a size that so few bytes can't have."""
    size = int.from_bytes(packed[:4], "little")
    if size > LZ4_TIMES_MAX * len(packed):
        raise ValueError(f"{size} bytes can't come of {len(packed)}")
    raw: bytes = lz4.block.decompress(packed)
    return raw


def _decode(kind: Kind, payload: bytes | memoryview) -> Record:
    at = 0
    seq = 0
    if kind == Kind.NAMES:
        (n,) = struct.unpack_from("<I", payload)
        raw = _unpack(payload[4:])
        ids = np.cumsum(np.frombuffer(raw, np.int32, n), dtype=np.int32)
        return Record(Kind.NAMES, ids, blob=raw[4 * n :])
    if kind == Kind.ROWS:
        (n,) = struct.unpack_from("<I", payload)
        raw = _unpack(payload[4:])
        ids = np.cumsum(np.frombuffer(raw, np.int32, n), dtype=np.int32)
        rows = np.cumsum(np.frombuffer(raw, np.int64, n, 4 * n), dtype=np.int64)
        return Record(Kind.ROWS, ids, rows)
    if kind == Kind.FLOOR:
        time_s, n = struct.unpack_from("<qI", payload)
        raw = _unpack(payload[12:])
        return Record(
            Kind.FLOOR, np.cumsum(np.frombuffer(raw, np.int32, n), dtype=np.int32), now_s=time_s
        )
    if kind == Kind.LATE:
        (seq,) = struct.unpack_from("<Q", payload)
        at = 8
    now_s, n, packed_bytes = struct.unpack_from("<qII", payload, at)
    wide, packed_bytes = packed_bytes & 1, packed_bytes >> 1
    at += 16
    raw = _unpack(payload[at : at + packed_bytes])
    at += packed_bytes
    ids = np.cumsum(np.frombuffer(raw, np.int32, n), dtype=np.int32)
    times = np.cumsum(np.frombuffer(raw, np.int64 if wide else np.int32, n, 4 * n), dtype=np.int64)
    values = np.frombuffer(payload, "<f8", n, at).astype(np.float64)
    counts = None
    if kind == Kind.IMAGE:
        counts = np.frombuffer(_unpack(payload[at + 8 * n :]), "<u4").astype(np.uint32)
        if len(counts) != n:
            raise ValueError(f"{len(counts)} counts of {n} points")
    return Record(kind, ids, times, values, now_s, seq, counts=counts)


_ROTATE = Record(
    Kind.FLOOR, np.empty(0, np.int32), now_s=-1
)  # pending only: a new file from here on


@dataclass(slots=True)
class JournalFile:
    path: Path
    journal_id: str
    incarnation: int
    number: int


@dataclass(slots=True)
class Damage:
    """What reading had to skip."""

    records: int = 0
    bytes: int = 0


def list_files(folder: Path) -> list[JournalFile]:
    """The journal's files in order; files without a sound header are left out (and logged)."""
    found = []
    for path in sorted(folder.glob("*.journal")):
        with open(path, "rb") as f:
            head = f.read(FILE_HEADER_BYTES)
        half = FILE_HEADER_BYTES // 2
        copies = [copy for copy in (head[:half], head[half:]) if _is_header(copy)]
        if not copies:
            log.warning("journal file %s has no sound header and is skipped", path.name)
            continue
        _, journal_id, incarnation, number = FILE_HEADER.unpack_from(copies[0])
        found.append(JournalFile(path, uuid.UUID(bytes=journal_id).hex, incarnation, number))
    return sorted(found, key=lambda f: f.number)


def _header(journal_id: str, incarnation: int, number: int) -> bytes:
    copy = FILE_HEADER.pack(FILE_MAGIC, uuid.UUID(journal_id).bytes, incarnation, number)
    return 2 * (copy + struct.pack("<I", zlib.crc32(copy)))


def _is_header(copy: bytes) -> bool:
    if len(copy) != FILE_HEADER.size + 4 or not copy.startswith(FILE_MAGIC):
        return False
    return zlib.crc32(copy[:-4]) == int.from_bytes(copy[-4:], "little")


def read_records(path: Path, damage: Damage) -> Iterator[tuple[int, memoryview]]:
    """(kind, payload) of the sound records of a file, in order; of LANDED the two that it consists of."""
    with open(path, "rb") as f:
        # mapped, not read: a file may be as large as journal_bytes_max allows
        file = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    data = memoryview(file)
    at = FILE_HEADER_BYTES
    magic = struct.pack("<I", RECORD_MAGIC)
    while at < len(data):
        sound = _sound_record(data, at)
        if sound is not None:
            kind, end = sound
            payload = data[at + RECORD_HEADER.size : end]
            if kind == Kind.LANDED:
                middle = 4 + int.from_bytes(payload[:4], "little")
                yield Kind.POINTS, payload[4:middle]
                yield Kind.LATE, payload[middle:]
            else:
                yield kind, payload
            at = end
            continue
        damage.records += 1
        begin = at
        at += 1
        while True:
            at = file.find(magic, at)
            if at < 0:
                damage.bytes += len(data) - begin
                return
            if _sound_record(data, at) is not None:
                break
            at += 1
        damage.bytes += at - begin


def _sound_record(data: memoryview, at: int) -> tuple[int, int] | None:
    """(kind, end) of the record at ``at`` when header, length and checksum are right."""
    if at + RECORD_HEADER.size > len(data):
        return None
    magic, kind, length, crc = RECORD_HEADER.unpack_from(data, at)
    end = at + RECORD_HEADER.size + length
    if magic != RECORD_MAGIC or length > RECORD_BYTES_MAX or end > len(data):
        return None
    if not Kind.NAMES <= kind <= Kind.LANDED:
        return None
    payload = data[at + RECORD_HEADER.size : end]
    if zlib.crc32(payload, zlib.crc32(struct.pack("<BI", kind, length))) != crc:
        return None
    return kind, end


class Journal:
    """The writing side. All methods but ``synced`` and ``close`` are quick and never block.

    ``folder`` is made when missing. ``journal_id`` is that of the files found there, else a new one.
    """

    def __init__(self, folder: Path, sync_s: float, kept_bytes: int = KEPT_BYTES) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder
        self._lock_fd = self._lock()
        self.old_files = list_files(folder)
        self.journal_id = self.old_files[-1].journal_id if self.old_files else uuid.uuid4().hex
        self.incarnation = self.old_files[-1].incarnation + 1 if self.old_files else 1
        self.bytes_written = 0
        self.syncs = 0
        self.failures = 0
        self.sync_seconds = Histogram()
        self.failed: str | None = None  # why nothing can be written at the moment
        self.gaps = 0  # how often records were given up
        self._gaps_filled = 0  # of these, before the checkpoint that was done last
        self._kept_bytes = kept_bytes
        self._interval_s = sync_s / 2
        self._number = self.old_files[-1].number if self.old_files else 0
        self.first_number = self._number + 1  # of this run's files
        self._pending: list[Record] = []
        self._pending_bytes = 0
        self._unsynced: list[Record] = []  # written to the current file, not yet synced
        self._appended = 0
        self._synced = 0
        self._closing = False
        self._wake = threading.Condition()
        self._waiters: list[tuple[int, asyncio.Future[bool]]] = []
        self._fd = -1
        self._sizes: dict[int, int] = {f.number: f.path.stat().st_size for f in self.old_files}
        self._synced_size = 0  # of the current file
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def _lock(self) -> int:
        fd = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise ConfigError(
                f"the journal in {self.folder} is in use by another server; stop it or give --data-dir another folder"
            ) from None
        return fd

    def start(self) -> None:
        """Opens this run's first file and starts the writer; on a full disk that is tried again.

        ConfigError: it can't be written for another reason.
        """
        try:
            self._open_next()
        except OSError as e:
            if e.errno not in FULL:
                raise ConfigError(
                    f"the journal can't be written: {e}; give --data-dir another folder"
                ) from None
            self._note_failure(e)
        self._thread.start()

    # -- appending ---------------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """Takes a record; its arrays must not be changed afterwards."""
        with self._wake:
            self._pending.append(record)
            self._pending_bytes += record.pending_bytes
            self._appended += 1
            if self._pending_bytes > WRITE_BYTES:
                self._wake.notify()

    @property
    def pending_bytes(self) -> int:
        """Memory held by records that are not written yet."""
        return self._pending_bytes

    @property
    def total_bytes(self) -> int:
        """Size of all files."""
        return sum(self._sizes.values())

    def rotate(self) -> int:
        """All records from here on go to a new file; its number."""
        with self._wake:
            self._pending.append(_ROTATE)
            self._appended += 1
            return self._number + 1

    @property
    def incomplete(self) -> bool:
        """Whether records were given up since the last checkpoint began: the next one makes it whole."""
        return self.gaps > self._gaps_filled

    async def synced(self) -> bool:
        """True when all that was appended so far is on disk, as soon as it is; False when the disk takes nothing."""
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        with self._wake:
            if self._synced >= self._appended:
                return True
            if self.failed:
                return False
            self._waiters.append((self._appended, told))
            self._wake.notify()
        return await told

    def drop_before(self, number: int, gaps: int) -> int:
        """Removes all files with a lower number, as an image (or copies) of all that they hold follows in those
        that stay; how many. ``gaps``: their count when the image was begun.
        """
        if gaps > self._gaps_filled:
            log.warning("journal: writing works again, all that is in memory is on disk")
            self._gaps_filled = gaps
        dropped = 0
        for n in sorted(self._sizes):
            if n < number and n != self._number:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path(n))
                del self._sizes[n]
                dropped += 1
        self.old_files = [f for f in self.old_files if f.number >= number]
        return dropped

    def close(self) -> None:
        """Writes and syncs what is pending, ends the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(30)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        os.close(self._lock_fd)

    # -- the writer thread -------------------------------------------------------------------

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:010d}.journal"

    def _run(self) -> None:
        count_arrays()
        todo: list[Record] = []
        last_try = clock.monotonic()
        while True:
            with self._wake:
                self._wait(self._interval_s - (clock.monotonic() - last_try))
                todo += self._pending
                self._pending = []
                upto = self._appended
                closing = self._closing
                must_sync = bool(self._waiters)
            try:
                if self.failed:
                    self._rewind()
                self._write(todo)
                self._count_pending(todo)
                if closing or must_sync or clock.monotonic() - last_try >= self._interval_s:
                    if upto > self._synced:
                        self._sync()
                    last_try = clock.monotonic()
                    self._works_again()  # before anybody sees that all is on disk
                    self._synced = upto
                    self._tell(True)
            except OSError as e:
                self._note_failure(e)
                todo[:0] = self._unsynced
                self._unsynced = []
                self._give_up(todo)
                self._count_pending(todo)
                self._tell(False)
                last_try = clock.monotonic()
            if closing:
                if todo:
                    log.error("journal: %d records could not be written", len(todo))
                return

    def _wait(self, seconds: float) -> None:
        """Waits until there is something to do; the full time while the disk makes trouble."""
        if self.failed:
            self._wake.wait_for(lambda: self._closing, seconds)
        elif not (
            self._closing or self._waiters or self._pending_bytes > WRITE_BYTES or seconds <= 0
        ):
            self._wake.wait(seconds)

    def _note_failure(self, error: OSError) -> None:
        if self.failed is None and not self.incomplete:
            log.error("journal: %s; going on in memory, trying again", error)
        self.failed = str(error)
        self.failures += 1

    def _give_up(self, todo: list[Record]) -> None:
        """Forgets records that the disk doesn't take when they are too many, and all further ones until the image."""
        if self.incomplete or sum(r.pending_bytes for r in todo) > self._kept_bytes:
            if not self.incomplete:
                log.error(
                    "journal: too much waits for the disk; an image of all follows when it works"
                )
            self.gaps += 1
            todo.clear()

    def _works_again(self) -> None:
        if self.failed and not self.incomplete:
            log.warning("journal: writing works again")
        self.failed = None

    def _count_pending(self, todo: list[Record]) -> None:
        with self._wake:
            self._pending_bytes = sum(r.pending_bytes for r in [*todo, *self._pending])

    def _tell(self, done: bool) -> None:
        """Those whose records are on disk, or, when they can't be brought there, all that wait."""
        with self._wake:
            due = [w for w in self._waiters if not done or w[0] <= self._synced]
            self._waiters = [w for w in self._waiters if done and w[0] > self._synced]
        for _, told in due:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                told.get_loop().call_soon_threadsafe(_set, told, done)

    def _write(self, todo: list[Record]) -> None:
        """Writes the records and takes them off the list, file by file."""
        if self._fd < 0:
            self._open_next()
        while todo:
            if todo[0] is _ROTATE:
                self._open_next()
                del todo[0]
                continue
            end = next((i for i, r in enumerate(todo) if r is _ROTATE), len(todo))
            data = b"".join(encode(r) for r in _joined(todo[:end]))
            _write_all(self._fd, data)
            self.bytes_written += len(data)
            self._sizes[self._number] += len(data)
            self._unsynced += todo[:end]
            del todo[:end]

    def _sync(self) -> None:
        with self.sync_seconds.timed():
            os.fdatasync(self._fd)
        self.syncs += 1
        self._unsynced = []
        self._synced_size = self._sizes[self._number]

    def _rewind(self) -> None:
        """After a failure, back to what is surely on disk: after a failed sync the kernel forgets what it could
        not write, and the next sync succeeds without it."""
        if self._fd < 0:
            return
        os.ftruncate(self._fd, self._synced_size)
        os.lseek(self._fd, self._synced_size, os.SEEK_SET)
        self._sizes[self._number] = self._synced_size
        os.posix_fallocate(self._fd, self._synced_size, ROOM_BYTES)
        os.ftruncate(self._fd, self._synced_size)

    def _open_next(self) -> None:
        if self._fd >= 0:
            self._sync()
        number = self._number + 1
        head = _header(self.journal_id, self.incarnation, number)
        fd = os.open(
            self._path(number), os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600
        )
        try:
            _write_all(fd, head)
            os.fdatasync(fd)
            _sync_folder(self.folder)
        except OSError:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._number = fd, number
        self._sizes[number] = self._synced_size = len(head)


def _set(told: asyncio.Future[bool], done: bool) -> None:
    if not told.done():
        told.set_result(done)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _joined(records: list[Record]) -> Iterator[Record]:
    """As they are written: neighbouring POINTS of one ``now_s`` are one record, for fewer, larger lz4
    blocks; a FLOOR comes twice."""
    run: list[Record] = []
    points = 0
    for record in records:
        if record.kind == Kind.POINTS:
            if run and (run[0].now_s != record.now_s or points > 1 << 20):
                yield _join(run)
                run, points = [], 0
            run.append(record)
            points += len(record.ids)
            continue
        if run:
            yield _join(run)
            run, points = [], 0
        yield record
        if record.kind == Kind.FLOOR:
            yield record
    if run:
        yield _join(run)


def _join(run: list[Record]) -> Record:
    if len(run) == 1:
        return run[0]
    return Record(
        Kind.POINTS,
        np.concatenate([r.ids for r in run]),
        np.concatenate([r.times for r in run if r.times is not None]),
        np.concatenate([r.values for r in run if r.values is not None]),
        run[0].now_s,
    )
