"""Types of the render functions' parameters: how an argument is checked, converted and described.

A function's type hints use the aliases below; ``registry.py`` reads them. Names, options and
suggestions are those of graphite-web's /functions. graphite-web converts what it can and calls the
function with the rest as it is; here the rest is refused: a wrong argument is a 400 that names
function, parameter and value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from tgres_py.errors import BadRequest
from tgres_py.functions.aggregation import AGGREGATE_NAMES
from tgres_py.target.attime import parse_interval
from tgres_py.target.parser import Scalar

Convert = Callable[[Scalar], Scalar]


@dataclass(frozen=True, slots=True)
class ParamType:
    """``convert`` raises ValueError, TypeError or BadRequest for what doesn't fit.

    ``options``: what an editor offers; with ``is_open`` the function itself judges other values.
    ``default``: the one to describe when the function tells "not given" from it.
    """

    name: str
    convert: Convert
    options: tuple[str, ...] = ()
    is_open: bool = False
    default: Scalar = None


@dataclass(frozen=True, slots=True)
class Options:
    """Put into Annotated: the only values allowed."""

    values: tuple[str, ...]

    def __init__(self, *values: str) -> None:
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, slots=True)
class Suggest:
    """Put into Annotated: values that an editor may offer."""

    values: tuple[str | int, ...]

    def __init__(self, *values: str | int) -> None:
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, slots=True)
class HiddenDefault:
    """Put into Annotated: may be left out, but is described as required (as in graphite-web)."""


def _boolean(value: Scalar) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise ValueError


def _float(value: Scalar) -> float:
    if value is None:
        raise ValueError
    number = float(value)
    if math.isnan(number):
        raise ValueError
    return number


def _integer(value: Scalar) -> int:
    # a float is refused rather than cut
    if value is None or isinstance(value, float):
        raise ValueError
    return int(value)


def _int_or_inf(value: Scalar) -> int | float:
    if _is_infinite(value):
        return math.inf
    return _integer(value)


def _is_infinite(value: Scalar) -> bool:
    return isinstance(value, str | float) and float(value) == math.inf


def _interval(value: Scalar) -> str:
    if not isinstance(value, str):
        raise ValueError
    parse_interval(value)
    return value


def _int_or_interval(value: Scalar) -> int | float | str:
    """Floats are allowed, and cut where they are used: dashboards hold ``movingAverage(x,5.0)``, and
    the name keeps the 5.0 (as graphite-web).
    """
    if isinstance(value, str):
        return _interval(value)
    if isinstance(value, bool) or value is None or not math.isfinite(value):
        raise ValueError
    return value


def _node_or_tag(value: Scalar) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    return value


def _string(value: Scalar) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _any(value: Scalar) -> Scalar:
    return value


def _number(value: Scalar) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return _integer(value)


# render functions that an aggOrSeriesFunc offers (as graphite-web's /functions)
AGGREGATING_FUNCTIONS = (
    "asPercent",
    "averageSeries",
    "averageSeriesWithWildcards",
    "countSeries",
    "diffSeries",
    "diffSeriesLists",
    "maxSeries",
    "minSeries",
    "multiplySeries",
    "multiplySeriesLists",
    "multiplySeriesWithWildcards",
    "pct",
    "powSeries",
    "rangeOfSeries",
    "stddevSeries",
    "sumSeries",
    "sumSeriesLists",
    "sumSeriesWithWildcards",
)

SERIES_LIST = ParamType("seriesList", _any)
SERIES_LISTS = ParamType("seriesLists", _any)
ANY = ParamType("any", _any)

Boolean = Annotated[bool, ParamType("boolean", _boolean)]
Float = Annotated[float, ParamType("float", _float)]
Integer = Annotated[int, ParamType("integer", _integer)]
IntOrInf = Annotated[int | float, ParamType("intOrInf", _int_or_inf)]
Interval = Annotated[str, ParamType("interval", _interval)]
IntOrInterval = Annotated[int | float | str, ParamType("intOrInterval", _int_or_interval)]
Precision = Annotated[int, ParamType("integer", _integer, default=0)]
Node = Annotated[int, ParamType("node", _integer)]
NodeOrTag = Annotated[int | str, ParamType("nodeOrTag", _node_or_tag)]
String = Annotated[str, ParamType("string", _string)]
Tag = Annotated[str, ParamType("tag", _string)]
Date = Annotated[int | str, ParamType("date", _node_or_tag)]
AggFunc = Annotated[str, ParamType("aggFunc", _string, AGGREGATE_NAMES)]
# of functions that take ``sumSeries`` for ``sum`` too
OldAggFunc = Annotated[str, ParamType("aggFunc", _string, AGGREGATE_NAMES, is_open=True)]
AggOrSeriesFunc = Annotated[
    str,
    ParamType("aggOrSeriesFunc", _string, (*AGGREGATE_NAMES, *AGGREGATING_FUNCTIONS), is_open=True),
]
# whole numbers by their description; graphite-web takes others too
LooseInteger = Annotated[int | float, ParamType("integer", _number)]
LooseNode = Annotated[int | float, ParamType("node", _number)]


def convert_argument(
    kind: ParamType, options: tuple[str, ...], value: Scalar, function: str, parameter: str
) -> Scalar:
    """The value as the function wants it. BadRequest names function, parameter and value."""
    allowed = options or (() if kind.is_open else kind.options)
    if allowed and value not in allowed:
        raise BadRequest(
            f"target: {function}(): {parameter} is {value!r}; it must be one of {', '.join(allowed)}"
        )
    try:
        return kind.convert(value)
    except (ValueError, TypeError, OverflowError):
        raise BadRequest(
            f"target: {function}(): {parameter} must be of type {kind.name}, not {value!r}"
        ) from None
    except BadRequest as error:
        _, _, reason = str(error).partition(": ")
        raise BadRequest(f"target: {function}(): {parameter}: {reason}") from None
