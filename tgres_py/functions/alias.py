"""Functions that only change what a series is called. The path expression stays, as in
graphite-web.
"""

from __future__ import annotations

import re2  # type: ignore[import-untyped]

from tgres_py.errors import BadRequest
from tgres_py.functions.params import NodeOrTag, String
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Label, SeriesBlock
from tgres_py.target.parser import first_path

_RE2_OPTIONS = re2.Options()
_RE2_OPTIONS.log_errors = False


@render_function(group="Alias")
def alias(seriesList: SeriesBlock, newName: String) -> SeriesBlock:
    """Shows ``newName`` instead of the series' name.

    load 10s  a.b 1 2
    eval alias(a.b, "Load")  => Load: 1 2
    """
    return seriesList.map_labels(lambda label: label.renamed(newName))


@render_function(group="Alias")
def aliasByNode(seriesList: SeriesBlock, *nodes: NodeOrTag) -> SeriesBlock:
    """Names each series by some of its nodes (counted from 0, negative from the end) and tags,
    joined by dots.

    Of a function's result the first path inside the name counts. A node that isn't there is looked
    up as a tag, and is empty when there is no such tag.

    load 10s  servers.web1.cpu 1 2
    eval aliasByNode(servers.web1.cpu, 1)             => web1: 1 2
    eval aliasByNode(scale(servers.*.cpu, 2), 1, -1)  => web1.cpu: 2 4
    """
    return seriesList.map_labels(lambda label: label.renamed(nodes_name(label, nodes)))


@render_function(group="Alias")
def aliasSub(seriesList: SeriesBlock, search: String, replace: String) -> SeriesBlock:
    r"""Replaces what a regular expression finds in each name; ``\1`` in ``replace`` is the first
    group.

    The expressions are RE2's: no look-around, no back-reference inside ``search``.

    load 10s  servers.web1.cpu 1 2
    eval aliasSub(servers.web1.cpu, "^.*\.(web\d)\.", "\1 ")  => web1 cpu: 1 2
    """
    substitute = Substitution(search, replace)
    return seriesList.map_labels(lambda label: label.renamed(substitute(label.name)))


def nodes_name(label: Label, nodes: tuple[int | str, ...]) -> str:
    path = first_path(label.name) if label.name.endswith(")") else label.name
    elements = path.split(";", 1)[0].split(".")
    return ".".join(_node_or_tag(label, elements, node) for node in nodes)


def _node_or_tag(label: Label, elements: list[str], node: int | str) -> str:
    if isinstance(node, int) and -len(elements) <= node < len(elements):
        return elements[node]
    return label.tags.get(str(node), "")


class Substitution:
    """A compiled search and replacement, run by RE2: linear time whatever a user writes."""

    def __init__(self, search: str, replace: str) -> None:
        self.replace = replace
        try:
            self.pattern = re2.compile(search, options=_RE2_OPTIONS)
        except re2.error as error:
            reason = error.args[0].decode("utf-8", "replace") if error.args else "not RE2"
            raise BadRequest(
                f"target: search {search!r} is no regular expression: {reason}"
            ) from None

    def __call__(self, text: str) -> str:
        try:
            return str(self.pattern.sub(self.replace, text))
        except (re2.error, IndexError, ValueError, KeyError):
            raise BadRequest(
                f"target: replace {self.replace!r} names a group that search doesn't have"
            ) from None
