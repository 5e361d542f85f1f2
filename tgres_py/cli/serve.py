"""``tgres serve``: the server itself."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import click

from tgres_py import __version__
from tgres_py.cli.common import printable
from tgres_py.cli.options import setting_options
from tgres_py.config_sources import load
from tgres_py.errors import ConfigError
from tgres_py.sparing import Sparing

log = logging.getLogger("tgres")


@click.command()
@setting_options()
def serve(config_file: str | None, **options: Any) -> None:
    """Run the server until SIGTERM or SIGINT; SIGHUP reads the settings again.

    Every setting is an option here, a key of the TOML file and a variable TGRES_… of the environment.
    """
    settings = load(config_file, options)
    settings.rule_set()  # wrong rules stop the start before anything else begins
    _need_directory(settings.data_dir)
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(Sparing())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    log.info("tgres %s, kernels: %s", __version__, _kernels_text())
    from tgres_py.server import run

    run(settings)


class OneLine(logging.Formatter):
    """A message is one line, whatever names or texts of others stand in it, and the lines of a traceback are indented: no
    false lines in the log, and nothing that a terminal would obey.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


def _need_directory(path: Path) -> None:
    """Makes the data directory. ConfigError when it can't be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(
            f"data_dir {path}: {error.strerror}; choose a directory that can be written to"
        ) from None


def _kernels_text() -> str:
    from tgres_py.kernels import NATIVE

    if NATIVE:
        return "native"
    return "pure Python, many times slower (install a C compiler and this package again)"
