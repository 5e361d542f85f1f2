"""Rounding to decimals as Python's ``round`` does it: by the exact binary value, ties to even.

``numpy.round`` scales, rounds and scales back, so it takes 2.675 (a little less than that) for a
tie. Here the error of the scaled value is known exactly (Dekker's product), and decides.
"""

from __future__ import annotations

import numpy as np

from tgres_py.functions.aggregation import Array

# 10**22 is the largest power of ten that is a float64; doubles below 2**53 have digits behind it
# only where they are smaller than anything measured
DIGITS_MAX = 22
_EXACT_MAX = 2.0**52


def round_half_even(values: Array, digits: int) -> Array:
    """``round(value, digits)`` of each value; NaN and infinities stay. More than 22 digits change
    nothing.
    """
    if digits > DIGITS_MAX:
        return values
    if digits < -DIGITS_MAX:
        return np.where(np.isfinite(values) & (np.abs(values) < 0.5 * 10.0**-digits), 0.0, values)
    if digits == 0:
        out: Array = np.rint(values)
        return out
    scale = 10.0 ** abs(digits)
    with np.errstate(all="ignore"):
        scaled = values * scale if digits > 0 else values / scale
        rounded = np.rint(scaled)
        beside = np.abs(scaled - rounded) == 0.5
        if beside.any():
            error = _error(values, scaled, scale, digits > 0)
            rounded = np.where(beside & (error > 0), np.ceil(scaled), rounded)
            rounded = np.where(beside & (error < 0), np.floor(scaled), rounded)
        back = rounded / scale if digits > 0 else rounded * scale
    # beyond it there is nothing to round
    usable = np.isfinite(values) & (np.abs(scaled) < _EXACT_MAX)
    return np.where(usable, back, values)


def _error(values: Array, scaled: Array, scale: float, multiplied: bool) -> Array:
    """The sign of (exact scaled value) - ``scaled``."""
    if multiplied:
        high, low = _product(values, scale)
        return (high - scaled) + low
    high, low = _product(scaled, scale)
    return (values - high) - low


def _product(a: Array, b: float) -> tuple[Array, Array]:
    """a * b as an unevaluated sum of the nearest double and the rest, exactly (Dekker, Veltkamp)."""
    high = a * b
    splitter = 134_217_729.0  # 2**27 + 1
    a_scaled = splitter * a
    a_high = a_scaled - (a_scaled - a)
    a_low = a - a_high
    b_scaled = splitter * b
    b_high = b_scaled - (b_scaled - b)
    b_low = b - b_high
    low = ((a_high * b_high - high) + a_high * b_low + a_low * b_high) + a_low * b_low
    return high, low
