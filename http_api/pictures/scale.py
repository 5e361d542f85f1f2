"""The y axis: its range, its marks and their labels.

    Scale(low=0, high=60, marks=[0, 20, 40, 60], labels=["0", "20", "40", "60"])

The step between marks is 1, 2, 2.5 or 5 times a power of ten (a power of two in units of 1,024),
such that the axis has about as many parts as yDivisors says and least room above and below the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from http_api.pictures.options import Side
from tgres_py.errors import BadRequest

MARKS_MAX = 100
_SI = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY = tuple((1024.0**power, f"{'KMGTP'[power - 1]}i") for power in (5, 4, 3, 2, 1))
_SEC = ((31_536_000.0, "Y"), (2_592_000.0, "M"), (86_400.0, "D"), (3600.0, "H"), (60.0, "m"))
_UNITS: dict[str, tuple[tuple[float, str], ...]] = {
    "si": _SI,
    "binary": _BINARY,
    "sec": _SEC,
    "msec": (*((size * 1000, unit) for size, unit in _SEC), (1000.0, "s")),
    "none": (),
}


@dataclass(frozen=True, slots=True)
class Scale:
    """``log_base``: None = linear. ``low`` < ``high``; a logarithmic one is above 0."""

    low: float
    high: float
    step: float
    marks: tuple[float, ...]
    labels: tuple[str, ...]
    log_base: float | None


def make_scale(
    low: float, high: float, side: Side, divisors: tuple[int, ...], units: str, base: float | None
) -> Scale:
    """``low``, ``high``: of the data, finite. BadRequest: the side's limits leave no room."""
    if side.limit is not None and side.limit < high and side.high is None:
        high = side.limit
    fixed_low, fixed_high = side.low, side.high
    if fixed_high is not None and side.limit is not None:
        fixed_high = min(fixed_high, side.limit)
    low = low if fixed_low is None else fixed_low
    high = high if fixed_high is None else fixed_high
    if low >= high:
        low, high = _apart(low, high, fixed_low is not None, fixed_high is not None)
    if base is not None:
        return _log_scale(low, high, units, base)
    step = side.step or _choose_step(low, high, divisors, units == "binary")
    if (high - low) / step > MARKS_MAX:
        raise BadRequest(f"yStep: {step:g} gives more than {MARKS_MAX} marks")
    bottom = low if fixed_low is not None else math.floor(low / step + 1e-9) * step
    top = high if fixed_high is not None or side.at_data else math.ceil(high / step - 1e-9) * step
    if top <= bottom:
        top = bottom + step
    first, last = math.ceil(bottom / step - 1e-6), math.floor(top / step + 1e-6)
    marks = tuple(number * step for number in range(first, last + 1))
    return Scale(bottom, top, step, marks, tuple(label(mark, step, units) for mark in marks), None)


def _apart(low: float, high: float, low_fixed: bool, high_fixed: bool) -> tuple[float, float]:
    """A range with some room when there is none."""
    if low_fixed and high_fixed:
        raise BadRequest("yMin: must be below yMax")
    room = 0.1 * max(abs(low), abs(high)) or 1.0
    if low_fixed:
        return low, low + room
    if high_fixed:
        return high - room, high
    middle = (low + high) / 2
    return middle - room, middle + room


def _choose_step(low: float, high: float, divisors: tuple[int, ...], binary: bool) -> float:
    best = (math.inf, 1.0)
    for divisor in divisors:
        least = (high - low) / divisor
        power = math.floor(math.log(least, 2 if binary and least > 1 else 10))
        steps = (
            [2.0**power, 2.0 ** (power + 1)]
            if binary and least > 1
            else [mantissa * 10.0**power for mantissa in (1, 2, 2.5, 5, 10)]
        )
        step = next((step for step in steps if step >= least * (1 - 1e-9)), steps[-1])
        room = math.ceil(high / step - 1e-9) * step - math.floor(low / step + 1e-9) * step
        best = min(best, (room, step))
    return best[1]


def _log_scale(low: float, high: float, units: str, base: float) -> Scale:
    if high <= 0:
        raise BadRequest("logBase: needs values above 0")
    low = low if low > 0 else high / base
    first = math.floor(math.log(low, base) + 1e-9)
    last = max(first + 1, math.ceil(math.log(high, base) - 1e-9))
    every = max(1, math.ceil((last - first) / 10))
    marks = tuple(base**power for power in range(first, last + 1, every))
    labels = tuple(label(mark, mark, units) for mark in marks)
    return Scale(base**first, base**last, base, marks, labels, base)


def label(value: float, step: float, units: str) -> str:
    """``2.5 k``: as many decimals as the step needs."""
    if abs(value) < abs(step) * 1e-9:
        return "0"
    size, prefix = next(
        ((s, p) for s, p in _UNITS[units] if abs(value) >= s * (1 - 1e-9) and step >= s / 1000),
        (1.0, ""),
    )
    value, step = value / size, step / size
    if not 1e-6 <= abs(value) < 1e15:
        return f"{value:.3g} {prefix}".strip()
    decimals = next((d for d in range(9) if abs(round(step, d) - step) <= 1e-6 * abs(step)), 9)
    return f"{value:.{decimals}f} {prefix}".strip()


def position(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Values as the axis has them: their logarithm on a logarithmic one, NaN where there is none."""
    if scale.log_base is None:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, np.log(values) / math.log(scale.log_base), np.nan)
