"""Whisper's format, names of files, and which files there are below a folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st

from tgres_py.migrate.files import list_files
from tgres_py.migrate.names import name_of_path, path_of_name
from tgres_py.migrate.whisper_file import (
    FILE_BYTES_MAX,
    INFO,
    METADATA,
    WhisperCorrupt,
    encode_file,
    known_slots,
    parse_header,
    read_file,
)
from tgres_py.model.ident import NameRefused
from tgres_py.model.retention import Cf, make_bundle

GOOD = METADATA.pack(1, 600, 0.5, 1) + INFO.pack(28, 60, 10)
CORRUPT = {
    "is empty": b"",
    "fewer than the header": GOOD[:27],
    "8 bytes": GOOD[:8],
    "method 9": METADATA.pack(9, 600, 0.5, 1) + GOOD[16:],
    "0 archives": METADATA.pack(1, 600, 0.5, 0) + GOOD[16:],
    "4294967295 archives": METADATA.pack(1, 600, 0.5, 2**32 - 1) + GOOD[16:],
    "xFilesFactor 7": METADATA.pack(1, 600, 7.0, 1) + GOOD[16:],
    "xFilesFactor nan": METADATA.pack(1, 600, float("nan"), 1) + GOOD[16:],
    "no step": METADATA.pack(1, 600, 0.5, 1) + INFO.pack(28, 0, 10),
    "no place": METADATA.pack(1, 600, 0.5, 1) + INFO.pack(3, 60, 10),
    "cut off": GOOD + bytes(119),
    "compressed": b"whisper_compressed" + bytes(100),
    "no multiple": METADATA.pack(1, 600, 0.5, 2)
    + INFO.pack(40, 60, 10)
    + INFO.pack(160, 90, 90)
    + bytes(1_200),
}


@pytest.mark.parametrize("text", CORRUPT)
def test_what_is_no_whisper_file_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.wsp"
    path.write_bytes(CORRUPT[text])
    with pytest.raises(WhisperCorrupt, match=text):
        read_file(path)[0].spec()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 79))
def test_any_bytes_are_a_header_or_refused(data: bytes, at: int) -> None:
    for mutated in (data, GOOD[:at] + data + GOOD[at:]):
        try:
            parse_header(mutated).spec()
        except WhisperCorrupt as error:
            assert str(error)


def test_a_shuffled_point_is_left_from_an_earlier_lap() -> None:
    """Place and time must agree, and the time must be a multiple of the step."""
    spec = make_bundle([(60, 10)])
    slots = np.arange(1_000, 1_010)
    data = bytearray(encode_file(spec, [(slots, slots * 1.0)]))
    header = parse_header(bytes(data))
    points = np.frombuffer(data, np.uint8)
    now_s = 1_009 * 60 + 5
    assert known_slots(header, points, 0, now_s).slots.tolist() == slots.tolist()
    put = METADATA.size + INFO.size
    for place, time_s in ((2, 1_003 * 60), (4, 1_004 * 60 + 1), (5, 995 * 60)):
        at = put + place * 12
        data[at : at + 4] = time_s.to_bytes(4, "big")
    known = known_slots(header, np.frombuffer(data, np.uint8), 0, now_s)
    assert known.slots.tolist() == [1_000, 1_001, 1_003, 1_006, 1_007, 1_008, 1_009]
    assert known.outside == 1  # 995 stands where 1,005 would: a lap ago
    since = known_slots(header, np.frombuffer(data, np.uint8), 0, now_s, 1_006 * 60)
    assert since.slots.tolist() == [1_006, 1_007, 1_008, 1_009]


def test_without_a_first_point_an_archive_is_empty_for_whisper(tmp_path: Path) -> None:
    path = tmp_path / "a.wsp"
    whisper.create(str(path), [(60, 10)], 0.5, "average")
    data = bytearray(path.read_bytes())
    data[28 + 36 : 28 + 40] = (1_003 * 60).to_bytes(4, "big")
    path.write_bytes(data)
    now_s = 1_005 * 60
    fetched = whisper.fetch(str(path), now_s - 600, now_s, now_s)
    assert fetched is not None and set(fetched[1]) == {None}
    assert len(known_slots(*read_file(path), 0, now_s).slots) == 0


@pytest.mark.parametrize("xff", [0.0, 0.1, 0.3, 0.5, 0.7, 1.0])
def test_the_factor_is_the_one_that_was_meant(tmp_path: Path, xff: float) -> None:
    path = tmp_path / "a.wsp"
    whisper.create(str(path), [(60, 10)], xff, "absmin")
    header, _ = read_file(path)
    assert header.spec() == make_bundle([(60, 10)], Cf.ABSMIN, xff)


NAMES = [
    ("servers/web1/cpu.wsp", "servers.web1.cpu"),
    ("a.wsp", "a"),
    ("a/b c.wsp", None),
    ("_tagged/1ab/2cd/disk_DOT_used;host=a_DOT_b;dc=x.wsp", "disk.used;dc=x;host=a.b"),
    ("_tagged/1ab/2cd/" + "0" * 64 + ".wsp", None),
    ("a/..b/c.wsp", "a.b.c"),
    ("a/;=y.wsp", None),
]


@pytest.mark.parametrize(("path", "name"), NAMES)
def test_names_of_paths(path: str, name: str | None) -> None:
    if name is None:
        with pytest.raises(NameRefused):
            name_of_path(path)
        return
    assert name_of_path(path) == name
    assert name_of_path(path, "old.") == f"old.{name}"
    assert name_of_path(path_of_name(name)) == name


def test_files_below_a_folder(tmp_path: Path) -> None:
    for path in (
        "b/x.wsp",
        "a/y.wsp",
        "a.b.wsp",
        "a/b.wsp",
        "a/z.rrd",
        "bad name.wsp",
        "c/.wsp.wsp",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"1234")
    os.symlink(tmp_path / "b", tmp_path / "linked")
    os.symlink(tmp_path, tmp_path / "a" / "round")
    os.symlink(tmp_path / "nothing", tmp_path / "a" / "gone.wsp")
    os.mkfifo(tmp_path / "a" / "pipe.wsp")
    os.symlink("/dev/zero", tmp_path / "a" / "zero.wsp")
    listing = list_files(tmp_path, "p")
    assert [(file.path, file.name, file.size) for file in listing.files] == [
        ("a.b.wsp", "p.a.b", 4),
        ("a/y.wsp", "p.a.y", 4),
        ("b/x.wsp", "p.b.x", 4),
        ("c/.wsp.wsp", "p.c.wsp", 4),
    ]
    reasons = dict(listing.left_out)
    no_files = {"a/pipe.wsp", "a/zero.wsp"}
    others = {"a/b.wsp", "bad name.wsp", "a/round", "a/gone.wsp", "linked"}
    assert reasons.keys() == no_files | others
    assert {reasons[path] for path in no_files} == {"it is no file"}
    assert reasons["a/b.wsp"] == "it is the same series as a.b.wsp: p.a.b"
    assert "goes round" in reasons["a/round"] and "No such file" in reasons["a/gone.wsp"]


def test_a_file_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wsp"
    path.touch()
    os.truncate(path, FILE_BYTES_MAX + 1)
    with pytest.raises(WhisperCorrupt, match="up to 1 GiB"):
        read_file(path)
