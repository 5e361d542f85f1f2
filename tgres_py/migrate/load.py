"""Whisper files into the store: each archive as it stands, slot for slot.

A series that exists under other archives gets what the file holds re-bucketed into these. What the store has already
stays: imported slots go where nothing is known. So live points are never replaced by older files, and an import that
was interrupted is just repeated; files that were finished are left out then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgres_py.migrate.chunks import Collector, points_by_series
from tgres_py.migrate.convert import converted
from tgres_py.migrate.files import Found, LeftOut
from tgres_py.migrate.mixed import NONE, Points, mixed_slots
from tgres_py.migrate.whisper_file import (
    Header,
    Known,
    WhisperCorrupt,
    known_slots,
    parse_header,
    read_file,
)
from tgres_py.model.retention import BundleSpec, format_retention, pairs_of
from tgres_py.storage.importing import FileMark, ImportStore

# Known slots of one transaction: 8 MB of values, 12 MB of COPY stream.
SLOTS_TOGETHER = 1_000_000
SERIES_TOGETHER = 2_000

MatchMany = Callable[[Sequence[str]], Sequence[BundleSpec]]


@dataclass(frozen=True, slots=True)
class Options:
    """``now_s``: what "within the retention" is measured against; ``since_s``: older slots are left out (0 = none);
    ``verify``: files are compared, not imported."""

    root: str
    now_s: int
    since_s: int = 0
    skip_empty: bool = False
    verify: bool = False


@dataclass(slots=True)
class Report:
    """What became of some files. ``slots``: known slots found within the retention; ``outside``: those found that are
    older or from the future; ``converted``: series that have other archives than their files;
    ``retentions``: files by retention, method and xFilesFactor; ``missing``, ``different``: see ``Verifier``."""

    files: int = 0
    converted: int = 0
    empty: int = 0
    slots: int = 0
    outside: int = 0
    bytes: int = 0
    missing: int = 0
    different: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    retentions: Counter[str] = field(default_factory=Counter)

    def add(self, other: Report) -> None:
        for name in (
            "files",
            "converted",
            "empty",
            "slots",
            "outside",
            "bytes",
            "missing",
            "different",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.left_out += other.left_out
        self.retentions.update(other.retentions)

    def as_data(self) -> dict[str, Any]:
        """For JSON; ``from_data`` reads it."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Report:
        data["left_out"] = [LeftOut(*one) for one in data["left_out"]]
        data["retentions"] = Counter(data["retentions"])
        return cls(**data)


@dataclass(slots=True)
class _Series:
    """A file that was read and waits for its write."""

    file: Found
    spec: BundleSpec
    known: list[Known]

    @property
    def slots(self) -> int:
        return sum(len(known.slots) for known in self.known)


