"""Command-line options made from the declaration of the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from tgres_py.config import option_name, setting_fields
from tgres_py.config_doc import default_for_people, type_name

F = TypeVar("F", bound=Callable[..., Any])

config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    envvar="TGRES_CONFIG",
    help="TOML file with settings; see `tgres config sample`.",
)

# Offered first, since they are what people look for.
COMMON = (
    "dsn",
    "data_dir",
    "http",
    "carbon",
    "pickle",
    "statsd",
    "statsd_mgmt",
    "schemas",
    "aggregation",
    "memory_max",
    "log_level",
)

RULE_SETTINGS = ("schemas", "aggregation")


def setting_options(names: Iterable[str] | None = None) -> Callable[[F], F]:
    """Adds ``--config`` and one option for each setting (all settings when ``names`` is None).

    The texts are passed on unchecked: ``config.load`` checks them with everything else.
    """
    others = [n for n in setting_fields() if n not in COMMON]
    chosen = tuple(names) if names is not None else (*COMMON, *others)

    def decorate(function: F) -> F:
        for name in reversed(chosen):
            function = setting_option(name)(function)
        return config_option(function)

    return decorate


def setting_option(name: str) -> Callable[[F], F]:
    """The option of one setting."""
    default = default_for_people(name)
    text = setting_fields()[name].description or ""
    note = f" [default {default}]" if default else ""
    return click.option(option_name(name), name, metavar=_metavar(name), help=f"{text}{note}")


def _metavar(name: str) -> str:
    kinds = {
        "path": "PATH",
        "host:port or off": "HOST:PORT",
        "whole number": "N",
        "size": "SIZE",
        "number": "N",
        "true/false": "BOOL",
        "word": "WORD",
        "retention": "LIST",
    }
    return kinds.get(type_name(name), "TEXT")
