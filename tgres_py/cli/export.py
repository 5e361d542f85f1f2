"""``tgres export csv|carbon|whisper``: the way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from tgres_py import clock
from tgres_py.admin.frame import Admin
from tgres_py.admin.select import SelectArgs, select
from tgres_py.cli.common import EXIT_PARTLY, NothingFound, json_option, print_json
from tgres_py.cli.import_ import store_options
from tgres_py.config_sources import load
from tgres_py.migrate.export import CSV_HEADER, carbon_lines, csv_rows, write_whisper
from tgres_py.migrate.mixed import Points
from tgres_py.migrate.read import Stored, finest_points, read_series
from tgres_py.migrate.target import open_target
from tgres_py.migrate.times import parse_time

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = 10


@click.group()
def export() -> None:
    """Take points out: as CSV, carbon lines or whisper files.

    Series are chosen by globs, --regex or --tag; '**' is all of them. A running server first puts what it has
    in memory into the store.
    """


def select_options(function: F) -> F:
    """Adds the globs, --regex and --tag."""
    tag = click.option("--tag", multiple=True, help="Tag expression such as host=web1; repeatable.")
    regex = click.option("--regex", default="", help="Regular expression (RE2) found in the name.")
    glob = click.argument("glob", metavar="[GLOB…]", nargs=-1)
    return glob(regex(tag(function)))


def window_options(function: F) -> F:
    """Adds --from and --until."""
    from_ = click.option("--from", "from_", help="Oldest time: 30d, 2026-01-31, an epoch … [all]")
    until = click.option("--until", help="Time before which points are [now].")
    return from_(until(function))


@export.command("csv")
@select_options
@window_options
@click.option("--iso", is_flag=True, help="Times as 2026-11-24T10:00:00Z, not Unix seconds.")
@click.option("--out", type=click.File("wb"), default="-", help="File to write to [stdout].")
@store_options
def csv_(iso: bool, out: IO[bytes], **options: Any) -> None:
    """Rows path,time,value of each series, oldest first: of each time what the finest archive that reaches back to it
    knows. `tgres import csv` takes them back."""
    _export_points(out, lambda name, points: csv_rows(name, points, iso), options, CSV_HEADER)


@export.command()
@select_options
@window_options
@click.option("--out", type=click.File("wb"), default="-", help="File to write to [stdout].")
@store_options
def carbon(out: IO[bytes], **options: Any) -> None:
    """Lines as carbon takes them (path value timestamp), as `tgres export csv` chooses them."""
    _export_points(out, carbon_lines, options)


@export.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@select_options
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@store_options
@json_option
def whisper(folder: Path, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Files as carbon keeps them, below FOLDER: every archive, slot for slot.

    Exit code 4: done, but some series were left out; they are listed.
    """
    written = 0
    left_out: list[dict[str, str]] = []

    async def run() -> None:
        nonlocal written
        async with _series(options) as (all_series, _, _, _):
            async for stored in all_series:
                reason = write_whisper(folder, stored, overwrite)
                written += not reason
                if reason:
                    left_out.append({"name": stored.name, "reason": reason})

    asyncio.run(run())
    if as_json:
        print_json({"files": written, "left_out": left_out})
    else:
        click.echo(f"{written:,} files written below {folder}")
        for one in left_out[:SHOWN]:
            click.echo(f"  left out {one['name']}: {one['reason']}")
        if len(left_out) > SHOWN:
            click.echo(f"  … and {len(left_out) - SHOWN:,} more; --json lists all")
    if not written and not left_out:
        raise NothingFound("no series found")
    if left_out:
        raise SystemExit(EXIT_PARTLY)


def _export_points(
    out: IO[bytes],
    text_of: Callable[[str, Points], bytes],
    options: dict[str, Any],
    header: bytes = b"",
) -> None:
    count = 0

    async def run() -> None:
        nonlocal count
        async with _series(options) as (all_series, now_s, from_s, until_s):
            async for stored in all_series:
                out.write(b"" if count else header)
                count += 1
                for points in finest_points(stored, now_s, from_s, until_s):
                    out.write(text_of(stored.name, points))

    asyncio.run(run())
    out.flush()
    if not count:
        raise NothingFound("no series found")


@asynccontextmanager
async def _series(
    options: dict[str, Any],
) -> AsyncIterator[tuple[AsyncIterator[Stored], int, int, int]]:
    """The chosen series; now, from and until in Unix seconds. BadRequest: none were asked for."""
    settings = load(
        options["config_file"], {"dsn": options["dsn"], "data_dir": options["data_dir"]}
    )
    asked = SelectArgs(glob=list(options["glob"]), regex=options["regex"], tag=list(options["tag"]))
    asked.need_choice()
    now_s = clock.now_s()
    from_s = parse_time(options["from_"], now_s, "--from") if options.get("from_") else 0
    until_s = parse_time(options["until"], now_s, "--until") if options.get("until") else now_s + 1
    async with open_target(settings, create=False) as (_, store):
        await store.settle(now_s + 1)
        series = await select(Admin(store, None, settings), asked)
        yield read_series(store, series, now_s, from_s), now_s, from_s, until_s
