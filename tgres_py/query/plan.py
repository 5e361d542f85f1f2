"""From targets to fetches: everything that a request will read is known before one value is read.

    targets ── parse, templates ──► trees ── plan over (tree, range) ──► Plan(targets, fetches)

A path becomes a ``Leaf`` over one range; a function that reads over another range (movingAverage:
an earlier one) plans its first argument there, nested ones add up. Each leaf's series choose their
archive as whisper does, from the range and ``now``; the series of all leaves that read the same
(bundle, archive, window) are one ``Fetch``. Arguments are checked and limits hold here, so a bad
request costs no read.

A few functions (applyByNode, useSeriesAbove, aliasQuery) make new targets from the series they are
given. They return ``Further``, and the plan is extended: another round, planned and limited in the
same way, its fetches again known before one is made.

With other nodes (``remote``) each leaf is also read from them, as a whole (see ``remote``).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.errors import BadRequest, LimitExceeded, TgresError
from tgres_py.functions.patterns import NAME_CHARS_MAX
from tgres_py.functions.reads import Context, EventReads, Further, StepSet
from tgres_py.functions.registry import Param, RenderFunction, find_function
from tgres_py.functions.series import Positions
from tgres_py.model.event import EventQuery
from tgres_py.model.points import Ids
from tgres_py.model.retention import BundleSpec
from tgres_py.model.slots import Window, choose_window
from tgres_py.query.limits import DefaultLimits, QueryLimits
from tgres_py.query.pace import TooLong
from tgres_py.query.remote import RemoteKey, RemoteNeeded, RemoteReads, steps_of
from tgres_py.query.source import SeriesSource
from tgres_py.target.parser import (
    TARGET_CHARS_MAX,
    ByTag,
    Call,
    Literal,
    Node,
    Path,
    Scalar,
    parse_target,
    resolve_templates,
)

Range = tuple[int, int]
FetchKey = tuple[BundleSpec, Window]
Lookup = tuple[Ids, list[str], list[BundleSpec]]
STEP_LOOKS_MAX = 20_000  # looks at (call, range) for its steps, of one request
# Calls of one request that stand below a function that reads several ranges, once for each range:
# forty nested timeShift would be 2**40.
COPIES_MAX = 10_000
REPEATS_MAX = 100  # nodes, tags, positions of one call: each costs something for each series


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """What /render is asked. ``from_s`` < ``until_s``; ``xff``: the request's xFilesFactor."""

    targets: tuple[str, ...]
    from_s: int
    until_s: int
    now_s: int
    tz: tzinfo = UTC
    xff: float = 0.0
    templates: dict[str, str] = field(default_factory=dict)
    local: bool = False  # no other node is to be asked


@dataclass(slots=True)
class Fetch:
    """One call of the source. ``ids``: int32 (n,), ascending, all of one bundle; the slots are
    ``window``'s.
    """

    ids: Ids
    bundle: BundleSpec
    window: Window

    @property
    def step_s(self) -> int:
        return self.bundle.archives[self.window.archive].step_s

    @property
    def points(self) -> int:
        return len(self.ids) * (self.window.until_slot - self.window.from_slot)


@dataclass(slots=True)
class LeafPart:
    """Where the series of one fetch go: rows ``rows`` of the fetch are the series ``index`` of the
    leaf.
    """

    key: FetchKey
    ids: Ids
    index: Positions
    fetch: int = -1
    rows: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))


@dataclass(slots=True)
class Leaf:
    """A path expression over a range: its series in the order of their names, those out of reach
    left out. ``remote``: what other nodes are asked for.
    """

    expression: str
    names: list[str]
    functions: list[str]
    parts: list[LeafPart]
    remote: RemoteKey


@dataclass(slots=True)
class PlannedCall:
    """A call with checked arguments: values, PlanNodes, or a list of PlanNodes (one for each
    window).

    ``events``: what it reads of events; the answer comes with the fetches (``event_times_s``).
    """

    function: RenderFunction
    args: list[Any]
    context: Context
    events: EventQuery | None = None
    event_times_s: tuple[float, ...] | None = None


PlanNode = Leaf | PlannedCall


