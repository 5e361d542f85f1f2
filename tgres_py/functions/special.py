"""Functions that make series of nothing, or change how series are treated later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.functions.aggregation import CONSOLIDATOR_NAMES
from tgres_py.functions.params import Float, Integer, LooseNode, Options, String
from tgres_py.functions.reads import Context, StepSet, half_range
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Label, Matrix, Part, SeriesBlock


@render_function(group="Special", steps=half_range)
def constantLine(value: Float, *, context: Context) -> SeriesBlock:
    """A horizontal line at ``value``: three points, at start, middle and end of the range.

    eval constantLine(2.5)  => 2.5: 2.5 2.5 2.5
    """
    return constant(value, str(value), f"constantLine({value})", context)


@render_function(group="Special")
def consolidateBy(
    seriesList: SeriesBlock, consolidationFunc: Annotated[String, Options(*CONSOLIDATOR_NAMES)]
) -> SeriesBlock:
    """Consolidates to fewer points (maxDataPoints, or a common step) by ``consolidationFunc``
    instead of the average.

    load 10s  a 1 2
    eval consolidateBy(a, "max")  => consolidateBy(a,"max"): 1 2
    """

    def relabel(label: Label) -> Label:
        new = label.derived(
            f'consolidateBy({label.name},"{consolidationFunc}")', consolidateBy=consolidationFunc
        )
        new.cf = consolidationFunc
        return new

    return seriesList.map_labels(relabel)


@render_function(group="Special")
def cumulative(seriesList: SeriesBlock) -> SeriesBlock:
    """consolidateBy(seriesList, "sum").

    load 10s  a 1 2
    eval cumulative(a)  => consolidateBy(a,"sum"): 1 2
    """
    return consolidateBy(seriesList, "sum")


@render_function(group="Special", aliases=("xFilesFactor",))
def setXFilesFactor(
    seriesList: SeriesBlock, xFilesFactor: Float, *, context: Context
) -> SeriesBlock:
    """The share of values that must be known when these series are consolidated, and in all that
    is evaluated after this call (as in graphite-web).

    load 10s  a 1 2
    load 10s  b 1 _
    eval sumSeries(setXFilesFactor(*, 0.6))  => sumSeries(*): 2 _
    """
    context.state.xff = xFilesFactor

    def relabel(label: Label) -> Label:
        tags = {**label.tags, "xFilesFactor": str(xFilesFactor)}
        return Label(label.name, label.path_expression, tags, label.cf, xFilesFactor, label.options)

    return seriesList.map_labels(relabel)


@render_function(group="Special")
def changed(seriesList: SeriesBlock) -> SeriesBlock:
    """1 where a value differs from the last known one before it, else 0.

    load 10s  a 1 1 _ 2 _ 2 1
    eval changed(a)  => changed(a): 0 0 0 1 0 0 1
    """

    def compute(part: Part) -> tuple[Grid, Matrix]:
        values = part.values
        if values.shape[1] == 0:
            return part.grid, values
        known = ~np.isnan(values)
        at = np.maximum.accumulate(np.where(known, np.arange(values.shape[1]), -1), axis=1)
        before = np.concatenate([np.full((len(values), 1), -1), at[:, :-1]], axis=1)
        previous = np.take_along_axis(values, np.maximum(before, 0), axis=1)
        return part.grid, (known & (before >= 0) & (values != previous)).astype(np.float64)

    return seriesList.map_values(compute).map_labels(
        lambda label: label.derived(f"changed({label.name})")
    )


@render_function(group="Special", first_steps=True)
def fallbackSeries(seriesList: SeriesBlock, fallback: SeriesBlock) -> SeriesBlock:
    """``fallback`` when there are no series (not: when they have no values).

    load 10s  a 1 2
    eval fallbackSeries(nosuch, a)  => a: 1 2
    """
    return seriesList if len(seriesList) else fallback


@render_function(group="Special")
def substr(seriesList: SeriesBlock, start: LooseNode = 0, stop: LooseNode = 0) -> SeriesBlock:
    """Names each series by its nodes from ``start`` up to ``stop`` (not included; 0 = to the end).

    Of a function's result what stands in the innermost parentheses counts, up to the first comma.

    load 10s  servers.web1.cpu 1 2
    eval substr(servers.web1.cpu, 1)            => web1.cpu: 1 2
    eval substr(scale(servers.*.cpu,2), 0, -1)  => servers.web1: 2 4
    """
    return seriesList.map_labels(
        lambda label: label.renamed(nodes_between(label.name, int(start), int(stop)))
    )


def _step(arguments: Mapping[str, Any], steps: StepSet, context: Context) -> StepSet:
    return frozenset((max(1, arguments["step"]),))


@render_function(group="Special", aliases=("randomWalk",), steps=_step)
def randomWalkFunction(name: String, step: Integer = 60, *, context: Context) -> SeriesBlock:
    """A random walk from 0: each value lies at most 0.5 from the one before. For trying things out.

    eval randomWalk("walk", 60)  => walk: 0
    """
    if step <= 0:
        raise BadRequest(f"target: randomWalk(): step is {step}; it must be 1 or more")
    points = math.ceil((context.until_s - context.from_s) / step)
    if points > context.points_max:
        raise LimitExceeded(
            "points made by randomWalk()", points, context.points_max, "query_points_max"
        )
    moves = np.random.default_rng().random(points - 1) - 0.5
    values = np.concatenate([[0.0], np.cumsum(moves)])
    label = Label(name, name, {"name": name}, xff=context.xff)
    return SeriesBlock.uniform(
        [label], Grid(context.from_s, context.until_s, step), values[None, :]
    )


def constant(value: float, name: str, path_expression: str, context: Context) -> SeriesBlock:
    """Three points at ``value``: at start, middle and end of the range."""
    grid = Grid(context.from_s, context.until_s, max(1, (context.until_s - context.from_s) // 2))
    label = Label(name, path_expression, {"name": name}, xff=context.xff)
    return SeriesBlock.uniform([label], grid, np.full((1, 3), value))


def nodes_between(name: str, start: int, stop: int) -> str:
    right = name.find(")")
    inner = name[name.rfind("(") + 1 : right if right >= 0 else None]
    nodes = inner.split(".")[start : stop or None]
    return ".".join(nodes).partition(",")[0]
