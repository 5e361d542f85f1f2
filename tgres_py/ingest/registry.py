"""The series registry: names to ids, ids to bundles, places in the ring, and rows of ``rrd``.

Ids are dense, given in order of appearance, and hold for one run of the server. A name gets its id
while its line is parsed; admitting it (which retention, which segment) happens for all new names of a
buffer together, its row in ``rrd`` is made in bulk by the flusher, and the index for queries is brought
up to date when somebody asks. Until the registry is open (the store's series aren't loaded yet) new
names wait, and with them their points.

A name can be taken from its id (``retire``), given back (``revive``) or changed (``rename``): the id, its
place in the ring and its row stay, so what it holds goes on to the store and can be read by whoever has the
id, and a name that comes again meanwhile is a new series with an id of its own. The journal tells ids by
their rows (``rrd_id``), so a restart finds them whatever they are called by then.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.errors import BadRequest
from tgres_py.kernels import FLOOR_NONE, Budget, NameTable, NameTree, RingStore
from tgres_py.kernels.names_py import REFUSED
from tgres_py.model.ident import TAGS_MAX, NameRefused, canonical
from tgres_py.model.points import REFUSED_IDS, Ids, Reason, Times, Values, lowest
from tgres_py.model.retention import BundleSpec, OnDuplicate
from tgres_py.model.tagindex import TagIndex
from tgres_py.storage.port import SeriesRows

SEGMENT_SERIES_MAX = 4_096
SEGMENT_SERIES_MIN = 64
NAMES_PART = 1 << 16  # names of one journal record
INDEX_PART = 1 << 14  # names that go to tree and tags together
FOUND_BYTES = 150.0  # of a name in tree and tags, until it is there: measured 45 (a fleet's) to 250 (random parts), 700 (long ones)
TELLING_NAMES = 4_096  # so many names tell what others like them will take
LOOK_EVERY = 1_000  # new names after which it is looked whether there is memory for more
ALIASES_PER_SERIES = 4  # other spellings that are remembered, on average; more are worked out each time
FORMER_S = 300.0  # a moved series' former place can be read this long
NO_MEMORY = -5  # as an id: see REFUSED_IDS
NO_FLOOR_S = -(1 << 60)  # as a floor's time: the store has nothing of the series
NO_ROW = -(1 << 62)  # as a row: there was none, and won't be
STEP_IDS = 1 << 12  # ids that get room together
RESERVE_MAX = 1 << 25  # ids that room is reserved for, 13 bytes each of addresses
RULES = {rule: number for number, rule in enumerate(OnDuplicate)}

Columns = tuple[Ids, Times, Values, list[tuple[int, bytes]], int]
MatchMany = Callable[[Sequence[str]], Sequence[BundleSpec]]


class Former(NamedTuple):
    """Where a series was before it moved to another bundle."""

    bundle: int
    rrd_id: int
    segment: int
    column: int
    at: float  # clock.monotonic()


class Places(NamedTuple):
    """Where series are read: their bundle; int32 (n,) segment (-1: none) and column; int64 (n,) rrd_id."""

    spec: BundleSpec
    segments: Ids
    columns: Ids
    rrd_ids: NDArray[np.int64]


class ById(NamedTuple):
    """What is kept of each id, in memory that is there once it is written to: so it grows without being copied."""

    bundle_of: Ids
    rrd_id: NDArray[np.int64]
    retired: NDArray[np.bool_]

    @classmethod
    def reserved(cls, size: int) -> ById:
        """Zeros."""
        size = -(-size // STEP_IDS) * STEP_IDS
        return cls(
            np.frombuffer(_anonymous(4 * size), np.int32),
            np.frombuffer(_anonymous(8 * size), np.int64),
            np.frombuffer(_anonymous(size), np.bool_),
        )


def _anonymous(size: int) -> mmap.mmap:
    return mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class Registry:
    """Belongs to the event loop's thread, but for ``names`` and the methods of ``tree`` and ``tags``."""

    def __init__(
        self,
        match_many: MatchMany,
        ring: RingStore,
        *,
        series_max: int = 20_000_000,
        name_bytes_max: int = 1_024,
        tags_max: int = TAGS_MAX,
        budget: Budget | None = None,
    ) -> None:
        """``budget``: for new series that senders make; those of the store, and what waited for it, cost nothing."""
        self.match_many = match_many
        self.ring = ring
        self.table = NameTable()
        self.tree = NameTree()
        self.tags = TagIndex()
        self.bundle_specs: list[BundleSpec] = []
        self.bundle_db_ids: list[int] = []  # 0: not yet in the store
        self._by_id = ById.reserved(min(series_max, RESERVE_MAX))
        self.bundle_of = self._by_id.bundle_of[:0]  # by id; -1: not admitted
        self.rrd_id = self._by_id.rrd_id[:0]  # by id; 0: no row yet; negative: that row is gone for good
        self.retired = self._by_id.retired[:0]  # by id: has no name any more
        self.segment_bundle: list[int] = []
        self.segment_ids: list[Ids] = []  # by segment: ids in order of their columns, room for all
        self.opened = False
        self.refused: Counter[Reason] = Counter()  # points of new series that were refused
        self.budget = budget
        self.size_max = 1 << 40  # names that there is memory for
        self.on_growth: Callable[[], None] = lambda: None  # called when LOOK_EVERY names came
        self.found_bytes = FOUND_BYTES  # of a name in tree and tags: of those that came there last
        self.beside: dict[str, Callable[[], int]] = {}  # what else is kept by name, and its bytes; quick
        self.names_gone = 0  # how often ids lost their names: ids that somebody remembers for names may be wrong then
        self._series_max = series_max
        self._name_bytes_max = name_bytes_max
        self._tags_max = tags_max
        self._bundle_index: dict[BundleSpec, int] = {}
        self._bundle_count: list[int] = []
        self._open_segment: dict[tuple[int, int], int] = {}
        self._destination: dict[int, int] = {}  # by bundle: the segment that moved series come into
        self._former: dict[int, Former] = {}  # by id: of series that moved lately
        self._moved: list[tuple[float, list[int]]] = []  # when, which ids
        self._admitted = 0  # ids below are admitted
        self._journaled = 0  # ids below are in the journal's current file
        self._indexed = 0  # ids below are in the tree
        self._looked = 0  # how many names there were when on_growth was called
        self._aliases = 0
        self._fresh_floors: list[tuple[Ids, int]] = []
        self._uncreated: list[tuple[int, int]] = []  # ranges of admitted ids without a row
        self._fresh_rows: list[Ids] = []  # ids whose rows the journal doesn't know yet
        self._retired_count = 0
        self._index_changes: list[tuple[int, str | None, str | None]] = []  # id, old and new name

    @property
    def waiting(self) -> int:
        """Names that aren't in tree and tags yet."""
        return self.table.size - self._indexed

    def __len__(self) -> int:
        """How many series have a name."""
        return self.table.size - self._retired_count

    # -- names to ids ------------------------------------------------------------------------

    def scan(self, data: bytes | bytearray | memoryview, now_s: int) -> Columns:
        """Columns of the complete lines of a buffer, as NameTable.parse; new names are admitted."""
        room, without = self._room()
        columns = self.table.parse(data, now_s, self._name_bytes_max, room, self._budget())
        self._note_refused(columns[0], without)
        self.admit()
        return columns

    def scan_names(
        self, data: bytes | bytearray | memoryview, starts: Times, sizes: NDArray[np.int32]
    ) -> Ids:
        """Ids of names that lie in a buffer, as NameTable.look_up; new names are admitted."""
        room, without = self._room()
        ids: Ids = self.table.look_up(
            data, starts, sizes, self._name_bytes_max, room, self._budget()
        )
        self._note_refused(ids, without)
        self.admit()
        return ids

    def _room(self) -> tuple[int, int]:
        """How many new series may be made, whatever the budget says, and the id that stands for more."""
        if self.table.size - self._looked >= LOOK_EVERY:
            self._looked = self.table.size
            self.on_growth()
        by_number, by_memory = self._series_max - len(self), self.size_max - self.table.size
        return max(0, min(by_number, by_memory)), NO_MEMORY if by_memory < by_number else REFUSED

    def _budget(self) -> Budget | None:
        """The budget as it is now; None before the store's series are known: any name may be one of theirs."""
        if self.budget is None or not self.opened:
            return None
        self.budget.at(clock.monotonic())
        return self.budget

    def refused_prefixes(self, most: int) -> list[tuple[str, int]]:
        """Prefixes of names and how many points the budget refused of each, the most refused first."""
        found = self.budget.prefixes()[:most] if self.budget is not None else []
        return [(prefix.decode(errors="replace"), count) for prefix, count in found]

    def _note_refused(self, ids: Ids, without: int) -> None:
        """Counts the refused ones; those without room get the id that tells why."""
        if lowest(ids) > REFUSED:
            return
        if without != REFUSED:
            ids[ids == REFUSED] = without
        for code, reason in REFUSED_IDS.items():
            if count := int((ids == code).sum()):
                self.refused[reason] += count

    def resolve(
        self, names: Sequence[bytes], *, budgeted: bool = True
    ) -> tuple[Ids, dict[int, Reason]]:
        """Ids of names as they were sent, int32 (n,); -1 where refused, with the reason by position.

        ``budgeted``: new ones are taken from the budget.
        """
        get = self.table.get
        ids = np.fromiter((get(name) for name in names), np.int32, len(names))
        refused: dict[int, Reason] = {}
        unknown = np.flatnonzero(ids < 0).tolist()
        budget = self._budget() if budgeted and unknown else None
        for position in unknown:
            outcome = self._resolve_new(names[position], budget)
            if isinstance(outcome, Reason):
                refused[position] = outcome
            else:
                ids[position] = outcome
        self.admit()
        return ids, refused

    def canonical(self, name: str) -> str:
        """The one spelling of a name, within the limits of names. NameRefused, BadRequest."""
        return canonical(name, self._name_bytes_max, self._tags_max)

    def _resolve_new(self, raw: bytes, budget: Budget | None) -> int | Reason:
        known = self.table.get(raw)
        if known >= 0:
            return known
        try:
            name = self.canonical(raw.decode()).encode()
        except UnicodeDecodeError:
            return Reason.UTF8
        except NameRefused as e:
            return e.reason
        except BadRequest:
            return Reason.NAME
        id = self.table.get(name)
        if id < 0:
            if (reason := self._refusal(name, budget)) is not None:
                self.refused[reason] += 1
                return reason
            id = self.table.add(name)
        if name != raw and self._aliases < ALIASES_PER_SERIES * self.table.size + 1_000:
            self._aliases += 1
            self.table.alias(raw, id)
        return id

    def _refusal(self, name: bytes, budget: Budget | None) -> Reason | None:
        room, without = self._room()
        if not room:
            return REFUSED_IDS[without]
        return None if budget is None or budget.take(name) else Reason.NEW_SERIES

    def fresh_names(self) -> Iterator[tuple[Ids, bytes]]:
        """Ids and names (an LF after each) that the journal doesn't know yet, in parts; each once."""
        while self._journaled < self.table.size:
            first = self._journaled
            self._journaled = end = min(self.table.size, first + NAMES_PART)
            yield np.arange(first, end, dtype=np.int32), self.table.name_lines(first, end)

    def fresh_floors(self) -> list[tuple[Ids, int]]:
        """Series that were placed, and the time of their segments' floor; each once."""
        floors, self._fresh_floors = self._fresh_floors, []
        return floors

    def fresh_rows(self) -> Iterator[Ids]:
        """Ids whose rows the journal doesn't know yet, in parts; each once."""
        rows, self._fresh_rows = self._fresh_rows, []
        yield from rows

    # -- admission ---------------------------------------------------------------------------

    def admit(self) -> None:
        """Gives all ids that have none a bundle and a place in the ring, once the registry is open."""
        if self.opened:
            self.admit_waiting()

    def admit_waiting(self) -> None:
        """The same before that, when the store's series are known."""
        first, end = self._admitted, self.table.size
        if first == end:
            return
        self._admitted = end
        self._grow(end)
        pending = np.arange(first, end, dtype=np.int32)
        pending = pending[self.bundle_of[first:end] < 0]
        if len(pending) == 0:
            return
        self.admit_by_rules(pending)
        if self._uncreated and self._uncreated[-1][1] == first:
            first, _ = self._uncreated.pop()
        self._uncreated.append((first, end))

    def unplaced(self, ids: Ids) -> Ids:
        """Those that have no bundle yet."""
        self._grow(int(ids.max(initial=-1)) + 1)
        return ids[self.bundle_of[ids] < 0]

    def admit_by_rules(self, ids: Ids, floor_s: int = NO_FLOOR_S) -> None:
        """Admits series under the retention rules; ``floor_s``: see ``place``."""
        if len(ids) == 0:
            return
        specs = self.match_many(self.names(ids))
        # equal specs are one object: their identity is a cheaper key than their hash
        index = {key: self.bundle(spec) for key, spec in {id(s): s for s in specs}.items()}
        if len(index) == 1:
            self.place(ids, index[id(specs[0])], floor_s)
            return
        bundles = np.fromiter(map(index.__getitem__, map(id, specs)), np.int32, len(specs))
        for bundle in set(index.values()):
            self.place(ids[bundles == bundle], bundle, floor_s)

    def bundle(self, spec: BundleSpec) -> int:
        """The number of a bundle in this run."""
        found = self._bundle_index.get(spec)
        if found is None:
            found = self._bundle_index[spec] = len(self.bundle_specs)
            self.bundle_specs.append(spec)
            self.bundle_db_ids.append(0)
            self._bundle_count.append(0)
        return found

    def place(self, ids: Ids, bundle: int, floor_s: int = NO_FLOOR_S) -> None:
        """Gives series of one bundle their columns in the ring.

        ``floor_s``: all that is older is in the store already;
        series with different floors come into different segments.
        """
        spec = self.bundle_specs[bundle]
        finest = spec.archives[0]
        floor = FLOOR_NONE if floor_s == NO_FLOOR_S else -(-floor_s // finest.step_s)
        self._grow(int(ids.max(initial=-1)) + 1)
        self.bundle_of[ids] = bundle
        at = 0
        while at < len(ids):
            segment = self._open_segment.get((bundle, floor), -1)
            if segment < 0 or self.ring.used(segment) == self.ring.capacity(segment):
                segment = self._new_segment(bundle, floor, len(ids) - at)
            room = self.ring.capacity(segment) - self.ring.used(segment)
            part = ids[at : at + room]
            self._put(part, segment)
            self._fresh_floors.append((part, self.floor_s(segment)))
            at += room
        self._bundle_count[bundle] += len(ids)

    def _put(self, ids: Ids, segment: int) -> None:
        """The next columns of a segment."""
        used = self.ring.used(segment)
        self.segment_ids[segment][used : used + len(ids)] = ids
        self.ring.place(ids, segment)

    # -- series that move to another bundle ----------------------------------------------------

    def destination(
        self, bundle: int, count: int, expected: int, floor_s: int, least_s: int
    ) -> int:
        """A segment with room for ``count`` series that move to a bundle, its floor not below ``least_s``.

        ``floor_s``, ``expected``: time of the floor and size of a new one, should that be needed.
        """
        segment = self._destination.get(bundle, -1)
        if (
            segment < 0
            or self.ring.used(segment) + count > self.ring.capacity(segment)
            or self.floor_s(segment) < least_s
        ):
            floor = -(-floor_s // self.bundle_specs[bundle].archives[0].step_s)
            segment = self._new_segment(bundle, floor, max(count, expected))
            self._destination[bundle] = segment
        return segment

    def vacate(self, ids: Ids) -> None:
        """Series give up their columns, which nobody gets again: what is in them is no longer written,
        journaled or brought back. ``ring.locate`` tells their places until they are placed anew."""
        segments, columns = self.ring.locate(ids)
        for segment in np.unique(segments[segments >= 0]).tolist():
            members = self.segment_ids[segment].copy()  # not what others look at
            members[columns[segments == segment]] = -1
            self.segment_ids[segment] = members
        for bundle in self.bundle_of[ids].tolist():
            self._bundle_count[bundle] -= 1

    def move(self, ids: Ids, segment: int, rrd_ids: NDArray[np.int64]) -> None:
        """Series get new columns, in a segment of another bundle, and other rows in the store.

        Their ids stay. What they were can be read on (``places``) by queries that were planned before.
        """
        segments, columns = self.ring.locate(ids)
        places = zip(
            self.bundle_of[ids].tolist(),
            self.rrd_id[ids].tolist(),
            segments.tolist(),
            columns.tolist(),
            [clock.monotonic()] * len(ids),
            strict=True,
        )
        self._forget_former()
        self._former.update(zip(ids.tolist(), map(Former._make, places), strict=True))
        self._moved.append((clock.monotonic(), ids.tolist()))
        self.vacate(ids)
        self._put(ids, segment)
        self._fresh_floors.append((ids, self.floor_s(segment)))
        bundle = self.segment_bundle[segment]
        self._bundle_count[bundle] += len(ids)
        self.bundle_of[ids] = bundle
        self.set_rows(ids, rrd_ids)

    def _forget_former(self) -> None:
        now = clock.monotonic()
        while self._moved and now - self._moved[0][0] > FORMER_S:
            moved_at, ids = self._moved.pop(0)
            for id_ in ids:
                if self._former[id_].at <= moved_at:
                    del self._former[id_]

    def places(self, ids: Ids, spec: BundleSpec | None = None) -> Places:
        """Where series of one bundle are read. ``spec``: the bundle that the caller knows them by; those
        that moved since are found where they were, or nowhere if that is too long ago."""
        segments, columns = self.ring.locate(ids)
        rrd_ids = self.rrd_id[ids]
        current = self.bundle_specs[int(self.bundle_of[ids[0]])]
        if spec is None or not self._former:
            return Places(current, segments, columns, rrd_ids)
        bundle = self._bundle_index.get(spec, -1)
        for at in np.flatnonzero(self.bundle_of[ids] != bundle).tolist():
            former = self._former.get(int(ids[at]))
            if former is not None and former.bundle == bundle:
                rrd_ids[at], segments[at], columns[at] = former[1:4]
            else:
                segments[at] = -1
        return Places(spec, segments, columns, rrd_ids)

    def _new_segment(self, bundle: int, floor: int, wanted: int) -> int:
        spec = self.bundle_specs[bundle]
        # segments that begin at a floor get series that are known already, not ever more new ones
        count = self._bundle_count[bundle] if floor == FLOOR_NONE else 0
        size = max(count, wanted, SEGMENT_SERIES_MIN)
        capacity = min(SEGMENT_SERIES_MAX, 1 << (size - 1).bit_length())
        segment = self.ring.add_segment(
            spec.archives[0].step_s,
            spec.archives[0].retention_s,
            spec.archives[-1].retention_s,
            capacity,
            RULES[spec.on_duplicate],
            floor,
        )
        self._open_segment[bundle, floor] = segment
        self.segment_bundle.append(bundle)
        self.segment_ids.append(np.empty(capacity, np.int32))
        return segment

    def _grow(self, size: int) -> None:
        before = len(self.bundle_of)
        if size <= before:
            return
        room = -(-size // STEP_IDS) * STEP_IDS
        columns = self._by_id
        if room > len(columns.bundle_of):  # more than were ever expected: the one case that takes long
            columns = ById.reserved(2 * room)
            columns.bundle_of[:before] = self.bundle_of
            columns.rrd_id[:before] = self.rrd_id
            columns.retired[:before] = self.retired
            self._by_id = columns
        columns.bundle_of[before:room] = -1
        self.bundle_of = columns.bundle_of[:room]
        self.rrd_id = columns.rrd_id[:room]
        self.retired = columns.retired[:room]

    def floor_s(self, segment: int) -> int:
        """Time below which all slots of a segment are in the store; NO_FLOOR_S when none are."""
        floor = self.ring.floor(segment)
        if floor == FLOOR_NONE:
            return NO_FLOOR_S
        return floor * self.bundle_specs[self.segment_bundle[segment]].archives[0].step_s

    def ids_of_segment(self, segment: int) -> Ids:
        """Ids in order of their columns; -1 where a series gave its column up."""
        return self.segment_ids[segment][: self.ring.used(segment)]

    # -- rows of rrd -------------------------------------------------------------------------

    def add_names(self, lines: bytes) -> Ids:
        """Ids of canonical names that are stored or journaled (an LF after each)."""
        ids: Ids = self.table.add_lines(lines)
        self._grow(self.table.size)
        return ids

    def load(self, ids: Ids, rows: SeriesRows, bundles: dict[int, BundleSpec]) -> None:
        """Takes over the store's bundles, and the series whose names have the ``ids``. They have no place yet."""
        for db_id, spec in bundles.items():
            self.bundle_db_ids[self.bundle(spec)] = db_id
        self.set_rows(ids, rows.rrd_id)

    def set_rows(self, ids: Ids, rrd_ids: NDArray[np.int64]) -> None:
        """The rows of series in ``rrd``."""
        self.rrd_id[ids] = rrd_ids
        self._fresh_rows.append(ids)

    def open(self) -> None:
        """From here on new names are admitted as they come; those that waited are admitted now."""
        self.opened = True
        self.admit()

    def take_uncreated(self, most: int) -> Ids:
        """Admitted ids without a row in ``rrd``, at most about ``most``; to be given back on failure."""
        taken: list[Ids] = []
        count = 0
        while self._uncreated and count < most:
            first, end = self._uncreated.pop()
            if end - first > most:
                self._uncreated.append((first + most, end))
                end = first + most
            ids = np.arange(first, end, dtype=np.int32)
            wanted = (self.rrd_id[first:end] == 0) & (self.bundle_of[first:end] >= 0)
            ids = ids[wanted & ~self.retired[first:end]]
            taken.append(ids)
            count += len(ids)
        return np.concatenate(taken) if taken else np.empty(0, np.int32)

    def give_back(self, ids: Ids) -> None:
        """Ids whose rows could not be made."""
        if len(ids):
            self._uncreated.append((int(ids.min()), int(ids.max()) + 1))

    @property
    def uncreated(self) -> bool:
        """Whether series wait for their row in ``rrd``."""
        return bool(self._uncreated)

    # -- names that go, come back, change ----------------------------------------------------

    def by_row(self, rrd_ids: NDArray[np.int64]) -> Ids:
        """The ids of rows of ``rrd``, -1 where a row is unknown; of several the one with a name, or the newest."""
        known = self.rrd_id[: self.table.size]
        ids = np.flatnonzero(np.isin(known, rrd_ids) & (known > 0)).astype(np.int32)
        order = ids[np.lexsort((~self.retired[ids], known[ids]))]
        at = np.searchsorted(known[order], rrd_ids, side="right") - 1
        found = np.full(len(rrd_ids), -1, np.int32)
        inside = at >= 0
        found[inside] = order[at[inside]]
        return np.where(known[found] == rrd_ids, found, np.int32(-1)) if len(known) else found

    def retire(self, ids: Ids) -> Ids:
        """Takes series' names away; those that had one. What they hold stays, and goes on to the store."""
        ids = ids[~self.retired[ids]]
        if len(ids):
            self._index_changes += [
                (id_, name, None) for id_, name in zip(ids.tolist(), self.names(ids), strict=True)
            ]
            self.table.unmap(ids)
            self.names_gone += 1
            self.retired[ids] = True
            self._retired_count += len(ids)
        return ids

    def forget(self, ids: Ids) -> None:
        """Series whose rows are gone for good: what they hold goes nowhere any more."""
        self.retire(ids)
        rows = self.rrd_id[ids]
        self.set_rows(ids, np.where(rows == 0, NO_ROW, -np.abs(rows)))

    def revive(self, ids: Ids) -> Ids:
        """Gives retired series their names back; those that got it. The others' names live again."""
        ids = ids[self.retired[ids]]
        names = self.names(ids)
        free = np.array([self.table.get(name.encode()) < 0 for name in names], np.bool_)
        for id_, name, is_free in zip(ids.tolist(), names, free.tolist(), strict=True):
            if is_free and self.table.get(name.encode()) < 0:
                self._give_name(id_, name)
                self._index_changes.append((id_, None, name))
        return ids[~self.retired[ids]]

    def rename(self, ids: Ids, names: Sequence[str]) -> Ids:
        """Gives series, retired ones too, new canonical names, all at once (they may change places).

        Those that got it: a name that another series has stays with that, and who wanted it is retired.
        """
        living = ids[~self.retired[ids]]
        old = dict(zip(living.tolist(), self.names(living), strict=True))
        self.table.unmap(living)
        self.names_gone += 1
        self.retired[living] = True
        self._retired_count += len(living)
        for id_, name in zip(ids.tolist(), names, strict=True):
            taken = self.table.get(name.encode()) >= 0
            self._index_changes.append((id_, old.get(id_), None if taken else name))
            if not taken:
                self._give_name(id_, name)
        return ids[~self.retired[ids]]

    def _give_name(self, id_: int, name: str) -> None:
        self.table.rename(id_, name.encode())
        self.retired[id_] = False
        self._retired_count -= 1

    def adopt(
        self, names: Sequence[str], rrd_ids: NDArray[np.int64], bundle: int, floor_s: int
    ) -> Ids:
        """Series of one bundle that others made in the store: their ids. All names are unknown here.

        All that is older than ``floor_s`` is in the store.
        """
        ids = self.add_names("\n".join([*names, ""]).encode())
        self.set_rows(ids, rrd_ids)
        self.place(ids, bundle, floor_s)
        self.admit()
        return ids

    def replace(
        self, ids: Ids, rrd_ids: NDArray[np.int64], bundle: int, floor_s: int = NO_FLOOR_S
    ) -> Ids:
        """New series of the same names under another bundle, with rows of their own; the old are retired.

        The new ids, in order. They hold nothing yet: the caller carries over what the old ones hold, after
        ``Intake.journal_names``. All that is older than ``floor_s`` is in the store under ``rrd_ids``.
        """
        names = self.names(ids)
        self.retire(ids)
        return self.adopt(names, rrd_ids, bundle, floor_s)

    def detached(self, name: str, rrd_id: int) -> int:
        """A series without a name, for what the journal holds of a row that is in the trash; not placed."""
        id_: int = self.table.detached(name.encode())
        self._grow(self.table.size)
        self.set_rows(np.array([id_], np.int32), np.array([rrd_id]))
        self.retired[id_] = True
        self._retired_count += 1
        return id_

    # -- queries (any thread) ----------------------------------------------------------------

    def sync_index(self) -> None:
        """Brings tree and tags up to date with the names; one caller at a time."""
        changes, self._index_changes = self._index_changes, []
        if changes:
            self._change_index(changes)
        first, end = self._indexed, min(self._admitted, self.table.size)
        for at in range(first, end, INDEX_PART):
            self._index_names(at, min(end, at + INDEX_PART))

    def _index_names(self, first: int, end: int) -> None:
        """Puts the names of ids first <= id < end into tree and tags."""
        before = self._found()
        self._indexed = end
        for low, high in runs_of(~self.retired[first:end]):
            lines = self.table.name_lines(first + low, first + high)
            self.tree.add_lines(lines, first + low)
            self.tags.add_lines(lines, first + low)
        each = (self._found() - before) / (end - first)
        self.found_bytes += (each - self.found_bytes) * min(1.0, (end - first) / TELLING_NAMES)

    def _found(self) -> int:
        return self.tree.bytes_used + self.tags.bytes_filled

    def _change_index(self, changes: list[tuple[int, str | None, str | None]]) -> None:
        last: dict[int, str | None] = {}
        for id_, old, new in changes:
            # the name may be another series' by now, which is in the index already
            if old is not None and self.tree.get(old) == id_:
                self.tree.remove(old)
            if new is not None:
                self.tree.add_many([new], id_)
            last[id_] = new
        self.tags.discard(np.array(list(last), np.int32))
        tagged = sorted((id_, new) for id_, new in last.items() if new is not None and ";" in new)
        if tagged:
            self.tags.add([new for _, new in tagged], np.array([id_ for id_, _ in tagged], np.int32))

    def names(self, ids: Ids) -> list[str]:
        first, last = (int(ids[0]), int(ids[-1])) if len(ids) else (0, -1)
        if len(ids) > 16 and last - first + 1 == len(ids) and (np.diff(ids) == 1).all():
            names = self.table.name_lines(first, last + 1).decode().split("\n")
            names.pop()
            return names
        return [name.decode() for name in self.table.names(ids)]

    def specs(self, ids: Ids) -> list[BundleSpec]:
        return [self.bundle_specs[b] for b in self.bundle_of[ids].tolist()]


def runs_of(wanted: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where an array is true: ranges (first, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
