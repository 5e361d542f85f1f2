"""CSV rows and carbon lines into the store."""

from __future__ import annotations

import io
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import whisper
from click.testing import CliRunner

from tests.test_import_whisper import METHODS, XFFS, stored_slots, whisper_slots
from tgres_py import clock
from tgres_py.cli.main import main
from tgres_py.ingest.registry import Registry
from tgres_py.migrate.points import PointLoader, place_points
from tgres_py.migrate.text_import import Prefixed, Refused, prefixed_names, read_carbon, read_csv
from tgres_py.model.ident import NameRefused
from tgres_py.model.points import PointBlock
from tgres_py.model.retention import BundleSpec, Cf, make_bundle, pairs_of
from tgres_py.model.rules import RuleSet
from tgres_py.storage.importing import ImportStore

ROWS = """\
path,time,value
a.b,1700000000,1.5
a.b,1700000001.9,-2e3

"disk.used;host=a,b",2023-11-14T22:13:20Z,3
disk.used;dc=x;host=z,2023-11-14 23:13:20+01:00,4
..a..b,2023-11-14T22:13:22,inf
a.b,1700000003,
a.b,1700000003,nan
a.b,yesterday,1
a.b,1700000004,many
a.b,-5,1
a.b,1e300,1
a b,1700000004,1
;x=y,1700000004,1
a.b,1700000004
a.b,1700000004,1,2
"""

POINTS = [
    ("a.b", 1700000000, 1.5),
    ("a.b", 1700000001, -2000.0),
    ("disk.used;host=a,b", 1700000000, 3.0),
    ("disk.used;dc=x;host=z", 1700000000, 4.0),
    ("a.b", 1700000002, float("inf")),
]


def rules() -> RuleSet:
    return RuleSet()


def points_of(
    blocks: list[PointBlock], registry: Registry | Prefixed
) -> list[tuple[str, int, float]]:
    return [
        point
        for block in blocks
        for point in zip(
            registry.names(block.ids), block.times.tolist(), block.values.tolist(), strict=True
        )
    ]


def test_csv_rows() -> None:
    registry, refused = prefixed_names(rules(), "", 1_024).registry, Refused()
    blocks = list(read_csv(io.StringIO(ROWS, newline=""), registry, refused))
    assert points_of(blocks, registry) == POINTS
    assert refused.counts == {"time": 3, "value": 1, "name": 2, "columns": 2}
    assert ("time", "a.b,yesterday,1") in refused.samples


def test_a_first_row_with_a_time_is_no_header() -> None:
    registry, refused = prefixed_names(rules(), "", 1_024).registry, Refused()
    blocks = list(read_csv(io.StringIO("a,1700000000,1\n"), registry, refused))
    assert points_of(blocks, registry) == [("a", 1700000000, 1.0)]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_carbon_lines(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgres_py.migrate.text_import.READ_BYTES", size)
    registry, refused = prefixed_names(rules(), "", 1_024).registry, Refused()
    lines = b"a.b 1.5 1700000000\nnonsense\nc;y=2;x=1 2 -1\na.b nan 5\nlast 3 1700000001"
    blocks = list(read_carbon(io.BytesIO(lines), registry, 1_700_000_009, refused))
    assert points_of(blocks, registry) == [
        ("a.b", 1_700_000_000, 1.5),
        ("c;x=1;y=2", 1_700_000_009, 2.0),
        ("last", 1_700_000_001, 3.0),
    ]
    assert refused.counts == {"malformed": 1, "nan": 1}


def test_points_go_to_the_finest_archive_that_reaches_back() -> None:
    now_s = 1_700_000_400
    spec = make_bundle([(10, 12), (60, 10)], Cf.SUM, 0.5)
    times = np.array(
        [now_s + 1, now_s, now_s - 3, now_s - 9, now_s - 119, now_s - 121, now_s - 150, now_s - 599]
    )
    placed, outside = place_points(spec, times, np.arange(8.0), now_s)
    (fine, fine_values), (coarse, coarse_values) = placed
    # two in the slot before now: the last counts; two in a coarse slot: summed
    assert dict(zip((now_s - fine * 10).tolist(), fine_values, strict=True)) == {0: 1, 10: 3}
    assert dict(zip((now_s - coarse * 60).tolist(), coarse_values, strict=True)) == {
        120: 4,
        180: 11,
    }
    assert outside == 2


@pytest.fixture
async def store(database: str) -> AsyncIterator[ImportStore]:
    store = ImportStore(database)
    yield store
    await store.close()


async def load(store: ImportStore, spec: BundleSpec, text: str, now_s: int) -> PointLoader:
    registry = prefixed_names(rules(), "", 1_024).registry
    loader = PointLoader(store, lambda names: [spec] * len(names), registry.names, now_s)
    for block in read_carbon(io.BytesIO(text.encode()), registry, now_s, Refused()):
        await loader.add(block)
    await loader.flush()
    return loader


@pytest.mark.parametrize("seed", range(6))
async def test_points_within_the_finest_archive_become_what_whisper_makes_of_them(
    store: ImportStore, tmp_path: Path, seed: int
) -> None:
    """In two halves, so that the second meets what the first left."""
    pick = random.Random(seed)
    now_s = clock.now_s() // 600 * 600 + 599
    spec = make_bundle([(10, 720), (60, 600), (600, 300)], pick.choice(METHODS), pick.choice(XFFS))
    slots = sorted(pick.sample(range(1, 600), 400))
    points = [(now_s - slot * 10, pick.uniform(-9, 9)) for slot in reversed(slots)]
    path = tmp_path / "a.wsp"
    whisper.create(str(path), list(pairs_of(spec)), spec.xff, spec.cf.value)
    for time_s, value in points:
        whisper.update(str(path), value, time_s, now=now_s)
    pick.shuffle(points)
    for half in (points[:200], points[200:]):
        await load(store, spec, "".join(f"a {v!r} {t}\n" for t, v in half), now_s)
    for number in range(3):
        expected = whisper_slots(path, number, now_s)
        found = await stored_slots(store, 1, spec, number)
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, rel=1e-12)


