"""One declaration per render function: code, signature, help, examples, and what it reads.

    @render_function(group="Transform")
    def scale(seriesList: SeriesBlock, factor: Float) -> SeriesBlock:
        \"\"\"Multiplies all values by ``factor``.

        load 10s  a 1 2 _
        eval scale(a, 2)  => 2 4 _
        \"\"\"

From the type hints come argument checks, keyword names and the /functions description; from the
docstring the help and the examples, which are tests. Parameters keep Graphite's names. A parameter
of type SeriesBlock (``*seriesLists: SeriesBlock``) takes series, ``list[SeriesBlock]`` one block
for each window of ``reads``; the keyword-only parameter ``context`` gets the call's Context.
``optional_list``: the starred parameter may be left empty.

A module of functions is found by being in this package and listed in ``FAMILIES``.
"""

from __future__ import annotations

import importlib
import inspect
import math
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from tgres_py.errors import BadRequest
from tgres_py.functions import params
from tgres_py.functions.params import HiddenDefault, Options, ParamType, Suggest
from tgres_py.functions.reads import Context, Further, Reads, Steps, same_steps
from tgres_py.functions.series import BlockLists, SeriesBlock
from tgres_py.target.parser import Scalar

FAMILIES = (
    "alias",
    "anomaly",
    "arithmetic",
    "buckets",
    "calculate",
    "captions",
    "carbonapi",
    "combine",
    "combine_groups",
    "combine_ratio",
    "correlation",
    "counters",
    "filter_data",
    "filter_series",
    "forecast",
    "gaps",
    "generate",
    "graph",
    "holtwinters",
    "lookup",
    "moving",
    "slo",
    "sorting",
    "special",
    "spectral",
    "timeshift",
    "transform",
)

Function = Callable[..., SeriesBlock | Further]
F = TypeVar("F", bound=Function)


@dataclass(frozen=True, slots=True)
class Param:
    name: str
    type: ParamType
    required: bool
    default: Scalar = None
    multiple: bool = False
    options: tuple[str, ...] = ()
    suggestions: tuple[str | int, ...] = ()
    hides_default: bool = False

    @property
    def takes_series(self) -> bool:
        return self.type.name in ("seriesList", "seriesLists", "any")

    def convert(self, value: Scalar, function: str) -> Scalar:
        """A literal as the function wants it; BadRequest when it doesn't fit. None stands for "not
        given".
        """
        if value is None and not self.required:
            return self.default
        return params.convert_argument(self.type, self.options, value, function, self.name)

    def describe(self) -> dict[str, Any]:
        """As in graphite-web's /functions: keys that say nothing are left out."""
        out: dict[str, Any] = {"name": self.name, "type": self.type.name}
        if self.required or self.hides_default:
            out["required"] = True
        default = self.type.default if self.default is None else self.default
        if default is not None and not self.hides_default:
            out["default"] = default
        if self.multiple:
            out["multiple"] = True
        if self.options or self.type.options:
            out["options"] = sorted(self.options or self.type.options)
        if self.suggestions:
            out["suggestions"] = list(self.suggestions)
        return out


@dataclass(frozen=True, slots=True)
class RenderFunction:
    """``call``: the decorated function; ``steps``: which steps its result has (``first_steps``: of
    the steps of the first argument that has series, else of all arguments'); ``reads``: None = the
    call's own range; ``gives``: so many series come out at most, or the parameter that says how many, None = as many
    as go in; ``point_ns``, ``slot_ns``: about how long each point of its arguments takes, each slot of all series together,
    and (``window_ns``) each point of the window that each point has.
    """

    name: str
    group: str
    call: Function
    params: tuple[Param, ...]
    help: str
    examples: str
    reads: Reads | None
    steps: Steps
    first_steps: bool
    wants_context: bool
    module: str
    gives: int | str | None
    point_ns: int
    slot_ns: int
    window_ns: int

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "function": self.signature,
            "description": self.help,
            "module": self.module,
            "group": self.group,
            "params": [param.describe() for param in self.params],
        }

    @property
    def signature(self) -> str:
        return f"{self.name}({', '.join(_shown(param) for param in self.params)})"


