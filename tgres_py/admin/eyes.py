"""``top`` and ``tail``: what arrives at a running server, while somebody looks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.admin.frame import Admin, Args, Live, Row, arg, note, verb
from tgres_py.ingest.registry import Registry
from tgres_py.ingest.traffic import Arrived, Recent, Traffic, tapped
from tgres_py.model.points import Ids, Reason

NEW_NAMES_MAX = 20_000  # new series of one frame that are told apart by prefix
REFUSED_PREFIXES_MAX = 40_000  # all that are told apart
SAMPLE_CHARS_MAX = 120
TAIL_EVERY_S = 0.25
MATCHES_S = 5.0  # a series that was renamed is noticed after this time
TAIL_POINTS_MAX = 1_000_000  # that wait to be looked through


@runtime_checkable
class KnowsSenders(Protocol):
    """A receiver whose datagrams' senders are told only while that is asked for."""

    def watched_senders(self) -> AbstractContextManager[Callable[[], Counter[str]]]: ...


def _live(admin: Admin) -> Live:
    assert admin.live is not None  # the verbs are declared so
    return admin.live


# -- top -----------------------------------------------------------------------------------------


class TopArgs(Args):
    interval_s: float = arg(2.0, "seconds of one frame", gt=0, le=3_600)
    count: int = arg(0, "frames; 0 = until it is ended", ge=0)
    depth: int = arg(2, "parts of a name that make a prefix", ge=1, le=20)
    rows: int = arg(10, "longest list of prefixes and of senders", ge=1, le=1_000)


@verb("top", live=True, stream=True)
async def top(admin: Admin, args: TopArgs) -> AsyncIterator[Row]:
    """Show what arrives: points and new series a second, by prefix, sender and receiver; refusals.

    Senders of UDP are told by samples: shares of datagrams. Nothing is counted by prefix or sender
    while nobody looks.
    """
    live = _live(admin)
    frames = 0
    with ExitStack() as watched:
        senders = {
            name: watched.enter_context(listener.watched_senders())
            for name, listener in live.listeners.items()
            if isinstance(listener, KnowsSenders)
        }
        while not args.count or frames < args.count:
            yield await _frame(live, args, senders)
            frames += 1


async def _frame(
    live: Live, args: TopArgs, senders: Mapping[str, Callable[[], Counter[str]]]
) -> Row:
    """One interval, watched and told."""
    ledger, registry = live.intake.ledger, live.registry
    known = registry.table.size  # ids go on where they were, whatever was removed
    rejected, begin = Counter(ledger.rejected), clock.monotonic()
    beyond = dict(registry.refused_prefixes(REFUSED_PREFIXES_MAX))
    traffic = Traffic()
    with tapped(live.intake, traffic):
        await asyncio.sleep(args.interval_s)
    seconds = clock.monotonic() - begin
    new = np.arange(known, registry.table.size, dtype=np.int32)
    points = sum(traffic.received.values())
    prefixes = await asyncio.to_thread(_prefixes, registry, traffic, new, args, seconds)
    datagrams = {name: since() for name, since in senders.items()}
    return {
        "time_at_s": clock.now(),
        "interval_s": round(seconds, 3),
        "points_per_s": _rate(points, seconds),
        "new_series_per_s": _rate(len(new), seconds),
        "series": len(registry),
        "held": ledger.held,
        "paused": live.intake.paused,
        "receivers": [
            {"receiver": name, "points_per_s": _rate(count, seconds)}
            for name, count in traffic.received.most_common()
        ],
        "prefixes": prefixes,
        "senders": _senders(traffic, datagrams, seconds)[: args.rows],
        "refused": _refused(live, rejected, seconds),
        "refused_new": [
            {
                "prefix": prefix,
                "points_per_s": _rate(max(0, count - beyond.get(prefix, 0)), seconds),
                "total": count,
            }
            for prefix, count in registry.refused_prefixes(args.rows)
        ],
    }


def _rate(count: float, seconds: float) -> float:
    """Three digits and more: rates are looked at, not added up."""
    rate = count / seconds if seconds else 0.0
    return round(rate, 2) if rate < 100 else round(rate)


