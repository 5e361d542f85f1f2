"""``retention.*``: which series the rules would change by now, and changing them (ingest/move.py) in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.admin.alone import worked_alone
from tgres_py.admin.frame import Admin, Args, Row, arg, note, progress, verb
from tgres_py.admin.select import SelectArgs, Series, select
from tgres_py.errors import BadRequest, ConfigError
from tgres_py.model.retention import BundleSpec, bytes_per_series
from tgres_py.model.retention_change import (
    bytes_after,
    bytes_held,
    change_of,
    describe_spec,
    differs,
    held_of,
)
from tgres_py.model.rules import RuleSet, parse_aggregation, parse_schemas
from tgres_py.storage.retention_jobs import Job

SAMPLE = 200  # series of a group whose bytes are looked at
FOLLOW_S = 0.5
RULE_ORIGINS = ("schemas", "schema_tables", "aggregation", "aggregation_tables", "retention")


class RuleArgs(SelectArgs):
    schemas: str = arg("", "rules of a storage-schemas.conf instead of the server's")
    aggregation: str = arg("", "rules of a storage-aggregation.conf instead of the server's")


class PlanArgs(RuleArgs):
    samples: int = arg(3, "names shown of each group", ge=0)


class ApplyArgs(RuleArgs):
    rate: float = arg(0.0, "series per second at most; 0 = as fast as the server can spare", ge=0)
    detach: bool = arg(False, "return at once; `retention status` tells how far it is")


class JobArgs(Args):
    job: int = arg(..., "number of the job, as `retention status` shows it", positional=True, ge=1)
    detach: bool = arg(False, "return at once; `retention status` tells how far it is")


class ResumeArgs(JobArgs):
    rate: float | None = arg(None, "series per second at most from now on; 0 = no limit", ge=0)


class StatusArgs(Args):
    job: int | None = arg(None, "only this job", positional=True, ge=1)


@dataclass(slots=True)
class Group:
    """Series that go from one bundle to another; ``places`` in the Series they come from."""

    old: BundleSpec
    new: BundleSpec
    places: list[int] = field(default_factory=list)


# -- plan ------------------------------------------------------------------------------------------


def rules_of(admin: Admin, args: RuleArgs) -> RuleSet:
    """The rules in force, or those given instead.

    BadRequest: the store is alone and nobody said which, or those given are no rules.
    """
    settings = admin.live.settings if admin.live is not None else admin.settings
    told = args.schemas or any(name in settings.origins for name in RULE_ORIGINS)
    if admin.live is None and not told:
        raise BadRequest("say which rules: --config FILE of the server, or --schemas FILE")
    rules: RuleSet = settings.rule_set()
    if not args.schemas and not args.aggregation:
        return rules
    # the last of each is the rule for what meets none, which comes by itself
    schemas, aggregation = rules.schemas[:-1], rules.aggregation[:-1]
    try:
        if args.schemas:
            schemas = tuple(parse_schemas(args.schemas, "--schemas"))
        if args.aggregation:
            aggregation = tuple(parse_aggregation(args.aggregation, "--aggregation"))
        return RuleSet(schemas, aggregation)
    except ConfigError as error:  # of who asks, not of the server
        raise BadRequest(str(error)) from None


def groups_of(found: Series, specs: list[BundleSpec]) -> list[Group]:
    """Those of the series that differ from what ``specs`` say, the largest group first."""
    groups: dict[tuple[int, int], Group | None] = {}
    for place, pair in enumerate(zip(found.specs, specs, strict=True)):
        key = id(pair[0]), id(pair[1])  # equal bundles are one object
        if key not in groups:
            groups[key] = Group(*pair) if differs(*pair) else None
        if (group := groups[key]) is not None:
            group.places.append(place)
    kept = [group for group in groups.values() if group is not None]
    return sorted(kept, key=lambda group: -len(group.places))


async def _planned(admin: Admin, args: RuleArgs) -> tuple[Series, list[Group], int]:
    """The series, what is to change, and how many are left out as a job has them already."""
    rules = await asyncio.to_thread(rules_of, admin, args)
    if admin.live is not None:
        await admin.live.flusher.flush_names()
    found = await select(admin, args)
    busy = await admin.store.busy_series()
    free = np.flatnonzero(~np.isin(found.rrd_id, busy) & (found.rrd_id > 0))
    series = found.take(free)

    def group() -> list[Group]:
        return groups_of(series, rules.match_many(series.names))

    return series, await asyncio.to_thread(group), len(found) - len(series)


@verb("retention.plan")
async def plan(admin: Admin, args: PlanArgs) -> AsyncIterator[Row]:
    """Show which series the current rules (or --schemas, --aggregation) would give another retention.

    Bytes are estimated from 200 series of each group; slots lost are known ones that the new archives have
    no place for at their step, slots gained is room. Nothing is changed.
    """
    series, groups, busy = await _planned(admin, args)
    now_s = clock.now_s()
    total = 0
    for group in groups:
        rrd_ids = series.rrd_id[group.places]
        yield await _group_row(admin, group, series, rrd_ids, now_s, args.samples)
        total += len(group.places)
    async for row in _conflicts(admin, series):
        yield row
    if busy:
        yield note(
            f"{busy:,} series are left out: a job is going to move them, or they have no row yet"
        )
    yield note(f"{total:,} of {len(series):,} series would change")


async def _group_row(
    admin: Admin, group: Group, series: Series, rrd_ids: NDArray[np.int64], now_s: int, samples: int
) -> Row:
    picked = rrd_ids[np.linspace(0, len(rrd_ids) - 1, min(SAMPLE, len(rrd_ids))).astype(np.intp)]
    sizes = await admin.store.sizes_of_sample(picked)
    held = held_of([one for one in sizes if one.archive >= 0], len(picked), now_s)
    change = change_of(group.old, group.new, held)
    count = len(group.places)
    return {
        "series": count,
        "from": describe_spec(group.old),
        "to": describe_spec(group.new),
        "now_bytes": round(count * bytes_held(held)),
        "then_bytes": round(count * bytes_after(group.old, group.new, held)),
        "full_now_bytes": count * bytes_per_series(group.old).disk,
        "full_then_bytes": count * bytes_per_series(group.new).disk,
        "slots_lost": count * change.slots_lost,
        "slots_gained": count * change.slots_gained,
        "lost": list(change.lost),
        "gained": list(change.gained),
        "names": [series.names[place] for place in group.places[:samples]],
    }


async def _conflicts(admin: Admin, series: Series) -> AsyncIterator[Row]:
    """Series that this server takes for another retention than the store says: a second writer made them."""
    if admin.live is None:
        return
    rows = await admin.store.load_series()
    order = np.argsort(rows.rrd_id)
    at = np.searchsorted(rows.rrd_id[order], series.rrd_id)
    inside = at < len(order)
    place = order[np.where(inside, at, 0)]
    there = inside & (rows.rrd_id[place] == series.rrd_id)
    bundles = dict(await admin.store.load_bundles())
    found = [
        i
        for i in np.flatnonzero(there).tolist()
        if bundles[int(rows.bundle_id[place[i]])] != series.specs[i]
    ]
    if found:
        first = found[0]
        yield {
            "series": len(found),
            "from": describe_spec(bundles[int(rows.bundle_id[place[first]])]),
            "to": describe_spec(series.specs[first]),
            "problem": "made by another writer under another retention; restart this server to take it over",
            "names": [series.names[i] for i in found[:3]],
        }


# -- jobs ------------------------------------------------------------------------------------------


@verb("retention.apply", changes=True)
async def apply(admin: Admin, args: ApplyArgs) -> AsyncIterator[Row]:
    """Give series the retention that the current rules say, keeping all that fits into it.

    A job in the background, which goes on after restarts; points go on coming and nothing is hidden meanwhile.
    `retention undo` brings the old archives back, until `retention forget` deletes them. Don't import into the same
    series meanwhile: an import writes to the rows that it found when it began.
    """
    series, groups, _ = await _planned(admin, args)
    if not groups:
        return
    specs = list(dict.fromkeys([s for g in groups for s in (g.old, g.new)]))
    numbers = dict(zip(specs, await admin.store.ensure_bundles(specs), strict=True))
    places = np.concatenate([np.array(g.places, np.intp) for g in groups])
    old = np.concatenate([np.full(len(g.places), numbers[g.old]) for g in groups])
    new = np.concatenate([np.full(len(g.places), numbers[g.new]) for g in groups])
    what = "; ".join(f"{describe_spec(g.old)} to {describe_spec(g.new)}" for g in groups[:3])
    job = await admin.store.create_job(what, args.rate, series.rrd_id[places], old, new)
    async for row in _work(admin, job, args.detach):
        yield row


@verb("retention.status")
async def status(admin: Admin, args: StatusArgs) -> AsyncIterator[Row]:
    """Show jobs: how far they are, and which can be undone."""
    for job in await admin.store.jobs(args.job):
        yield job_row(job)


@verb("retention.stop", changes=True)
async def stop(admin: Admin, args: StatusArgs) -> AsyncIterator[Row]:
    """Halt a job; what has moved stays moved, `retention resume` goes on."""
    job = await _job(admin, args.job)
    if not await admin.store.set_job_state(job.id, "stopped", ("running",)):
        raise BadRequest(f"job {job.id} is {job.state}: only a running one can be stopped")
    yield job_row(await _job(admin, job.id))


@verb("retention.resume", changes=True)
async def resume(admin: Admin, args: ResumeArgs) -> AsyncIterator[Row]:
    """Go on with a job that was stopped, or follow one that runs."""
    job = await _job(admin, args.job)
    if args.rate is not None:
        await admin.store.set_job_rate(job.id, args.rate)
    if job.state != "running" and not await admin.store.set_job_state(
        job.id, "running", ("stopped",)
    ):
        raise BadRequest(f"job {job.id} is {job.state}: there is nothing to go on with")
    async for row in _work(admin, job.id, args.detach):
        yield row


@verb("retention.undo", changes=True)
async def undo(admin: Admin, args: JobArgs) -> AsyncIterator[Row]:
    """Bring back the archives that series had before a job; what came since is re-bucketed into them."""
    job = await _job(admin, args.job)
    if later := await admin.store.later_jobs(job.id):
        raise BadRequest(f"job {later[-1]} moved some of these series again: undo that first")
    if job.state != "undoing" and not await admin.store.set_job_state(
        job.id, "undoing", ("done", "stopped", "running")
    ):
        raise BadRequest(f"job {job.id} is {job.state}: there is nothing left to undo")
    async for row in _work(admin, job.id, args.detach):
        yield row


@verb("retention.forget", changes=True)
async def forget(admin: Admin, args: JobArgs) -> AsyncIterator[Row]:
    """Delete the old archives of a finished job, in batches. It can't be undone then."""
    job = await _job(admin, args.job)
    if job.state != "forgetting" and not await admin.store.set_job_state(
        job.id, "forgetting", ("done",)
    ):
        raise BadRequest(f"job {job.id} is {job.state}: only what is done can be forgotten")
    async for row in _work(admin, job.id, args.detach):
        yield row


