"""Operator verbs from the command line: over HTTP inside a running server, or here on the store alone.

``--dsn`` or ``--data-dir`` take the store; otherwise the server at ``--url`` is asked, with ``--token``.
With ``--data-dir`` the embedded PostgreSQL is joined while a server runs it, and started for the time of
the verb when none does. A command and its options are made from the verb's declaration.
"""

from __future__ import annotations

import asyncio
import functools
import json
import types
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import click
from pydantic import BeforeValidator

from tgres_py.admin.frame import Admin, Verb, find_verb, is_positional
from tgres_py.cli import complete
from tgres_py.cli.client import ERROR_BYTES_MAX, url_option
from tgres_py.cli.common import ServerUnreachable, json_option
from tgres_py.cli.options import config_option
from tgres_py.cli.rows import Row, print_rows
from tgres_py.config import Settings
from tgres_py.config_sources import load
from tgres_py.errors import BadRequest
from tgres_py.model.duration import format_duration
from tgres_py.storage.embedded import EmbeddedPostgres, running_dsn
from tgres_py.storage.importing import ImportStore

# Arguments of verbs, by name, that the server's names or tags complete.
COMPLETIONS: dict[str, complete.Complete] = {
    "glob": complete.names,
    "name": complete.names,
    "tag": complete.tags,
}
READ_TIMEOUT_S = 60.0  # the server sends something at least every 10 s

token_option = click.option(
    "--token",
    envvar="TGRES_TOKEN",
    show_envvar=True,
    help="The server's admin token (setting admin_token).",
)
dsn_option = click.option("--dsn", help="Work on this PostgreSQL, without a server.")
data_dir_option = click.option(
    "--data-dir", help="Work on the embedded PostgreSQL of this data directory, without a server."
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a verb is run on: the store when it is named, else the server."""

    url: str
    token: str | None = None
    dsn: str | None = None
    data_dir: str | None = None
    config_file: str | None = None

    def settings(self) -> Settings:
        """The settings of the command line's store. ConfigError."""
        options = {"dsn": self.dsn, "data_dir": self.data_dir}
        return load(self.config_file, options)


def target_options(function: Callable[..., None]) -> Callable[..., None]:
    """Adds --url, --token, --dsn, --data-dir and --config: the function gets them as its argument ``target``."""

    @functools.wraps(function)
    def with_target(
        url: str,
        token: str | None,
        dsn: str | None,
        data_dir: str | None,
        config_file: str | None,
        **others: Any,
    ) -> None:
        function(target=Target(url, token, dsn, data_dir, config_file), **others)

    command: Callable[..., None] = with_target
    for option in (config_option, data_dir_option, dsn_option, token_option, url_option):
        command = option(command)
    return command


def run_verb(target: Target, name: str, given: dict[str, Any]) -> Iterator[Row]:
    """The rows of a verb. BadRequest, ServerUnreachable, StoreUnavailable, ConfigError."""
    if target.dsn is None and target.data_dir is None:
        return _over_http(target, name, given)
    return _on_store(target, find_verb(name), given)


# -- a running server --------------------------------------------------------------------------


def _over_http(target: Target, name: str, given: dict[str, Any]) -> Iterator[Row]:
    url = target.url.rstrip("/")
    if urlsplit(url).scheme not in ("http", "https"):
        raise BadRequest(f"--url {url}: an address starts with http:// or https://")
    headers = {"Content-Type": "application/json"}
    if target.token:
        headers["Authorization"] = f"Bearer {target.token}"
    request = Request(f"{url}/admin/{name}", data=json.dumps(given).encode(), headers=headers)
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=READ_TIMEOUT_S) as answer:
            for line in answer:
                if line.strip():
                    yield json.loads(line)
    except HTTPError as error:
        raise _refused(url, error) from None
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ServerUnreachable(f"no server answers at {url}: {reason}") from None
    except ValueError:
        raise ServerUnreachable(f"{url} broke off its answer; is this tgres?") from None


def _refused(url: str, error: HTTPError) -> BadRequest | ServerUnreachable:
    text = error.read(ERROR_BYTES_MAX).decode("utf-8", "replace").strip().partition("\n")[0]
    if error.code == 404:
        return BadRequest(
            f"{url} has no operator verbs: set admin_token there, or give --dsn or --data-dir"
        )
    if error.code == 401:
        return BadRequest(
            f"{url} wants its admin token (--token or TGRES_TOKEN), and got none or another"
        )
    if error.code >= 500:
        return ServerUnreachable(f"{url} answers {error.code}: {text or error.reason}")
    return BadRequest(text or str(error.reason))


