"""The journal: what is written is read again, whatever happens to disk and files in between."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tgres_py.errors import ConfigError
from tgres_py.ingest.journal import (
    FILE_HEADER_BYTES,
    RECORD_HEADER,
    Damage,
    Journal,
    Kind,
    Record,
    decode,
    encode,
    list_files,
    read_records,
)

SYNC_S = 0.1
LONG_S = 100.0  # so long that nothing is written but what is asked for


def points(n: int, first: int = 0, now_s: int = 7) -> Record:
    ids = np.arange(first, first + n, dtype=np.int32)
    return Record(Kind.POINTS, ids, ids.astype(np.int64) + 1_000, ids + 0.5, now_s)


def same(a: Record, b: Record) -> None:
    assert (a.kind, a.now_s, a.seq, a.blob) == (b.kind, b.now_s, b.seq, b.blob)
    for field in ("ids", "times", "values", "counts"):
        x, y = getattr(a, field), getattr(b, field)
        assert (x is None) == (y is None)
        if x is not None:
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype


def read(folder: Path, damage: Damage | None = None) -> list[Record]:
    damage = damage or Damage()
    return [
        decode(kind, payload)
        for file in list_files(folder)
        for kind, payload in read_records(file.path, damage)
    ]


def values_of(records: list[Record]) -> list[float]:
    return [
        v
        for r in records
        if r.kind in (Kind.POINTS, Kind.LATE, Kind.IMAGE)
        for v in r.values.tolist()
    ]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, SYNC_S)
    journal.start()
    yield journal
    journal.close()


# -- records -------------------------------------------------------------------------------------

int32s = st.integers(-(2**31), 2**31 - 1)


@st.composite
def record(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from([k for k in Kind if k != Kind.LANDED]))
    n = draw(st.integers(0, 20))
    ids = draw(arrays(np.int32, n, elements=st.integers(0, 2**31 - 1)))
    now_s = draw(st.integers(-(2**62), 2**62))
    if kind == Kind.NAMES:
        lines = draw(
            st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n")), max_size=5)
        )
        return Record(kind, ids, blob="".join(f"{line}\n" for line in lines).encode())
    if kind == Kind.FLOOR:
        return Record(kind, ids, now_s=now_s)
    limit = draw(st.sampled_from([2**31 - 1, 2**53]))
    times = draw(arrays(np.int64, n, elements=st.integers(-limit, limit)))
    if kind == Kind.ROWS:
        return Record(kind, ids, times)
    values = draw(arrays(np.float64, n, elements=st.floats(allow_nan=False)))
    seq = draw(st.integers(0, 2**63 - 1)) if kind == Kind.LATE else 0
    counts = None
    if kind == Kind.IMAGE:
        counts = draw(arrays(np.uint32, n, elements=st.integers(0, 2**32 - 1)))
    return Record(kind, ids, times, values, now_s, seq, counts=counts)


@settings(max_examples=200, deadline=None)
@given(record())
def test_every_record_comes_back(record: Record) -> None:
    data = encode(record)
    kind = data[4]
    same(decode(kind, data[RECORD_HEADER.size :]), record)


@pytest.mark.parametrize("cut", [0, 1, 30, 60, 90])
def test_landed_points_and_what_is_left_come_back_together_or_not_at_all(
    tmp_path: Path, cut: int
) -> None:
    ids = np.arange(4, dtype=np.int32)
    left = Record(Kind.LATE, ids, ids.astype(np.int64), ids + 0.25, 3, seq=9)
    landed = points(3)
    both = Record(Kind.LANDED, landed.ids, landed.times, landed.values, landed.now_s, rest=left)
    path = a_file(tmp_path, [points(1, now_s=8), both])
    os.truncate(path, path.stat().st_size - cut)
    got = read(tmp_path)
    assert len(got) == (1 if cut else 3)
    for a, b in zip(got, [points(1, now_s=8), landed, left], strict=False):
        same(a, b)


# -- damage --------------------------------------------------------------------------------------


def a_file(folder: Path, records: list[Record]) -> Path:
    """A file of these records, each one written by itself."""
    journal = Journal(folder, SYNC_S)
    journal.start()
    journal.close()
    path = folder / "0000000001.journal"
    with path.open("ab") as f:
        for r in records:
            f.write(encode(r))
    return path


@pytest.mark.parametrize("cut", [1, 10, 15, 16, 17, 40])
def test_a_torn_tail_costs_the_last_record(tmp_path: Path, cut: int) -> None:
    path = a_file(tmp_path, [points(3), points(3, 3)])
    os.truncate(path, path.stat().st_size - cut)
    damage = Damage()
    assert values_of(read(tmp_path, damage)) == [0.5, 1.5, 2.5]
    assert damage.records == 1


def test_a_whole_file_has_no_damage(tmp_path: Path) -> None:
    a_file(tmp_path, [points(3), points(3, 3)])
    damage = Damage()
    assert len(values_of(read(tmp_path, damage))) == 6
    assert damage == Damage()


@pytest.mark.parametrize("bit", [0, 5, 7])
def test_a_flipped_bit_costs_one_record(tmp_path: Path, bit: int) -> None:
    records = [points(2, 2 * i) for i in range(4)]
    path = a_file(tmp_path, records)
    whole = path.read_bytes()
    ends = np.cumsum([len(encode(r)) for r in records]) + FILE_HEADER_BYTES
    for at in range(FILE_HEADER_BYTES, len(whole)):
        data = bytearray(whole)
        data[at] ^= 1 << bit
        path.write_bytes(data)
        hit = int(np.searchsorted(ends, at, side="right"))
        if 5 <= at - (ends[hit] - len(encode(records[hit]))) < 8:
            continue  # bytes that nobody reads
        damage = Damage()
        got = values_of(read(tmp_path, damage))
        assert got == [i + 0.5 for i in range(8) if i // 2 != hit], f"byte {at}"
        assert damage.records == 1
        assert damage.bytes == len(encode(records[hit]))


def test_foreign_bytes_between_records_are_skipped(tmp_path: Path) -> None:
    path = a_file(tmp_path, [points(2)])
    magic = encode(points(1))[:4]
    with path.open("ab") as f:
        f.write(b"\0" * 100 + magic + b"\xff" * 50 + magic * 3)
        f.write(encode(points(2, 2)))
    damage = Damage()
    assert values_of(read(tmp_path, damage)) == [0.5, 1.5, 2.5, 3.5]
    assert (damage.records, damage.bytes) == (1, 100 + 4 + 50 + 12)


@pytest.mark.parametrize("bit", [0, 6])
def test_a_flipped_bit_in_the_header_costs_nothing(tmp_path: Path, bit: int) -> None:
    path = a_file(tmp_path, [points(2)])
    whole = path.read_bytes()
    [header] = list_files(tmp_path)
    for at in range(FILE_HEADER_BYTES):
        data = bytearray(whole)
        data[at] ^= 1 << bit
        path.write_bytes(data)
        assert list_files(tmp_path) == [header], f"byte {at}"
        assert values_of(read(tmp_path)) == [0.5, 1.5]


@pytest.mark.parametrize("content", [b"", b"tgresjl1", b"\0" * 64, b"something else" * 10])
def test_a_file_without_a_header_is_left_out(tmp_path: Path, content: bytes) -> None:
    a_file(tmp_path, [points(2)])
    (tmp_path / "0000000002.journal").write_bytes(content)
    assert values_of(read(tmp_path)) == [0.5, 1.5]
    journal = Journal(tmp_path, SYNC_S)
    journal.start()
    journal.append(points(1, 9))
    journal.close()
    assert values_of(read(tmp_path)) == [0.5, 1.5, 9.5]


# -- the writer ----------------------------------------------------------------------------------


async def test_synced_means_readable(journal: Journal, tmp_path: Path) -> None:
    for i in range(5):
        journal.append(points(3, 3 * i, now_s=i))
        if i == 2:
            await journal.synced()
            assert values_of(read(tmp_path)) == [j + 0.5 for j in range(9)]
    await journal.synced()
    assert values_of(read(tmp_path)) == [j + 0.5 for j in range(15)]


async def test_what_was_appended_sync_s_ago_is_on_disk(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fdatasync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (fdatasync(fd), synced.append(1))[0])
    for i in range(3):
        journal.append(points(1, i))
        before = len(synced)
        await asyncio.sleep(SYNC_S * 1.5)
        assert values_of(read(tmp_path)) == [j + 0.5 for j in range(i + 1)]
        assert len(synced) > before


async def test_kinds_keep_their_order(journal: Journal, tmp_path: Path) -> None:
    ids = np.arange(2, dtype=np.int32)
    sent = [
        Record(Kind.NAMES, ids, blob=b"a\nb\n"),
        points(2, now_s=1),
        points(2, now_s=2),
        Record(Kind.LATE, ids, ids.astype(np.int64), ids + 0.25, 3, seq=9),
        points(2, now_s=3),
        Record(Kind.FLOOR, ids, now_s=40),
        Record(Kind.IMAGE, ids, ids.astype(np.int64), ids + 0.0, counts=ids.astype(np.uint32)),
    ]
    for r in sent:
        journal.append(r)
    await journal.synced()
    floor = next(i for i, r in enumerate(sent) if r.kind == Kind.FLOOR)
    written = [*sent[: floor + 1], *sent[floor:]]  # a floor is written twice
    for got, want in zip(read(tmp_path), written, strict=True):
        same(got, want)


async def test_rotation_and_drop(journal: Journal, tmp_path: Path) -> None:
    journal.append(points(1, 0))
    number = journal.rotate()
    journal.append(points(1, 1))
    await journal.synced()
    files = list_files(tmp_path)
    assert [f.number for f in files] == [1, 2] and number == 2
    assert {f.journal_id for f in files} == {journal.journal_id}
    assert journal.total_bytes == sum(f.path.stat().st_size for f in files)
    assert journal.drop_before(number, 0) == 1
    assert values_of(read(tmp_path)) == [1.5]
    assert journal.total_bytes == (tmp_path / "0000000002.journal").stat().st_size
    assert journal.drop_before(100, 0) == 0, "the file that is being written stays"
    assert values_of(read(tmp_path)) == [1.5]


async def test_the_next_run_goes_on(tmp_path: Path) -> None:
    runs = []
    for i in range(3):
        journal = Journal(tmp_path, SYNC_S)
        assert values_of([r for f in journal.old_files for r in read_file(f.path)]) == [
            j + 0.5 for j in range(i)
        ]
        journal.start()
        journal.append(points(1, i))
        journal.close()
        runs.append((journal.journal_id, journal.incarnation))
    assert len({journal_id for journal_id, _ in runs}) == 1
    assert [incarnation for _, incarnation in runs] == [1, 2, 3]


def read_file(path: Path) -> list[Record]:
    return [decode(kind, payload) for kind, payload in read_records(path, Damage())]


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SYNC_S)
    journal.start()
    with pytest.raises(ConfigError, match="in use by another server"):
        Journal(tmp_path, SYNC_S)
    journal.close()
    again = Journal(tmp_path, SYNC_S)
    again.start()
    again.close()


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, SYNC_S)
    monkeypatch.setattr(os, "write", failing(os.write, times=1, number=errno.EROFS))
    with pytest.raises(ConfigError, match=r"can't be written.*another folder"):
        journal.start()
    journal.close()


# -- a disk in trouble ---------------------------------------------------------------------------


def failing(
    function: Callable[..., object],
    times: int,
    calls: list[float] | None = None,
    number: int = errno.ENOSPC,
) -> Callable[..., object]:
    """``function``, but the journal's first calls fail."""
    left = [times]

    def call(*args: object) -> object:
        if threading.current_thread().name not in ("journal", "MainThread"):
            return function(*args)
        if calls is not None:
            calls.append(time.monotonic())
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return function(*args)

    return call


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


