"""The way out, and back in: whisper files that the real package reads, CSV and carbon lines."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import whisper

from tests.test_import_points import rules
from tests.test_import_whisper import METHODS, RETENTIONS, XFFS, Slots, make_file, whisper_slots
from tgres_py import clock
from tgres_py.admin.select import Series
from tgres_py.migrate.export import CSV_HEADER, carbon_lines, csv_rows, write_whisper
from tgres_py.migrate.files import list_files
from tgres_py.migrate.load import Loader, Options
from tgres_py.migrate.mixed import NONE
from tgres_py.migrate.read import Stored, finest_points, read_series
from tgres_py.migrate.text_import import Refused, prefixed_names, read_carbon, read_csv
from tgres_py.model.retention import Cf, make_bundle
from tgres_py.storage.importing import ImportStore

NAMES = ["a.plain", 'a.comma,"quote"', "disk.used;dc=x;host=a.b"]


@pytest.fixture
async def store(database: str) -> AsyncIterator[ImportStore]:
    store = ImportStore(database)
    yield store
    await store.close()


async def all_series(store: ImportStore) -> Series:
    rows, bundles = await store.load_series(), dict(await store.load_bundles())
    return Series(rows.names, rows.rrd_id, [bundles[number] for number in rows.bundle_id.tolist()])


async def read_all(store: ImportStore, now_s: int) -> list[Stored]:
    return [stored async for stored in read_series(store, await all_series(store), now_s)]


async def test_whisper_files_there_and_back(store: ImportStore, tmp_path: Path) -> None:
    now_s = clock.now_s()
    for number, cf in enumerate(METHODS):
        pairs = RETENTIONS[number % len(RETENTIONS)]
        make_file(tmp_path / f"in/{cf}.wsp", pairs, XFFS[number % 5], cf.value, number, now_s)
    tagged = tmp_path / "in/_tagged/1ab/2cd/disk_DOT_used;host=a_DOT_b.wsp"
    make_file(tagged, RETENTIONS[0], 0.5, "average", 99, now_s)
    await Loader(store, Options(str(tmp_path / "in"), now_s)).load(
        list_files(tmp_path / "in").files
    )

    found = await read_all(store, now_s)
    assert [write_whisper(tmp_path / "out", stored, False) for stored in found] == [""] * 9
    again = list_files(tmp_path / "out")
    assert again.left_out == [] and len(again.files) == 9
    names = {file.name: file.path for file in again.files}
    assert names["disk.used;host=a.b"].endswith("/disk_DOT_used;host=a_DOT_b.wsp")
    for file in list_files(tmp_path / "in").files:
        old, new = tmp_path / "in" / file.path, tmp_path / "out" / names[file.name]
        info = [whisper.info(str(path)) for path in (old, new)]
        assert info[0] == info[1]
        for number in range(len(info[0]["archives"])):
            expected = whisper_slots(old, number, now_s)
            assert whisper_slots(new, number, now_s) == expected and (number or expected)
        whisper.update(str(new), 5.0, now_s, now=now_s)  # carbon can go on with it
    assert write_whisper(tmp_path / "out", found[0], False).endswith("exists")
    assert write_whisper(tmp_path / "out", found[0], True) == ""


@pytest.mark.parametrize(
    ("name", "cf", "reason"),
    [("a/b", Cf.LAST, "holds a slash"), ("a.b", Cf.MEDIAN, "no aggregation method median")],
)
def test_what_whisper_cannot_keep_is_left_out(
    tmp_path: Path, name: str, cf: Cf, reason: str
) -> None:
    stored = Stored(name, make_bundle([(1, 10)], cf), [NONE])
    assert reason in write_whisper(tmp_path, stored, False)
    assert list(tmp_path.rglob("*")) == []


def stored_series(name: str, now_s: int) -> Stored:
    """Ten seconds in the finest archive, minutes before that, and one that both reach."""
    spec = make_bundle([(10, 12), (60, 30)])
    fine = np.arange(now_s // 10 - 11, now_s // 10 + 1)
    coarse = np.arange(now_s // 60 - 29, now_s // 60 + 1)
    return Stored(name, spec, [(fine, fine * 0.1), (coarse, coarse * 1e-7)])


def expected_points(stored: Stored, now_s: int, from_s: int, until_s: int) -> Slots:
    (fine, fine_values), (coarse, coarse_values) = stored.archives
    oldest = int(fine[0]) * 10
    known = {int(s) * 60: float(v) for s, v in zip(coarse, coarse_values, strict=True)}
    known = {t: v for t, v in known.items() if t < oldest}
    known |= {int(s) * 10: float(v) for s, v in zip(fine, fine_values, strict=True)}
    return {t: v for t, v in known.items() if from_s <= t < until_s}


@pytest.mark.parametrize("window", [(0, 1 << 40), (-900, -50), (-60, 1), (-3_600, -600)])
@pytest.mark.parametrize("kind", ["csv", "iso", "carbon"])
def test_points_there_and_back(kind: str, window: tuple[int, int]) -> None:
    now_s = 1_700_000_423
    from_s, until_s = (now_s + end if abs(end) < 10_000 and end else end for end in window)
    text, expected = b"" if kind == "carbon" else CSV_HEADER, {}
    for name in NAMES:
        stored = stored_series(name, now_s)
        expected[name] = expected_points(stored, now_s, from_s, until_s)
        times: list[int] = []
        for points in finest_points(stored, now_s, from_s, until_s):
            times += points[0].tolist()
            text += (
                carbon_lines(name, points)
                if kind == "carbon"
                else csv_rows(name, points, kind == "iso")
            )
        assert times == sorted(expected[name])
    registry, refused = prefixed_names(rules(), "", 1_024).registry, Refused()
    if kind == "carbon":
        blocks = list(read_carbon(io.BytesIO(text), registry, now_s, refused))
    else:
        blocks = list(read_csv(io.StringIO(text.decode(), newline=""), registry, refused))
    found: dict[str, Slots] = {name: {} for name in NAMES}
    for block in blocks:
        for name, time_s, value in zip(
            registry.names(block.ids), block.times.tolist(), block.values.tolist(), strict=True
        ):
            found[name][time_s] = value
    assert found == expected and not refused.counts