async def test_known_slots_stay(store: ImportStore) -> None:
    now_s = clock.now_s()
    spec = make_bundle([(10, 720), (60, 600)])
    await load(store, spec, f"a 1 {now_s}\n", now_s)
    await load(store, spec, f"a 2 {now_s}\na 3 {now_s - 10}\n", now_s)
    found = await stored_slots(store, 1, spec, 0)
    assert found == {now_s // 10 * 10: 1.0, now_s // 10 * 10 - 10: 3.0}


def test_a_prefix_stands_before_all_names() -> None:
    named, refused = prefixed_names(rules(), "old..site.", 24), Refused()
    text = "a,1700000000,1\ndisk;z=1;b=2,1700000000,2\n" + "x" * 16 + ",1700000000,3\n"
    blocks = list(read_csv(io.StringIO(text, newline=""), named.registry, refused))
    assert points_of(blocks, named) == [
        ("old.site.a", 1700000000, 1.0),
        ("old.site.disk;b=2;z=1", 1700000000, 2.0),
    ]
    assert refused.counts == {"limit": 1}, "the name is too long with its prefix"
    for prefix in ("a;b=c", "a b", "a" * 2_000):
        with pytest.raises(NameRefused):
            prefixed_names(rules(), prefix, 1_024)
    assert prefixed_names(rules(), "..", 1_024).lead == ""


def test_a_row_that_is_no_csv_costs_itself() -> None:
    registry, refused = prefixed_names(rules(), "", 1_024).registry, Refused()
    text = "a,1700000000,1\n" + "x" * 200_000 + ",1700000000,2\nb,1700000000,3\n"
    blocks = list(read_csv(io.StringIO(text, newline=""), registry, refused))
    assert points_of(blocks, registry) == [("a", 1700000000, 1.0), ("b", 1700000000, 3.0)]
    assert refused.counts == {"csv": 1}


@pytest.mark.parametrize("kind", ["csv", "carbon"])
def test_a_dry_run_says_what_there_is_and_needs_no_store(tmp_path: Path, kind: str) -> None:
    now_s = clock.now_s()
    points = [("a", now_s), ("a", now_s - 50), ("b", now_s - 10 * 366 * 86_400), ("c", now_s + 999)]
    rows = [f"{name},{t},1\n" if kind == "csv" else f"{name} 1 {t}\n" for name, t in points]
    (tmp_path / "points").write_text("".join([*rows, "nonsense\n"]))
    command = ["import", kind, str(tmp_path / "points"), "--dry-run", "--prefix", "old"]
    store = ["--data-dir", str(tmp_path / "data")]
    run = CliRunner().invoke(main, [*command, *store, "--json"])
    assert run.exit_code == 4, run.output
    found = json.loads(run.stdout)
    refused = {"columns": 1} if kind == "csv" else {"malformed": 1}
    assert found | {"seconds": 0} == {
        "points": 4,
        "series": 3,
        "slots": 0,
        "outside": 2,
        "refused": refused,
        "seconds": 0,
    }
    assert not (tmp_path / "data").exists()
    run = CliRunner().invoke(main, [*command, *store])
    assert run.output.startswith("4 points of 3 series to import\n2 points older")
