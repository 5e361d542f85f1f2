"""``tgres import whisper|csv|carbon``: the way in."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from tgres_py import clock
from tgres_py.cli.client import url_option
from tgres_py.cli.common import EXIT_INTERRUPTED, EXIT_PARTLY, NothingFound, json_option, print_json
from tgres_py.cli.compare import Compared, compare
from tgres_py.cli.compare import sample as choose
from tgres_py.cli.options import config_option, setting_option
from tgres_py.cli.rows import duration, size
from tgres_py.config import Settings
from tgres_py.config_sources import load
from tgres_py.ingest.registry import Registry
from tgres_py.machine import cpus
from tgres_py.migrate.crew import Crew
from tgres_py.migrate.files import Found, LeftOut, Listing, list_files
from tgres_py.migrate.load import Options, Report
from tgres_py.migrate.points import PointLoader, PointsReport, count_points
from tgres_py.migrate.target import open_target, settled
from tgres_py.migrate.text_import import (
    Prefixed,
    Refused,
    prefixed_names,
    read_carbon,
    read_csv,
)
from tgres_py.migrate.times import parse_time
from tgres_py.migrate.whisper_import import Outcome, Progress, dry_run, import_folder, verify_folder
from tgres_py.model.points import PointBlock
from tgres_py.model.rules import RuleSet

F = TypeVar("F", bound=Callable[..., Any])

SHOWN = 10  # files left out that are listed for people


@click.group("import")
def import_() -> None:
    """Bring points in from whisper files, CSV or carbon lines.

    What the store knows already stays: imported values only fill slots where nothing is known.
    """


def store_options(function: F) -> F:
    """Adds --dsn, --data-dir and --config."""
    dsn = click.option("--dsn", help="The PostgreSQL to work on [default: the embedded one].")
    data_dir = click.option(
        "--data-dir",
        help="Data directory whose embedded PostgreSQL to work on; a server may run on it.",
    )
    return config_option(data_dir(dsn(function)))


def rule_files(function: F) -> F:
    """Adds --schemas and --aggregation."""
    return setting_option("schemas")(setting_option("aggregation")(function))


def rule_options(function: F) -> F:
    """Adds --schemas, --aggregation and --retention: the archives of new series."""
    return rule_files(setting_option("retention")(function))


prefix_option = click.option("--prefix", default="", help="Put PREFIX. before all names.")
dry_run_option = click.option(
    "--dry-run", "only_look", is_flag=True, help="Only say what would be imported."
)


@import_.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@store_options
@prefix_option
@click.option("--since", help="Leave out slots older than this: 30d, 2026-01-31, an epoch …")
@click.option(
    "--retention",
    "archives",
    type=click.Choice(["file", "rules"]),
    default="file",
    show_default=True,
    help="Archives of new series: those of their files, or those of the rules.",
)
@rule_files
@click.option("--jobs", type=click.IntRange(1, 64), help="Processes [default: one per core].")
@click.option("--skip-empty", is_flag=True, help="Make no series for files without any point.")
@click.option("--again", is_flag=True, help="Also read files that an earlier import has finished.")
@click.option("--verify", is_flag=True, help="Compare all slots afterwards.")
@click.option("--verify-against", metavar="URL", help="Compare /render with an old graphite-web's.")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="How many series --verify-against asks for.",
)
@url_option
@dry_run_option
@json_option
def whisper(
    folder: Path,
    config_file: str | None,
    prefix: str,
    since: str | None,
    archives: str,
    jobs: int | None,
    skip_empty: bool,
    again: bool,
    verify: bool,
    verify_against: str | None,
    sample: int,
    url: str,
    only_look: bool,
    as_json: bool,
    **setting_texts: Any,
) -> None:
    """Copy carbon's files (*.wsp) below FOLDER: every archive, slot for slot.

    Each series gets the retention, aggregation method and xFilesFactor of its file. Interrupted or repeated, an
    import goes on with the files that are not finished or have changed since.

    Exit code 4: done, but some files were left out; they are listed.
    """
    settings = load(config_file, setting_texts)
    settings.rule_set()
    now_s = clock.now_s()
    since_s = parse_time(since, now_s, "--since") if since else 0
    listing = list_files(folder, prefix, settings.name_bytes_max)
    if not listing.files and not listing.left_out:
        raise NothingFound(f"no *.wsp files below {folder}")
    options = Options(str(folder), now_s, since_s, skip_empty)
    with _bar(len(listing.files), as_json) as progress:
        if only_look:
            outcome = dry_run(folder, listing, since_s, progress)
        else:
            rules = (config_file, setting_texts) if archives == "rules" else None
            crew = Crew("", settings.store_timeout_s, jobs or cpus(), rules)
            try:
                outcome = asyncio.run(_import(settings, crew, listing, options, again, progress))
            except KeyboardInterrupt:
                click.echo("\ninterrupted: the same command goes on with what is left", err=True)
                raise SystemExit(EXIT_INTERRUPTED) from None
    left_out = {one.path for one in outcome.report.left_out}
    files = [file for file in listing.files if file.path not in left_out]
    if verify and not only_look:
        with _bar(len(files), as_json) as progress:
            outcome.verified = asyncio.run(_verify(settings, crew, files, options, progress))
    data, text = outcome.as_data(), _text(outcome, only_look)
    compared = None
    if verify_against and not only_look:
        compared = compare(folder, choose(files, sample), verify_against, url, now_s)
        data["compared"] = compared.as_data()
        text += "\n" + _compared_text(compared)
    if as_json:
        print_json(data)
    else:
        click.echo(text)
    if not outcome.complete or (compared is not None and not compared.equal):
        raise SystemExit(EXIT_PARTLY)


@import_.command("csv")
@click.argument("file", type=click.Path(allow_dash=True, dir_okay=False, exists=True))
@store_options
@rule_options
@prefix_option
@dry_run_option
@json_option
def csv_(file: str, **options: Any) -> None:
    """Bring in rows path,time,value of FILE (- is stdin); a header is left out.

    Times are epochs or ISO 8601, UTC without a zone. New series get archives by the rules; points older than the finest
    archive go to the one that reaches back to them; coarser archives are rolled up.
    """
    with click.open_file(file, encoding="utf-8-sig", errors="surrogateescape") as lines:
        _import_text(lambda of, _now_s, refused: read_csv(lines, of, refused), **options)


@import_.command()
@click.argument("file", type=click.Path(allow_dash=True, dir_okay=False, exists=True))
@store_options
@rule_options
@prefix_option
@dry_run_option
@json_option
def carbon(file: str, **options: Any) -> None:
    """Bring in carbon lines (path value timestamp) of FILE (- is stdin).

    They go to the store, not through a receiver: so they never replace what is known. Otherwise as `tgres import csv`.
    """
    with click.open_file(file, "rb") as data:
        _import_text(lambda of, now_s, refused: read_carbon(data, of, now_s, refused), **options)


Reading = Callable[[Registry, int, Refused], Iterator[PointBlock]]


def _import_text(
    reading: Reading,
    config_file: str | None,
    prefix: str,
    only_look: bool,
    as_json: bool,
    **setting_texts: Any,
) -> None:
    settings = load(config_file, setting_texts)
    rules = settings.rule_set()
    now_s = clock.now_s()
    refused = Refused()
    named = prefixed_names(rules, prefix, settings.name_bytes_max)
    begin = clock.monotonic()
    blocks = reading(named.registry, now_s, refused)
    if only_look:
        report = count_points(blocks, rules.match_many, named.names, now_s)
    else:
        report = asyncio.run(_import_points(settings, rules, named, blocks, now_s))
    data = report.as_data() | {
        "refused": dict(refused.counts),
        "seconds": round(clock.monotonic() - begin, 3),
    }
    if as_json:
        print_json(data)
    else:
        click.echo(_points_text(data, refused, only_look))
    if not report.points and not refused.counts:
        raise NothingFound("no points")
    if refused.counts:
        raise SystemExit(EXIT_PARTLY)


async def _import_points(
    settings: Settings, rules: RuleSet, named: Prefixed, blocks: Iterator[PointBlock], now_s: int
) -> PointsReport:
    async with open_target(settings) as (_, store), settled(store, now_s):
        loader = PointLoader(store, rules.match_many, named.names, now_s)
        for block in blocks:
            await loader.add(block)
        await loader.flush()
        return loader.report


def _points_text(data: dict[str, Any], refused: Refused, only_looked: bool) -> str:
    found = f"{data['points']:,} points of {data['series']:,} series"
    lines = [f"{found} {'to import' if only_looked else 'in ' + duration(data['seconds'])}"]
    if data["outside"]:
        lines.append(
            f"{data['outside']:,} points older than the retention or from the future, left out"
        )
    if refused.counts:
        counts = ", ".join(f"{reason} {count:,}" for reason, count in refused.counts.most_common())
        lines.append(f"{refused.counts.total():,} refused: {counts}")
        lines += [f"  {reason}: {text!r}" for reason, text in refused.samples]
    return "\n".join(lines)


async def _import(
    settings: Settings,
    crew: Crew,
    listing: Listing,
    options: Options,
    again: bool,
    progress: Progress,
) -> Outcome:
    async with open_target(settings) as (dsn, store), settled(store, options.now_s):
        crew = replace(crew, dsn=dsn)
        return await import_folder(crew, store, listing, options, again=again, progress=progress)


async def _verify(
    settings: Settings, crew: Crew, files: list[Found], options: Options, progress: Progress
) -> Report:
    async with open_target(settings) as (dsn, _):
        return await verify_folder(replace(crew, dsn=dsn), files, options, progress)


@contextmanager
def _bar(files: int, as_json: bool) -> Iterator[Progress]:
    """A progress bar on stderr, where that is a terminal."""
    if as_json or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=files, label="files", show_pos=True, file=sys.stderr) as bar:
        yield bar.update


def _text(outcome: Outcome, only_looked: bool) -> str:
    report = outcome.report
    lines = [f"{outcome.found:,} files found"]
    if outcome.older:
        lines.append(f"{outcome.older:,} not changed since then, left alone")
    if outcome.unchanged:
        lines.append(f"{outcome.unchanged:,} imported before, left alone")
    if only_looked:
        lines.append(f"{report.files:,} to import, {size(report.bytes)}")
    else:
        rate = report.slots / max(outcome.seconds, 1e-3)
        lines.append(
            f"{report.files:,} imported: {report.slots:,} known slots from {size(report.bytes)} in "
            f"{duration(outcome.seconds)} ({rate:,.0f}/s)"
        )
        if report.converted:
            lines.append(
                f"{report.converted:,} of them exist under other archives: re-bucketed into these"
            )
        if report.empty:
            lines.append(f"{report.empty:,} without any point within their retention")
        if report.outside:
            lines.append(
                f"{report.outside:,} slots older than the retention or from the future, left out"
            )
    for text, count in report.retentions.most_common():
        lines.append(f"  {count:>9,} × {text}")
    lines += _left_out(report.left_out)
    if (verified := outcome.verified) is not None:
        lines.append(
            f"{verified.files:,} files compared, {verified.slots:,} slots: {verified.missing:,} missing,"
            f" {verified.different:,} with another value"
        )
        lines += _left_out(verified.left_out)
    return "\n".join(lines)


def _compared_text(compared: Compared) -> str:
    return "\n".join(
        [
            f"{compared.series:,} series compared with {compared.url}, {compared.points:,} points: "
            f"{compared.missing:,} missing here, {compared.different:,} with another value",
            *(f"  {example}" for example in compared.examples),
        ]
    )


def _left_out(left_out: list[LeftOut]) -> list[str]:
    if not left_out:
        return []
    lines = [f"{len(left_out):,} left out:"]
    lines += [f"  {one.path}: {one.reason}" for one in left_out[:SHOWN]]
    if len(left_out) > SHOWN:
        lines.append(f"  … and {len(left_out) - SHOWN:,} more; --json lists all")
    return lines
