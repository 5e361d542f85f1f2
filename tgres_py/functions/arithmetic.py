"""Functions that compute each value from itself (and at most from its series' extremes)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tgres_py.errors import BadRequest
from tgres_py.functions.params import Float, LooseInteger, Precision
from tgres_py.functions.registry import render_function
from tgres_py.functions.rounding import round_half_even
from tgres_py.functions.series import Label, Matrix, SeriesBlock


def each_value(
    block: SeriesBlock, compute: Callable[[Matrix], Matrix], relabel: Callable[[Label], Label]
) -> SeriesBlock:
    """The block with ``compute`` applied to its matrices, without warnings of arithmetic."""
    with np.errstate(all="ignore"):
        return block.map_values(lambda part: (part.grid, compute(part.values))).map_labels(relabel)


def whole(value: float, function: str, parameter: str) -> str:
    """A number as ``%d`` shows it. BadRequest when it is infinite."""
    try:
        return f"{int(value)}"
    except OverflowError:
        raise BadRequest(f"target: {function}(): {parameter} must be finite") from None


@render_function(group="Transform")
def absolute(seriesList: SeriesBlock) -> SeriesBlock:
    """The absolute value of each value.

    load 10s  a 1 _ -2
    eval absolute(a)  => absolute(a): 1 _ 2
    """
    return each_value(
        seriesList,
        np.abs,
        lambda label: label.derived(f"absolute({label.name})", absolute="1"),
    )


@render_function(group="Transform")
def add(seriesList: SeriesBlock, constant: Float) -> SeriesBlock:
    """Adds ``constant`` to all values. The name shows its whole part only, as graphite-web's does.

    load 10s  a 1 _ -2
    eval add(a, 2.5)  => add(a,2): 3.5 _ 0.5
    """
    shown = whole(constant, "add", "constant")
    return each_value(
        seriesList,
        lambda values: values + constant,
        lambda label: label.derived(f"add({label.name},{shown})", add=str(constant)),
    )


@render_function(group="Transform")
def offset(seriesList: SeriesBlock, factor: Float) -> SeriesBlock:
    """Adds ``factor`` to all values.

    load 10s  a 1 _ -2
    eval offset(a, 2.5)  => offset(a,2.5): 3.5 _ 0.5
    """
    return each_value(
        seriesList,
        lambda values: values + factor,
        lambda label: label.derived(f"offset({label.name},{factor:g})", offset=str(factor)),
    )


@render_function(group="Transform")
def offsetToZero(seriesList: SeriesBlock) -> SeriesBlock:
    """Subtracts each series' smallest value, so that it begins at zero.

    load 10s  a 5 _ 3 4
    eval offsetToZero(a)  => offsetToZero(a): 2 _ 0 1
    """
    lowest: dict[int, float] = {}
    for part in seriesList.parts:
        if part.values.shape[1]:
            lowest.update(zip(part.index.tolist(), _lowest(part.values).tolist(), strict=True))

    def relabel(place: int, label: Label) -> Label:
        value = lowest.get(place, np.nan)
        shown = "None" if np.isnan(value) else str(value)
        return label.derived(f"offsetToZero({label.name})", offsetToZero=shown)

    with np.errstate(all="ignore"):
        block = seriesList.map_values(
            lambda part: (part.grid, part.values - _lowest(part.values)[:, None])
        )
    return SeriesBlock([relabel(i, label) for i, label in enumerate(block.labels)], block.parts)


@render_function(group="Transform")
def minMax(seriesList: SeriesBlock) -> SeriesBlock:
    """Scales each series to 0 (its smallest value) … 1 (its largest); a constant one is 0.

    load 10s  a 5 _ 3 4
    eval minMax(a)  => minMax(a): 1 _ 0 0.5
    """

    def compute(values: Matrix) -> Matrix:
        low = _lowest(values)[:, None]
        span = -_lowest(-values)[:, None] - low
        return np.where(np.isnan(values), np.nan, np.where(span == 0, 0.0, (values - low) / span))

    return each_value(seriesList, compute, lambda label: label.derived(f"minMax({label.name})"))


def _lowest(values: Matrix) -> Matrix:
    """(k,): the smallest known value of each row, NaN when there is none."""
    if not values.shape[1]:
        return np.full(len(values), np.nan)
    out: Matrix = np.fmin.reduce(values, axis=1)
    return out


@render_function(group="Transform")
def scaleToSeconds(seriesList: SeriesBlock, seconds: Float) -> SeriesBlock:
    """Values per step as values per ``seconds``, to 6 digits.

    load 10s  a 1 _ 2
    eval scaleToSeconds(a, 60)  => scaleToSeconds(a,60): 6 _ 12
    """
    shown = whole(seconds, "scaleToSeconds", "seconds")
    with np.errstate(all="ignore"):
        block = seriesList.map_values(
            lambda part: (
                part.grid,
                round_half_even(part.values * (seconds / part.grid.step_s), 6),
            )
        )
    return block.map_labels(
        lambda label: label.derived(
            f"scaleToSeconds({label.name},{shown})", scaleToSeconds=str(seconds)
        )
    )


@render_function(group="Transform")
def round(seriesList: SeriesBlock, precision: Precision | None = None) -> SeriesBlock:
    """Rounds to ``precision`` decimals (negative: before the point), ties to the even digit.

    load 10s  a 0.5 1.5 _ 2.675 17
    eval round(a)      => round(a): 0 2 _ 3 17
    eval round(a, 2)   => round(a,2): 0.5 1.5 _ 2.67 17
    eval round(a, -1)  => round(a,-1): 0 0 _ 0 20
    """
    return each_value(
        seriesList,
        lambda values: round_half_even(values, precision or 0),
        lambda label: label.derived(
            f"round({label.name})" if precision is None else f"round({label.name},{precision:g})",
            round=str(precision or 0),
        ),
    )


@render_function(group="Transform")
def pow(seriesList: SeriesBlock, factor: Float) -> SeriesBlock:
    """Each value raised to the power ``factor``; unknown where that is no finite real number.

    load 10s  a 2 _ -3 0
    eval pow(a, 2)    => pow(a,2): 4 _ 9 0
    eval pow(a, 0.5)  => pow(a,0.5): 1.4142135623730951 _ _ 0
    eval pow(a, -1)   => pow(a,-1): 0.5 _ -0.3333333333333333 _
    """
    return each_value(
        seriesList,
        lambda values: power(values, factor),
        lambda label: label.derived(f"pow({label.name},{factor:g})", pow=str(factor)),
    )


@render_function(group="Transform")
def squareRoot(seriesList: SeriesBlock) -> SeriesBlock:
    """The square root of each value; unknown for negative ones.

    load 10s  a 4 _ -3
    eval squareRoot(a)  => squareRoot(a): 2 _ _
    """
    return each_value(
        seriesList,
        lambda values: power(values, 0.5),
        lambda label: label.derived(f"squareRoot({label.name})", squareRoot="1"),
    )


@render_function(group="Transform")
def invert(seriesList: SeriesBlock) -> SeriesBlock:
    """One divided by each value; unknown for zero.

    load 10s  a 4 _ 0
    eval invert(a)  => invert(a): 0.25 _ _
    """
    return each_value(
        seriesList,
        lambda values: power(values, -1.0),
        lambda label: label.derived(f"invert({label.name})", invert="1"),
    )


def power(values: Matrix, factor: float) -> Matrix:
    """NaN where C's pow() reports an error: a negative base with a broken exponent, zero to a
    negative power, overflow.
    """
    out = np.power(values, factor)
    wrong = np.isinf(out) & np.isfinite(values) & np.isfinite(factor)
    return np.where(np.isnan(values) | wrong, np.nan, out)


@render_function(group="Transform", aliases=("logarithm",))
def log(seriesList: SeriesBlock, base: LooseInteger = 10) -> SeriesBlock:
    """The logarithm of each value to ``base``; unknown for zero and below.

    load 10s  a 100 _ 0 1
    eval log(a)     => log(a, 10): 2 _ _ 0
    eval log(a, 2)  => log(a, 2): 6.643856189774724 _ _ 0
    """
    if base <= 0 or base == 1:
        raise BadRequest(f"target: log(): base is {base}; it must be positive and not 1")

    def compute(values: Matrix) -> Matrix:
        out: Matrix = np.log(np.where(values > 0, values, np.nan)) / np.log(base)
        return out

    return each_value(
        seriesList,
        compute,
        lambda label: label.derived(f"log({label.name}, {base})", log=str(base)),
    )


@render_function(group="Transform")
def exp(seriesList: SeriesBlock) -> SeriesBlock:
    """e to the power of each value; infinite beyond about 709.

    load 10s  a 0 _ 1
    eval exp(a)  => exp(a): 1 _ 2.718281828459045
    """
    return each_value(
        seriesList, np.exp, lambda label: label.derived(f"exp({label.name})", exp="e")
    )


@render_function(group="Transform")
def sigmoid(seriesList: SeriesBlock) -> SeriesBlock:
    """1 / (1 + e**-value): all numbers brought between 0 and 1.

    load 10s  a 0 _ 1 -1000
    eval sigmoid(a)  => sigmoid(a): 0.5 _ 0.7310585786300049 0
    """
    return each_value(
        seriesList,
        lambda values: 1 / (1 + np.exp(-values)),
        lambda label: label.derived(f"sigmoid({label.name})", sigmoid="sigmoid"),
    )


@render_function(group="Transform")
def logit(seriesList: SeriesBlock) -> SeriesBlock:
    """The logarithm of value / (1 - value): the opposite of sigmoid; unknown outside of 0 … 1.

    load 10s  a 0.5 _ 0.9 1 0
    eval logit(a)  => logit(a): 0 _ 2.1972245773362196 _ _
    """

    def compute(values: Matrix) -> Matrix:
        odds = values / (1 - values)
        out: Matrix = np.log(np.where((odds > 0) & np.isfinite(odds), odds, np.nan))
        return out

    return each_value(
        seriesList, compute, lambda label: label.derived(f"logit({label.name})", logit="logit")
    )


@render_function(group="Transform", aliases=("isNotNull",))
def isNonNull(seriesList: SeriesBlock) -> SeriesBlock:
    """1 where a value is known, else 0.

    load 10s  a 5 _ 0
    eval isNonNull(a)  => isNonNull(a): 1 0 1
    """
    return each_value(
        seriesList,
        lambda values: (~np.isnan(values)).astype(np.float64),
        lambda label: label.derived(f"isNonNull({label.name})", isNonNull="1"),
    )
