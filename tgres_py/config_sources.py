"""Where settings come from, and which source is the stronger one.

    default < TOML file (--config FILE or TGRES_CONFIG) < environment (TGRES_DATA_DIR=…) < command line (--data-dir …)

The environment's names are the settings' names in capitals after ``TGRES_``; an empty text counts as not set.
Unknown names are refused everywhere. Relative paths in the TOML file start at the file's directory.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tgres_py.config import (
    ENV_PREFIX,
    FILES,
    SECRETS,
    Settings,
    Sources,
    env_name,
    is_reloadable,
    option_name,
    setting_fields,
)
from tgres_py.config_values import Address, check_token
from tgres_py.errors import ConfigError
from tgres_py.masks import masked
from tgres_py.statsd.listen import LISTEN_KEYS, listen_from_table
from tgres_py.statsd.settings import from_table as statsd_from_table
from tgres_py.statsd.settings import reloaded

ENV_CONFIG = "TGRES_CONFIG"
# TGRES_CONFIG names the file, TGRES_URL and TGRES_TOKEN are the clients' --url and --token, TGRES_PURE=1 leaves the native kernels out.
_ENV_OTHERS = {ENV_CONFIG, "TGRES_URL", "TGRES_TOKEN", "TGRES_PURE"}
# Kubernetes puts the addresses of a service called "tgres" or "tgres-…" into every container's environment.
_ENV_KUBERNETES = re.compile(
    r"TGRES_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)

Found = dict[str, tuple[Any, str]]


def load(
    config_file: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Reads all sources and checks them. ConfigError: one sentence with source, setting and mend.

    ``options``: values of the command line by setting name; None means not given.
    ``environ``: os.environ unless given.
    """
    environ = dict(os.environ if environ is None else environ)
    named = config_file or environ.get(ENV_CONFIG)
    path = Path(named) if named else None
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin_values in (_from_file(path), _from_environ(environ), _from_options(options or {})):
        for name, (value, origin) in origin_values.items():
            values[name] = value
            origins[name] = origin
    _choose_rules(values, origins)
    if origins.get("statsd", "").startswith(("environment", "option")):
        values.pop("statsd_servers_table", None)
    settings = _validate(values, origins)
    if settings.tls_key is not None and settings.tls_cert is None:
        raise ConfigError("tls_key is given without tls_cert; give both")
    settings.memory_shares()
    return settings.loaded(
        {n: o for n, o in origins.items() if n in values},
        _secret("admin_token", settings.admin_token, settings.admin_token_file),
        _secret("http_token", settings.http_token, settings.http_token_file),
        Sources(path, dict(options or {}), environ),
    )


def reload(settings: Settings) -> tuple[Settings, list[str]]:
    """Reads the same sources again, for SIGHUP: what may change while running is taken over.

    Returns the new settings and the names of settings that changed but need a restart.
    ConfigError when the sources are wrong now; the caller keeps the old settings then.
    """
    sources = settings.sources
    if sources is None:
        return settings, []
    fresh = load(sources.config_file, sources.options, sources.environ)
    changed = {n for n in setting_fields() if getattr(fresh, n) != getattr(settings, n)}
    waiting = sorted(n for n in changed if not is_reloadable(n))
    kept: dict[str, Any] = {n: getattr(settings, n) for n in (*waiting, "statsd_servers_table")}
    kept["statsd_table"], waiting_statsd = reloaded(settings.statsd_table, fresh.statsd_table)
    if fresh.statsd_servers_table != settings.statsd_servers_table:
        waiting_statsd.append("servers")
    waiting += [f"[statsd] {name}" for name in waiting_statsd]
    return fresh.model_copy(update=kept), waiting


