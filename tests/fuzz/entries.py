"""One entry for each thing that reads bytes from outside: any bytes are taken, or refused in the way that is its own.

An entry gets bytes and raises only when a promise is broken. ``ENTRIES`` is what the mutating test and atheris
(``run_atheris.py``) call. What an entry needs beside the data it takes from the data's first byte.
"""

from __future__ import annotations

import io
import itertools
import struct
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from http_api.admin import _arguments
from http_api.peer_answers import BadAnswer, read_find, read_render, read_texts
from http_api.reply import _body_pairs
from tests.fuzz.test_queries import target_holds, time_holds
from tests.fuzz.test_wire_formats import frames_hold, lines_hold, statsd_holds
from tgres_py.config_sources import load
from tgres_py.errors import BadRequest, ConfigError, LimitExceeded
from tgres_py.ingest.journal import (
    Damage,
    DamagedRecord,
    Kind,
    decode,
    encode,
    list_files,
    read_records,
)
from tgres_py.migrate import text_import
from tgres_py.migrate.whisper_file import WhisperCorrupt, known_slots, parse_header
from tgres_py.model.points import Reason
from tgres_py.model.rules import RuleSet, parse_aggregation, parse_schemas
from tgres_py.query.remote import RemoteKey
from tgres_py.statsd.aggregate import Aggregator
from tgres_py.statsd.import_config import import_config
from tgres_py.statsd.mgmt import Management
from tgres_py.statsd.settings import from_table

NOW_S = 1_700_000_000
POINTS_MAX = 10_000  # of a peer's answer
Entry = Callable[[bytes], None]


def _first(data: bytes) -> tuple[int, bytes]:
    return (data[0], data[1:]) if data else (0, b"")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def carbon(data: bytes) -> None:
    cut, lines = _first(data)
    lines_hold(lines, cut)


def pickle_frames(data: bytes) -> None:
    """As it stands, and as one frame of the right length."""
    cut, frames = _first(data)
    frames_hold(frames, cut)
    frames_hold(struct.pack(">I", len(frames)) + frames, cut)


def statsd(data: bytes) -> None:
    dialect, lines = _first(data)
    statsd_holds(lines, "dogstatsd" if dialect % 2 else "etsy")


def statsd_mgmt(data: bytes) -> None:
    """Commands to a server that has some keys; its answers end as etsy's do."""
    aggregator = Aggregator(from_table({"keyNameSanitize": False}), NOW_S)
    aggregator.add(b"a.b:1|c\na.c:2|g\na.d:3|ms\n", 1, NOW_S)
    management = Management(aggregator)
    for command in data.split(b"\n"):
        answer = management.handle(command, NOW_S + 10)
        assert answer is None or answer.endswith(b"\n")


def target(data: bytes) -> None:
    target_holds(_text(data))


def attime(data: bytes) -> None:
    zone, text = _first(data)
    time_holds(_text(text), ("UTC", "Europe/Berlin", "America/Sao_Paulo")[zone % 3])


def journal_record(data: bytes) -> None:
    """A payload whose checksum is right, of any kind: what is damaged says so; what decodes can be written again."""
    kind, payload = _first(data)
    number = 1 + kind % (len(Kind) - 1)
    try:
        record = decode(number, payload)
    except DamagedRecord as error:
        assert str(error)
        return
    count = len(record.ids)
    assert all(
        column is None or len(column) == count
        for column in (record.times, record.values, record.counts)
    )
    encode(record)


