"""``tgres doctor``: findings for people, their exit code for scripts."""

from __future__ import annotations

import sys

import click

from tgres_py.cli.admin_client import Target, run_verb, target_options
from tgres_py.cli.common import json_option, print_json
from tgres_py.cli.rows import Row, results

EXIT_WARNING = 10
EXIT_ERROR = 11
COLORS = {"error": "red", "warning": "yellow", "info": "blue"}


@click.command()
@click.option(
    "--watch",
    "watch_s",
    type=int,
    default=15,
    show_default=True,
    help="Seconds that senders are watched; 0 = not at all.",
)
@target_options
@json_option
def doctor(target: Target, watch_s: int, as_json: bool) -> None:
    """Look for what goes wrong quietly, and say how to mend it.

    Exit codes: 0 nothing to mend (infos at most), 10 warnings, 11 errors; 2 and 3 as with all verbs. With
    --dsn or --data-dir it looks at the store alone, without what only a running server knows.
    """
    found = list(results(run_verb(target, "doctor", {"watch_s": watch_s})))
    if as_json:
        print_json(found)
    else:
        click.echo("\n\n".join(map(as_text, found)) or "nothing to mend")
    severities = {row["severity"] for row in found}
    if "error" in severities:
        sys.exit(EXIT_ERROR)
    if "warning" in severities:
        sys.exit(EXIT_WARNING)


def as_text(row: Row) -> str:
    """A finding as a few lines."""
    severity = row["severity"]
    head = click.style(f"{severity:<8}", fg=COLORS[severity], bold=True)
    lines = [f"{head}{row['what']}"]
    lines += [f"        - {example}" for example in row["examples"]]
    more = row["count"] - len(row["examples"])
    if row["examples"] and more > 0 and len(row["examples"]) > 1:
        lines.append(f"        - and {more:,} more")
    return "\n".join([*lines, f"        mend: {row['mend']}"])
