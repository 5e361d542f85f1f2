"""``tgres render TARGET…``: points of a running server as a table, JSON or a plot."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import click

from tgres_py.cli import complete
from tgres_py.cli.client import post, url_option
from tgres_py.cli.common import NothingFound, json_option, print_json
from tgres_py.cli.plot import plot_charts
from tgres_py.cli.table import Series, format_table


@click.command()
@click.argument(
    "targets", metavar="TARGET…", nargs=-1, required=True, shell_complete=complete.targets
)
@click.option(
    "--from", "from_", default="-1h", show_default=True, help="Start, as Graphite has it."
)
@click.option("--until", default="now", show_default=True, help="End, as Graphite has it.")
@click.option("--max-points", type=click.IntRange(min=1), help="Consolidate to this many points.")
@click.option("--table", "shape", flag_value="table", default="table", help="A table (default).")
@click.option("--plot", "shape", flag_value="plot", help="A plot in the terminal.")
@url_option
@json_option
def render(
    targets: tuple[str, ...],
    from_: str,
    until: str,
    max_points: int | None,
    shape: str,
    url: str,
    as_json: bool,
) -> None:
    """Ask a server for the points of one or more Graphite targets.

    Times of tables and plots are local. --json prints the server's answer.
    """
    width, height = shutil.get_terminal_size((80, 24))
    if max_points is None and shape == "plot":
        max_points = 2 * width
    form = [("target", target) for target in targets]
    form += [("from", from_), ("until", until), ("format", "json")]
    if max_points is not None:
        form.append(("maxDataPoints", str(max_points)))
    answer = post(url, "/render", form) or []
    if as_json:
        print_json(answer)
    elif answer:
        series = [_series(item) for item in answer]
        tty = sys.stdout.isatty()
        if shape == "plot":
            click.echo(plot_charts(series, width, max(8, height - 4), colour=tty))
        else:
            click.echo(format_table(series, width if tty else None))
    if not answer:
        raise NothingFound(f"no series for {', '.join(targets)}")


def _series(item: dict[str, Any]) -> Series:
    points = item["datapoints"]
    return Series(item["target"], [t for _, t in points], [v for v, _ in points])
