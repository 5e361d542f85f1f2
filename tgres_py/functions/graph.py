"""Functions that say how series are drawn: options on labels, and lines that mark something."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tgres_py.errors import BadRequest
from tgres_py.functions.params import Date, Float, LooseInteger, String
from tgres_py.functions.reads import Context, StepSet, half_range
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import UNNAMED, Grid, Label, SeriesBlock
from tgres_py.functions.special import constant
from tgres_py.target.attime import parse_at_time

DEFAULT_STACK = "__DEFAULT__"


@render_function(group="Graph")
def alpha(seriesList: SeriesBlock, alpha: Float) -> SeriesBlock:
    """Draws with this opacity, from 0 to 1.

    load 10s  a 1 2
    eval alpha(a, 0.5)  => a: 1 2
    """
    return seriesList.map_labels(lambda label: label.drawn(alpha=alpha))


@render_function(group="Graph")
def color(seriesList: SeriesBlock, theColor: String) -> SeriesBlock:
    """Draws in this colour: a name, or hexadecimal digits.

    load 10s  a 1 2
    eval color(a, "green")  => a: 1 2
    """
    return seriesList.map_labels(lambda label: label.drawn(color=theColor))


@render_function(group="Graph")
def lineWidth(seriesList: SeriesBlock, width: Float) -> SeriesBlock:
    """Draws lines of this width.

    load 10s  a 1 2
    eval lineWidth(a, 2)  => a: 1 2
    """
    return seriesList.map_labels(lambda label: label.drawn(lineWidth=width))


@render_function(group="Graph")
def dashed(seriesList: SeriesBlock, dashLength: LooseInteger = 5) -> SeriesBlock:
    """Draws a dashed line.

    load 10s  a 1 2
    eval dashed(a)       => dashed(a, 5): 1 2
    eval dashed(a, 2.5)  => dashed(a, 2.5): 1 2
    """

    def relabel(label: Label) -> Label:
        return _marked(
            label, f"dashed({label.name}, {dashLength:g})", dashed=str(dashLength)
        ).drawn(dashed=dashLength)

    return seriesList.map_labels(relabel)


@render_function(group="Graph")
def drawAsInfinite(seriesList: SeriesBlock) -> SeriesBlock:
    """Draws a vertical line wherever a value is above 0.

    load 10s  a 1 0
    eval drawAsInfinite(a)  => drawAsInfinite(a): 1 0
    """

    def relabel(label: Label) -> Label:
        return _marked(label, f"drawAsInfinite({label.name})", drawAsInfinite="1").drawn(
            drawAsInfinite=True
        )

    return seriesList.map_labels(relabel)


@render_function(group="Graph")
def secondYAxis(seriesList: SeriesBlock) -> SeriesBlock:
    """Draws against the y axis on the other side.

    load 10s  a 1 2
    eval secondYAxis(a)  => secondYAxis(a): 1 2
    """

    def relabel(label: Label) -> Label:
        return _marked(label, f"secondYAxis({label.name})", secondYAxis="1").drawn(secondYAxis=True)

    return seriesList.map_labels(relabel)


@render_function(group="Graph")
def areaBetween(seriesList: SeriesBlock) -> SeriesBlock:
    """Fills the area between exactly two series, the lower one first.

    load 10s  a 1 2
    load 10s  b 3 4
    eval areaBetween(*)  => areaBetween(*): 1 2 | areaBetween(*): 3 4
    """
    if len(seriesList) != 2:
        raise BadRequest(
            f"target: areaBetween() takes exactly 2 series, {len(seriesList)} are given"
        )
    low, high = seriesList.labels
    name = f"areaBetween({high.path_expression})"
    tags = {**high.tags, "areaBetween": "1"}
    labels = [
        replace(low, name=name, tags=tags).drawn(stacked=True, invisible=True),
        replace(high, name=name, tags=tags).drawn(stacked=True),
    ]
    return SeriesBlock(labels, seriesList.parts)


@render_function(group="Graph")
def stacked(
    seriesList: SeriesBlock, stack: String | None = None, *, context: Context
) -> SeriesBlock:
    """Stacks the series: each is the sum of itself and those before it, those of the same ``stack``
    in the request's earlier targets included.

    load 10s  a 1 2 _
    load 10s  b 3 4 5
    eval stacked(*)         => stacked(a): 1 2 _ | stacked(b): 4 6 5
    eval stacked(*, "mem")  => a: 1 2 _ | b: 4 6 5
    """
    stack = DEFAULT_STACK if stack is None else stack
    totals = context.state.stacks.get(stack, np.empty(0))
    rows = []
    for label, grid, values in seriesList.rows():
        if len(values) > len(totals):
            totals = np.concatenate([totals, np.zeros(len(values) - len(totals))])
        sums = totals[: len(values)] + values
        totals = totals.copy()
        totals[: len(values)] = np.where(np.isnan(values), totals[: len(values)], sums)
        rows.append((_stacked(label, stack), grid, sums))
    context.state.stacks[stack] = totals
    return SeriesBlock.of_rows(rows)


@render_function(group="Graph", steps=half_range)
def threshold(
    value: Float, label: String | None = None, color: String | None = None, *, context: Context
) -> SeriesBlock:
    """A horizontal line at ``value``, with its own label and colour.

    eval threshold(2.5)           => 2.5: 2.5 2.5 2.5
    eval threshold(2.5, "limit")  => limit: 2.5 2.5 2.5
    """
    block = constant(value, str(value), f"constantLine({value})", context)
    return block.map_labels(lambda made: _named_and_coloured(made, label, color))


def _one_second(arguments: object, steps: StepSet, context: Context) -> StepSet:
    return frozenset((1,))


@render_function(group="Graph", steps=_one_second)
def verticalLine(
    ts: Date, label: String | None = None, color: String | None = None, *, context: Context
) -> SeriesBlock:
    """A vertical line at a time (as of from and until) inside the range.

    eval verticalLine("now", "deploy")  => deploy: 1 1
    """
    at_s = parse_at_time(str(ts), context.now_s, context.tz, "verticalLine(): ts")
    if not context.from_s <= at_s <= context.until_s:
        side = "before the start" if at_s < context.from_s else "after the end"
        raise BadRequest(f"target: verticalLine(): ts {ts!r} lies {side} of the range")
    # without a label JSON says null, and what is made of the name says None (as graphite-web)
    name = UNNAMED if label is None else label
    made = Label(name, name, {"name": name}, xff=context.xff).drawn(drawAsInfinite=True)
    if label is None:
        made = made.drawn(unnamed=True)
    # two values as graphite-web has them, of which one lies in the range
    return SeriesBlock.uniform(
        [_named_and_coloured(made, None, color)], Grid(at_s, at_s, 1), np.ones((1, 2))
    )


def _marked(label: Label, name: str, **tags: str) -> Label:
    """Another name and more tags; the path expression stays."""
    return replace(label, name=name, tags={**label.tags, **tags})


def _named_and_coloured(label: Label, name: str | None, color: str | None) -> Label:
    if name:
        label = label.renamed(name)
    return label.drawn(color=color) if color else label


def _stacked(label: Label, stack: str) -> Label:
    name, tags = label.name, label.tags
    if stack == DEFAULT_STACK:
        name, tags = f"stacked({name})", {**tags, "stacked": stack}
    return Label(name, name, tags, label.cf, label.xff, {"stacked": True})
