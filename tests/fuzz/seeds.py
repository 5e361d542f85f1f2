"""Sound inputs of each entry, from which mutations start: made by the writers of the formats themselves."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgpack
import numpy as np

from tests.fuzz.effort import CORPUS, corpus
from tgres_py.ingest.journal import RECORD_HEADER, Journal, Kind, Record, encode
from tgres_py.migrate.whisper_file import encode_file
from tgres_py.model.retention import make_bundle

NOW_S = 1_700_000_000
_CONF = b"""[carbon]
pattern = ^carbon\\.
retentions = 60:90d
[default]
pattern = .*
priority = 5
retentions = 10s:6h,1m:7d
"""
_AGGREGATION = b"""[min]
pattern = \\.min$
xFilesFactor = 0.1
aggregationMethod = min
"""
_TOML = b"""http = "127.0.0.1:0"
query_points_max = 5_000
cache_bytes_max = "64M"
[statsd]
flushInterval = 10_000
percentThreshold = [90, 95.5]
[[schema]]
name = "a"
pattern = "^a"
retentions = "10s:1h"
[cluster]
peers = ["http://127.0.0.1:8081"]
"""
_CONFIG_JS = b"""/* comment */ {
  graphitePort: 2003, graphiteHost: "127.0.0.1", // another
  flushInterval: 0x2710, percentThreshold: [90, -5.5e0],
  servers: [{server: './servers/udp', port: 8125}],
  keyNameSanitize: true, histogram: [{metric: 'a', bins: [1, 'inf']}],
}"""


def seeds(entry: str) -> list[bytes]:
    """At least one for each entry of ENTRIES, those of its corpus among them."""
    made = list(_MADE[entry]())
    return made + (corpus(entry) if (CORPUS / f"{entry}.txt").exists() else [])


def _lines() -> Iterator[bytes]:
    yield b"\x05a.b 1 1700000000\na;x=1 2.5 -1\r\na.c nan 1700000000.5\n"
    for line in corpus("lines"):
        yield b"\x00" + line


def _frames() -> Iterator[bytes]:
    points = [("a.b", (NOW_S, 1.5)), ("a.c", (NOW_S, 2)), ("a.d", (NOW_S, "3"))]
    for protocol in range(6):
        yield b"\x07" + pickle.dumps(points, protocol)
    for frame in corpus("pickle"):
        yield b"\x00" + frame


def _statsd() -> Iterator[bytes]:
    yield b"\x00a:1|c|@0.1\nb:2|g\nb:+1|g\nc:1:2:3|ms\nd:x|s\na.b;t=1:1|c"
    yield b"\x01a:1:2|d|#t:1,u|T1700000000|c:x\n_e{5,4}:title|text|#a:b|h:x|p:low\n_sc|n|0|m:x"
    for line in corpus("statsd"):
        yield b"\x00" + line
        yield b"\x01" + line


def _mgmt() -> Iterator[bytes]:
    yield b"help\nstats\ncounters\ngauges\ntimers\nhealth down\nhealth up\nconfig\nquit"
    yield b"delcounters a.b a.*\ndelgauges a.c\ndeltimers a.*\nx"


def _targets() -> Iterator[bytes]:
    yield b"movingAverage(scale(a.*.{b,c}, -1.5e3), '5min', xFilesFactor=0.5)|alias('x\\'y')"
    yield b"seriesByTag('name=a', 'b!=~c')"
    yield b"template(group($a.b, c), a='x')"
    yield from corpus("targets")


def _times() -> Iterator[bytes]:
    for text in (
        b"-1h30min",
        b"noon_yesterday",
        b"20231114",
        b"22:13_20231114",
        b"jan5",
        b"1700000000",
        b"now+1d",
    ):
        yield b"\x01" + text
    for text in corpus("times"):
        yield b"\x00" + text


def _records() -> list[Record]:
    ids = np.arange(5, dtype=np.int32)
    times, values = ids.astype(np.int64) + NOW_S, ids + 0.5
    return [
        Record(Kind.NAMES, ids[:2], blob=b"a.b\na.c\n"),
        Record(Kind.POINTS, ids, times, values, NOW_S),
        Record(Kind.LATE, ids, times, values, NOW_S, 7),
        Record(Kind.FLOOR, ids, now_s=NOW_S),
        Record(Kind.IMAGE, ids, times * 1_000, values, NOW_S, counts=np.ones(5, np.uint32)),
        Record(Kind.ROWS, ids, times),
    ]


def _payloads() -> Iterator[bytes]:
    for record in _records():
        yield bytes([record.kind - 1]) + encode(record)[RECORD_HEADER.size :]


def _journals() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder), 0.01)
        journal.start()
        for record in _records():
            journal.append(record)
        journal.close()
        for path in Path(folder).glob("*.journal"):
            yield path.read_bytes()


def _whisper() -> Iterator[bytes]:
    slots = np.arange(NOW_S // 60 - 9, NOW_S // 60 + 1)
    coarse = np.arange(NOW_S // 600 - 2, NOW_S // 600 + 1)
    yield encode_file(make_bundle([(60, 10)]), [(slots, slots * 1.0)])
    yield encode_file(
        make_bundle([(60, 10), (600, 5)]), [(slots, slots * 1.0), (coarse, coarse * 1.0)]
    )


def _series(**more: object) -> dict[str, object]:
    times = {"start": NOW_S - 60, "end": NOW_S, "step": 10}
    return {
        "name": "a.x",
        "pathExpression": "a.*",
        **times,
        "values": [1.0, None, 3, 4.5, -1, 0.0],
        **more,
    }


def _renders() -> Iterator[bytes]:
    yield msgpack.packb([_series(), _series(name="a.y", consolidationFunc="sum")])
    yield msgpack.packb([_series(values=[])])
    yield msgpack.packb([])


def _finds() -> Iterator[bytes]:
    yield msgpack.packb(
        [
            {"path": "a.x", "is_leaf": True, "intervals": [(0, NOW_S)]},
            {"metric_path": "a", "isLeaf": False, "intervals": []},
        ]
    )


def _bodies() -> Iterator[bytes]:
    yield b'\x00{"target": ["a.b", "c"], "from": "-1h", "maxDataPoints": 100, "x": null, "y": true, "z": 1.5}'
    yield b"\x01target=a.b&target=c&from=-1h&x=%00%ff&y"
    yield b"\x02target=a.b"


_MADE = {
    "carbon": _lines,
    "pickle_frames": _frames,
    "statsd": _statsd,
    "statsd_mgmt": _mgmt,
    "target": _targets,
    "attime": _times,
    "journal_record": _payloads,
    "journal_file": _journals,
    "whisper": _whisper,
    "peer_render": _renders,
    "peer_find": _finds,
    "peer_texts": lambda: iter((b'["a.b", "c"]', b"[]", b'["\\ud800"]')),
    "http_body": _bodies,
    "admin_body": lambda: iter((b'{"pattern": "a.*", "yes": true, "n": [1]}', b"")),
    "schemas": lambda: iter((b"\x00" + _CONF, b"\x01" + _AGGREGATION)),
    "toml": lambda: iter((_TOML,)),
    "config_js": lambda: iter((_CONFIG_JS,)),
    "csv_rows": lambda: iter(
        (b'name,time,value\r\na.b,1700000000,1.5\r\n"a,c",2023-11-14 22:13:20,\n',)
    ),
    "carbon_file": lambda: iter((b"a.b 1 1700000000\nx\na.c 2 1700000000",)),
}
