"""``tgres find GLOB``: nodes of the tree of names."""

from __future__ import annotations

import click

from tgres_py.cli.client import post, url_option
from tgres_py.cli.common import NothingFound, json_option, print_json
from tgres_py.cli.complete import names


@click.command()
@click.argument("glob", shell_complete=names)
@url_option
@json_option
def find(glob: str, url: str, as_json: bool) -> None:
    """List the nodes that match GLOB, for example 'servers.*.cpu'.

    One path a line; a path that ends in a dot is no series itself but has series below it.
    """
    # /metrics/find doesn't give real paths (treejson) or matches beginnings (completer); this one does neither.
    paths = _expand(url, glob, leaves_only=False)
    leaves = set(_expand(url, glob, leaves_only=True)) if paths else set()
    if as_json:
        print_json([{"path": path, "is_leaf": path in leaves} for path in paths])
    elif paths:
        click.echo("\n".join(path if path in leaves else f"{path}." for path in paths))
    if not paths:
        raise NothingFound(f"nothing matches {glob}")


def _expand(url: str, glob: str, leaves_only: bool) -> list[str]:
    form = [("query", glob), ("leavesOnly", str(int(leaves_only)))]
    answer = post(url, "/metrics/expand", form) or {}
    results: list[str] = answer.get("results", [])
    return results
