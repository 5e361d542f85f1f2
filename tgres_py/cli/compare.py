"""``tgres import whisper --verify-against URL``: the same /render asked of an old graphite-web and of this server."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tgres_py import clock
from tgres_py.cli.client import post
from tgres_py.migrate.files import Found
from tgres_py.migrate.names import name_of_path
from tgres_py.migrate.whisper_file import Header, read_file

# Points that carbon-cache still holds are in no file yet, but graphite-web shows them.
UNWRITTEN_S = 300
MARGIN_S = 120
EXAMPLES = 5
TOLERANCE = 1e-9  # relative: JSON of old Pythons has 12 digits of some numbers

_PLAIN = re.compile(r"[\w.:;=@+-]+")


class Window(NamedTuple):
    """Seconds: what is read of one archive."""

    from_s: int
    until_s: int


@dataclass(slots=True)
class Compared:
    """``points``: known to the old server; ``missing``: of those unknown here; ``different``: other values."""

    url: str
    series: int = 0
    points: int = 0
    missing: int = 0
    different: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return not self.missing and not self.different

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def sample(files: Sequence[Found], size: int) -> list[Found]:
    """Some of the files; the same ones each time. Names that would read as patterns are left out."""
    plain = [file for file in files if _PLAIN.fullmatch(file.name)]
    return random.Random(0).sample(plain, min(size, len(plain)))


def compare(root: Path, files: Sequence[Found], old_url: str, our_url: str, now_s: int) -> Compared:
    """Compares each archive of the files' series. BadRequest, ServerUnreachable."""
    result = Compared(old_url)
    for file in files:
        header, _ = read_file(root / file.path)
        result.series += 1
        for window in _windows(header, now_s):
            old = _points(old_url, name_of_path(file.path), window)
            ours = _points(our_url, file.name, window)
            _note(file.name, old, ours, result)
    return result


def _windows(header: Header, now_s: int) -> Iterator[Window]:
    """One for each archive, which both servers answer from that archive."""
    until_s = now_s - UNWRITTEN_S
    for _, step_s, size in header.archives:
        # the servers go by their own clocks when they choose the archive, and take their time
        margin_s = max(2 * step_s, min(MARGIN_S, step_s * size // 10))
        from_s = clock.now_s() - step_s * size + margin_s
        last_s = until_s // step_s * step_s - step_s  # whole slots only
        if from_s < last_s:
            yield Window(from_s, last_s)


def _points(url: str, name: str, window: Window) -> dict[int, float]:
    form = [("target", name), ("from", str(window.from_s)), ("until", str(window.until_s))]
    answer = post(url, "/render", [*form, ("format", "json")]) or []
    return {t: v for series in answer for v, t in series["datapoints"] if v is not None}


def _note(name: str, old: dict[int, float], ours: dict[int, float], result: Compared) -> None:
    result.points += len(old)
    for time_s, value in old.items():
        found = ours.get(time_s)
        if found is None:
            result.missing += 1
        elif not math.isclose(found, value, rel_tol=TOLERANCE, abs_tol=1e-12):
            result.different += 1
        else:
            continue
        if len(result.examples) < EXAMPLES:
            result.examples.append(f"{name} at {time_s}: {value!r} there, {found!r} here")
