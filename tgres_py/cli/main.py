"""The command ``tgres``. A verb's module is imported when the verb runs, so that ``--help`` answers at once."""

from __future__ import annotations

import importlib
from typing import Any

import click

from tgres_py import __version__
from tgres_py.cli.common import exit_with
from tgres_py.errors import TgresError

# verb: (module, command object, one line for --help)
VERBS = {
    "serve": ("tgres_py.cli.serve", "serve", "Run the server."),
    "render": ("tgres_py.cli.render", "render", "Ask a server for points: table, JSON or plot."),
    "find": ("tgres_py.cli.find", "find", "Ask a server for the nodes that match a glob."),
    "config": ("tgres_py.cli.config", "config", "Check, show or print settings."),
    "retention": ("tgres_py.cli.retention", "retention", "Change the retention of series that exist."),
    "schema": ("tgres_py.cli.schema", "schema", "Explain retention rules."),
    "series": ("tgres_py.cli.series", "series", "List, remove, restore, rename and merge series."),
    "import": ("tgres_py.cli.import_", "import_", "Bring in whisper files, CSV or carbon lines."),
    "top": ("tgres_py.cli.top", "top", "Show what arrives: rates by prefix and sender, refusals."),
    "tail": ("tgres_py.cli.tail", "tail", "Show points as they arrive."),
    "doctor": ("tgres_py.cli.doctor", "doctor", "Look for what goes wrong quietly; how to mend it."),
    "stats": ("tgres_py.cli.stats", "stats", "Bytes and compression of what is stored."),
    "completion": ("tgres_py.cli.complete", "completion", "Print a shell's completion script."),
    "export": ("tgres_py.cli.export", "export", "Take out CSV, carbon lines or whisper files."),
    "blast": ("tgres_py.cli.blast", "blast", "Send load to a carbon receiver."),
}


class LazyGroup(click.Group):
    """A group whose commands are named in VERBS and imported on use; project errors become one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, attribute, _ = VERBS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TgresError as error:
            raise exit_with(error) from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tgres", message="%(prog)s %(version)s")
def main() -> None:
    """Round-robin time-series database server on PostgreSQL: carbon in, Graphite API out.

    Exit codes: 0 done, 1 nothing found, 2 wrong usage or setting, 3 server not reachable,
    4 done in part.
    """


if __name__ == "__main__":
    main()
