"""``tgres config check|show|sample|import-statsd``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tgres_py.cli.common import json_option, print_json
from tgres_py.cli.options import RULE_SETTINGS, setting_options
from tgres_py.config import FILES, SECRETS, Settings, setting_fields
from tgres_py.config_doc import sample_toml, setting_toml, settings_json
from tgres_py.config_sources import load
from tgres_py.errors import ConfigError
from tgres_py.masks import masked
from tgres_py.model.rules import BUILT_IN
from tgres_py.statsd.import_config import import_config


@click.group()
def config() -> None:
    """Check, show or print settings."""


@config.command()
@setting_options(RULE_SETTINGS)
@json_option
def check(config_file: str | None, as_json: bool, **options: Any) -> None:
    """Check settings and rule files; exit code 2 and one sentence when something is wrong."""
    settings = load(config_file, options)
    rules = settings.rule_set()
    not_rules = {BUILT_IN, settings.origins.get("retention"), settings.origins.get("xff")}
    report = {
        "ok": True,
        "settings_given": len(settings.origins),
        "schema_rules": sum(rule.source not in not_rules for rule in rules.schemas),
        "aggregation_rules": sum(rule.source not in not_rules for rule in rules.aggregation),
    }
    if as_json:
        print_json(report)
    else:
        click.echo(
            f"ok: {report['settings_given']} settings given, "
            f"{report['schema_rules']} schema rules, {report['aggregation_rules']} aggregation rules"
        )


@config.command()
@setting_options(RULE_SETTINGS)
@json_option
def show(config_file: str | None, as_json: bool, **options: Any) -> None:
    """Print the settings in effect and where each one comes from (as TOML; passwords are masked)."""
    settings = load(config_file, options)
    shown = {name: shown_value(settings, name) for name in setting_fields()}
    origins = settings.origins
    if as_json:
        print_json({n: {"value": v, "origin": origins.get(n, "default")} for n, v in shown.items()})
        return
    lines = {n: f"{n} = {setting_toml(n, '' if v is None else v)}" for n, v in shown.items()}
    width = min(48, max(map(len, lines.values())))
    for name, line in lines.items():
        click.echo(f"{line:<{width}}  # {origins.get(name, 'default')}")


def shown_value(settings: Settings, name: str) -> Any:
    """A setting's value for people: listeners as they are written, the DSN without password."""
    value = getattr(settings, name)
    if name == "dsn":
        return masked(value) if value else None
    if name in SECRETS:
        return "***" if value else None
    if type(value) is tuple:  # an Address is one, too
        return tuple(masked(text) for text in value)
    if value is None:
        return None if name in FILES else "off"
    return value if isinstance(value, bool | int | float) else str(value)


@config.command()
@json_option
def sample(as_json: bool) -> None:
    """Print a commented TOML file with all settings at their defaults."""
    if as_json:
        print_json(settings_json())
    else:
        click.echo(sample_toml(), nl=False)


@config.command("import-statsd")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def import_statsd(file: Path, as_json: bool) -> None:
    """Print the settings of a config.js of etsy's statsd as TOML; nothing of it is run.

    Comments at the head list what could not be carried over.
    """
    try:
        imported = import_config(file.read_text(encoding="utf-8", errors="replace"))
    except (ConfigError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{file}: {reason}") from None
    if as_json:
        left = [{"setting": key, "reason": reason} for key, reason in imported.left]
        print_json({"statsd": imported.table, "not_carried_over": left})
    else:
        click.echo(imported.toml(str(file)), nl=False)
