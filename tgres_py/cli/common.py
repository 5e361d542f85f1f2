"""What the verbs share: exit codes, one-line errors, JSON output."""

from __future__ import annotations

import json
from typing import Any

import click

from tgres_py.errors import StoreUnavailable, TgresError

EXIT_NOTHING_FOUND = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_PARTLY = 4
EXIT_INTERRUPTED = 130

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class ServerUnreachable(TgresError):
    """No usable answer from the server that a client verb asked."""

    status = 503
    counter = "unreachable"


class OneLineError(click.ClickException):
    """An error as one line on stderr: wrong usage or setting."""

    exit_code = EXIT_USAGE

    def show(self, file: Any = None) -> None:
        click.echo(f"tgres: {self.message}", file=file, err=file is None)


class NothingFound(OneLineError):
    """The end of a verb that found nothing; said on stderr, so that stdout stays data."""

    exit_code = EXIT_NOTHING_FOUND


class Unreachable(OneLineError):
    exit_code = EXIT_UNREACHABLE


def exit_with(error: TgresError) -> OneLineError:
    """The project's error as one of click's, with its exit code."""
    unreachable = isinstance(error, ServerUnreachable | StoreUnavailable)
    return Unreachable(str(error)) if unreachable else OneLineError(str(error))


def printable(text: str) -> str:
    """On one line, and without what a terminal would obey: such characters as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def print_json(data: Any) -> None:
    click.echo(json.dumps(data, ensure_ascii=False, indent=2))
