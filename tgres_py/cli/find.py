"""``tgres find GLOB``: nodes of the tree of names."""

from __future__ import annotations

import click

from tgres_py.cli.client import post, url_option
from tgres_py.cli.common import NothingFound, json_option, print_json


@click.command()
@click.argument("glob")
@url_option
@json_option
def find(glob: str, url: str, as_json: bool) -> None:
    """List the nodes that match GLOB, for example 'servers.*.cpu'.

    One path a line; the paths of branches end in a dot. A node that is both is listed twice.
    """
    form = [("query", glob), ("format", "completer")]
    answer = post(url, "/metrics/find", form) or {}
    nodes = answer.get("metrics", [])
    if as_json:
        print_json(nodes)
    elif nodes:
        click.echo("\n".join(node["path"] for node in nodes))
    if not nodes:
        raise NothingFound(f"nothing matches {glob}")
