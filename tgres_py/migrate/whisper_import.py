"""The whole import of a folder of whisper files: list, leave out what is done, load in several processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tgres_py import clock
from tgres_py.migrate.crew import Crew, load_files
from tgres_py.migrate.files import Found, LeftOut, Listing, batches
from tgres_py.migrate.load import Options, Report, header_text
from tgres_py.migrate.whisper_file import WhisperCorrupt
from tgres_py.storage.importing import FileMark, ImportStore

FILES_TOGETHER = 256
NAMES_TOGETHER = 10_000

Progress = Callable[[int], None]


@dataclass(slots=True)
class Outcome:
    """``found``: files with a usable name; ``older``: not changed since ``--since``; ``unchanged``: imported before."""

    found: int = 0
    older: int = 0
    unchanged: int = 0
    report: Report = field(default_factory=Report)
    verified: Report | None = None
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether nothing was left out, missing or different."""
        both = [self.report, self.verified or Report()]
        return not any(one.left_out or one.missing or one.different for one in both)

    def as_data(self) -> dict[str, Any]:
        report = self.report
        data = {
            "files": self.found,
            "imported": report.files,
            "converted": report.converted,
            "without_points": report.empty,
            "imported_before": self.unchanged,
            "not_changed_since": self.older,
            "left_out": [one._asdict() for one in report.left_out],
            "slots": report.slots,
            "slots_outside_retention": report.outside,
            "read_bytes": report.bytes,
            "retentions": [
                {"retention": text, "files": count}
                for text, count in report.retentions.most_common()
            ],
            "seconds": round(self.seconds, 3),
        }
        if (verified := self.verified) is not None:
            data["verified"] = {
                "files": verified.files,
                "slots": verified.slots,
                "missing": verified.missing,
                "different": verified.different,
                "left_out": [one._asdict() for one in verified.left_out],
            }
        return data


async def not_done(
    store: ImportStore, files: Sequence[Found], since_s: int
) -> AsyncIterator[tuple[list[Found], int]]:
    """The files that an earlier import has not finished, in parts, and how many of the part it has."""
    for part in batches(files, NAMES_TOGETHER):
        done = await store.finished([file.name for file in part])
        left = [
            file
            for file in part
            if not (
                file.name in done
                and done[file.name].covers(FileMark(file.name, file.size, file.mtime_ns, since_s))
            )
        ]
        yield left, len(part) - len(left)


async def import_folder(
    crew: Crew,
    store: ImportStore,
    listing: Listing,
    options: Options,
    *,
    again: bool = False,
    progress: Progress = lambda _files: None,
) -> Outcome:
    """Imports the files of a listing. ``progress`` is told how many files are done with, each time some are.

    StoreUnavailable when PostgreSQL is away; to be repeated then.
    """
    begin = clock.monotonic()
    outcome = Outcome(found=len(listing.files))
    outcome.report.left_out += listing.left_out
    files = _changed_since(listing.files, options.since_s)
    outcome.older = outcome.found - len(files)
    progress(outcome.older)
    if not again:
        todo: list[Found] = []
        async for left, done in not_done(store, files, options.since_s):
            todo += left
            outcome.unchanged += done
            progress(done)
        files = todo
    await _share(crew, options, files, outcome.report, progress)
    outcome.seconds = clock.monotonic() - begin
    return outcome


async def verify_folder(
    crew: Crew,
    files: list[Found],
    options: Options,
    progress: Progress = lambda _files: None,
) -> Report:
    """Compares files with the store."""
    report = Report()
    files = _changed_since(files, options.since_s)
    await _share(crew, replace(options, verify=True), files, report, progress)
    return report


async def _share(
    crew: Crew, options: Options, files: list[Found], report: Report, progress: Progress
) -> None:
    together = max(1, min(FILES_TOGETHER, len(files) // (8 * crew.jobs)))
    async for count, part in load_files(crew, options, batches(files, together)):
        report.add(part)
        progress(count)


def dry_run(root: Path, listing: Listing, since_s: int, progress: Progress) -> Outcome:
    """What an import would find, from the files' headers; nothing is written and no store is needed."""
    begin = clock.monotonic()
    outcome = Outcome(found=len(listing.files))
    report = outcome.report
    report.left_out += listing.left_out
    files = _changed_since(listing.files, since_s)
    outcome.older = outcome.found - len(files)
    progress(outcome.older)
    retentions: Counter[str] = report.retentions
    for file in files:
        try:
            retentions[header_text(root / file.path)] += 1
            report.files += 1
            report.bytes += file.size
        except (WhisperCorrupt, OSError) as error:
            report.left_out.append(LeftOut(file.path, str(error)))
        progress(1)
    outcome.seconds = clock.monotonic() - begin
    return outcome


def _changed_since(files: list[Found], since_s: int) -> list[Found]:
    """Files that may hold points since ``since_s``: writing one changes the file's time."""
    return [file for file in files if file.mtime_ns >= since_s * 1_000_000_000]
