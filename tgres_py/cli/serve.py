"""``tgres serve``: the server itself."""

from __future__ import annotations

import logging
from typing import Any

import click

from tgres_py import __version__
from tgres_py.cli.options import setting_options
from tgres_py.config import load

log = logging.getLogger("tgres")


@click.command()
@setting_options()
def serve(config_file: str | None, **options: Any) -> None:
    """Run the server until SIGTERM or SIGINT; SIGHUP reads the retention rules again.

    Every setting is an option here, a key of the TOML file and a variable TGRES_… of the environment.
    """
    settings = load(config_file, options)
    settings.rule_set()  # wrong rules stop the start before anything else begins
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    log.info("tgres %s, kernels: %s", __version__, _kernels_text())
    from tgres_py.server import run

    run(settings)


def _kernels_text() -> str:
    from tgres_py.kernels import NATIVE

    if NATIVE:
        return "native"
    return "pure Python, many times slower (install a C compiler and this package again)"