@dataclass(slots=True)
class Plan:
    """``further``: by id() of the call what it asked for, and the plans of those targets."""

    request: RenderRequest
    targets: list[PlanNode]
    fetches: list[Fetch]
    planner: _Planner
    further: dict[int, tuple[Further, list[PlanNode]]] = field(default_factory=dict)

    @property
    def event_calls(self) -> list[PlannedCall]:
        """The calls whose events haven't been read yet."""
        calls = self.planner.event_calls
        return [call for call in calls if call.events and call.event_times_s is None]

    @property
    def calls(self) -> list[PlannedCall]:
        """All calls in the order in which they were planned, which the request alone decides."""
        return self.planner.calls

    @property
    def lookups(self) -> dict[str, Lookup]:
        """What was looked up, by expression: a plan can be made of it elsewhere (``known``)."""
        return self.planner.expanded

    @property
    def remote(self) -> RemoteReads | None:
        return self.planner.remote

    @property
    def limits(self) -> QueryLimits:
        return self.planner.limits

    @property
    def points(self) -> int:
        """All that is read, from other nodes too once that is done."""
        own = sum(fetch.points for fetch in self.fetches)
        return own + (self.remote.points if self.remote else 0)

    def remote_keys(self) -> list[RemoteKey]:
        """What the leaves read from other nodes."""
        return [leaf.remote for leaf in self.planner.leaves.values()]

    def extend(
        self, wanted: Iterable[tuple[PlannedCall, Further]], until_s: float | None = None
    ) -> None:
        """Plans the targets that calls ask for and adds their fetches. Errors as of make_plan; after
        one of them the plan is as before.
        """
        planner = self.planner.copy(until_s)
        further: dict[int, tuple[Further, list[PlanNode]]] = {}
        with planner.complete():
            for call, one in wanted:
                asked = (call.context.from_s, call.context.until_s)
                further[id(call)] = one, planner.further(one.targets, asked)
        self.fetches += planner.fetches()
        self.further.update(further)
        self.planner = planner


def make_plan(
    request: RenderRequest,
    source: SeriesSource,
    limits: QueryLimits | None = None,
    remote: RemoteReads | None = None,
    known: Mapping[str, Lookup] | None = None,
    until_s: float | None = None,
) -> Plan:
    """The plan of a request; pure but for look-ups of names in memory, except of those ``known``.

    TargetSyntaxError, BadRequest (unknown function, wrong argument), LimitExceeded; RemoteNeeded:
    ``remote`` is to load something, then the plan can be made. TooLong: ``until_s`` has passed.
    """
    planner = _Planner(request, source, limits or DefaultLimits(), remote, until_s)
    planner.expanded.update(known or {})
    texts = [text for text in request.targets if text.strip()]
    if len(texts) > planner.limits.query_targets_max:
        raise LimitExceeded(
            "targets", len(texts), planner.limits.query_targets_max, "query_targets_max"
        )
    nesting_max = planner.limits.query_nesting_max
    trees = [
        resolve_templates(parse_target(text, nesting_max), request.templates) for text in texts
    ]
    whole = (request.from_s, request.until_s)
    with planner.complete():
        targets = [planner.target(tree, whole) for tree in trees]
    return Plan(request, targets, planner.fetches(), planner)


