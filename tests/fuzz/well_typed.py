"""Targets that mostly render: a call is made of what its function declares of its parameters.

A parameter gets a value of its type, or of its options; texts, whose type says nothing of what a function
wants of them, are named in ``TEXTS``. So a new function is covered by being declared.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tgres_py.functions.registry import Param, RenderFunction, functions

DEPTH = 3
# what isn't the same twice
CHANGING = frozenset(("randomWalk", "randomWalkFunction"))

_intervals = st.sampled_from(["10s", "20s", "1min", "90s", "5min", "1h", "7s", "-30s", "2min"])
_windows = st.one_of(st.integers(1, 7).map(str), _intervals.map(repr))
_floats = st.sampled_from(["0", "1", "-1", "0.5", "2.5", "50", "99.9", "1e3", "-1e-3", "1e300"])
_aggregates = st.sampled_from(
    [
        "sum",
        "average",
        "avg_zero",
        "max",
        "min",
        "median",
        "last",
        "count",
        "stddev",
        "range",
        "diff",
        "multiply",
    ]
)
_texts = st.sampled_from(["a", "one", "b.c", "", "é", "x y", "%d", "'", "a,b", "50%", "1"])
VALUES: dict[str, st.SearchStrategy[str]] = {
    "boolean": st.sampled_from(["True", "False", "true", "false"]),
    "float": _floats,
    "integer": st.integers(1, 12).map(str),
    "intOrInf": st.one_of(st.integers(0, 5).map(str), st.just("inf")),
    "interval": _intervals.map(repr),
    "intOrInterval": _windows,
    "node": st.integers(0, 2).map(str),
    "nodeOrTag": st.one_of(st.integers(0, 2).map(str), st.sampled_from(["'name'", "'host'"])),
    "string": _texts.map(lambda text: f'"{text}"'),
    "tag": st.sampled_from(["'name'", "'host'", "'nosuch'"]),
    "date": st.sampled_from(["'-5min'", "'now'", "'-1min'", "1700000100"]),
    "aggFunc": _aggregates.map(repr),
    "aggOrSeriesFunc": st.one_of(_aggregates, st.sampled_from(["sumSeries", "asPercent"])).map(repr),
}  # fmt: skip
# by function and parameter, or by parameter alone
TEXTS: dict[str, st.SearchStrategy[str]] = {
    name: st.sampled_from(values)
    for name, values in {
        "pattern": ["'b'", "'^a.*'", "'[bc]$'", "'(?i)A'", "''"],
        "search": ["'a'", "'(b)'", "'^'", "'(.*)\\\\.(.*)'"],
        "replace": ["'x'", "''", "'a.b'", "'\\\\1'"],
        "aliasSub.replace": ["'x'", "'\\\\0'", "''"],
        "templateFunction": ["'%.b'", "'sumSeries(%.*)'", "'scale(%.c,2)'"],
        "reduceFunction": ["'sumSeries'", "'asPercent'", "'diffSeries'"],
        "reduceMatchers": ["'b'", "'c'"],
        "intervalUnit": ["'1min'", "'20s'", "'1h'"],
        "mode": ["''", "'abs'", "'phase'", "'both'"],
        "alignTo": ["'1min'", "'1h'", "'10s'", "'1d'"],
        "valuesTypes": ["'avg'", "'last'", "'max'", "'si'", "'binary'"],
        "theColor": ["'red'", "'ff0000'", "'#00ff00'"],
        "color": ["'red'", "'blue'"],
        "units": ["'B'", "'b/s'"],
        "tagExpressions": ["'name=a'", "'host=~.*'", "'name!=x', 'host=h1'"],
        "total": ["100", "None", "a.b", "a.*", "0"],
        "alpha": ["0.1", "0.5", "1"],
        "maxAbsentPercent": ["50", "0", "100"],
        "xFilesFactor": ["0", "0.5", "1"],
        "objective": ["99.9", "50"],
        "n": ["1", "3", "50", "95"],
        "timeShiftStart": ["0", "1"],
        "timeShiftEnd": ["2", "4"],
        "base": ["2", "10"],
        "degree": ["1", "2", "5"],
        "events.tags": ["'deploy'", "'*'"],
        "ts": ["'-1min'", "1700000100"],
        "aliasByBase64.nodeNum": ["None", "0", "1"],
    }.items()
}
paths = st.sampled_from(
    [
        "a.b",
        "a.*",
        "a.{b,c}",
        "*.*",
        "m.*",
        "m.slow",
        "odd.*",
        "t;host=h1",
        "seriesByTag('name=t')",
        "none.*",
        "empty.x",
    ]
)


def targets(depth: int = DEPTH) -> st.SearchStrategy[str]:
    """Calls nested up to ``depth``."""
    known = list(functions().values())
    return st.sampled_from(known).flatmap(lambda function: calls(function, depth))


def calls(function: RenderFunction, depth: int) -> st.SearchStrategy[str]:
    """Calls of one function: all required arguments and, from the left, some of the others."""
    required = sum(param.required and not param.multiple for param in function.params)
    counts = st.integers(required, len(function.params))
    return counts.flatmap(
        lambda count: st.tuples(
            *(_arguments(function, param, depth - 1) for param in function.params[:count])
        )
    ).map(lambda arguments: f"{function.name}({','.join(filter(None, arguments))})")


def _arguments(function: RenderFunction, param: Param, depth: int) -> st.SearchStrategy[str]:
    """One argument, or one to three with commas where a parameter may be repeated."""
    one = _argument(function, param, depth)
    return st.lists(one, min_size=1, max_size=3).map(",".join) if param.multiple else one


def _argument(function: RenderFunction, param: Param, depth: int) -> st.SearchStrategy[str]:
    if param.type.name in ("seriesList", "seriesLists"):
        return st.one_of(paths, targets(depth)) if depth > 0 else paths
    if param.options:
        return st.sampled_from([f"'{option}'" for option in param.options])
    for key in (f"{function.name}.{param.name}", param.name):
        if key in TEXTS:
            return TEXTS[key]
    return VALUES[param.type.name]
