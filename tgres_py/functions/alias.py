"""Functions that only change what a series is called. The path expression stays, as in
graphite-web.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from tgres_py.functions.params import Integer, NodeOrTag, String
from tgres_py.functions.patterns import Substitution, check_name
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Label, SeriesBlock
from tgres_py.functions.special import nodes_between
from tgres_py.target.parser import first_path


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


@render_function(group="Alias")
def aliasByTags(seriesList: SeriesBlock, *tags: NodeOrTag) -> SeriesBlock:
    """aliasByNode by its older name: names each series by some of its tags and nodes.

    load 10s  disk.used;dev=sda;host=a 1 2
    eval aliasByTags(disk.used;dev=sda;host=a, "host", "dev")  => a.sda: 1 2
    """
    return seriesList.map_labels(lambda label: label.renamed(nodes_name(label, tags)))


@render_function(group="Alias")
def aliasByMetric(seriesList: SeriesBlock) -> SeriesBlock:
    """Names each series by its last node.

    load 10s  servers.web1.cpu 1 2
    eval aliasByMetric(servers.web1.cpu)            => cpu: 1 2
    eval aliasByMetric(scale(servers.web1.cpu, 2))  => cpu: 2 4
    """
    return seriesList.map_labels(lambda label: label.renamed(nodes_between(label.name, -1, 0)))


@render_function(group="Alias", aliases=("toUpperCase",), optional_list=True)
def upper(seriesList: SeriesBlock, *pos: Integer) -> SeriesBlock:
    """Names in capital letters, or only the characters at ``pos`` (from 0, negative from the end).

    load 10s  web.cpu 1
    eval upper(web.cpu)         => WEB.CPU: 1
    eval upper(web.cpu, 0, -1)  => Web.cpU: 1
    """
    return seriesList.map_labels(lambda label: label.renamed(_cased(label.name, pos, str.upper)))


@render_function(group="Alias", aliases=("toLowerCase",), optional_list=True)
def lower(seriesList: SeriesBlock, *pos: Integer) -> SeriesBlock:
    """Names in small letters, or only the characters at ``pos`` (from 0, negative from the end).

    load 10s  WEB.CPU 1
    eval lower(WEB.CPU)        => web.cpu: 1
    eval lower(WEB.CPU, 1, 9)  => WeB.CPU: 1
    """
    return seriesList.map_labels(lambda label: label.renamed(_cased(label.name, pos, str.lower)))


@render_function(group="Alias")
def aliasByBase64(seriesList: SeriesBlock, nodeNum: Integer | None = None) -> SeriesBlock:
    """Decodes names, or one of their nodes, that are written in base64; others stay.

    load 10s  hosts.d2ViMQ==.cpu 1
    eval aliasByBase64(hosts.*.cpu, 1)  => web1: 1
    """

    def name_of(label: Label) -> str:
        coded = label.name if nodeNum is None else nodes_name(label, (nodeNum,))
        try:
            return base64.b64decode(coded, validate=True).decode()
        except ValueError:  # no base64, or no UTF-8 in it
            return label.name

    return seriesList.map_labels(lambda label: label.renamed(name_of(label)))


def nodes_name(label: Label, nodes: tuple[int | str, ...]) -> str:
    path = first_path(label.name) if label.name.endswith(")") else label.name
    elements = path.split(";", 1)[0].split(".")
    chosen = [_node_or_tag(label, elements, node) for node in nodes]
    name = ".".join(chosen)
    check_name(name, label.name)
    return name


def _node_or_tag(label: Label, elements: list[str], node: int | str) -> str:
    if isinstance(node, int) and -len(elements) <= node < len(elements):
        return elements[node]
    return label.tags.get(str(node), "")


def _cased(name: str, positions: tuple[int, ...], case: Callable[[str], str]) -> str:
    if not positions:
        return case(name)
    characters = list(name)
    for position in positions:
        if -len(characters) <= position < len(characters):
            characters[position] = case(characters[position])
    return "".join(characters)