def _shown(param: Param) -> str:
    if param.multiple:
        return f"*{param.name}"
    if param.required:
        return param.name
    return f"{param.name}={'inf' if param.default == math.inf else repr(param.default)}"


_functions: dict[str, RenderFunction] = {}


def render_function(
    *,
    group: str,
    aliases: Sequence[str] = (),
    reads: Reads | None = None,
    steps: Steps = same_steps,
    first_steps: bool = False,
    optional_list: bool = False,
    gives: int | str | None = None,
    point_ns: int = 40,
    slot_ns: int = 0,
    window_ns: int = 0,
) -> Callable[[F], F]:
    """Registers a function under its own name and ``aliases``."""

    def register(call: F) -> F:
        declared, wants_context = _params_of(call, optional_list)
        text, examples = _split_doc(inspect.getdoc(call) or "")
        for name in (call.__name__, *aliases):
            if name in _functions:
                raise ValueError(f"render function {name} is declared twice")
            _functions[name] = RenderFunction(
                name,
                group,
                call,
                declared,
                text,
                examples,
                reads,
                steps,
                first_steps,
                wants_context,
                call.__module__,
                gives,
                point_ns,
                slot_ns,
                window_ns,
            )
        return call

    return register


def _params_of(call: Function, optional_list: bool) -> tuple[tuple[Param, ...], bool]:
    hints = get_type_hints(call, include_extras=True)
    out = []
    wants_context = False
    for name, parameter in inspect.signature(call).parameters.items():
        if hints[name] is Context:
            wants_context = True
            continue
        kind, options, suggestions = _read_hint(hints[name], name)
        multiple = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        has_default = parameter.default is not inspect.Parameter.empty
        required = not optional_list if multiple else not has_default
        default = parameter.default if has_default else None
        hides_default = HiddenDefault() in get_args(hints[name])
        out.append(
            Param(name, kind, required, default, multiple, options, suggestions, hides_default)
        )
    return tuple(out), wants_context


def _read_hint(hint: Any, name: str) -> tuple[ParamType, tuple[str, ...], tuple[str | int, ...]]:
    """(type, options, suggestions) of a type hint; ``X | None`` is X."""
    if hint is SeriesBlock or hint == list[SeriesBlock]:
        return params.SERIES_LIST, (), ()
    if hint is BlockLists:
        return params.SERIES_LISTS, (), ()
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        if SeriesBlock in members:
            return (params.SERIES_LIST if len(members) == 1 else params.ANY), (), ()
        if len(members) == 1:
            return _read_hint(members[0], name)
    if get_origin(hint) is Annotated:
        extras = get_args(hint)[1:]
        kinds = [extra for extra in extras if isinstance(extra, ParamType)]
        options = [
            value for extra in extras if isinstance(extra, Options) for value in extra.values
        ]
        suggested = [
            value for extra in extras if isinstance(extra, Suggest) for value in extra.values
        ]
        if kinds:
            return kinds[0], tuple(options), tuple(suggested)
    raise TypeError(f"parameter {name}: {hint} is none of the types of params.py")


def _split_doc(doc: str) -> tuple[str, str]:
    """(help, examples): example lines start with ``load`` or ``eval``."""
    lines = doc.splitlines()
    is_example = [line.startswith(("load ", "eval ", "       ")) for line in lines]
    text = [line for line, example in zip(lines, is_example, strict=True) if not example]
    examples = [line for line, example in zip(lines, is_example, strict=True) if example]
    return "\n".join(text).strip(), "\n".join(examples)


@cache
def functions() -> dict[str, RenderFunction]:
    """All render functions by name."""
    for family in FAMILIES:
        importlib.import_module(f"tgres_py.functions.{family}")
    return dict(sorted(_functions.items()))


def find_function(name: str) -> RenderFunction:
    found = functions().get(name)
    if found is None:
        raise BadRequest(f"target: Received request for unknown function: {name}")
    return found
