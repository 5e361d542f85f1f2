"""Documents made from the declaration of the settings: the sample file and the README's table.

``python -m tgres_py.config_doc README.md`` puts the table between the README's marks; a test holds them equal.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tgres_py.config import Settings, env_name, option_name, setting_extra, setting_fields
from tgres_py.config_values import Address, format_size
from tgres_py.model.duration import format_duration
from tgres_py.statsd import doc as statsd_doc

BEGIN, END = "<!-- settings:begin -->", "<!-- settings:end -->"
STATSD_BEGIN, STATSD_END = "<!-- statsd:begin -->", "<!-- statsd:end -->"

LONG_S = 600  # defaults in seconds from here on are told in minutes, hours or days, too

_TYPES = {
    "dsn": "text",
    "data_dir": "path",
    "schemas": "path",
    "aggregation": "path",
    "admin_token_file": "path",
    "http_token_file": "path",
    "tls_cert": "path",
    "tls_key": "path",
    "tls_listeners": "list of names",
    "http_allow": "list of networks",
    "carbon_allow": "list of networks",
    "pickle_allow": "list of networks",
    "statsd_allow": "list of networks",
    "cors_origins": "list of URLs",
    "retention": "retention",
    "cluster_peers": "list of URLs",
    "self_metrics_prefix": "text",
}

RULES_SAMPLE = """\
# ---- Rules, instead of the files `schemas` and `aggregation`; the first match wins

# [[schema]]
# name = "app"
# pattern = '^app\\.'
# retentions = "10s:1d,1m:30d"
# on-duplicate = "last"
# expire = "90d"

# [[aggregation]]
# name = "counts"
# pattern = '\\.count$'
# xFilesFactor = 0
# aggregationMethod = "sum"
"""


def toml_value(value: Any) -> str:
    """A setting's value as TOML writes it; None is ``"off"`` for listeners only, see ``sample_toml``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}"
    if type(value) is tuple:  # an Address is one, too
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return repr(value) if value != int(value) else f"{value:.0f}"
    return json.dumps(str(value), ensure_ascii=False)


def setting_toml(name: str, value: Any) -> str:
    """The value of the setting ``name`` as TOML; sizes as people write them, ``"8G"``."""
    if type_name(name) == "size" and not (text := format_size(value)).isdigit():
        return f'"{text}"'
    return toml_value(value)


def type_name(name: str) -> str:
    """The type of a setting, in a user's words."""
    default = Settings.model_fields[name].default
    if name in _TYPES:
        return _TYPES[name]
    if setting_extra(name)["unit"] == "bytes":
        return "size"
    if name in ("on_duplicate", "log_level"):
        return "word"
    if default is None or isinstance(default, Address):
        return "host:port or off"
    return {str: "text", bool: "true/false", int: "whole number", float: "number"}[type(default)]


def default_text(name: str) -> str:
    """The default as a user writes it; empty when there is none."""
    default = Settings.model_fields[name].default
    if default is None:
        return '"off"' if type_name(name).startswith("host") else ""
    return setting_toml(name, default)


def default_for_people(name: str) -> str:
    """The default in words, with its unit: ``8G``, ``1800 s (30m)``, ``automatic``; empty when there is none."""
    default, unit = Settings.model_fields[name].default, setting_extra(name)["unit"]
    if _is_automatic(name):
        return "automatic"
    if type_name(name) == "size":
        return format_size(default)
    if unit == "s":
        long = f" ({format_duration(default)})" if default >= LONG_S else ""
        return f"{default:g} s{long}"
    if isinstance(default, tuple) and not isinstance(default, Address):
        return ", ".join(default)
    if unit == "1/s":
        return f"{default:_.0f} a second"
    text = default_text(name).strip('"')
    return f"{text} {unit}" if text and unit else text


def _is_automatic(name: str) -> bool:
    """Whether the default is worked out by the server; the setting's help says how ("0 = …")."""
    default = Settings.model_fields[name].default
    return type(default) in (int, float) and default == 0


def sample_toml() -> str:
    """A TOML file with every setting at its default, commented out."""
    lines = ["# Settings of tgres. Lines that are commented out show the defaults.", ""]
    for name, field in setting_fields().items():
        extra = setting_extra(name)
        if extra["group"]:
            lines += [f"# ---- {extra['group']}", ""]
        marks = [type_name(name)]
        if extra["unit"]:
            marks.append(extra["unit"])
        if extra["reloadable"]:
            marks.append("SIGHUP reloads it")
        default = default_text(name)
        lines += [f"# {field.description} ({'; '.join(marks)})"]
        lines += [f"#{name} = {default}" if default else f'#{name} = ""', ""]
    return "\n".join(lines) + "\n" + RULES_SAMPLE + "\n" + statsd_doc.sample_toml()


def settings_table() -> str:
    """The settings as a Markdown table, one section for each group."""
    lines: list[str] = []
    for name, field in setting_fields().items():
        extra = setting_extra(name)
        if extra["group"]:
            lines += ["", f"**{extra['group']}**", "", "| setting | default | unit | what |"]
            lines += ["|---|---|---|---|"]
        default = default_text(name).strip('"')
        note = " (SIGHUP reloads it)" if extra["reloadable"] else ""
        shown = f"`{default}`" if default else "–"
        shown = "automatic" if _is_automatic(name) else shown
        lines.append(f"| `{name}` | {shown} | {extra['unit']} | {field.description}{note} |")
    return "\n".join(lines).strip() + "\n"


def settings_json() -> list[dict[str, Any]]:
    """The declaration as data, for ``tgres config sample --json``."""
    return [
        {
            "name": name,
            "type": type_name(name),
            "default": default_text(name).strip('"') or None,
            "unit": setting_extra(name)["unit"] or None,
            "help": field.description,
            "option": option_name(name),
            "environment": env_name(name),
            "reloadable": setting_extra(name)["reloadable"],
        }
        for name, field in setting_fields().items()
    ]


def with_table(text: str) -> str:
    """``text`` with the current tables between their marks; ValueError when it has no marks."""
    text = _between(text, BEGIN, END, settings_table())
    return _between(text, STATSD_BEGIN, STATSD_END, statsd_doc.markdown_table())


def _between(text: str, begin_mark: str, end_mark: str, table: str) -> str:
    before, begin, rest = text.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end:
        raise ValueError(f"the marks {begin_mark} and {end_mark} are missing")
    return f"{before}{begin_mark}\n{table}{end_mark}{after}"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        page = Path(argument)
        page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