def journal_file(data: bytes) -> None:
    """A file: all of it is read or counted as damage; what is read stands in it, whole."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "00000001.journal")
        path.write_bytes(data)
        for file in list_files(Path(folder)):
            damage = Damage()
            for kind, payload in read_records(file.path, damage):
                assert kind in list(Kind)
                assert bytes(payload) in data
            assert 0 <= damage.bytes <= len(data)
            assert bool(damage.records) == bool(damage.bytes)


def whisper(data: bytes) -> None:
    try:
        header = parse_header(data)
        spec = header.spec()
        if header.size_bytes > len(data):
            raise WhisperCorrupt("cut off")
    except WhisperCorrupt as error:
        assert str(error)
        return
    assert len(spec.archives) == len(header.archives)
    whole = np.frombuffer(data, np.uint8)
    for number, (_, step_s, points) in enumerate(header.archives):
        slots, values, outside = known_slots(header, whole, number, NOW_S)
        assert len(slots) == len(values) <= points and outside >= 0
        assert not len(slots) or (slots.max() <= NOW_S // step_s and slots.min() >= 0)
        assert not np.isnan(values).any()


_ASKED = {"a.*": RemoteKey("a.*", NOW_S - 60, NOW_S), "b": RemoteKey("b", NOW_S - 60, NOW_S)}


def peer_render(data: bytes) -> None:
    try:
        found = read_render(data, _ASKED, POINTS_MAX)
    except (BadAnswer, LimitExceeded) as error:
        assert str(error)
        return
    for series in itertools.chain.from_iterable(found.values()):
        assert series.grid.step_s > 0 and series.grid.start_s >= 0
        assert series.values.dtype == np.float64 and series.values.ndim == 1
        assert series.name


def peer_find(data: bytes) -> None:
    try:
        found = read_find(data)
    except BadAnswer as error:
        assert str(error)
        return
    assert all(node.path and node.since_s >= 0 for node in found.rows())


def peer_texts(data: bytes) -> None:
    try:
        found = read_texts(data)
    except BadAnswer as error:
        assert str(error)
        return
    assert all(isinstance(text, str) and text.isprintable() for text in found.each_path())


def http_body(data: bytes) -> None:
    kind, body = _first(data)
    types = ("application/json", "application/x-www-form-urlencoded", "text/plain")
    try:
        pairs = _body_pairs(body, types[kind % 3])
    except BadRequest as error:
        assert str(error)
        return
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in pairs)


def admin_body(data: bytes) -> None:
    try:
        assert isinstance(_arguments(data), dict)
    except BadRequest as error:
        assert str(error)


def schemas(data: bytes) -> None:
    """storage-schemas.conf, and storage-aggregation.conf; accepted rules match any name."""
    kind, text = _first(data)
    try:
        if kind % 2:
            rules = RuleSet([], parse_aggregation(_text(text), "file"))
        else:
            rules = RuleSet(parse_schemas(_text(text), "file"), [])
    except ConfigError as error:
        assert "file" in str(error)
        return
    for name in ("a.b", "x" * 500, "a;b=c"):
        assert rules.match(name).archives


def toml(data: bytes) -> None:
    """A configuration file; files that it names aren't there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tgres.toml")
        path.write_bytes(data)
        try:
            load(path, environ={})
        except ConfigError as error:
            assert str(error)


def config_js(data: bytes) -> None:
    """What is taken over of a config.js is TOML that is accepted."""
    try:
        imported = import_config(_text(data))
    except ConfigError as error:
        assert str(error)
        return
    table = tomllib.loads(imported.toml("config.js"))
    from_table({k: v for k, v in table.get("statsd", {}).items() if k not in _LISTENERS})


_LISTENERS = ("address", "port", "mgmt_address", "mgmt_port", "servers", "server")


def _imported(read: Callable[[text_import.Refused], list[int]]) -> None:
    refused = text_import.Refused()
    counts = read(refused)
    assert all(count > 0 for count in refused.counts.values())
    assert len(refused.samples) <= text_import.SAMPLES and sum(counts) >= 0


def csv_rows(data: bytes) -> None:
    def read(refused: text_import.Refused) -> list[int]:
        registry = text_import.prefixed_names(RuleSet([], []), "", 1_024).registry
        lines = io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")
        counts = []
        for block in text_import.read_csv(lines, registry, refused):
            assert not np.isnan(block.values).any() and (block.times >= 0).all()
            counts.append(len(block.ids))
        return counts

    _imported(read)


def carbon_file(data: bytes) -> None:
    def read(refused: text_import.Refused) -> list[int]:
        registry = text_import.prefixed_names(RuleSet([], []), "", 1_024).registry
        blocks = text_import.read_carbon(io.BytesIO(data), registry, NOW_S, refused)
        counts = [len(block.ids) for block in blocks]
        assert set(refused.counts) <= {reason.value for reason in Reason}
        return counts

    _imported(read)


ENTRIES: dict[str, Entry] = {
    entry.__name__: entry
    for entry in (
        carbon, pickle_frames, statsd, statsd_mgmt, target, attime, journal_record, journal_file, whisper,
        peer_render, peer_find, peer_texts, http_body, admin_body, schemas, toml, config_js, csv_rows, carbon_file,
    )
}  # fmt: skip
