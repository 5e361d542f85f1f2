"""The declared settings of ``[statsd]`` as documents: for the sample file and the README's table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from tgres_py.statsd.js import number_text
from tgres_py.statsd.settings import StatsdSettings


class Row(NamedTuple):
    """``name``: dotted for members of a table; ``default``: as TOML writes it, empty when there is none.

    ``sample``: the line that sets it to its default, a comment where no value does.
    """

    name: str
    default: str
    help: str
    sample: str


def rows() -> list[Row]:
    """All settings, in order of declaration."""
    return list(_rows(StatsdSettings(), ""))


def _rows(settings: Any, prefix: str) -> Iterator[Row]:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if hasattr(value, "__dataclass_fields__"):
            yield from _rows(value, f"{prefix}{field.name}.")
        else:
            name, default = f"{prefix}{field.name}", _toml(value)
            unset = value is None and "str" in str(field.type)
            line = f'# {name} = ""' if unset else f"{name} = {default or 'false'}"
            yield Row(name, default, field.metadata["help"], f"{line}  # {field.metadata['help']}")


def _toml(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(part) for part in value) + "]"
    if isinstance(value, float):
        return number_text(value)
    return f"{value:_}" if type(value) is int else json.dumps(value, ensure_ascii=False)


def sample_toml() -> str:
    """The table with all settings at their defaults, commented out."""
    lines = [
        "# ---- statsd, by etsy's names; address, port, mgmt_address, mgmt_port or servers go in here, too",
        "",
        "# [statsd]",
    ]
    lines += [f"# {row.sample}" for row in rows()]
    return "\n".join([*lines, ""])


def markdown_table() -> str:
    lines = ["| key of `[statsd]` | default | what |", "|---|---|---|"]
    for row in rows():
        shown = f"`{row.default}`" if row.default.strip('"') else "–"
        lines.append(f"| `{row.name}` | {shown} | {row.help} |")
    return "\n".join([*lines, ""])
