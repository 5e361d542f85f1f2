"""Functions about unknown values: filling, replacing and moving them."""

from __future__ import annotations

import math

import numpy as np

from tgres_py.functions.aggregation import Array
from tgres_py.functions.arithmetic import each_value
from tgres_py.functions.params import Float, Integer, IntOrInf
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Matrix, Part, Positions, SeriesBlock
from tgres_py.functions.transform import fill_buckets, xff_column


@render_function(group="Transform")
def keepLastValue(seriesList: SeriesBlock, limit: IntOrInf = math.inf) -> SeriesBlock:
    """Fills gaps of up to ``limit`` points with the value before them, at the end too.

    load 10s  a _ 1 _ _ 2 _
    eval keepLastValue(a)     => keepLastValue(a): _ 1 1 1 2 2
    eval keepLastValue(a, 1)  => keepLastValue(a): _ 1 _ _ 2 2
    """

    def compute(values: Matrix) -> Matrix:
        before, after = neighbours(values)
        fill = np.isnan(values) & (before >= 0) & (after - before - 1 <= limit)
        return np.where(fill, _at(values, before), values)

    return each_value(
        seriesList, compute, lambda label: label.derived(f"keepLastValue({label.name})")
    )


@render_function(group="Transform")
def interpolate(seriesList: SeriesBlock, limit: IntOrInf = math.inf) -> SeriesBlock:
    """Fills gaps of up to ``limit`` points with a straight line between the values around them.

    load 10s  a _ 1 _ _ 4 _
    eval interpolate(a)     => interpolate(a): _ 1 2 3 4 _
    eval interpolate(a, 1)  => interpolate(a): _ 1 _ _ 4 _
    """

    def compute(values: Matrix) -> Matrix:
        before, after = neighbours(values)
        slots = values.shape[1]
        fill = np.isnan(values) & (before >= 0) & (after < slots) & (after - before - 1 <= limit)
        first, last = _at(values, before), _at(values, after)
        line = first + (np.arange(slots) - before) * (last - first) / np.maximum(after - before, 1)
        return np.where(fill, line, values)

    return each_value(
        seriesList, compute, lambda label: label.derived(f"interpolate({label.name})")
    )


@render_function(group="Transform", first_steps=True)
def transformNull(
    seriesList: SeriesBlock, default: Float = 0, referenceSeries: SeriesBlock | None = None
) -> SeriesBlock:
    """Replaces unknown values by ``default``; with ``referenceSeries`` only where at least one of
    these is known (point by point, counted from the first).

    load 10s  a 1 _ _
    load 10s  b 1 2 _
    eval transformNull(a)         => transformNull(a,0): 1 0 0
    eval transformNull(a, -1)     => transformNull(a,-1): 1 -1 -1
    eval transformNull(a, 5, b)   => transformNull(a,5,referenceSeries): 1 5 _
    """
    wanted = _known_columns(referenceSeries) if referenceSeries else None
    more = {"referenceSeries": "1"} if wanted is not None else {}
    suffix = ",referenceSeries" if wanted is not None else ""

    def compute(values: Matrix) -> Matrix:
        missing = np.isnan(values)
        if wanted is None:
            return np.where(missing, default, values)
        here = np.zeros(values.shape[1], dtype=np.bool_)
        here[: len(wanted)] = wanted[: len(here)]
        return np.where(missing & here, default, values)

    return each_value(
        seriesList,
        compute,
        lambda label: label.derived(
            f"transformNull({label.name},{default:g}{suffix})", transformNull=str(default), **more
        ),
    )


