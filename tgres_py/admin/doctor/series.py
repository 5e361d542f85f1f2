"""What the doctor says of series and their senders: intervals, roll-ups, clocks, doubles, names."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tgres_py.admin.doctor import rings
from tgres_py.admin.doctor.finding import EXAMPLES_MAX, Finding, Severity, series_text
from tgres_py.admin.doctor.watch import Watch
from tgres_py.admin.frame import Live
from tgres_py.ingest.registry import Registry
from tgres_py.model.points import Ids

SEGMENTS_MAX = 64  # of the ring cache that are looked at; of more a sample
AHEAD_S, BEHIND_S = 5.0, 120.0  # clocks of senders
FASTER = 0.9  # share of the step below which a sender counts as faster than it


@dataclass(slots=True)
class RingFacts:
    """Of the series looked at: names of those with a pattern, by (step_s, interval_s), and those whose
    roll-ups stay empty, by (ratio, xff)."""

    looked_at: int = 0
    slow: dict[tuple[int, int], list[str]] = field(default_factory=lambda: defaultdict(list))
    uneven: dict[tuple[int, float], list[str]] = field(default_factory=lambda: defaultdict(list))
    unmet: dict[tuple[int, int, float], list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )


async def ring_facts(live: Live) -> RingFacts:
    """Looks at the newest slots of the ring cache, segment by segment; others get their turn between."""
    facts = RingFacts()
    ring = live.ring
    stride = max(1, -(-ring.segments // SEGMENTS_MAX))
    for segment in range(0, ring.segments, stride):
        await _look(live, segment, facts)
    return facts


async def _look(live: Live, segment: int, facts: RingFacts) -> None:
    registry = live.registry
    spec = registry.bundle_specs[registry.segment_bundle[segment]]
    low, high = live.ring.span(segment)
    first = max(low, high - rings.rows_wanted(spec))
    if first >= high or not live.ring.used(segment):
        return
    members = registry.ids_of_segment(segment)
    block = live.ring.block(segment, first, high)[:, : len(members)]
    steps = [archive.step_s for archive in spec.archives]
    pattern = await asyncio.to_thread(rings.pattern_of, block)
    lives = (registry.bundle_of[members] >= 0) & ~registry.retired[members]
    facts.looked_at += int(lives.sum())
    for place in np.flatnonzero(pattern.slow & lives):
        key = steps[0], steps[0] * round(float(pattern.interval[place]))
        _keep(facts.slow[key], registry, members, place)
    for place in np.flatnonzero(pattern.uneven & lives):
        interval_s = round(steps[0] * float(pattern.interval[place]), 0)
        _keep(facts.uneven[steps[0], interval_s], registry, members, place)
    if len(steps) > 1:
        ratio = steps[1] // steps[0]
        unmet = await asyncio.to_thread(rings.unmet_xff, block, first, ratio, spec.xff)
        for place in np.flatnonzero(unmet & lives):
            _keep(facts.unmet[steps[0], steps[1], spec.xff], registry, members, place)


def _keep(names: list[str], registry: Registry, members: Ids, place: np.intp) -> None:
    """Notes a series: its name while there are few, else only that there is one more."""
    few = len(names) < EXAMPLES_MAX
    names.append(registry.names(members[place : place + 1])[0] if few else "")


def ring_findings(facts: RingFacts) -> Iterator[Finding]:
    """Intervals that don't fit the archives, and roll-ups that stay empty."""
    for (step_s, interval_s), names in facts.slow.items():
        yield Finding(
            Severity.WARNING,
            "interval",
            f"{series_text(len(names))} with a point every {interval_s} s in slots of {step_s} s: most slots stay "
            "empty",
            f"give them a retention that begins with {interval_s}s, or have them sent every {step_s} s",
            names,
            len(names),
        )
    for (step_s, rough_s), names in facts.uneven.items():
        yield Finding(
            Severity.WARNING,
            "steps",
            f"{series_text(len(names))} with a point about every {rough_s:g} s in slots of {step_s} s: one doesn't "
            "divide the other, so some slots stay empty, in turn",
            f"have them sent every {step_s} s, or give them a retention whose step is their interval",
            names,
            len(names),
        )
    for (step_s, coarse_s, xff), names in facts.unmet.items():
        yield Finding(
            Severity.WARNING,
            "xff",
            f"{series_text(len(names))} whose slots of {coarse_s} s stay empty: fewer of their {step_s}-s slots are "
            f"known than xFilesFactor {xff:g} wants",
            "give them a retention that fits their interval, or an aggregation rule with a lower xFilesFactor",
            names,
            len(names),
        )


