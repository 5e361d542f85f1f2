"""Writers of /render's answers, one module for each kind; ``FORMATS`` is their table.

A format that isn't in it is a picture (see images).
"""

from __future__ import annotations

from http_api.formats import charts, json, packed, text
from http_api.formats.look import Format

FORMATS = {
    "json": Format("application/json", json.write, javascript=True),
    "dygraph": Format("application/json", charts.write_dygraph, javascript=True),
    "rickshaw": Format("application/json", charts.write_rickshaw, javascript=True),
    "csv": Format("text/csv; charset=utf-8", text.write_csv),
    "raw": Format("text/plain; charset=utf-8", text.write_raw),
    "pickle": Format("application/pickle", packed.write_pickle),
    "msgpack": Format("application/x-msgpack", packed.write_msgpack),
}
