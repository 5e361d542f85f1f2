"""``tgres retention …``: what a change of the rules means for series that exist, doing it, undoing it."""

from __future__ import annotations

import click

from tgres_py.cli.admin_client import admin_command, admin_group


def _read(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The text of a rule file: the server may be on another machine."""
    if not value:
        return None
    try:
        with open(value, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{value} can't be read: {error}") from None


def _with_files(command: click.Command) -> click.Command:
    for parameter in command.params:
        if parameter.name in ("schemas", "aggregation"):
            parameter.callback = _read
            parameter.metavar = "FILE"
    return command


retention = admin_group(
    "retention",
    "Change the retention of series that exist: plan, apply, status, stop, resume, undo, forget.",
    {
        "plan": _with_files(
            admin_command("retention.plan", nothing="nothing would change", record=True)
        ),
        "apply": _with_files(
            admin_command("retention.apply", nothing="nothing to change", record=True)
        ),
        "status": admin_command("retention.status", nothing="no changes of retention"),
        "stop": admin_command("retention.stop", record=True),
        "resume": admin_command("retention.resume", record=True),
        "undo": admin_command("retention.undo", record=True),
        "forget": admin_command("retention.forget", record=True),
    },
)
