"""A query as data: what a worker needs to make the same plan, and the plan's values.

    {"request": {…}, "task": {…}, "limits": {…}, "round": {…}}
    round = {"lookups": {expression: [ids, names, bundles, bundle of each]}, "fetches": [place], "events": [times],
             "remote": {…} or nil}

A plan follows from the request and from what was looked up for it, so its calls and fetches have the same numbers in both processes.
Further rounds send what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from http_api.answer import Output, Task, Watch
from http_api.formats.look import Look
from http_api.pictures.options import PictureLimits
from http_api.workers.wire import MappedFile, MemoryFile, Place
from tgres_py import clock
from tgres_py.functions.series import Grid
from tgres_py.model.points import Ids
from tgres_py.model.retention import Archive, BundleSpec, Cf, OnDuplicate
from tgres_py.query.limits import DefaultLimits, QueryLimits
from tgres_py.query.plan import Lookup, Plan, RenderRequest
from tgres_py.query.remote import Answers, RemoteKey, RemoteReads, RemoteSeries

Data = dict[str, Any]


# -- the question --------------------------------------------------------------------------------


def question(request: RenderRequest, task: Task, limits: QueryLimits) -> Data:
    """All of a job but its rounds."""
    output, look = task.output, task.output.look
    return {
        "request": {
            "targets": list(request.targets),
            "from_s": request.from_s,
            "until_s": request.until_s,
            "now_s": request.now_s,
            "tz": _zone_name(request.tz),
            "xff": request.xff,
            "templates": request.templates,
            "local": request.local,
        },
        "output": {
            "format": output.format,
            "points_max": output.points_max,
            "look": [look.pretty, look.no_null_points, _zone_name(look.zone)],
            "jsonp": output.jsonp,
            "picture": dict(output.picture),
            "slices": None if output.slices is None else list(output.slices),
            "meta": output.meta,
            "explain": output.explain,
        },
        "task": {
            "gzip": task.gzip,
            "bytes_max": task.bytes_max,
            "limits": [task.limits.pixels_max, task.limits.series_max],
            "seconds": max(0.0, task.watch.deadline_s - clock.monotonic()),
            "laps": task.watch.laps,
        },
        "limits": {
            "query_targets_max": limits.query_targets_max,
            "query_nesting_max": limits.query_nesting_max,
            "query_series_max": limits.query_series_max,
            "query_points_max": limits.query_points_max,
            "query_timeout_s": limits.query_timeout_s,
            "consolidate_by_cf": limits.consolidate_by_cf,
        },
    }


def read_question(data: Data) -> tuple[RenderRequest, Task, DefaultLimits]:
    request = dict(data["request"])
    request["targets"] = tuple(request["targets"])
    request["tz"] = _zone(request["tz"])
    output = dict(data["output"])
    pretty, no_null_points, zone = output["look"]
    output["look"] = Look(pretty, no_null_points, _zone(zone))
    if output["slices"] is not None:
        output["slices"] = tuple(one and tuple(one) for one in output["slices"])
    task = data["task"]
    made = Task(
        Output(**output),
        Watch(task["seconds"], task["laps"]),
        task["gzip"],
        task["bytes_max"],
        PictureLimits(*task["limits"]),
    )
    return RenderRequest(**request), made, DefaultLimits(**data["limits"])


def _zone_name(zone: tzinfo) -> str:
    return zone.key if isinstance(zone, ZoneInfo) else "UTC"


def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)


# -- rounds --------------------------------------------------------------------------------------


class Rounds:
    """Writes what a plan has learnt since the round before; in the main process."""

    def __init__(self) -> None:
        self._lookups = 0
        self._fetches = 0
        self._events = 0

    def data(self, plan: Plan, places: Sequence[Place], file: MemoryFile) -> Data:
        """``places``: of the values of all fetches. Values of other nodes come into ``file``."""
        lookups = list(plan.lookups.items())[self._lookups :]
        events = [call.event_times_s for call in plan.planner.event_calls[self._events :]]
        out = {
            "lookups": {text: _lookup(found) for text, found in lookups},
            "fetches": list(places[self._fetches :]),
            "events": events,
            "remote": None if plan.remote is None else _remote(plan.remote, file),
        }
        self._lookups += len(lookups)
        self._fetches = len(places)
        self._events += len(events)
        return out


def _lookup(found: Lookup) -> list[Any]:
    ids, names, bundles = found
    distinct = list({id(bundle): bundle for bundle in bundles}.values())
    number = {id(bundle): place for place, bundle in enumerate(distinct)}
    which = np.array([number[id(bundle)] for bundle in bundles], np.int32)
    return [
        np.ascontiguousarray(ids, np.int32).tobytes(),
        names,
        [_bundle(bundle) for bundle in distinct],
        which.tobytes(),
    ]


def _bundle(bundle: BundleSpec) -> list[Any]:
    archives = [[one.step_s, one.size, one.width] for one in bundle.archives]
    return [archives, str(bundle.cf), bundle.xff, str(bundle.on_duplicate)]


def _remote(remote: RemoteReads, file: MemoryFile) -> Data:
    known = []
    for key, found in remote.known.items():
        series = []
        for one in found:
            values = np.ascontiguousarray(one.values, np.float64)
            start = file.place(values.nbytes)
            file.write(start, values.data)
            grid = one.grid
            place = (start, 1, len(values))
            series.append([one.name, grid.start_s, grid.end_s, grid.step_s, one.cf, place])
        known.append([asdict(key), series])
    return {
        "peers": remote.peers.names,
        "now_s": remote.now_s,
        "failed": sorted(remote.failed),
        "counts": remote.counts,
        "known": known,
    }


def read_lookups(data: Data, bundles: dict[BundleSpec, BundleSpec]) -> dict[str, Lookup]:
    """``bundles``: those known so far: equal ones are the same object, in all rounds."""
    return {text: _read_lookup(found, bundles) for text, found in data["lookups"].items()}


def _read_lookup(found: list[Any], bundles: dict[BundleSpec, BundleSpec]) -> Lookup:
    ids, names, distinct, which = found
    specs = []
    for archives, cf, xff, on_duplicate in distinct:
        made = tuple(Archive(*one) for one in archives)
        spec = BundleSpec(made, Cf(cf), xff, OnDuplicate(on_duplicate))
        specs.append(bundles.setdefault(spec, spec))
    read: Ids = np.frombuffer(ids, np.int32)
    return read, names, [specs[place] for place in np.frombuffer(which, np.int32).tolist()]


def read_events(data: Data, plan: Plan, known: int) -> None:
    """Gives the calls from number ``known`` on their events."""
    calls = plan.planner.event_calls[known:]
    for call, times in zip(calls, data["events"], strict=True):
        call.event_times_s = None if times is None else tuple(times)


def read_remote(
    data: Data, limits: QueryLimits, mapped: MappedFile, before: RemoteReads | None = None
) -> RemoteReads | None:
    """What other nodes gave, put into ``before`` where there was a round before."""
    remote = data["remote"]
    if remote is None:
        return None
    made = before or RemoteReads(_Named(remote["peers"]), remote["now_s"], limits)
    made.failed.update(remote["failed"])
    made.counts.update({name: (counts[0], counts[1]) for name, counts in remote["counts"].items()})
    for fields, series in remote["known"]:
        key = RemoteKey(**fields)
        if key not in made:
            made.remember(key, [_read_series(mapped, *one) for one in series])
    return made


def _read_series(
    mapped: MappedFile, name: str, start_s: int, end_s: int, step_s: int, cf: str, place: Place
) -> RemoteSeries:
    return RemoteSeries(name, Grid(start_s, end_s, step_s), mapped.array(place)[0], cf)


class _Named:
    """The other nodes as a worker knows them: it never asks one."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    async def fetch(self, keys: Sequence[RemoteKey], now_s: int, points_max: int) -> Answers:
        raise AssertionError("a worker reads nothing")


class NoSource:
    """The source of a plan whose look-ups are all known."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a worker looks nothing up: {name}")