class _Planner:
    def __init__(
        self,
        request: RenderRequest,
        source: SeriesSource,
        limits: QueryLimits,
        remote: RemoteReads | None,
        until_s: float | None,
    ) -> None:
        self.until_s = until_s
        self.request = request
        self.source = source
        self.limits = limits
        self.remote = remote
        self.needed: set[RemoteKey] = set()
        self.leaves: dict[tuple[str, Range], Leaf] = {}
        self.expanded: dict[str, Lookup] = {}
        self.calls: list[PlannedCall] = []
        self.event_calls: list[PlannedCall] = []
        # by id() of the node, which is kept with it: nested windows ask for the same again and again
        self.call_steps: dict[tuple[int, Range], tuple[Call, StepSet]] = {}
        self.looked_up = 0  # series of all patterns, over whatever range
        self.series = 0  # of all leaves: of a pattern over each of its ranges
        self.points = 0
        self.fetched: list[Fetch] = []
        self.further_targets = 0
        self.further_chars = 0
        self.copies = 0
        self.several = 0  # calls around the present one that read several ranges

    def check(self) -> None:
        """Called by whatever happens thousands of times in a plan at its limits. TooLong."""
        if self.until_s is not None and clock.monotonic() > self.until_s:
            raise TooLong

    def copy(self, until_s: float | None) -> _Planner:
        """One that can go on without changing this one."""
        other = copy.copy(self)
        other.until_s = until_s
        other.leaves = dict(self.leaves)
        other.calls = list(self.calls)
        other.event_calls = list(self.event_calls)
        other.needed = set()
        return other

    @contextmanager
    def complete(self) -> Iterator[None]:
        """RemoteNeeded at its end, also instead of an error, when steps were asked for that aren't
        known.
        """
        try:
            yield
        except TgresError:
            if not self.needed:
                raise
        if self.needed:
            raise RemoteNeeded(self.needed)

    def further(self, targets: Sequence[str], asked: Range) -> list[PlanNode]:
        """Targets made from series are limited as series are: mostly one is made of each; they may
        be as long together as written ones.
        """
        self.further_targets += len(targets)
        most = self.limits.query_series_max
        if self.further_targets > most:
            raise LimitExceeded(
                "targets made of series", self.further_targets, most, "query_series_max"
            )
        chars_max = self.limits.query_targets_max * TARGET_CHARS_MAX
        self.further_chars += sum(map(len, targets))
        if self.further_chars > chars_max:
            raise LimitExceeded(
                "characters of targets made of series",
                self.further_chars,
                chars_max,
                "query_targets_max",
            )
        nesting_max = self.limits.query_nesting_max
        return [self.target(parse_target(text, nesting_max), asked) for text in targets]

    def target(self, node: Node, asked: Range) -> PlanNode:
        if isinstance(node, Literal):
            raise BadRequest(f"target: {node.value!r} alone is no series")
        return self.plan(node, asked)

    def plan(self, node: Node, asked: Range) -> PlanNode:
        match node:
            case Path() | ByTag():
                return self.leaf(node, asked)
            case Call():
                return self.call(node, asked)
            case _:
                raise BadRequest(f"target: a series is needed at position {node.position}")

    def call(self, node: Call, asked: Range) -> PlannedCall:
        self.check()
        self.copies += bool(self.several)
        if self.copies > COPIES_MAX:
            raise BadRequest("target: functions that read several ranges are nested too deep")
        function = find_function(node.name)
        context = Context(
            *asked,
            self.request.now_s,
            self.request.tz,
            points_max=self.limits.query_points_max,
        )
        bound = _bind(function, node)
        values = _literals(function, bound)
        first = bound[0][1] if bound and bound[0][0].takes_series else None
        if function.reads and first is not None:
            windows = function.reads.windows(values, lambda: self.steps(first, asked), context)
            context = replace(context, windows=windows)
        args: list[Any] = []
        for number, (param, argument) in enumerate(bound):
            if argument is None or not param.takes_series or isinstance(argument, Literal):
                args.append(
                    values[param.name] if not param.multiple else _single(function, param, argument)
                )
            elif number == 0 and len(context.windows) > 1:
                self.several += 1
                args.append([self.plan(argument, window) for window in context.windows])
                self.several -= 1
            elif number == 0 and context.windows:
                args.append(self.plan(argument, context.windows[0]))
            else:
                args.append(self.plan(argument, asked))
        call = PlannedCall(function, args, context)
        self.calls.append(call)
        if isinstance(function.reads, EventReads):
            call.events = function.reads.query(tuple(args), context)
            self.event_calls.append(call)
        return call

    def steps(self, node: Node, asked: Range) -> StepSet:
        """The steps that a series expression has over a range, without planning its fetches."""
        if isinstance(node, Path | ByTag):
            _, _, bundles = self.expand(node)
            distinct = {id(bundle): bundle for bundle in bundles}
            own = frozenset(
                bundle.archives[window.archive].step_s
                for bundle in distinct.values()
                if (window := self.window(bundle, asked))
            )
            return own | self.remote_steps(node, asked)
        if not isinstance(node, Call):
            return frozenset()
        key = id(node), asked
        if key not in self.call_steps:
            if len(self.call_steps) >= STEP_LOOKS_MAX:
                raise BadRequest("target: functions with windows in points are nested too deep")
            self.call_steps[key] = node, self.steps_of_call(node, asked)
        return self.call_steps[key][1]

    def steps_of_call(self, node: Call, asked: Range) -> StepSet:
        self.check()
        function = find_function(node.name)
        bound = _bind(function, node)
        values = _literals(function, bound)
        context = Context(*asked, self.request.now_s, self.request.tz)
        first = bound[0][1] if bound and bound[0][0].takes_series else None
        read: tuple[Range, ...] = ()
        if function.reads and first is not None and not isinstance(first, Literal):
            read = function.reads.windows(values, lambda: self.steps(first, asked), context)
        below: StepSet = frozenset()
        for number, (param, argument) in enumerate(bound):
            if below and function.first_steps:
                break
            if param.takes_series and argument is not None and not isinstance(argument, Literal):
                # another range may be read from another archive
                for one in read if read and number == 0 else (asked,):
                    below |= self.steps(argument, one)
        return function.steps(values, below, context)

    def remote_steps(self, node: Path | ByTag, asked: Range) -> StepSet:
        if self.remote is None:
            return frozenset()
        key = _remote_key(node, asked)
        if key not in self.remote:
            self.needed.add(key)
        return steps_of(self.remote.get(key))

    def expand(self, node: Path | ByTag) -> Lookup:
        known = self.expanded.get(node.text)
        if known is None:
            self.check()
            if isinstance(node, Path):
                ids = self.source.expand(node.text, self.limits.query_series_max)
            else:
                ids = self.by_tags(node)
            self.looked_up += len(ids)
            self.limit_series(self.looked_up)
            known = (ids, self.source.names(ids), self.source.bundles(ids))
            self.expanded[node.text] = known
        return known

    def by_tags(self, node: ByTag) -> Ids:
        try:
            return self.source.by_tags(node.expressions, self.limits.query_series_max)
        except LimitExceeded:
            raise
        except BadRequest as error:
            raise BadRequest(f"target: {node.text}: {error}") from None

    def window(self, bundle: BundleSpec, asked: Range) -> Window | None:
        return choose_window(bundle.archives, *asked, self.request.now_s)

    def leaf(self, node: Path | ByTag, asked: Range) -> Leaf:
        leaf = self.leaves.get((node.text, asked))
        if leaf is None:
            leaf = self.leaves[node.text, asked] = self.make_leaf(node, asked)
            self.series += len(leaf.names)
            self.limit_series(self.series)
        return leaf

    def limit_series(self, count: int) -> None:
        most = self.limits.query_series_max
        if count > most:
            raise LimitExceeded("series", count, most, "query_series_max")

    def make_leaf(self, node: Path | ByTag, asked: Range) -> Leaf:
        ids, names, bundles = self.expand(node)
        remote = _remote_key(node, asked)
        # one decision for each bundle, not for each series: equal bundles are the same object
        distinct = {id(bundle): bundle for bundle in bundles}
        windows = {key: self.window(bundle, asked) for key, bundle in distinct.items()}
        functions = {
            key: str(bundle.cf) if self.limits.consolidate_by_cf else "average"
            for key, bundle in distinct.items()
        }
        if len(distinct) == 1:
            [(key, bundle)] = distinct.items()
            window = windows[key]
            if window is None:
                return Leaf(node.text, [], [], [], remote)
            part = LeafPart((bundle, window), ids, np.arange(len(ids)))
            return Leaf(node.text, names, [functions[key]] * len(ids), [part], remote)
        group = np.fromiter(map(id, bundles), np.int64, len(bundles))
        in_reach = np.isin(group, [key for key, window in windows.items() if window])
        place_of = np.cumsum(in_reach) - 1
        parts = []
        for key, window in windows.items():
            if window:
                at = np.flatnonzero(group == key)
                parts.append(LeafPart((distinct[key], window), ids[at], place_of[at]))
        kept = np.flatnonzero(in_reach).tolist()
        return Leaf(
            node.text,
            [names[place] for place in kept],
            [functions[id(bundles[place])] for place in kept],
            parts,
            remote,
        )

    def take_fetched(self, part: LeafPart) -> bool:
        """True when an earlier round has fetched all series of a part; they are taken from there."""
        for number, fetch in enumerate(self.fetched):
            if (fetch.bundle, fetch.window) == part.key and np.isin(part.ids, fetch.ids).all():
                part.fetch = number
                part.rows = np.searchsorted(fetch.ids, part.ids)
                return True
        return False

    def fetches(self) -> list[Fetch]:
        """The fetches of the leaves that have none yet, and each leaf part's place in the plan's.
        LimitExceeded: too many points.
        """
        parts: dict[FetchKey, list[LeafPart]] = {}
        for leaf in self.leaves.values():
            self.check()
            for part in leaf.parts:
                if part.fetch < 0 and not self.take_fetched(part):
                    parts.setdefault(part.key, []).append(part)
        out: list[Fetch] = []
        for (bundle, window), same in parts.items():
            self.check()
            ids = np.unique(np.concatenate([part.ids for part in same]))
            for part in same:
                part.fetch = len(self.fetched) + len(out)
                part.rows = np.searchsorted(ids, part.ids)
            out.append(Fetch(ids, bundle, window))
        self.fetched += out
        self.points += sum(fetch.points for fetch in out)
        if self.points > self.limits.query_points_max:
            raise LimitExceeded(
                "points to read", self.points, self.limits.query_points_max, "query_points_max"
            )
        return out


