"""``tgres top``: frames on a terminal, one below the other elsewhere, JSON for scripts."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from tgres_py.cli.admin_client import Target, run_verb, target_options
from tgres_py.cli.common import json_option, printable
from tgres_py.cli.rows import cell, results
from tgres_py.cli.table import local_time

Row = Mapping[str, Any]
Column = tuple[str, str, Callable[[Row], str]]
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
CLEAR = "\x1b[2J"


@click.command()
@click.option("--interval", "-i", default=2.0, show_default=True, help="Seconds of one frame.")
@click.option("--once", is_flag=True, help="One frame.")
@click.option("--depth", default=2, show_default=True, help="Parts of a name that make a prefix.")
@click.option("--rows", default=10, show_default=True, help="Longest list.")
@target_options
@json_option
def top(target: Target, interval: float, once: bool, depth: int, rows: int, as_json: bool) -> None:
    """Show what arrives at a server: points and new series a second, by prefix and sender; refusals.

    Ctrl-C ends it. With --json each frame is one line. Prefixes (of many points) and senders of UDP are
    told by samples.
    """
    given = {"interval_s": interval, "count": int(once), "depth": depth, "rows": rows}
    live = sys.stdout.isatty() and not once and not as_json
    if live:
        click.echo(CLEAR, nl=False)
    try:
        for row in results(run_verb(target, "top", given)):
            if as_json:
                click.echo(json.dumps(row, ensure_ascii=False))
            elif live:
                size = shutil.get_terminal_size()
                _paint(frame(row, size.columns)[: size.lines - 1])
            else:
                click.echo("\n".join(frame(row, None)) + "\n" * (not once))
    except KeyboardInterrupt:
        click.echo()


def _paint(lines: Sequence[str]) -> None:
    click.echo(HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in lines) + CLEAR_BELOW, nl=False)


def frame(row: Row, width: int | None) -> list[str]:
    """One frame as lines, cut to ``width``."""
    paused = "   PAUSED: no room, senders wait" if row["paused"] else ""
    held = f"   {row['held']:,} late points held" if row["held"] else ""
    lines = [
        f"{local_time(row['time_at_s'])}   {rate(row['points_per_s'])} points/s   "
        f"{rate(row['new_series_per_s'])} new series/s   {row['series']:,} series{held}{paused}",
        "  ".join(f"{r['receiver']} {rate(r['points_per_s'])}/s" for r in row["receivers"])
        or "nothing arrives",
        "",
    ]
    lines += _table(
        row["prefixes"],
        [
            ("PREFIX", "<", lambda r: r["prefix"]),
            ("POINTS/S", ">", lambda r: rate(r["points_per_s"])),
            ("NEW/S", ">", lambda r: rate(r["new_series_per_s"])),
        ],
    )
    lines += _table(
        row["senders"],
        [
            ("SENDER", "<", lambda r: r["sender"]),
            ("RECEIVER", "<", lambda r: r["receiver"]),
            ("POINTS/S", ">", lambda r: rate(r["points_per_s"])),
            ("DATAGRAMS/S", ">", lambda r: rate(r.get("datagrams_per_s"))),
        ],
    )
    lines += _table(
        row["refused"],
        [
            ("REFUSED", "<", lambda r: r["reason"]),
            ("POINTS/S", ">", lambda r: rate(r["points_per_s"])),
            ("SINCE START", ">", lambda r: f"{r['total']:,}"),
            ("SENDER", "<", lambda r: r.get("sender", "")),
            ("LATEST", "<", lambda r: printable(r.get("sample", ""))),
        ],
    )
    lines += _table(
        row["refused_new"],
        [
            ("NEW SERIES REFUSED", "<", lambda r: printable(r["prefix"])),
            ("POINTS/S", ">", lambda r: rate(r["points_per_s"])),
            ("SINCE START", ">", lambda r: f"{r['total']:,}"),
        ],
    )
    return [line[:width].rstrip() for line in lines]


def rate(value: float | None) -> str:
    """A rate as it is best read; empty for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else cell("", value)


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Aligned lines with a heading and an empty line after; nothing when there are no rows."""
    if not rows:
        return []
    cells = [[title for title, _, _ in columns]]
    cells += [[text(row) for _, _, text in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            f"{value:{side}{width}}"
            for value, width, (_, side, _) in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in cells
    ]
    return [*lines, ""]