async def _job(admin: Admin, number: int | None) -> Job:
    """The job; BadRequest when there is none."""
    if number is None:
        raise BadRequest("say which job: its number is in `retention status`")
    found = await admin.store.jobs(number)
    if not found:
        raise BadRequest(f"there is no job {number}; see `retention status`")
    return found[0]


def job_row(job: Job) -> Row:
    row: Row = {
        "job": job.id,
        "state": job.state,
        "series": job.series,
        "waiting": job.waiting,
        "moved": job.moved,
        "undone": job.undone,
        "gone": job.gone,
        "rate": job.rate or None,
        "created_at_s": job.created_at_s,
        "finished_at_s": job.finished_at_s,
        "undo": job.state in ("done", "stopped", "running") and job.uncleared > 0,
        "what": job.what,
    }
    if job.failure:
        row["failure"] = job.failure
    return row


async def _work(admin: Admin, job: int, detach: bool) -> AsyncIterator[Row]:
    """Has the server work on a job, or does it here, and tells how far it is; the job's row at the end."""
    if admin.live is not None:
        admin.live.retention.wake()
        rows = _follow(admin, job)
    elif detach:
        yield note("a server takes the job up within some seconds, if one runs on this database")
    else:
        rows = worked_alone(admin.store, admin.settings, job, _follow(admin, job))
    if not detach:
        async for row in rows:
            yield row
    ended = await _job(admin, job)
    if ended.failure and ended.state == "stopped":
        raise BadRequest(f"job {job} is stopped: {ended.failure}")
    yield job_row(ended)


async def _follow(admin: Admin, number: int) -> AsyncIterator[Row]:
    job = await _job(admin, number)
    while job.state in ("running", "undoing", "forgetting"):
        left = job.waiting if job.state == "running" else job.uncleared
        yield progress(max(0, job.series - left), job.series, "series")
        await asyncio.sleep(FOLLOW_S)
        job = await _job(admin, number)