def _remote_key(node: Path | ByTag, asked: Range) -> RemoteKey:
    return RemoteKey(node.text, *asked, by_tags=isinstance(node, ByTag))


def _bind(function: RenderFunction, node: Call) -> list[tuple[Param, Node | None]]:
    """Each parameter with its argument, a repeatable one as often as given (or never).

    BadRequest: too many, missing, unknown.
    """
    declared = function.params
    repeats = bool(declared) and declared[-1].multiple
    if len(node.args) > len(declared) and not repeats:
        raise BadRequest(
            f"target: {function.signature} takes {len(declared)} arguments, {len(node.args)} are given"
        )
    keywords = dict(node.kwargs)
    bound: list[tuple[Param, Node | None]] = []
    for number, param in enumerate(declared):
        given: Sequence[Node | None]
        if param.multiple:
            given = node.args[number:]
            if not given and param.name in keywords:
                given = (keywords.pop(param.name),)
            if len(given) > REPEATS_MAX and not param.takes_series:
                raise BadRequest(
                    f"target: {function.signature} takes at most {REPEATS_MAX} of {param.name}"
                )
        elif number < len(node.args):
            given = (node.args[number],)
        else:
            given = (keywords.pop(param.name, None),)
        # a repeatable one may be left out although it is called required: sumSeries() is empty (as
        # graphite-web)
        if given == (None,) and param.required:
            raise BadRequest(f"target: {function.signature} needs its argument {param.name}")
        bound.extend((param, argument) for argument in given)
    if keywords:
        raise BadRequest(
            f"target: {function.signature} has no argument {', '.join(sorted(keywords))} that is left to give"
        )
    return bound


