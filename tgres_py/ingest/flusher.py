"""The one task that writes to the store: series rows, whole chunks, late merges, partial chunks for SQL readers.

A segment's chunk is written once it is ``late_grace_s`` past its end, at a moment of the pace that belongs
to the segment, so that chunks that complete together don't leave together. With it go all coarser
slots that ended. When the store has committed, the rows are freed and the floor rises; the journal
learns the floor before anything else is merged below it.

While the store is away everything stays where it is, and the task tries again with growing pauses; while it doesn't
even answer (``storage/presence.py`` knows) with pings only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.errors import StoreUnavailable
from tgres_py.ingest.footprint import cache_bytes
from tgres_py.ingest.intake import Intake, Late
from tgres_py.ingest.journal import Journal, Kind, Record
from tgres_py.ingest.late import LateMerger, Merge, floors_wanted
from tgres_py.ingest.reader import COUNTS_ARCHIVE, Floats, Reader, archives_of
from tgres_py.ingest.rows import joined, rows_of_block
from tgres_py.ingest.takeover import take_over
from tgres_py.kernels import FLOOR_NONE
from tgres_py.measure import Histogram
from tgres_py.model.points import Ids
from tgres_py.model.retention import BundleSpec, OnDuplicate
from tgres_py.storage.port import ChunkRows, Store
from tgres_py.storage.presence import Presence

log = logging.getLogger(__name__)

TICK_S = 0.25
CREATE_BATCH = 8_192  # some 10 ms of the loop
LATE_DELAY_S = 1.0  # late points gather this long
BACKOFF_S = (0.25, 10.0)
PROBE_S = 1.0  # while the store is away, queries ask for it this often
PROBE_WAIT_S = 0.5
JOURNAL_WAIT_S = 5.0
PRESSURE = 0.8  # share of the ring's memory from which chunks are written without waiting for their pace
CROWDED_S = 60.0  # a journal half full is checkpointed this often
INCOMPLETE_S = (5.0, 60.0)  # one that gave records up: first and longest pause between tries
GOLDEN = 0.6180339887498949
IMAGE_POINTS = 1 << 16  # some 10 ms of the loop
TOUCH_PARTIAL_S = 6 * 3_600.0  # where whole chunks are rarer than this, partial ones tell of last points, too
SETTLE_SEGMENTS = 8  # written together: half a second at most, and one wait for the journal
INLINE_SLOTS = 1 << 16  # blocks up to this size are worked on in the loop's thread


def rows_of_archives(
    spec: BundleSpec, block: Floats, counts: Floats | None, first: int, rrd_ids: NDArray[np.int64]
) -> list[ChunkRows]:
    """Rows of a slot-major block of finest slots from slot ``first``, and of what it rolls up to.

    ``counts``: points of each slot, only for the rule mean. Pure: a full segment takes 0.1 s and runs in a thread.
    """
    rows: list[ChunkRows] = []
    for number, (start, values) in enumerate(archives_of(spec, block, first)):
        rows += rows_of_block(number, spec.archives[number], rrd_ids, start, values)
    if counts is not None:
        known = np.where(counts > 0, counts, np.nan)
        rows += rows_of_block(COUNTS_ARCHIVE, spec.archives[0], rrd_ids, first, known)
    return rows


def last_known_s(rows: ChunkRows, step_s: int) -> NDArray[np.int64]:
    """Time of the last known slot of each row: int64 (k,). Every row has one."""
    known = ~np.isnan(rows.dp[:, ::-1])
    last: NDArray[np.int64] = rows.dp.shape[1] - 1 - known.argmax(axis=1)
    return rows.start_s + last * step_s


@dataclass(frozen=True, slots=True)
class Pace:
    late_grace_s: float = 60.0
    flush_pace_s: float = 0.0  # 0: an eighth of the chunk's period, at most 600
    sql_freshness_s: float = 600.0
    checkpoint_s: float = 1_800.0


class Noticed(NamedTuple):
    """The oldest chunk of a segment, and when it is complete: by the clock, and by the one that never steps."""

    chunk: int
    complete_s: float
    complete_passed: float


class Flusher:
    def __init__(
        self,
        intake: Intake,
        store: Store,
        reader: Reader,
        journal: Journal | None,
        pace: Pace,
        presence: Presence | None = None,
    ) -> None:
        """``presence``: what is known of the store; None: this flusher is the only one to know."""
        self.intake = intake
        self.registry = intake.registry
        self.ring = intake.ring
        self.store = store
        self.reader = reader
        self.journal = journal
        self.pace = pace
        self.presence = presence or Presence(store.ping)
        self.flushes = 0
        self.failures = 0
        self.checkpoints = 0
        self.flush_seconds = Histogram()
        self.merge_seconds = Histogram()
        self.checkpoint_seconds = Histogram()
        self._merger = LateMerger(self.registry, reader)
        self._noticed: dict[int, Noticed] = {}  # by segment
        self._fresh: dict[int, tuple[int, float]] = {}  # segment: (points written, when) of partial rows
        self._late_since: float | None = None
        self._pressed = False  # whether memory was short at the last look
        self._doubt: tuple[int, Merge] | None = None  # number and outcome of a merge not confirmed
        self._probed = float("-inf")
        self._wake = asyncio.Event()
        self.lock = asyncio.Lock()  # whoever writes to the store or moves a floor holds it
        self._last_checkpoint = clock.monotonic()
        self._image_pause_s = 0.0  # before the image that makes the journal whole is tried again
        intake.on_late = self._note_late
        self.presence.on_answer = self._wake.set

    # -- the task ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs until cancelled."""
        pause = BACKOFF_S[0]
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if not self.registry.opened:
                continue
            try:
                await self.tick()
                self.presence.all_written()
                pause = BACKOFF_S[0]
            except StoreUnavailable as e:
                self.failures += 1
                await self.presence.refused(e)
                await self._pause(pause)
                pause = min(BACKOFF_S[1], pause * 2)
            except Exception:
                # a defect must not end the only way to the store: nothing is lost while the journal lasts
                self.failures += 1
                log.exception("flush failed; trying again")
                await asyncio.sleep(BACKOFF_S[1])

    async def _pause(self, seconds: float) -> None:
        """Waits before the next try; whoever finds the store back ends it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def reachable(self) -> bool:
        """Whether a query may go to the store for late points: it is not away, or answers again.

        A query needn't wait for the task's next try, which may be ten seconds off. One of those that ask
        in the same second finds out; it waits half a second at most.
        """
        if self.presence.available:
            return True
        if clock.monotonic() - self._probed < PROBE_S:
            return False
        self._probed = clock.monotonic()
        try:
            async with asyncio.timeout(PROBE_WAIT_S):
                if not await self.presence.check():
                    return False
        except TimeoutError:
            return False
        self._wake.set()
        return True

    async def tick(self) -> None:
        """All that is due now. StoreUnavailable: the journal is looked after all the same."""
        try:
            if not self.presence.answers:
                await self.presence.check()
                self.presence.expect_answer()
            await self._write_due()
        except StoreUnavailable:
            await self._checkpoint_if_due()
            raise
        await self._checkpoint_if_due()

    async def _write_due(self) -> None:
        async with self.lock:
            await self._create_series()
            await self._merge_late()
            for segment in range(self.ring.segments):
                until = self._due(segment)
                if until is not None:
                    await self._flush_chunk(segment, until)
            await self._relieve()
            await self._freshen()

    async def _checkpoint_if_due(self) -> None:
        if self._checkpoint_due():
            with self.checkpoint_seconds.timed():
                await self.checkpoint()

    def _checkpoint_due(self) -> bool:
        if self.journal is None or self.journal.failed:
            return False
        since = clock.monotonic() - self._last_checkpoint
        crowded = self.journal.total_bytes > self.intake.limits.journal_bytes_max // 2
        wait_s = min(self.pace.checkpoint_s, CROWDED_S) if crowded else self.pace.checkpoint_s
        return since >= (min(wait_s, self._image_pause_s) if self.journal.incomplete else wait_s)

    # -- series rows -------------------------------------------------------------------------

    async def create_rows(self) -> None:
        """Makes the rows of all series that have none yet. StoreUnavailable."""
        async with self.lock:
            await self._create_series()

    async def _create_series(self) -> None:
        registry = self.registry
        while registry.uncreated:
            while 0 in registry.bundle_db_ids:  # others may come while these are made
                made = await self.store.ensure_bundles(registry.bundle_specs)
                registry.bundle_db_ids[: len(made)] = made
            ids = registry.take_uncreated(CREATE_BATCH)
            if len(ids) == 0:
                continue
            bundles = np.array(registry.bundle_db_ids, np.int32)[registry.bundle_of[ids]]
            try:
                rrd_ids, found = await self.store.create_series(registry.names(ids), bundles)
            except BaseException:
                registry.give_back(ids)
                raise
            other = found != bundles
            registry.set_rows(ids[~other], rrd_ids[~other])
            self.intake.journal_names()
            if other.any():
                try:
                    await take_over(self.intake, self.store, ids[other], rrd_ids[other], found[other])
                except BaseException:
                    registry.give_back(ids[other])
                    raise

    async def flush_names(self) -> None:
        """All series have their rows. StoreUnavailable."""
        async with self.lock:
            await self._create_series()

    # -- chunks ------------------------------------------------------------------------------

    def _due(self, segment: int) -> int | None:
        """End of the oldest chunk of a segment when it is to be written now.

        Its time comes by the clock, or, should that be set back, when the time that it lacked has passed.
        """
        low, high = self.ring.span(segment)
        if low == high:
            return None
        archive = self._spec(segment).archives[0]
        chunk = low // archive.width
        end_s = (chunk + 1) * archive.chunk_s
        now, passed = clock.now(), clock.monotonic()
        noticed = self._noticed.get(segment)
        if noticed is None or noticed.chunk != chunk:
            noticed = Noticed(chunk, max(end_s, now), passed + max(0.0, end_s - now))
            self._noticed[segment] = noticed
        pace_s = self.pace.flush_pace_s or min(archive.chunk_s / 8, 600.0)
        wait_s = self.pace.late_grace_s + segment * GOLDEN % 1.0 * pace_s
        if now < noticed.complete_s + wait_s and passed < noticed.complete_passed + wait_s:
            return None
        return (chunk + 1) * archive.width

    async def _relieve(self) -> None:
        """With memory short: writes what is older than the grace, largest spans first."""
        limit = self.intake.limits.cache_pause_bytes * PRESSURE
        if cache_bytes(self.intake) <= limit:
            self._pressed = False
            return
        if not self._pressed:
            self._pressed = True
            log.warning("cache at %d MB: writing chunks early", cache_bytes(self.intake) >> 20)
        spans = [(self.ring.span(s), s) for s in range(self.ring.segments)]
        for (low, high), segment in sorted(spans, key=lambda x: x[0][0] - x[0][1]):
            if cache_bytes(self.intake) <= limit * PRESSURE:
                return
            archive = self._spec(segment).archives[0]
            now_slot = int(clock.now() - self.pace.late_grace_s) // archive.step_s
            # after the clock was set back all may be ahead of it: no reason to stop everything until it is there
            until = high if low * archive.step_s > clock.now() else min(high, now_slot)
            while low < until:
                end = min(until, (low // archive.width + 1) * archive.width)
                await self._flush_chunk(segment, end)
                low = end

    async def settle_until(self, time_s: int) -> None:
        """Writes and frees what is older than ``time_s``: from then on all older slots are read from the store.

        So what others wrote there is seen, and an import finds all that came before. Some segments at a
        time; others write between them. StoreUnavailable.
        """
        await self.settle()
        for first in range(0, self.ring.segments, SETTLE_SEGMENTS):
            async with self.lock:
                await self._create_series()
                for segment in range(first, min(first + SETTLE_SEGMENTS, self.ring.segments)):
                    until = -(-time_s // self._spec(segment).archives[0].step_s)
                    if self.ring.floor(segment) < until:
                        await self.flush_until(segment, until, synced=False)
                await self._journal_synced()

    async def flush_until(self, segment: int, until_slot: int, synced: bool = True) -> None:
        """Writes and frees all slots below ``until_slot``, chunk by chunk.

        ``synced=False``: the caller waits for the journal, before anything is merged below the floor.
        """
        archive = self._spec(segment).archives[0]
        while True:
            low, high = self.ring.span(segment)
            if low == high or low >= until_slot:
                break
            await self._flush_chunk(
                segment, min(until_slot, (low // archive.width + 1) * archive.width), synced
            )
        floor = self.ring.floor(segment)
        if floor < until_slot:
            async with self._sealed(segment, until_slot):
                members = self.registry.ids_of_segment(segment)
                members = members[members >= 0]
                rows = await self._straddling_rows(segment, {floor}, until_slot, members)
                if rows:
                    await self._write(rows)
            await self._raise_floor(segment, until_slot, synced)

    @asynccontextmanager
    async def _sealed(self, segment: int, until_slot: int) -> AsyncIterator[None]:
        """Slots below ``until_slot`` take no points while they are written, and again when that fails.

        What has points there has a row in the store first: no series without one can get any.
        """
        floor, newest = self.ring.floor(segment), self.intake.late_seq
        self.ring.set_seal(segment, until_slot)
        try:
            await self._create_series()
            yield
        except BaseException:
            self.ring.set_seal(segment, floor)
            self.intake.land_since(newest)
            raise

    async def _flush_chunk(self, segment: int, until_slot: int, synced: bool = True) -> None:
        """Writes the slots of one chunk below ``until_slot``, then frees them."""
        async with self._sealed(segment, until_slot):
            with self.flush_seconds.timed():
                rows = await self.rows_of(segment, self.ring.span(segment)[0], until_slot)
                if rows:
                    await self._write(rows)
                    await self._touch(rows, self._spec(segment).archives[0].step_s)
        self.flushes += 1
        self.intake.ledger.flushed += sum(
            int((~np.isnan(r.dp)).sum()) for r in rows if r.archive == 0
        )
        self._noticed.pop(segment, None)
        await self._raise_floor(segment, until_slot, synced)
        self.intake.room()

    async def _write(self, rows: list[ChunkRows]) -> None:
        """Writes rows of the ring, all of it after its points are in the journal.

        Else a kill could leave points in the store that the ring hasn't got back: they would come to light
        when the chunk is written again, beside rollups that were made without them.
        """
        await self._journal_synced()
        await self.store.write_chunks(rows)
        self.presence.written()

    async def _touch(self, rows: list[ChunkRows], step_s: int) -> None:
        """Notes when the series of whole chunks had their last point: what `series stale` looks at."""
        for block in rows:
            if block.archive == 0 and len(block):
                await self.store.touch_series(block.rrd_id, last_known_s(block, step_s))

    async def _raise_floor(self, segment: int, until_slot: int, synced: bool) -> None:
        self.ring.drop(segment, until_slot)
        if self.journal is not None:
            self._journal_floor(segment)
            if synced:
                await self._journal_synced()

    def _journal_floor(self, segment: int) -> None:
        assert self.journal is not None
        ids = self.registry.ids_of_segment(segment)
        self.journal.append(Record(Kind.FLOOR, ids[ids >= 0], now_s=self.registry.floor_s(segment)))

    async def _journal_synced(self) -> None:
        """Waits until the journal is on disk; not for ever, and not for a disk that takes nothing."""
        if self.journal is None:
            return
        try:
            async with asyncio.timeout(JOURNAL_WAIT_S):
                await self.journal.synced()
        except TimeoutError:
            log.warning("the journal is not on disk after %g s; going on", JOURNAL_WAIT_S)

    async def rows_of(
        self, segment: int, from_slot: int, until_slot: int, ids: Ids | None = None
    ) -> list[ChunkRows]:
        """Rows of the chunk that holds ``from_slot`` up to ``until_slot``, and of what they roll up to.

        ``ids``: only these series. Coarse slots that end by ``until_slot`` are included.
        """
        spec = self._spec(segment)
        finest = spec.archives[0]
        floor = self.ring.floor(segment)
        first = from_slot // finest.width * finest.width
        first = first if floor == FLOOR_NONE else max(first, floor)
        members = self.registry.ids_of_segment(segment)
        block = self.ring.block(segment, first, until_slot)
        counts = None
        if spec.on_duplicate == OnDuplicate.MEAN:
            counts = self.ring.count_block(segment, first, until_slot)
        chosen = np.flatnonzero(members >= 0 if ids is None else np.isin(members, ids))
        if len(chosen) < len(members):
            members, block = members[chosen], np.ascontiguousarray(block[:, chosen])
            counts = None if counts is None else np.ascontiguousarray(counts[:, chosen])
        rrd_ids = self.registry.rrd_id[members]
        if block.size < INLINE_SLOTS:
            rows = rows_of_archives(spec, block, counts, first, rrd_ids)
        else:
            rows = await asyncio.to_thread(rows_of_archives, spec, block, counts, first, rrd_ids)
        return joined(
            rows, await self._straddling_rows(segment, {floor, first}, until_slot, members)
        )

    async def _straddling_rows(
        self, segment: int, edges: set[int], until_slot: int, members: Ids
    ) -> list[ChunkRows]:
        """Rows of coarse slots that began before an edge (a floor, a block's first slot) and end by
        ``until_slot``: they are rolled up from the store and the ring together."""
        spec = self._spec(segment)
        step_s = spec.archives[0].step_s
        rows: list[ChunkRows] = []
        for number, archive in enumerate(spec.archives):
            slots = {
                edge * step_s // archive.step_s
                for edge in edges
                if edge != FLOOR_NONE and edge * step_s % archive.step_s
            }
            for slot in sorted(slots):
                if (slot + 1) * archive.step_s <= until_slot * step_s:
                    values = await self.reader.fetch(members, number, slot, slot + 1)
                    rrd_ids = self.registry.rrd_id[members]
                    rows += rows_of_block(number, archive, rrd_ids, slot, values.T)
        return rows

    def _spec(self, segment: int) -> BundleSpec:
        return self.registry.bundle_specs[self.registry.segment_bundle[segment]]

    # -- late points -------------------------------------------------------------------------

    def _note_late(self) -> None:
        if self._late_since is None:
            self._late_since = clock.monotonic()

    async def merge_late_now(self) -> None:
        """Merges all late points; whoever calls holds the lock. StoreUnavailable."""
        await self._create_series()
        await self._merge_late(at_once=True)

    async def settle(self) -> None:
        """Merges all late points that are queued now, so that a query sees them.

        StoreUnavailable when the store is needed and away.
        """
        if self.intake.late and self.registry.opened:
            async with self.lock:
                await self._create_series()
                await self._merge_late(at_once=True)

    async def _merge_late(self, at_once: bool = False) -> None:
        if not self.intake.late:
            self._late_since = None
            return
        since = self._late_since or 0.0
        gathering = clock.monotonic() - since < LATE_DELAY_S and not self.intake.paused
        if gathering and not at_once:
            return
        await self._settle_doubt()
        left = self.intake.late_points  # those that come meanwhile must not keep the lock from others
        while self.intake.late and left > 0:
            # before they are taken, since it may give new ids to series whose points wait
            await self._create_series()
            batch = self.intake.take_late(self.intake.limits.late_batch)
            left -= sum(map(len, batch))
            try:
                with self.merge_seconds.timed():
                    await self._merge_batch(batch)
            except BaseException:
                self.intake.give_back_late(batch)
                raise
        self._late_since = clock.monotonic() if self.intake.late else None

    async def _merge_batch(self, batch: list[Late]) -> None:
        """Merges one batch. What fits into the ring goes there; the rest into the store."""
        seq = batch[-1].seq
        for segment, end_s in floors_wanted(self.registry, batch).items():
            step_s = self._spec(segment).archives[0].step_s
            if self.ring.floor(segment) * step_s < end_s:
                await self.flush_until(segment, -(-end_s // step_s))
        # nothing waits from here until all are looked at: points keep their order
        rest = [left for late in batch if len(left := self.intake.land(late))]
        # what is in the ring now must not be stored twice if the rest fails; the number must still be told
        batch[:] = rest or [Late(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0), 0, seq)]
        if self.intake.landed:
            self.intake.landed = False
            await self._journal_synced()
        result = await self._merger.merge(rest) if rest else Merge()
        self._doubt = seq, result
        await self.store.write_chunks(result.rows, late_seq=seq)
        self.presence.written()
        self._doubt = None
        self.intake.late_done(rest, result.stored, result.overwritten, result.rejected)

    async def _settle_doubt(self) -> None:
        """A merge whose commit was not answered (connection lost, query cancelled) may have been done:
        then it is not done again."""
        if self._doubt is None:
            return
        seq, merge = self._doubt
        if (await self.store.get_state()).late_seq >= seq:
            done = self.intake.take_late_until(seq)
            self.intake.late_done(done, merge.stored, merge.overwritten, merge.rejected)
        self._doubt = None

    # -- partial chunks ----------------------------------------------------------------------

    async def _freshen(self) -> None:
        """Writes partial chunks of segments that SQL readers have not seen for ``sql_freshness_s``."""
        if not self.pace.sql_freshness_s:
            return
        now = clock.monotonic()
        for segment in range(self.ring.segments):
            written = self.ring.written(segment)
            seen, since = self._fresh.setdefault(
                segment, (0, now - segment * GOLDEN % 1.0 * self.pace.sql_freshness_s / 2)
            )
            if written != seen and now - since >= self.pace.sql_freshness_s:
                await self._flush_partial(segment)

    async def _flush_partial(self, segment: int, ids: Ids | None = None) -> None:
        finest = self._spec(segment).archives[0]
        written = self.ring.written(segment)
        low, high = self.ring.span(segment)
        if (floor := self.ring.floor(segment)) != FLOOR_NONE:
            # a newer lap must not take the place of slots that a straddling rollup still needs
            high = min(high, floor + finest.size)
        while low < high:
            end = (low // finest.width + 1) * finest.width
            rows = await self.rows_of(segment, low, end, ids)
            if rows:
                await self._write(rows)
                if finest.chunk_s > TOUCH_PARTIAL_S:
                    await self._touch(rows, finest.step_s)
            low = end
        if ids is None:
            self._fresh[segment] = written, clock.monotonic()

    async def flush_now(self, ids: Ids | None = None) -> None:
        """Writes all that is in memory as partial chunks (of some series only); nothing is freed."""
        async with self.lock:
            await self._create_series()
            await self._merge_late(at_once=True)
            if ids is None:
                for segment in range(self.ring.segments):
                    await self._flush_partial(segment)
                return
            segments, _ = self.ring.locate(ids)
            for segment in np.unique(segments[segments >= 0]).tolist():
                await self._flush_partial(segment, ids)

    # -- checkpoint --------------------------------------------------------------------------

    async def checkpoint(self) -> None:
        """Starts a new journal file with an image of all that isn't in the store, and drops the older ones.

        They stay when the image can't be written; another one is made later.
        """
        journal = self.journal
        if journal is None:
            return
        self._last_checkpoint = clock.monotonic()
        self._image_pause_s = min(INCOMPLETE_S[1], max(INCOMPLETE_S[0], 2 * self._image_pause_s))
        async with self.lock:  # no late points are on their way
            gaps = journal.gaps
            number = journal.rotate()
            for late in self.intake.late:
                journal.append(
                    Record(Kind.LATE, late.ids, late.times, late.values, late.now_s, late.seq)
                )
        size = self.registry.table.size
        for first in range(0, size, 1 << 16):
            end = min(size, first + (1 << 16))
            ids = np.arange(first, end, dtype=np.int32)
            journal.append(Record(Kind.NAMES, ids, blob=self.registry.table.name_lines(first, end)))
            ids = ids[self.registry.rrd_id[first:end] != 0]
            journal.append(Record(Kind.ROWS, ids, self.registry.rrd_id[ids]))
            await asyncio.sleep(0)
        for segment in range(self.ring.segments):
            async with self.lock:
                self._journal_floor(segment)
                await self._journal_image(segment)
            await asyncio.sleep(0)
            if journal.pending_bytes > 64 << 20 and not await journal.synced():
                return
        if await journal.synced() and journal.gaps == gaps:
            journal.drop_before(number, gaps)
            self.checkpoints += 1
            self._image_pause_s = 0.0

    async def _journal_image(self, segment: int) -> None:
        """Its slots in pieces, the loop's others between them: what comes meanwhile is in the same file, before a piece
        that has it (it replaces) or after one that hasn't. The caller holds the lock."""
        assert self.journal is not None
        spec = self._spec(segment)
        low, high = self.ring.span(segment)
        if low == high:
            return
        step_s = spec.archives[0].step_s
        rows = max(1, IMAGE_POINTS // max(1, len(self.registry.ids_of_segment(segment))))
        for first in range(low, high, rows):
            if first > low:
                await asyncio.sleep(0)
            end = min(high, first + rows)
            members = self.registry.ids_of_segment(segment)  # there may be new ones
            block = self.ring.block(segment, first, end)
            block[:, members < 0] = np.nan
            slot, column = np.nonzero(~np.isnan(block))
            if len(slot) == 0:
                continue
            counts = None
            if spec.on_duplicate == OnDuplicate.MEAN:
                counts = self.ring.count_block(segment, first, end)[slot, column].astype(np.uint32)
            self.journal.append(
                Record(
                    Kind.IMAGE,
                    members[column],
                    (slot + first) * step_s,
                    block[slot, column],
                    counts=counts,
                )
            )