def _known_columns(block: SeriesBlock) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Where any series of the block has a value: (slots of the longest,)."""
    out = np.zeros(max(part.values.shape[1] for part in block.parts), dtype=np.bool_)
    for part in block.parts:
        out[: part.values.shape[1]] |= (~np.isnan(part.values)).any(axis=0)
    return out


@render_function(group="Transform")
def delay(seriesList: SeriesBlock, steps: Integer) -> SeriesBlock:
    """Moves the values ``steps`` points later (negative: earlier); what leaves the range is lost.

    load 10s  a 1 2 _ 3
    eval delay(a, 1)   => delay(a,1): _ 1 2 _
    eval delay(a, -1)  => delay(a,-1): 2 _ 3 _
    eval delay(a, 0)   => delay(a,0): 1 2 _ 3
    """

    def compute(values: Matrix) -> Matrix:
        slots = values.shape[1]
        out = np.full(values.shape, np.nan)
        if 0 <= steps < slots:
            out[:, steps:] = values[:, : slots - steps]
        elif 0 < -steps < slots:
            out[:, : slots + steps] = values[:, -steps:]
        return out

    return each_value(
        seriesList,
        compute,
        lambda label: label.derived(f"delay({label.name},{steps})", delay=str(steps)),
    )


@render_function(group="Transform")
def compressPeriodicGaps(seriesList: SeriesBlock) -> SeriesBlock:
    """Gives a series that has a value at every n-th point only the step that this says.

    The distance of its first two values (zeros don't count) is taken for its step when the next
    value is as far again and has unknown neighbours; else the series stays as it is.

    load 10s  a _ 1 _ 2 _ 3 _ 4
    eval compressPeriodicGaps(a)  => compressPeriodicGaps(a): 1 2 3 4
    """
    block = seriesList.map_labels(
        lambda label: label.derived(f"compressPeriodicGaps({label.name})")
    )
    parts: list[Part] = []
    for part in block.parts:
        firsts, periods = _periods(part.values)
        for first, period in sorted(set(zip(firsts.tolist(), periods.tolist(), strict=True))):
            chosen = np.flatnonzero((firsts == first) & (periods == period))
            some = Part(part.grid, part.values[chosen], part.index[chosen])
            parts.append(_compressed(block, some, first, period) if period else some)
    return SeriesBlock(block.labels, parts)


def _periods(values: Matrix) -> tuple[Positions, Positions]:
    """The column of each row's first value that isn't zero, and the period in columns; 0, 0 when
    there is none.
    """
    rows, slots = values.shape
    if slots < 3:
        return np.zeros(rows, dtype=np.intp), np.zeros(rows, dtype=np.intp)
    counts = ~np.isnan(values) & (values != 0)
    first = counts.argmax(axis=1)
    later = counts & (np.arange(slots) > first[:, None])
    second = later.argmax(axis=1)
    third = 2 * second - first
    row = np.arange(rows)
    inside = later.any(axis=1) & (second - first > 1) & (third <= slots - 2)
    third = np.where(inside, third, 1)
    alone = np.isnan(values[row, third - 1]) & np.isnan(values[row, third + 1])
    found = inside & counts[row, third] & alone
    return np.where(found, first, 0), np.where(found, second - first, 0)


def _compressed(block: SeriesBlock, part: Part, first: int, period: int) -> Part:
    old = part.grid
    start_s, step_s = old.start_s + first * old.step_s, period * old.step_s
    buckets = -(-(old.end_s - start_s) // step_s)
    values = fill_buckets(
        part,
        Grid(start_s, start_s + buckets * step_s, step_s),
        "last",
        xff_column(block, part),
    )
    return Part(Grid(start_s, start_s + (buckets - 1) * step_s, step_s), values, part.index)


def neighbours(values: Matrix) -> tuple[Positions, Positions]:
    """For each point the columns of the known value at or before it (-1: none), and at or after it
    (number of columns: none).
    """
    slots = values.shape[1]
    columns = np.arange(slots)
    known = ~np.isnan(values)
    before = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    after = np.minimum.accumulate(np.where(known, columns, slots)[:, ::-1], axis=1)[:, ::-1]
    return before, after


def _at(values: Matrix, columns: Positions) -> Array:
    """The values at ``columns``; of columns that don't exist any value."""
    if not values.shape[1]:
        return values
    out: Array = np.take_along_axis(values, np.clip(columns, 0, values.shape[1] - 1), axis=1)
    return out