def watch_findings(watch: Watch, registry: Registry) -> Iterator[Finding]:
    """What was seen while the doctor watched."""
    twice = watch.twice()
    if len(twice):
        some = twice[:EXAMPLES_MAX]
        examples = [
            f"{name} from {watch.senders[watch.sender[i]]} and {watch.senders[watch.other_sender[i]]}"
            for name, i in zip(registry.names(some), some.tolist(), strict=True)
        ]
        yield Finding(
            Severity.WARNING,
            "two_senders",
            f"{series_text(len(twice))} sent by two machines: one overwrites the other's points",
            "stop one of them, or put the machine into the name; with a relay pair that sends everything twice "
            "this is no fault",
            examples,
            len(twice),
        )
    yield from _fast(watch, registry)
    for sender, lags in sorted(watch.lags_s.items()):
        yield from skew_findings(sender, lags)


def _fast(watch: Watch, registry: Registry) -> Iterator[Finding]:
    ids, intervals_s = watch.intervals_s()
    placed = registry.bundle_of[ids] >= 0
    ids, intervals_s = ids[placed], intervals_s[placed]
    steps = np.array([spec.archives[0].step_s for spec in registry.bundle_specs], np.int64)
    if not len(ids):
        return
    step_of = steps[registry.bundle_of[ids]]
    for step_s in np.unique(step_of).tolist():
        found = np.flatnonzero((step_of == step_s) & (intervals_s < FASTER * step_s))
        if not len(found):
            continue
        some = found[:EXAMPLES_MAX]
        yield Finding(
            Severity.WARNING,
            "interval",
            f"{series_text(len(found))} with several points in one slot of {step_s} s: all but one of them are "
            "overwritten (or combined, by on-duplicate)",
            f"give them a finer first step, have them sent every {step_s} s, or count them with statsd",
            [
                f"{name} every {interval:.3g} s"
                for name, interval in zip(
                    registry.names(ids[some]), intervals_s[some].tolist(), strict=True
                )
            ],
            len(found),
        )


def skew_findings(sender: str, lags_s: Sequence[float]) -> Iterator[Finding]:
    """A sender's clock, by the smallest of the lags: whatever waited on the way only adds to it."""
    lag_s = min(lags_s)
    if -AHEAD_S <= lag_s <= BEHIND_S:
        return
    where = f"{abs(lag_s):,.0f} s {'behind' if lag_s > 0 else 'ahead of'} our clock"
    why = "its clock is wrong, or it holds points back" if lag_s > 0 else "its clock is wrong"
    yield Finding(
        Severity.WARNING,
        "clock",
        f"{sender} sends points that are {where}: {why}",
        "synchronize its clock (chrony, systemd-timesyncd); see its buffers and its time zone",
        [sender],
    )


def case_findings(names: Sequence[str]) -> Iterator[Finding]:
    """Names that differ only by case; for a worker thread, when there are many."""
    folded: dict[str, str] = {}
    doubles: dict[str, list[str]] = defaultdict(list)
    for name in names:
        key = name.lower()
        first = folded.setdefault(key, name)
        if first is not name:
            doubles[key].append(name)
    if doubles:
        count = sum(map(len, doubles.values())) + len(doubles)
        examples = [", ".join([folded[key], *others]) for key, others in doubles.items()]
        yield Finding(
            Severity.INFO,
            "case",
            f"{series_text(count)} whose names differ only by case",
            "let senders agree on one spelling, then tgres series merge",
            examples[:EXAMPLES_MAX],
            count,
        )
