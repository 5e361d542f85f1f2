"""Start: the store's series and the journal's points come back to where they were.

The floor of each series (older slots are in the store), or that it has none, is in the journal, so that
rings are rebuilt complete: a slot at or above the floor holds all points it ever got. Series of the
store whose floor the journal doesn't tell have nothing outside the store; theirs is the start of the
running chunk. The registry opens when all is done; until then points wait in the late queue.

The journal tells series by their rows where it can, so points find a series that was renamed meanwhile; those
of one that is in the trash come back without a name, and go to its row. What has no row goes by its name.

A journal that doesn't belong to the store (another database, files copied, a store that wasn't there until now …) says
nothing about floors: all that it holds is merged like late points, and series of the store take points from now on.
Its points are copied into this run's file, then the store is bound to the journal, then the older files go: until the
store is bound the copies don't count, and from then on the originals don't.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.errors import StoreUnavailable
from tgres_py.ingest.intake import COPIED, Intake, Late
from tgres_py.ingest.journal import (
    Damage,
    DamagedRecord,
    Journal,
    JournalFile,
    Kind,
    Record,
    decode,
    read_records,
)
from tgres_py.ingest.registry import NO_FLOOR_S, Registry
from tgres_py.ingest.replay import one_per_slot, to_be_merged
from tgres_py.model.points import Ids, Times, Values
from tgres_py.storage.port import Store

log = logging.getLogger(__name__)

UNTOLD_S = -(1 << 61)
NAMES_SLICE = 50_000  # names that the loop takes in at once: about 30 ms
POINTS_SLICE = 200_000


@dataclass(slots=True)
class Run:
    """What the files of one incarnation say of its ids: names, floors, rows. ``copies``: it has copies of
    what older files hold."""

    files: list[JournalFile] = field(default_factory=list)
    names: list[tuple[Ids, bytes]] = field(default_factory=list)
    floors: list[tuple[Ids, int]] = field(default_factory=list)
    rows: list[tuple[Ids, NDArray[np.int64]]] = field(default_factory=list)
    to_id: Ids = field(default_factory=lambda: np.empty(0, np.int32))
    copies: bool = False


@dataclass(slots=True)
class Recovered:
    """For the log and the metrics."""

    series: int = 0
    points: int = 0
    late: int = 0
    damage: Damage = field(default_factory=Damage)
    seconds: float = 0.0


def scan(files: list[JournalFile], damage: Damage) -> tuple[list[Run], int]:
    """First pass: the runs in order, and the highest number of a late record."""
    runs: list[Run] = []
    seq = 0
    for file in files:
        if not runs or runs[-1].files[-1].incarnation != file.incarnation:
            runs.append(Run())
        run = runs[-1]
        run.files.append(file)
        for kind, payload in read_records(file.path, damage):
            if kind in (Kind.NAMES, Kind.FLOOR, Kind.ROWS):
                record = _decoded(kind, payload, damage)
                if record is None:
                    continue
                if kind == Kind.NAMES:
                    run.names.append((record.ids, record.blob))
                elif kind == Kind.FLOOR:
                    run.floors.append((record.ids, record.now_s))
                else:
                    assert record.times is not None
                    run.rows.append((record.ids, record.times))
            elif kind == Kind.LATE:
                number = int.from_bytes(payload[:8], "little")
                seq = max(seq, number)
                run.copies = run.copies or bool(number & COPIED)
    return runs, seq


async def recover(intake: Intake, journal: Journal | None, store: Store) -> Recovered:
    """Opens the registry. StoreUnavailable leaves everything as it was; it may be repeated."""
    begin = clock.monotonic()
    result = Recovered()
    state = await store.get_state()
    bundles = dict(await store.load_bundles())
    rows = await store.load_series()
    runs: list[Run] = []
    ours = journal is not None and state.journal_id == journal.journal_id
    if journal is not None:
        runs, newest = await asyncio.to_thread(scan, journal.old_files, result.damage)
        intake.late_seq = max(intake.late_seq, newest)
    if ours:
        intake.late_seq = max(intake.late_seq, state.late_seq)
        runs = runs[max((i for i, run in enumerate(runs) if run.copies), default=0) :]
    registry = intake.registry

    # the loop's thread owns the table of names: it takes them in slices
    known = np.empty(len(rows.names), np.int32)
    for at in range(0, len(rows.names), NAMES_SLICE):
        part = slice(at, at + NAMES_SLICE)
        known[part] = registry.add_names("\n".join([*rows.names[part], ""]).encode())
        await asyncio.sleep(0)
    registry.load(known, rows, bundles)
    bundle_ids = rows.bundle_id
    if ours:
        trash = await _trashed(registry, runs, store)
        known = np.concatenate([known, trash.ids])
        bundle_ids = np.concatenate([bundle_ids, trash.bundle_id])
    told = [np.empty(0, np.int64), *(rrd_ids for run in runs for _, rrd_ids in run.rows)]
    gone = -np.concatenate([rrd_ids[rrd_ids < 0] for rrd_ids in told])
    later: Run | None = None
    for run in reversed(runs):
        run.to_id = await _ids_of(registry, run, later if ours else None, gone if ours else None)
        later = run
    size = registry.table.size + 1  # the last one is that of lost names, -1
    floors = np.full(size, UNTOLD_S, np.int64)
    if ours:
        for run in runs:
            for old, floor_s in run.floors:
                ids = _translate(run, old)
                np.maximum.at(floors, ids[ids >= 0], floor_s)
    # a floor may stand in a record that was damaged: such series are not trusted
    unsure = np.zeros(size, np.bool_)
    if not ours:
        unsure[:] = True
    elif result.damage.records:
        unsure[known] = floors[known] == UNTOLD_S
    _place_known(intake, known, bundle_ids, floors, unsure)
    await _place_others(intake, runs, floors)
    intake.journal_names()

    if journal is not None:
        if ours:
            for run in runs:
                await _replay(intake, run, state.late_seq, unsure, floors, result)
        else:
            result.late = intake.copy_late(await _foreign_points(runs))
            await _bind(store, journal)
        if journal.gaps == 0:
            # what is older than the copies
            journal.drop_before(runs[0].files[0].number if ours and runs else journal.first_number, 0)
    await _land(intake)
    registry.open()
    intake.journal_names()
    result.series = len(rows.names)
    result.seconds = clock.monotonic() - begin
    return result


async def _land(intake: Intake) -> None:
    """What waited goes to the ring where that has places, before newer points do. Nothing waits at the end:
    the registry may open."""
    at = points = 0
    while at < len(intake.late):
        intake.registry.admit_waiting()
        intake.journal_names()
        points += len(intake.late[at])
        intake.late[at] = intake.land(intake.late[at])
        at += 1
        if points >= POINTS_SLICE:
            points = 0
            await asyncio.sleep(0)
    intake.late[:] = [late for late in intake.late if len(late)]


@dataclass(slots=True)
class Trashed:
    """Series without a name: ids and bundles of rows that are in the trash."""

    ids: Ids
    bundle_id: NDArray[np.int32]


async def _trashed(registry: Registry, runs: list[Run], store: Store) -> Trashed:
    """Gives ids to what the journal tells of that is in the trash."""
    told = [rrd_ids for run in runs for _, rrd_ids in run.rows]
    wanted = np.unique(np.concatenate([np.empty(0, np.int64), *told]))
    known = await asyncio.to_thread(registry.by_row, wanted)
    gone = wanted[(wanted > 0) & (known < 0)]
    rows = await store.load_trash(gone) if len(gone) else None
    if rows is None or len(rows.names) == 0:
        return Trashed(np.empty(0, np.int32), np.empty(0, np.int32))
    pairs = zip(rows.names, rows.rrd_id.tolist(), strict=True)
    ids = [registry.detached(name, rrd_id) for name, rrd_id in pairs]
    return Trashed(np.array(ids, np.int32), rows.bundle_id)


async def _ids_of(
    registry: Registry, run: Run, later: Run | None, gone: NDArray[np.int64] | None
) -> Ids:
    """This run's id of each id of an earlier run, -1 where its name is lost or its row gone for good.

    ``later``: the run after that one, its ids known. ``gone``: rows that are gone for good; None: the
    journal isn't this store's, so rows say nothing.
    """
    told = [ids for ids, _ in run.names] + [ids for ids, _ in run.rows]
    top = max((int(ids.max(initial=-1)) for ids in told), default=-1)
    row_of = np.zeros(top + 1, np.int64)
    for ids, rrd_ids in run.rows if gone is not None else []:
        row_of[ids] = rrd_ids
    # in a thread: a million take half a second
    to_id = await asyncio.to_thread(registry.by_row, row_of)
    # a row that nobody knows belongs to a later state of the store than this one: it goes by its name
    settled = (to_id >= 0) | (row_of < 0)
    if gone is not None and len(gone):
        settled |= np.isin(row_of, gone)
    for ids, blob in run.names:
        left = np.flatnonzero(~settled[ids])
        if len(left):
            names = blob.split(b"\n")
            wanted = names[:-1] if len(left) == len(ids) else [names[i] for i in left.tolist()]
            to_id[ids[left]] = _ids_of_names(registry, wanted, later)
        await asyncio.sleep(0)
    return to_id


def _ids_of_names(registry: Registry, names: list[bytes], later: Run | None) -> Ids:
    """Ids of series without a row. Where the run after theirs knows more of them, that counts: they were
    the same series when it began."""
    same: dict[bytes, int] = {}
    if later is not None:
        wanted = set(names)
        for ids, blob in reversed(later.names):
            pairs = list(zip(blob.split(b"\n"), later.to_id[ids].tolist(), strict=False))
            # of several ids that had the name one after the other, the first
            same.update((name, id_) for name, id_ in reversed(pairs) if name in wanted)
    fresh = [name for name in names if name not in same]
    found = dict(zip(fresh, registry.add_names(b"\n".join([*fresh, b""])).tolist(), strict=True))
    found |= same
    return np.fromiter(map(found.__getitem__, names), np.int32, len(names))


def _translate(run: Run, ids: Ids) -> Ids:
    inside = (ids >= 0) & (ids < len(run.to_id))
    if len(run.to_id) == 0:
        return np.full(len(ids), -1, np.int32)
    return np.where(inside, run.to_id[np.where(inside, ids, 0)], -1).astype(np.int32)


def _place_known(
    intake: Intake,
    known: Ids,
    bundle_ids: NDArray[np.int32],
    floors: NDArray[np.int64],
    unsure: NDArray[np.bool_],
) -> None:
    """Gives the store's series their segments, by bundle and floor."""
    registry = intake.registry
    now = clock.now_s()
    for db_id in np.unique(bundle_ids).tolist():
        bundle = registry.bundle_db_ids.index(db_id)
        finest = registry.bundle_specs[bundle].archives[0]
        ids = known[bundle_ids == db_id]
        floor_of = floors[ids]
        floor_of[floor_of == UNTOLD_S] = now // finest.chunk_s * finest.chunk_s
        floor_of[unsure[ids]] = (now // finest.step_s + 1) * finest.step_s
        for floor_s in np.unique(floor_of).tolist():
            registry.place(ids[floor_of == floor_s], bundle, floor_s)


async def _place_others(intake: Intake, runs: list[Run], floors: NDArray[np.int64]) -> None:
    """Series that only the journal knows: they go by the rules, their rows are made later."""
    registry = intake.registry
    mentioned = np.zeros(registry.table.size, np.bool_)
    for run in runs:
        mentioned[run.to_id[run.to_id >= 0]] = True
    ids = registry.unplaced(np.flatnonzero(mentioned).astype(np.int32))
    for at in range(0, len(ids), NAMES_SLICE):
        part = ids[at : at + NAMES_SLICE]
        floor_of = np.maximum(floors[part], NO_FLOOR_S)
        for floor_s in np.unique(floor_of).tolist():
            registry.admit_by_rules(part[floor_of == floor_s], floor_s)
        registry.give_back(part)
        await asyncio.sleep(0)


async def _bind(store: Store, journal: Journal) -> None:
    """Makes the journal the store's, once all that was requeued is on disk. For as long as it takes: what was
    replayed must not be replayed again."""
    told = False
    while True:
        why = journal.failed
        try:
            if await journal.synced():
                await store.set_journal_id(journal.journal_id)
                return
        except StoreUnavailable as e:
            why = str(e)
        if not told:
            told = True
            log.warning("%s; trying again", why)
        await asyncio.sleep(1)


async def _foreign_points(runs: list[Run]) -> list[Late]:
    """All points of a journal that isn't the store's, in order, those of each late record as it was last told."""
    found: list[Late] = []
    for number, run in enumerate(runs):
        late: dict[int, Late] = {}
        async for record in _point_records(run):
            if record.kind == Kind.LATE and record.seq & COPIED and number:
                continue  # an earlier start didn't come to its end: the originals are there
            assert record.times is not None and record.values is not None
            ids = _translate(run, record.ids)
            known = ids >= 0
            points = Late(
                ids[known],
                record.times[known],
                record.values[known],
                record.now_s or clock.now_s(),
                record.seq,
            )
            if record.kind == Kind.LATE:
                late[record.seq] = points
            else:
                found.append(points)
        # a slot's late points came after those that the ring took
        found += [late[seq] for seq in sorted(late)]
    return [points for points in found if len(points)]


async def _replay(
    intake: Intake,
    run: Run,
    late_applied: int,
    unsure: NDArray[np.bool_],
    floors: NDArray[np.int64],
    result: Recovered,
) -> None:
    """Second pass: points and images back into the ring, unmerged late points back into the queue.

    ``late_applied``: number of the last late record that the store has merged.
    """
    async for record in _point_records(run):
        if record.kind == Kind.LATE and record.seq <= late_applied:
            continue
        assert record.times is not None and record.values is not None
        ids = _translate(run, record.ids)
        late = ids >= 0
        if record.kind != Kind.LATE:
            late &= unsure[ids]
        if late.any() or record.kind == Kind.LATE:
            result.late += _requeue(intake, record, ids, late)
        if record.kind == Kind.LATE:
            continue
        keep = (ids >= 0) & ~late & (record.times >= floors[ids])
        times, values, counts = record.times, record.values, record.counts
        if not keep.all():
            ids, times, values = ids[keep], times[keep], values[keep]
            counts = None if counts is None else counts[keep]
        if len(ids) == 0:
            continue
        result.points += len(ids)
        if record.kind == Kind.IMAGE:
            ids, times, values, counts = one_per_slot(intake.registry, ids, times, values, counts)
        for at in range(0, len(ids), POINTS_SLICE):
            part = slice(at, at + POINTS_SLICE)
            if record.kind == Kind.IMAGE:
                intake.ring.assign(
                    ids[part], times[part], values[part], None if counts is None else counts[part]
                )
            else:
                result.late += _store(
                    intake, record.now_s, ids[part], times[part], values[part], floors
                )
            await asyncio.sleep(0)


def _store(
    intake: Intake, now_s: int, ids: Ids, times: Times, values: Values, floors: NDArray[np.int64]
) -> int:
    """Puts points back into the ring. How many go to the merge: the retention is another one by now, whose
    finest archive is shorter or has slots that begin before the floor."""
    late = intake.ring.store(ids, times, values, now_s, 1 << 40)[2]
    if len(late) == 0:
        return 0
    late = late[to_be_merged(intake.registry, ids[late], times[late], floors)]
    intake.add_late(ids[late], times[late], values[late], now_s)
    intake.ledger.received["journal"] += len(late)
    return len(late)


def _requeue(intake: Intake, record: Record, ids: Ids, which: NDArray[np.bool_]) -> int:
    """Queues points for the merge; how many. Late ones keep their number: the store knows by it whether
    they are merged, and they come before those of this run."""
    assert record.times is not None and record.values is not None
    late = Late(
        ids[which], record.times[which], record.values[which], record.now_s or clock.now_s(), record.seq
    )
    count = len(late)
    if record.kind == Kind.LATE:
        count = intake.requeue_late(late)
    elif count:
        intake.add_late(late.ids, late.times, late.values, late.now_s)
    intake.ledger.received["journal"] += count
    return count


async def _point_records(run: Run) -> AsyncIterator[Record]:
    """The records with points of a run, each decoded in a thread."""
    for file in run.files:
        records = _records_of(file)
        while (record := await asyncio.to_thread(next, records, None)) is not None:
            yield record


def _records_of(file: JournalFile) -> Iterator[Record]:
    damage = Damage()
    for kind, payload in read_records(file.path, damage):
        if kind in (Kind.POINTS, Kind.LATE, Kind.IMAGE):
            record = _decoded(kind, payload, damage)
            if record is not None:
                yield record


def _decoded(kind: int, payload: memoryview, damage: Damage) -> Record | None:
    """None: the checksum is right, and yet it is no record; damage that was there before it was written."""
    try:
        return decode(kind, payload)
    except DamagedRecord as error:
        log.warning("journal: %s; it is skipped", error)
        damage.records += 1
        damage.bytes += len(payload)
        return None
