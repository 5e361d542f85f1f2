"""Functions that write values into the names of series."""

from __future__ import annotations

import math
import re
from typing import Annotated

from tgres_py.errors import BadRequest
from tgres_py.functions.aggregation import AGGREGATE_ALIASES, AGGREGATE_NAMES
from tgres_py.functions.params import Options, ParamType, String
from tgres_py.functions.patterns import Substitution
from tgres_py.functions.reads import Context, Further
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import SeriesBlock
from tgres_py.functions.summary import each_series

# largest first; what doesn't reach the smallest has no prefix
UNITS: dict[str, tuple[tuple[str, float], ...]] = {
    "binary": (
        ("Pi", 1024.0**5),
        ("Ti", 1024.0**4),
        ("Gi", 1024.0**3),
        ("Mi", 1024.0**2),
        ("Ki", 1024.0),
    ),
    "si": (("P", 1000.0**5), ("T", 1000.0**4), ("G", 1000.0**3), ("M", 1000.0**2), ("k", 1000.0)),
}
_VALUE_TYPES = (
    *AGGREGATE_NAMES,
    *(f"{name}Series" for name in AGGREGATE_NAMES),
    *UNITS,
)
ValueType = Annotated[
    str, ParamType("string", lambda value: str(value), _VALUE_TYPES, is_open=True)
]
# one conversion of Python's % for one number; widths are bounded
_FORMAT = re.compile(r"(?:[^%]|%%)*%[-+ #0]{0,5}\d{0,3}(?:\.\d{0,3})?[diouxXeEfFgGrsc](?:[^%]|%%)*")


@render_function(group="Alias", optional_list=True)
def legendValue(seriesList: SeriesBlock, *valuesTypes: ValueType) -> SeriesBlock:
    """Adds values to each name: an aggregation function's, or several; a last "si" or "binary"
    writes them with prefixes.

    load 10s  a 1000 3000
    eval legendValue(a, "avg", "max")  => a (avg: 2000.0) (max: 3000.0): 1000 3000
    """
    if not valuesTypes:
        raise BadRequest("target: legendValue() needs at least one value type")
    system = valuesTypes[-1] if valuesTypes[-1] in UNITS else None
    names = [label.name for label in seriesList.labels]
    for kind in valuesTypes[:-1] if system else valuesTypes:
        shown = _shown_values(seriesList, kind)
        if system is None:
            names = [f"{name} ({kind}: {value})" for name, value in zip(names, shown, strict=True)]
        else:
            names = [
                f"{name:<20}{kind:<5}{_with_prefix(value, system)!s:<10}"
                for name, value in zip(names, shown, strict=True)
            ]
    return _named(seriesList, names)


@render_function(group="Special")
def cactiStyle(
    seriesList: SeriesBlock,
    system: Annotated[String, Options("binary", "si")] | None = None,
    units: String | None = None,
    *,
    context: Context,
) -> SeriesBlock:
    """Adds the last, the largest and the smallest value to each name, in columns.

    load 10s  a 1 2 _
    eval cactiStyle(a)  => a Current:2.00    Max:2.00    Min:1.00    : 1 2 _
    """

    def text(value: float) -> str:
        number, prefix = format_units(value, system, units) if system else (value, units or "")
        return f"{number:.2f}{' ' if units else ''}{prefix}"

    columns = [each_series(seriesList, func).tolist() for func in ("last", "max", "min")]
    if not all(math.isfinite(value) or math.isnan(value) for column in columns for value in column):
        raise BadRequest("target: cactiStyle() can't show infinite values")
    widths = [
        max((len(text(_whole(value))) for value in column), default=0) + 3 for column in columns
    ]
    longest = max((len(label.name) for label in seriesList.labels), default=0)
    names = []
    for place, label in enumerate(seriesList.labels):
        shown = ("nan" if math.isnan(column[place]) else text(column[place]) for column in columns)
        last, largest, smallest = (
            f"{value:<{width}}" for value, width in zip(shown, widths, strict=True)
        )
        names.append(f"{label.name:<{longest}} Current:{last} Max:{largest} Min:{smallest} ")
        context.count_name(names[-1])
    return _named(seriesList, names)


@render_function(group="Alias")
def aliasQuery(
    seriesList: SeriesBlock, search: String, replace: String, newName: String
) -> SeriesBlock | Further:
    r"""Names each series by the last value of another: the one that its name becomes when what a
    regular expression (RE2's) finds in it is replaced. ``%d``, ``%g`` or the like in ``newName``
    stands for the value.

    load 10s  web1.cpu 1 2
    load 10s  web1.cores 8 8
    eval aliasQuery(web1.cpu, "cpu$", "cores", "%d cores")  => 8 cores: 1 2
    """
    if not _FORMAT.fullmatch(newName):
        raise BadRequest(
            f"target: aliasQuery(): newName {newName!r} must hold one format such as %d or %g"
        )
    substitute = Substitution(search, replace)
    queries = tuple(substitute(label.name) for label in seriesList.labels)

    def finish(blocks: list[SeriesBlock]) -> SeriesBlock:
        return _named(
            seriesList,
            [_answer(query, block, newName) for query, block in zip(queries, blocks, strict=True)],
        )

    return Further(queries, finish)


def _answer(query: str, block: SeriesBlock, new_name: str) -> str:
    if not len(block):
        raise BadRequest(f"target: aliasQuery(): No series found with query: {query}")
    value = float(each_series(block, "last")[0])
    if math.isnan(value):
        raise BadRequest(f"target: aliasQuery(): Cannot get last value of series: {query}")
    try:
        return new_name % value
    except (TypeError, ValueError, OverflowError):
        raise BadRequest(
            f"target: aliasQuery(): newName {new_name!r} can't show the value {value!r}"
        ) from None


def _named(block: SeriesBlock, names: list[str]) -> SeriesBlock:
    labels = [label.renamed(name) for label, name in zip(block.labels, names, strict=True)]
    return SeriesBlock(labels, block.parts)


def _whole(value: float) -> float:
    """What columns are measured by; nothing and 0 count as 3 (as in graphite-web)."""
    return 3.0 if math.isnan(value) or value == 0 else float(int(value))


def format_units(value: float, system: str, units: str | None = None) -> tuple[float, str]:
    """A value as a small number and the prefix (and unit) that make up for it."""
    for prefix, size in UNITS[system]:
        if abs(value) >= size:
            return _rounded(value / size, value), prefix + (units or "")
    return _rounded(value, value), units or ""


def _rounded(number: float, value: float) -> float:
    return (
        float(math.floor(number)) if value > 1 and number - math.floor(number) < 1e-11 else number
    )


def _with_prefix(value: float | int | str | None, system: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if not math.isfinite(value):
        raise BadRequest("target: legendValue() can't show infinite values with prefixes")
    number, prefix = format_units(value, system)
    return f"{number:.2f}{prefix}"


def _shown_values(block: SeriesBlock, kind: str) -> list[float | int | str | None]:
    func = AGGREGATE_ALIASES.get(kind, kind)
    if func not in AGGREGATE_NAMES:
        return ["(?)"] * len(block)
    numbers = each_series(block, func)
    values = [None if math.isnan(value) else value for value in numbers.tolist()]
    return [int(value or 0) for value in values] if func == "count" else list(values)