def _prefixes(
    registry: Registry, traffic: Traffic, new: Ids, args: TopArgs, seconds: float
) -> list[Row]:
    """The heaviest prefixes, by points of the sample; in a worker thread."""
    ids, counts = np.unique(traffic.sample.ids(), return_counts=True)
    stride = max(1, -(-len(new) // NEW_NAMES_MAX))
    points = _by_prefix(registry, ids, counts * traffic.sample.stride, args.depth)
    fresh = _by_prefix(registry, new[::stride], np.full(len(new[::stride]), stride), args.depth)
    order = [prefix for prefix, _ in points.most_common(args.rows)]
    order += [p for p, _ in fresh.most_common(args.rows) if p not in points]
    return [
        {
            "prefix": prefix,
            "points_per_s": _rate(points[prefix], seconds),
            "new_series_per_s": _rate(fresh[prefix], seconds),
        }
        for prefix in order[: args.rows]
    ]


def _by_prefix(
    registry: Registry, ids: Ids, weights: NDArray[np.int64], depth: int
) -> Counter[str]:
    found: Counter[str] = Counter()
    for name, weight in zip(registry.names(ids), weights.tolist(), strict=True):
        found[prefix_of(name, depth)] += weight
    return found


def prefix_of(name: str, depth: int) -> str:
    """The first parts of a name's path; ``.*`` stands for what was left out."""
    parts = name.partition(";")[0].split(".")
    return ".".join(parts[:depth]) + (".*" if len(parts) > depth else "")


def _senders(traffic: Traffic, datagrams: Mapping[str, Counter[str]], seconds: float) -> list[Row]:
    """The heaviest senders first; of UDP those that hold shares of the datagrams."""
    rows: list[tuple[float, Row]] = []
    for (sender, receiver), count in traffic.senders.items():
        if not datagrams.get(receiver):
            rows.append(_sender(sender, receiver, count, seconds))
    for receiver, hosts in datagrams.items():
        total = sum(hosts.values())
        for host, count in hosts.items():
            points = traffic.received[receiver] * count / total
            weight, row = _sender(host, receiver, points, seconds)
            rows.append((weight, {**row, "datagrams_per_s": _rate(count, seconds)}))
    rows.sort(key=lambda one: one[0], reverse=True)
    return [row for _, row in rows]


def _sender(host: str, receiver: str, points: float, seconds: float) -> tuple[float, Row]:
    return points, {"sender": host, "receiver": receiver, "points_per_s": _rate(points, seconds)}


def _refused(live: Live, before: Counter[Reason], seconds: float) -> list[Row]:
    """All reasons that occurred since the start, with the latest refused line."""
    rows: list[Row] = []
    for reason, total in live.intake.ledger.rejected.most_common():
        if not total:
            continue
        row: dict[str, Any] = {
            "reason": reason.value,
            "points_per_s": _rate(total - before[reason], seconds),
            "total": total,
        }
        if (last := live.intake.rejects.last.get(reason)) is not None:
            row["sample"] = last.line.decode(errors="replace")[:SAMPLE_CHARS_MAX]
            row["sender"] = last.peer or f"({last.receiver})"
            row["seen_at_s"] = last.at_s
        rows.append(row)
    return rows


# -- tail ----------------------------------------------------------------------------------------


class TailArgs(Args):
    glob: str = arg(..., "path glob, as in Graphite; '**' is all series", positional=True)
    rate: float = arg(100.0, "points a second that are shown; of more a sample", gt=0, le=100_000)
    count: int = arg(0, "end after so many points; 0 = until it is ended", ge=0)


@verb("tail", live=True, stream=True)
async def tail(admin: Admin, args: TailArgs) -> AsyncIterator[Row]:
    """Show points of the series that match GLOB as they arrive.

    When there are more than --rate a second, an evenly spread sample is shown, and said so.
    """
    live = _live(admin)
    matcher = _Matcher(live, args.glob)
    await matcher.refresh()
    if not matcher.count:
        yield note(f"no series matches {args.glob} yet; waiting for the first")
    recent = Recent(TAIL_POINTS_MAX)
    shown = 0
    budget = args.rate
    last = clock.monotonic()
    with tapped(live.intake, recent):
        while True:
            await asyncio.sleep(TAIL_EVERY_S)
            blocks = recent.take()
            await matcher.catch_up(blocks)
            now = clock.monotonic()
            budget = min(args.rate, budget + args.rate * (now - last))
            last = now
            found = [(one, matcher.places(one.block.ids)) for one in blocks]
            total = sum(len(places) for _, places in found)
            most = max(1, int(budget))
            if args.count:
                most = min(most, args.count - shown)
            for row in _picked(live, found, total, most):
                yield row
            taken = min(total, most)
            budget -= taken
            shown += taken
            if total > taken or recent.skipped:
                yield note(f"({total - taken + recent.skipped:,} points not shown)")
                recent.skipped = 0
            if args.count and shown >= args.count:
                return


def _picked(
    live: Live, found: list[tuple[Arrived, NDArray[np.intp]]], total: int, most: int
) -> list[Row]:
    """At most ``most`` of the points that were found, evenly spread over them."""
    chosen = np.linspace(0, total - 1, min(most, total)).astype(np.intp)
    rows: list[Row] = []
    first = 0
    for one, places in found:
        mine = chosen[(chosen >= first) & (chosen < first + len(places))] - first
        first += len(places)
        at = places[mine]
        names = live.registry.names(one.block.ids[at])
        for name, time_s, value in zip(
            names, one.block.times[at].tolist(), one.block.values[at].tolist(), strict=True
        ):
            rows.append(
                {
                    "time_at_s": time_s,
                    "value": value,
                    "name": name,
                    "sender": one.sender,
                    "receiver": one.receiver,
                }
            )
    return rows


class _Matcher:
    """Which ids a glob matches: a bool for each id, brought up to date when new ones appear."""

    def __init__(self, live: Live, glob: str) -> None:
        self._live = live
        self._glob = glob
        self._matches = np.zeros(0, np.bool_)
        self._refreshed_s = 0.0

    async def refresh(self) -> None:
        """BadRequest: a bad glob."""
        size = self._live.registry.table.size
        self._refreshed_s = clock.monotonic()
        if self._glob == "**":
            self._matches = np.ones(size, np.bool_)
            return
        ids = await asyncio.to_thread(self._live.source.expand, self._glob)
        matches = np.zeros(size, np.bool_)
        matches[ids[ids < size]] = True
        self._matches = matches

    @property
    def count(self) -> int:
        return int(self._matches.sum())

    async def catch_up(self, blocks: list[Arrived]) -> None:
        newest = max((int(one.block.ids.max()) for one in blocks), default=-1)
        old = clock.monotonic() - self._refreshed_s > MATCHES_S
        if newest >= len(self._matches) or (blocks and old):
            await self.refresh()

    def places(self, ids: Ids) -> NDArray[np.intp]:
        """Positions in ``ids`` of those that match."""
        return np.flatnonzero(self._matches[ids])
