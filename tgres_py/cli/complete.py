"""Completion of the shells: the script that each one wants, and live names of a server's series.

The scripts are click's: on TAB the shell runs ``tgres`` with ``_TGRES_COMPLETE`` set. Verbs and options
come from the commands, names and tags from the server at --url (TGRES_URL), which has TIMEOUT_S to answer:
a shell that hangs is worse than one that doesn't complete.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit
from urllib.request import ProxyHandler, build_opener

import click
from click.shell_completion import CompletionItem, get_completion_class

TIMEOUT_S = 1.0
ITEMS_MAX = 200
ANSWER_BYTES_MAX = 4 << 20
SHELLS = ("bash", "zsh", "fish")
# in bash: what ends in a dot or an equals sign goes on, so no space is to follow it
NO_SPACE = '[[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[.=] ]] && compopt -o nospace'
DEFAULT_URL = "http://127.0.0.1:8080"
_VALUE = re.compile(r"(?P<tag>[^=!~'\"]+)(?P<sign>!?=~?)(?P<value>[^'\"]*)")

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL: verbs, options, and live names and tags of a server's series.

    \b
    bash:  eval "$(tgres completion bash)"              in ~/.bashrc
    zsh:   eval "$(tgres completion zsh)"               in ~/.zshrc
    fish:  tgres completion fish > ~/.config/fish/completions/tgres.fish

    Names come from the server at TGRES_URL, or the --url that stands on the line already.
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click knows the three
    root = context.find_root().command
    source = kind(root, {}, "tgres", "_TGRES_COMPLETE").source()
    if shell == "bash":
        source = source.replace("    return 0\n", f"    {NO_SPACE}\n    return 0\n", 1)
    click.echo(source)


def names(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Series and branches that begin with what is typed; a branch ends in a dot."""
    nodes = _ask(context, "/metrics/find", [("query", f"{typed}*"), ("format", "completer")])
    found = nodes.get("metrics", []) if isinstance(nodes, dict) else []
    paths = [str(node.get("path", "")) for node in found if isinstance(node, dict)]
    return _items(paths)


def targets(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """The same for the last name in a target: ``sumSeries(servers.w`` goes on after the bracket."""
    at = max(typed.rfind("("), typed.rfind(",")) + 1
    items = names(context, parameter, typed[at:].lstrip())
    return [CompletionItem(typed[:at] + item.value) for item in items]


def tags(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """A tag expression: the tag's name, then its values."""
    if (match := _VALUE.fullmatch(typed)) is None:
        found = _ask(context, "/tags/autoComplete/tags", [("tagPrefix", typed), ("limit", "200")])
        return _items([f"{tag}=" for tag in _texts(found)])
    form = [("tag", match["tag"]), ("valuePrefix", match["value"]), ("limit", "200")]
    found = _ask(context, "/tags/autoComplete/values", form)
    return _items([f"{match['tag']}{match['sign']}{value}" for value in _texts(found)])


def _texts(found: object) -> list[str]:
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def _items(values: list[str]) -> list[CompletionItem]:
    """Without what a terminal would take for more than text."""
    return [CompletionItem(value) for value in values[:ITEMS_MAX] if value and value.isprintable()]


def _ask(context: click.Context, path: str, form: list[tuple[str, str]]) -> object:
    """The server's JSON; None when there is none, whatever the reason."""
    url = str(context.params.get("url") or os.environ.get("TGRES_URL") or DEFAULT_URL)
    if urlsplit(url).scheme not in ("http", "https"):
        return None
    address = f"{url.rstrip('/')}{path}?{urlencode(form)}"
    try:
        with build_opener(ProxyHandler({})).open(address, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read(ANSWER_BYTES_MAX))
    except (OSError, ValueError):
        return None
