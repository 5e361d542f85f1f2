"""After an import: whether the store knows what the files know, slot for slot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tgres_py.migrate.chunks import points_by_series
from tgres_py.migrate.convert import converted
from tgres_py.migrate.files import Found, LeftOut
from tgres_py.migrate.load import Options, Report
from tgres_py.migrate.mixed import NONE, Points
from tgres_py.migrate.whisper_file import WhisperCorrupt, known_slots, read_file
from tgres_py.model.retention import BundleSpec
from tgres_py.storage.importing import FileMark, ImportStore


class Verifier:
    """Compares files with the store; the counterpart of ``Loader``."""

    def __init__(self, store: ImportStore, options: Options) -> None:
        self._store = store
        self._options = options

    async def load(self, files: list[Found]) -> Report:
        """``slots``: compared; ``missing``: unknown to the store; ``different``: known with another value.

        Where a series has other archives than its file, what the file holds is re-bucketed as the import does it.
        Files that were not imported as they are now are left out.
        """
        report = Report()
        since_s = self._options.since_s
        marks = await self._store.finished([file.name for file in files])
        rows = await self._store.series_of([file.name for file in files])
        bundles = dict(await self._store.load_bundles())
        for file in files:
            mark = FileMark(file.name, file.size, file.mtime_ns, since_s)
            if file.name not in marks or not marks[file.name].covers(mark):
                report.left_out.append(LeftOut(file.path, "it changed, or wasn't imported"))
                continue
            rrd_id, bundle_id = rows[file.name]
            reason = await self._compare(file, rrd_id, bundles[bundle_id], report)
            if reason:
                report.left_out.append(LeftOut(file.path, reason))
            else:
                report.files += 1
        return report

    async def _compare(self, file: Found, rrd_id: int, spec: BundleSpec, report: Report) -> str:
        """Adds to the report; or why the file can't be compared."""
        options = self._options
        try:
            header, data = read_file(Path(options.root) / file.path)
            own = header.spec()
        except WhisperCorrupt as error:
            return str(error)
        except OSError as error:
            return f"it can't be read: {error.strerror or error}"
        known = [
            known_slots(header, data, number, options.now_s, options.since_s)
            for number in range(len(own.archives))
        ]
        points = [(one.slots, one.values) for one in known]
        if own != spec:
            points = converted(own, spec, points, options.now_s)
        for number, (archive, wanted) in enumerate(zip(spec.archives, points, strict=True)):
            if len(wanted[0]) == 0:
                continue
            window = await self._store.read_window(
                np.array([rrd_id]), number, archive, options.now_s
            )
            stored = points_by_series(window, archive).get(rrd_id, NONE)
            missing, different = differences(wanted, stored)
            report.slots += len(wanted[0])
            report.missing += missing
            report.different += different
        return ""


def differences(wanted: Points, found: Points) -> tuple[int, int]:
    """How many slots of ``wanted`` are not in ``found``, and how many are there with another value."""
    order = np.argsort(found[0])
    slots, values = found[0][order], found[1][order]
    if len(slots) == 0:
        return len(wanted[0]), 0
    place = np.minimum(np.searchsorted(slots, wanted[0]), len(slots) - 1)
    there = slots[place] == wanted[0]
    same = values[place] == wanted[1]
    return int((~there).sum()), int((there & ~same).sum())