def _from_file(path: Path | None) -> Found:
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; check --config") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    found: Found = {}
    for key, value in _flat(data).items():
        if value == "":
            continue  # as in the environment: empty is not set
        origin = f"{path}{_line_of(text, key)}"
        name = key
        if key == "statsd" and isinstance(value, dict):
            found |= {n: (v, origin) for n, v in _from_statsd(value, origin).items()}
            continue
        if key in ("schema", "aggregation") and isinstance(value, list):
            name = f"{key}_tables"
            value = tuple(value)
        elif key not in setting_fields():
            raise ConfigError(f"{origin}: unknown setting {key}{_suggest(key, setting_fields())}")
        elif key in FILES:
            value = path.parent / str(value)
        found[name] = (value, origin)
    return found


def _from_statsd(table: dict[str, Any], origin: str) -> dict[str, Any]:
    """The table ``[statsd]``: its addresses become the listeners' settings, the rest goes to statsd."""
    where = f"{origin}: statsd"
    listen = listen_from_table(table, where)
    rest = {k: v for k, v in table.items() if k not in LISTEN_KEYS}
    values: dict[str, Any] = {
        "statsd_table": statsd_from_table(rest, where),
        "statsd_given_table": table,
    }
    if listen.servers:
        values["statsd_servers_table"] = listen.servers
    if listen.address:
        values["statsd"] = Address(*listen.address)
    if listen.mgmt:
        values["statsd_mgmt"] = Address(*listen.mgmt)
    return values


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """The table [cluster] with ``peers`` is the setting ``cluster_peers``, and so on."""
    out: dict[str, Any] = {}
    for key, value in data.items():
        if key == "cluster" and isinstance(value, dict):
            out.update({f"cluster_{name}": one for name, one in value.items()})
        else:
            out[key] = value
    return out


def _line_of(text: str, key: str) -> str:
    """``, line 7``: where a top-level key stands; empty when it is written in an unusual form."""
    pattern = re.compile(rf"\s*(\[\[?\s*)?[\"']?{re.escape(key)}[\"']?\s*[=\]]")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return f", line {number}"
    return ""


def _from_environ(environ: Mapping[str, str]) -> Found:
    known = {env_name(name): name for name in setting_fields()}
    found: Found = {}
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable in _ENV_OTHERS:
            continue
        if variable not in known:
            if _ENV_KUBERNETES.fullmatch(variable):
                continue
            raise ConfigError(f"environment: unknown setting {variable}{_suggest(variable, known)}")
        if value.strip():
            found[known[variable]] = (value.strip(), f"environment variable {variable}")
    return found


def _from_options(options: Mapping[str, Any]) -> Found:
    return {n: (v, f"option {option_name(n)}") for n, v in options.items() if v is not None}


def _suggest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return "; remove it, or see `tgres config sample`"


def _choose_rules(values: dict[str, Any], origins: dict[str, str]) -> None:
    """A rule file of a stronger source replaces the TOML file's tables; both in one file is an error."""
    for key, tables in (("schemas", "schema_tables"), ("aggregation", "aggregation_tables")):
        if key not in values or tables not in values:
            continue
        if not origins[key].startswith(("environment", "option")):
            table = tables.removesuffix("_tables")
            raise ConfigError(
                f"{origins[key]}: {key} and [[{table}]] are both given; keep one of them"
            )
        del values[tables], origins[tables]


def _secret(name: str, given: str, file: Path | None) -> str:
    """The token of a setting or of its file; empty when there is none. ConfigError."""
    if file is None:
        return given
    if given:
        raise ConfigError(f"{name} and {name}_file are both given; keep one of them")
    try:
        return check_token(file.read_text(encoding="utf-8").partition("\n")[0].strip())
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{name}_file {file}: {reason}") from None


def _validate(values: dict[str, Any], origins: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        reason = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        if first["type"] != "value_error":
            shown = masked(str(first["input"])) if name == "dsn" else repr(first["input"])
            shown = "what is given" if name in SECRETS else shown
            reason = f"{reason[:1].lower()}{reason[1:]}, not {shown}"
        raise ConfigError(f"{origins.get(name, 'settings')}: {name}: {reason}") from None