class Loader:
    """Reads files and writes what they hold, about a million slots at a time."""

    def __init__(
        self, store: ImportStore, options: Options, match_many: MatchMany | None = None
    ) -> None:
        """``match_many``: archives of new series by name; None: those of their files."""
        self._store = store
        self._options = options
        self._match_many = match_many
        self._bundle_ids: dict[BundleSpec, int] = {}
        self._bundles: dict[int, BundleSpec] = {}
        self._specs: dict[Header, BundleSpec] = {}

    async def load(self, files: list[Found]) -> Report:
        """Imports files. StoreUnavailable; what was written by then stays, and isn't read again next time."""
        report = Report()
        waiting: list[_Series] = []
        slots = 0
        for file in files:
            series = self._read(file, report)
            if series is None:
                continue
            waiting.append(series)
            slots += series.slots
            if slots >= SLOTS_TOGETHER or len(waiting) >= SERIES_TOGETHER:
                await self._write(waiting, report)
                waiting, slots = [], 0
        if waiting:
            await self._write(waiting, report)
        return report

    def _read(self, file: Found, report: Report) -> _Series | None:
        """What is in a file; None when it is left out."""
        options = self._options
        try:
            header, data = read_file(Path(options.root) / file.path)
            spec = self._specs.get(header) or self._specs.setdefault(header, header.spec())
        except (WhisperCorrupt, OSError) as error:
            report.left_out.append(LeftOut(file.path, _reason(error)))
            return None
        known = [
            known_slots(header, data, number, options.now_s, options.since_s)
            for number in range(len(header.archives))
        ]
        series = _Series(file, spec, known)
        report.bytes += len(data)
        report.outside += sum(one.outside for one in known)
        if series.slots == 0:
            report.empty += 1
            if options.skip_empty:
                return None
        return series

    async def _write(self, waiting: list[_Series], report: Report) -> None:
        names = [series.file.name for series in waiting]
        specs = [series.spec for series in waiting]
        if self._match_many is not None:
            specs = list(self._match_many(names))
        wanted = await self._bundles_of(specs)
        lived = await self._store.series_of(names)
        rrd_ids, found = await self._store.create_series(names, wanted)
        fresh = [number for number, name in enumerate(names) if name not in lived]
        await self._store.announce(rrd_ids[fresh])  # a running server takes these archives then
        collector = Collector()
        older: dict[BundleSpec, list[tuple[int, list[Points]]]] = {}
        marks = []
        for number, series in enumerate(waiting):
            spec = specs[number]
            points = [(known.slots, known.values) for known in series.known]
            report.files += 1
            report.slots += series.slots
            report.retentions[spec_text(series.spec)] += 1
            if found[number] != wanted[number]:
                spec = await self._spec(int(found[number]))
            if spec != series.spec:
                points = converted(series.spec, spec, points, self._options.now_s)
                report.converted += 1
            for place, (archive, (slots, values)) in enumerate(
                zip(spec.archives, points, strict=True)
            ):
                collector.add(number, place, archive, slots, values)
            if series.file.name in lived:
                older.setdefault(spec, []).append((number, points))
            marks.append(_mark(series.file, self._options.since_s, series.slots))
        replacing = Collector()
        for spec, imported in older.items():
            await self._mix(spec, imported, rrd_ids, replacing)
        rows = collector.take(rrd_ids)
        await self._store.fill_chunks(rows, marks, replacing.take(rrd_ids))

    async def _mix(
        self,
        spec: BundleSpec,
        imported: list[tuple[int, list[Points]]],
        rrd_ids: NDArray[np.int64],
        replacing: Collector,
    ) -> None:
        """Collects the coarse slots that get a part from the import and have one already."""
        finer = list(enumerate(spec.archives[:-1]))
        together = max(1, SLOTS_TOGETHER // max((a.size for _, a in finer), default=1))
        for first in range(0, len(imported) if finer else 0, together):
            part = imported[first : first + together]
            mine = rrd_ids[[number for number, _ in part]]
            known = [
                points_by_series(
                    await self._store.read_window(mine, number, archive, self._options.now_s),
                    archive,
                )
                for number, archive in finer
            ]
            for number, points in part:
                rrd_id = int(rrd_ids[number])
                before = [archive.get(rrd_id, NONE) for archive in known]
                if not any(len(slots) for slots, _ in before):
                    continue
                mixed = mixed_slots(spec, before, points, self._options.now_s)
                for place, (archive, one) in enumerate(zip(spec.archives, mixed, strict=True)):
                    replacing.add(number, place, archive, *one)

    async def _bundles_of(self, specs: list[BundleSpec]) -> NDArray[np.int32]:
        missing = [spec for spec in dict.fromkeys(specs) if spec not in self._bundle_ids]
        if missing:
            self._bundle_ids.update(
                zip(missing, await self._store.ensure_bundles(missing), strict=True)
            )
        return np.fromiter(map(self._bundle_ids.__getitem__, specs), np.int32, len(specs))

    async def _spec(self, bundle_id: int) -> BundleSpec:
        if bundle_id not in self._bundles:
            self._bundles = dict(await self._store.load_bundles())
        return self._bundles[bundle_id]


def spec_text(spec: BundleSpec) -> str:
    """A bundle for people: retention, method, xFilesFactor."""
    return f"{format_retention(pairs_of(spec))} {spec.cf} xff {spec.xff:g}"


def header_text(path: Path) -> str:
    """As ``spec_text``, of a file's header only. WhisperCorrupt, OSError."""
    with path.open("rb") as file:
        header = parse_header(file.read(1024))
    if (size := path.stat().st_size) < header.size_bytes:
        raise WhisperCorrupt(f"it has {size} bytes of {header.size_bytes}: cut off")
    return spec_text(header.spec())


def _mark(file: Found, since_s: int, slots: int = 0) -> FileMark:
    return FileMark(file.name, file.size, file.mtime_ns, since_s, slots)


def _reason(error: WhisperCorrupt | OSError) -> str:
    if isinstance(error, OSError):
        return f"it can't be read: {error.strerror or error}"
    return str(error)