def _literals(
    function: RenderFunction, bound: Sequence[tuple[Param, Node | None]]
) -> dict[str, Scalar]:
    """The converted values of the parameters that take no series (of a repeatable one the last)."""
    return {
        param.name: _single(function, param, argument)
        for param, argument in bound
        if not param.takes_series or argument is None or isinstance(argument, Literal)
    }


def _single(function: RenderFunction, param: Param, argument: Node | None) -> Scalar:
    if argument is None:
        return param.default
    if not isinstance(argument, Literal):
        shown = argument.text if isinstance(argument, Path) else "a function's result"
        raise BadRequest(
            f"target: {function.name}(): {param.name} must be of type {param.type.name}, not {shown} "
            "(texts and intervals need quotes)"
        )
    if param.type.name in ("seriesList", "seriesLists") and argument.value is not None:
        raise BadRequest(
            f"target: {function.name}(): {param.name} must be series, not {argument.value!r}"
        )
    if param.type.name in ("seriesList", "seriesLists") and param.required:
        raise BadRequest(f"target: {function.signature} needs its argument {param.name}")
    if isinstance(argument.value, str) and len(argument.value) > NAME_CHARS_MAX:
        raise LimitExceeded(
            "characters of a text", len(argument.value), NAME_CHARS_MAX, "(it is fixed)"
        )
    return param.convert(argument.value, function.name)
