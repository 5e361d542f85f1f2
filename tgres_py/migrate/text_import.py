"""CSV files and carbon lines as blocks of points.

    csv    = [header] row*         path,time,value; time an epoch or ISO 8601 (UTC without a zone); an empty value: none
    carbon = line*                 path SP value SP timestamp LF, as a receiver takes them

A header is a first row whose time is none. What a row or line has wrong is counted, and a few are kept to be shown.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from numpy.typing import NDArray

from receivers import carbon_line
from tgres_py.ingest.registry import Registry
from tgres_py.kernels import RingStore
from tgres_py.migrate.times import iso_s
from tgres_py.model.ident import NameRefused, canonical
from tgres_py.model.points import Parsed, PointBlock, Reason
from tgres_py.model.rules import RuleSet

ROWS_TOGETHER = 100_000
READ_BYTES = 1 << 20
SAMPLES = 10
EPOCH_MAX_S = 1 << 40


@dataclass(slots=True)
class Refused:
    """Rows or lines that are no points, by reason, and some of them as they stand."""

    counts: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[str, str]] = field(default_factory=list)

    def add(self, reason: str, text: str, count: int = 1) -> None:
        self.counts[reason] += count
        if len(self.samples) < SAMPLES:
            self.samples.append((reason, text[:200]))


@dataclass(frozen=True, slots=True)
class Prefixed:
    """The names of a registry behind a prefix: ``lead`` is empty or ends in a dot."""

    registry: Registry
    lead: str

    def names(self, ids: NDArray[np.int32]) -> list[str]:
        """The series' names by the ids of blocks."""
        return [self.lead + name for name in self.registry.names(ids)]


def prefixed_names(rules: RuleSet, prefix: str, name_bytes_max: int) -> Prefixed:
    """Names to ids, as a receiver has it; it never opens, so nothing goes to its ring. NameRefused: a prefix that no
    series can have.
    """
    lead = f"{canonical(prefix, name_bytes_max)}." if prefix.strip(".") else ""
    if ";" in lead:
        raise NameRefused(f"--prefix {prefix!a}: tags stand at the end of a name, not before it")
    left = max(1, name_bytes_max - len(lead.encode()))
    return Prefixed(Registry(rules.match_many, RingStore(), name_bytes_max=left), lead)


def read_carbon(
    file: IO[bytes], registry: Registry, now_s: int, refused: Refused
) -> Iterator[PointBlock]:
    """The points of carbon lines."""
    rest = b""
    while data := file.read(READ_BYTES):
        parsed = carbon_line.parse(rest + data, now_s, registry)
        rest = parsed.rest
        _note(parsed, refused)
        yield parsed.block
    if rest:
        parsed = carbon_line.finish(rest, now_s, registry)
        _note(parsed, refused)
        yield parsed.block


def _note(parsed: Parsed, refused: Refused) -> None:
    for reason, sample in parsed.samples:
        refused.add(reason.value, sample.decode("utf-8", "replace"), 0)
    refused.counts.update({reason.value: count for reason, count in parsed.rejected.items()})


def read_csv(lines: Iterable[str], registry: Registry, refused: Refused) -> Iterator[PointBlock]:
    """The points of CSV rows; ``lines`` as of a text file opened with newline=''."""
    names: list[str] = []
    times: list[int] = []
    values: list[float] = []
    for number, row in enumerate(_rows(lines, refused)):
        if not row:
            continue
        point = _point(row)
        if isinstance(point, str):
            if number > 0 or point != "time":
                refused.add(point, ",".join(row))
            continue
        if math.isnan(point[1]):
            continue
        names.append(row[0])
        times.append(point[0])
        values.append(point[1])
        if len(names) >= ROWS_TOGETHER:
            yield _block(names, times, values, registry, refused)
            names, times, values = [], [], []
    yield _block(names, times, values, registry, refused)


def _rows(lines: Iterable[str], refused: Refused) -> Iterator[list[str]]:
    """The rows that can be read; an empty one stands for one that can't."""
    reader = csv.reader(lines)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # a field of more than 131,072 characters, mostly
            refused.add("csv", str(error))
            yield []


def _point(row: list[str]) -> tuple[int, float] | str:
    """Time and value (NaN: none) of a row, or what is wrong with it."""
    if len(row) != 3:
        return "columns"
    try:
        time_s = _time(row[1].strip())
    except (ValueError, OverflowError):
        return "time"
    text = row[2].strip()
    try:
        return time_s, float(text) if text else math.nan
    except ValueError:
        return "value"


def _time(text: str) -> int:
    try:
        time_s = float(text)
    except ValueError:
        return iso_s(text)
    if not 0 <= time_s < EPOCH_MAX_S:
        raise ValueError(text)
    return int(time_s)


def _block(
    names: list[str],
    times: list[int],
    values: list[float],
    registry: Registry,
    refused: Refused,
) -> PointBlock:
    place = {name: i for i, name in enumerate(dict.fromkeys(names))}
    unique, reasons = registry.resolve([name.encode("utf-8", "surrogateescape") for name in place])
    ids = unique[[place[name] for name in names]] if names else np.empty(0, np.int32)
    for position in np.flatnonzero(ids < 0).tolist():
        reason = reasons.get(place[names[position]], Reason.NAME)
        refused.add(reason.value, names[position])
    good = ids >= 0
    return PointBlock(
        ids[good].astype(np.int32),
        np.array(times, np.int64)[good],
        np.array(values, np.float64)[good],
    )
