"""Journal records of a series that has another retention by now: a change was committed, then the server was killed.

Points find their slots in any ring. An image holds slots of the ring of before: where several of them lie in one
slot of the new ring they are put together by the rule of the retention first, since an image replaces.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tgres_py.ingest.registry import Registry
from tgres_py.model.points import Ids, Times, Values
from tgres_py.model.retention import OnDuplicate

Counts = NDArray[np.uint32]
Image = tuple[Ids, Times, Values, Counts | None]


def steps_of(registry: Registry, ids: Ids) -> NDArray[np.int64]:
    """Step of each series' finest archive, seconds; all are placed."""
    steps = np.array([spec.archives[0].step_s for spec in registry.bundle_specs], np.int64)
    return steps[registry.bundle_of[ids]]


def one_per_slot(
    registry: Registry, ids: Ids, times: Times, values: Values, counts: Counts | None
) -> Image:
    """An image with each slot of today's rings once. ``counts``: points of each, for the rule mean."""
    steps = steps_of(registry, ids)
    starts = times // steps * steps
    if (starts == times).all() and _ascending(times, ids):
        return ids, times, values, counts
    order = np.lexsort((times, starts, ids))
    ids, times, starts, values = ids[order], times[order], starts[order], values[order]
    number = np.ones(len(ids), np.uint32) if counts is None else counts[order]
    first = np.ones(len(ids), np.bool_)
    first[1:] = (ids[1:] != ids[:-1]) | (starts[1:] != starts[:-1])
    if first.all():
        return ids, times, values, None if counts is None else number
    at = np.flatnonzero(first)
    last = np.append(at[1:], len(ids)) - 1
    total = np.add.reduceat(number, at)
    rules = [registry.bundle_specs[b].on_duplicate for b in registry.bundle_of[ids[at]].tolist()]
    by_rule = {
        OnDuplicate.LAST: values[last],
        OnDuplicate.FIRST: values[at],
        OnDuplicate.SUM: np.add.reduceat(values, at),
        OnDuplicate.MEAN: np.add.reduceat(values * number, at) / total,
        OnDuplicate.MIN: np.minimum.reduceat(values, at),
        OnDuplicate.MAX: np.maximum.reduceat(values, at),
    }
    out = np.array([by_rule[rule][i] for i, rule in enumerate(rules)])
    return ids[at], starts[at], out, total.astype(np.uint32)


def _ascending(times: Times, ids: Ids) -> bool:
    """Whether each pair comes once, in the order in which images are written."""
    later, same = times[1:] > times[:-1], times[1:] == times[:-1]
    return bool((later | (same & (ids[1:] > ids[:-1]))).all())


def to_be_merged(
    registry: Registry, ids: Ids, times: Times, floors: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Of points that the ring didn't take, though nothing says that the store has them: those to be merged late.

    A slot that begins before the floor may hold them already; under sum and mean they would count twice.
    """
    steps = steps_of(registry, ids)
    rules = [registry.bundle_specs[b].on_duplicate for b in registry.bundle_of[ids].tolist()]
    adds = np.array([rule in (OnDuplicate.SUM, OnDuplicate.MEAN) for rule in rules], np.bool_)
    straddles = times // steps * steps < floors[ids]
    return ~(adds & straddles)