async def on_disk_at_last(journal: Journal) -> None:
    for _ in range(1_000):
        if await journal.synced():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not on disk after ten seconds")


@pytest.mark.parametrize("call", ["write", "fdatasync"])
async def test_nothing_is_lost_while_the_disk_is_full(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    journal.append(points(2))
    await journal.synced()
    monkeypatch.setattr(os, call, failing(getattr(os, call), times=4))
    journal.append(points(2, 2))
    await until(lambda: journal.failed, "the failure is noticed")
    assert "No space left" in str(journal.failed)
    journal.append(points(2, 4))
    assert not await journal.synced()
    await on_disk_at_last(journal)
    assert values_of(read(tmp_path)) == [i + 0.5 for i in range(6)]
    await until(lambda: journal.failed is None, "the end of the failure is noticed")


async def test_a_half_written_record_is_taken_back(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    left = [1, 2]

    def half(fd: int, data: memoryview) -> int:
        if threading.current_thread().name != "journal" or not left:
            return write(fd, data)
        if left.pop() == 2:
            return write(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", half)
    journal.append(points(50))
    await on_disk_at_last(journal)
    assert not left
    damage = Damage()
    assert len(values_of(read(tmp_path, damage))) == 50
    assert damage == Damage()


async def test_a_sync_that_failed_is_not_believed_the_next_time(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fdatasync Linux forgets what it couldn't write, and the next call succeeds: the
    records must be written again."""
    fdatasync = os.fdatasync
    size = (tmp_path / "0000000001.journal").stat().st_size
    left = [1]

    def forgets(fd: int) -> None:
        if left:
            left.pop()
            lost = os.fstat(fd).st_size - size
            os.pwrite(fd, b"\0" * lost, size)
            raise OSError(errno.EIO, "bad disk")
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", forgets)
    journal.append(points(3))
    await on_disk_at_last(journal)
    assert not left
    assert values_of(read(tmp_path)) == [0.5, 1.5, 2.5]


@pytest.mark.parametrize("waits", ["much is pending", "somebody waits"])
async def test_a_full_disk_is_not_tried_without_pause(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, waits: str
) -> None:
    calls: list[float] = []
    monkeypatch.setattr(os, "write", failing(os.write, times=1_000_000, calls=calls))
    journal.append(points(300_000 if waits == "much is pending" else 10))
    waiter = asyncio.create_task(journal.synced())
    if waits == "much is pending":
        waiter.cancel()
    await asyncio.sleep(SYNC_S * 5)
    assert 1 <= len(calls) <= 15
    assert waiter.cancelled() or waiter.result() is False
    monkeypatch.undo()
    await on_disk_at_last(journal)


async def test_rotation_on_a_full_disk_opens_no_more_files_than_one(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(points(1))
    await journal.synced()
    write = os.write
    left = [3]

    def header_fails(fd: int, data: bytes) -> int:
        if len(data) == FILE_HEADER_BYTES and left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "full")
        return write(fd, data)

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "write", header_fails)
    journal.rotate()
    journal.append(points(1, 1))
    await on_disk_at_last(journal)
    assert left == [0]
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1
    assert values_of(read(tmp_path)) == [0.5, 1.5]


async def test_too_many_records_are_given_up_and_an_image_makes_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path, SYNC_S, kept_bytes=1_000)
    journal.start()
    journal.append(points(2))
    await journal.synced()
    monkeypatch.setattr(os, "write", failing(os.write, times=1_000_000))
    journal.append(points(200))
    await until(lambda: journal.incomplete, "records are given up")
    journal.append(points(2, 300))
    assert not await journal.synced()
    await until(lambda: journal.pending_bytes == 0, "nothing is kept any more")
    monkeypatch.undo()
    await until(lambda: journal.failed is None, "writing works again")
    assert journal.incomplete
    gaps, number = journal.gaps, journal.rotate()
    journal.append(points(3))
    assert await journal.synced()
    assert journal.gaps == gaps
    journal.drop_before(number, gaps)
    assert not journal.incomplete
    assert values_of(read(tmp_path)) == [0.5, 1.5, 2.5]
    journal.close()
    texts = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[2].split()[0] for text in texts] == ["[Errno", "too", "writing"], (
        texts
    )


async def test_a_disk_that_is_full_at_the_start_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, SYNC_S)
    monkeypatch.setattr(os, "write", failing(os.write, times=3))
    journal.start()
    assert "No space left" in str(journal.failed)
    journal.append(points(2))
    await on_disk_at_last(journal)
    assert journal.failed is None
    assert values_of(read(tmp_path)) == [0.5, 1.5]
    journal.close()


async def test_close_writes_what_is_pending(tmp_path: Path) -> None:
    journal = Journal(tmp_path, LONG_S)
    journal.start()
    journal.append(points(3))
    journal.close()
    assert values_of(read(tmp_path)) == [0.5, 1.5, 2.5]


async def test_much_pending_is_written_before_its_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path, LONG_S)
    journal.start()
    try:
        journal.append(points(300_000))
        await until(lambda: journal.pending_bytes == 0, "what is pending was written")
        assert len(values_of(read(tmp_path))) == 300_000
    finally:
        journal.close()
