"""The few rules of JavaScript that show in statsd's names and answers."""

from __future__ import annotations

import math


def number_text(value: float) -> str:
    """A number as JavaScript's String() writes it: ``10``, ``99.9``, ``1e+21``, ``Infinity``, ``NaN``.

    ECMA-262, Number::toString: the shortest digits that read back; positional from 1e-7 up to below 1e21.
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    mantissa, _, exponent_text = f"{float(value)!r}e".partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    # The point stands behind this many of the digits (negative: that many zeros come first).
    point = len(whole) + int(exponent_text.rstrip("e") or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    return sign + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    """``digits`` × 10^(point - len) as text."""
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    power = f"e{point - 1:+d}"
    return digits + power if count == 1 else f"{digits[0]}.{digits[1:]}{power}"
