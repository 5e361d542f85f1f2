"""What the verbs share: exit codes, one-line errors, JSON output."""

from __future__ import annotations

import json
from typing import Any

import click

from tgres_py.errors import StoreUnavailable, TgresError

EXIT_NOTHING_FOUND = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class ServerUnreachable(TgresError):
    """No usable answer from the server that a client verb asked."""

    status = 503
    counter = "unreachable"


class _OneLine(click.ClickException):
    """An error as one line on stderr, with the project's exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def show(self, file: Any = None) -> None:
        click.echo(f"tgres: {self.message}", file=file, err=file is None)


def exit_with(error: TgresError) -> click.ClickException:
    """The project's error as one of click's, with its exit code."""
    unreachable = isinstance(error, ServerUnreachable | StoreUnavailable)
    return _OneLine(str(error), EXIT_UNREACHABLE if unreachable else EXIT_USAGE)


def nothing_found(what: str) -> click.ClickException:
    """The end of a verb that found nothing; the sentence goes to stderr, so that stdout stays data."""
    return _OneLine(what, EXIT_NOTHING_FOUND)


def print_json(data: Any) -> None:
    click.echo(json.dumps(data, ensure_ascii=False, indent=2))