# -- the store alone ---------------------------------------------------------------------------


def _on_store(target: Target, verb: Verb, given: dict[str, Any]) -> Iterator[Row]:
    """Runs the verb here, in an event loop that turns while a row is waited for."""
    rows = _rows_of_store(target, verb, given)
    with asyncio.Runner() as runner:
        try:
            while (row := runner.run(_next(rows))) is not None:
                yield row
        finally:
            runner.run(rows.aclose())  # type: ignore[attr-defined]  # it is a generator, which the annotation doesn't say


async def _next(rows: AsyncIterator[Row]) -> Row | None:
    return await anext(rows, None)


async def _rows_of_store(target: Target, verb: Verb, given: dict[str, Any]) -> AsyncIterator[Row]:
    settings = target.settings()
    async with open_store(settings) as store:
        async for row in verb.start(Admin(store, None, settings), given):
            yield row


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[ImportStore]:
    """The settings' store, its schema up to date; the embedded PostgreSQL is joined or started."""
    embedded: EmbeddedPostgres | None = None
    dsn = settings.dsn
    if dsn is None:
        dsn = running_dsn(settings.data_dir / "pg")
    if dsn is None:
        if not (settings.data_dir / "pg" / "PG_VERSION").exists():
            raise BadRequest(f"{settings.data_dir} is no data directory of tgres")
        embedded = EmbeddedPostgres(settings.data_dir / "pg")
        dsn = await embedded.start()
    store = ImportStore(dsn, command_timeout_s=settings.store_timeout_s)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
        if embedded is not None:
            await embedded.stop()


# -- commands ----------------------------------------------------------------------------------


def admin_command(
    verb_name: str, *, nothing: str = "nothing found", record: bool = False
) -> click.Command:
    """The command of a verb: its last name, its arguments as options or positional arguments.

    ``nothing``: what is said when there are no results; ``record``: see ``print_rows``.
    """
    verb = find_verb(verb_name)

    def run(target: Target, as_json: bool, **given: Any) -> None:
        chosen = {name: _plain(v) for name, v in given.items() if v is not None and v != ()}
        rows = run_verb(target, verb_name, chosen)
        # what has no end is ended by Ctrl-C: no failure
        with suppress(*([KeyboardInterrupt] if verb.stream else [])):
            print_rows(rows, as_json, nothing=nothing, record=record, stream=verb.stream)

    function: Any = json_option(target_options(run))
    for name, field in reversed(verb.args.model_fields.items()):
        function = _parameter(name, field, is_positional(field))(function)
    return click.command(verb_name.rpartition(".")[2], help=verb.help)(function)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _parameter(name: str, field: Any, positional: bool) -> Callable[[Any], Any]:
    """An argument of a verb as one of the command; values are checked with the verb's own model."""
    kinds = set(typing.get_args(field.annotation)) - {types.NoneType} or {field.annotation}
    many = typing.get_origin(field.annotation) is list
    if positional:
        metavar = f"{name.upper()}{'…' if many else ''}"
        metavar = metavar if field.is_required() else f"[{metavar}]"
        return click.argument(
            name,
            metavar=metavar,
            nargs=-1 if many else 1,
            required=field.is_required(),
            shell_complete=COMPLETIONS.get(name),
        )
    option = "--" + (field.alias or name).replace("_", "-")
    if field.annotation is bool:
        return click.option(option, name, is_flag=True, default=None, help=field.description)
    # what has a validator of its own (durations) is text as yet
    is_duration = any(isinstance(one, BeforeValidator) for one in field.metadata)
    kind = next((kind for kind in (int, float) if kind in kinds and not is_duration), str)
    default = None if field.is_required() else field.get_default()
    if is_duration:
        default = format_duration(default) if default else None
    note = f" [default: {default}]" if default not in (None, "", []) else ""
    return click.option(
        option,
        name,
        type=kind,
        multiple=many,
        required=field.is_required(),
        help=f"{field.description}{note}",
        shell_complete=COMPLETIONS.get(name),
    )


def admin_group(name: str, help_text: str, commands: dict[str, click.Command]) -> click.Group:
    """``tgres NAME VERB``."""
    return click.Group(name, help=help_text, commands=commands)
