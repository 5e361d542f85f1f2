"""Whisper files into the store: each archive as it stands, slot for slot.

What the store has already stays: imported slots go where nothing is known. So live points are never replaced by older
files, and an import that was interrupted is just repeated; files that were finished are left out then.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgres_py.migrate.chunks import Collector
from tgres_py.migrate.files import Found, LeftOut
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


@dataclass(frozen=True, slots=True)
class Options:
    """``now_s``: what "within the retention" is measured against; ``since_s``: older slots are left out (0 = none)."""

    root: str
    now_s: int
    since_s: int = 0
    skip_empty: bool = False


@dataclass(slots=True)
class Report:
    """What became of some files. ``slots``: known slots found within the retention; ``outside``: those found that are
    older or from the future; ``retentions``: files by retention, method and xFilesFactor."""

    files: int = 0
    empty: int = 0
    slots: int = 0
    outside: int = 0
    bytes: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    retentions: Counter[str] = field(default_factory=Counter)

    def add(self, other: Report) -> None:
        self.files += other.files
        self.empty += other.empty
        self.slots += other.slots
        self.outside += other.outside
        self.bytes += other.bytes
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

    def __init__(self, store: ImportStore, options: Options) -> None:
        self._store = store
        self._options = options
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
        wanted = await self._bundles_of([series.spec for series in waiting])
        rrd_ids, found = await self._store.create_series(names, wanted)
        collector = Collector()
        marks = []
        for number, series in enumerate(waiting):
            if found[number] != wanted[number]:
                report.left_out.append(
                    LeftOut(series.file.path, await self._other(int(found[number])))
                )
                continue
            for place, (archive, known) in enumerate(
                zip(series.spec.archives, series.known, strict=True)
            ):
                collector.add(number, place, archive, known.slots, known.values)
            marks.append(_mark(series.file, self._options.since_s, series.slots))
            report.files += 1
            report.slots += series.slots
            report.retentions[spec_text(series.spec)] += 1
        await self._store.fill_chunks(collector.take(rrd_ids), marks)

    async def _bundles_of(self, specs: list[BundleSpec]) -> NDArray[np.int32]:
        missing = [spec for spec in dict.fromkeys(specs) if spec not in self._bundle_ids]
        if missing:
            self._bundle_ids.update(
                zip(missing, await self._store.ensure_bundles(missing), strict=True)
            )
        return np.fromiter(map(self._bundle_ids.__getitem__, specs), np.int32, len(specs))

    async def _other(self, bundle_id: int) -> str:
        if bundle_id not in self._bundles:
            self._bundles = dict(await self._store.load_bundles())
        return f"the series exists with other archives: {spec_text(self._bundles[bundle_id])}"


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
