"""Series that this server has just made and the store has already, under other archives: an import or another server
was quicker. The store's archives count; points that came meanwhile are carried over as late ones.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.ingest.intake import Intake
from tgres_py.model.points import Ids
from tgres_py.storage.port import Store

log = logging.getLogger(__name__)


async def take_over(
    intake: Intake,
    store: Store,
    ids: Ids,
    rrd_ids: NDArray[np.int64],
    bundle_ids: NDArray[np.int32],
) -> None:
    """Gives series the rows and the bundles that the store has for their names. StoreUnavailable: nothing is done.

    The series get new ids; the old ones have no name and no row, and are never written.
    """
    registry = intake.registry
    bundles = dict(await store.load_bundles())
    to_id = np.arange(registry.table.size, dtype=np.int32)
    for db_id in np.unique(bundle_ids).tolist():
        mine = (bundle_ids == db_id) & ~registry.retired[ids]
        bundle = registry.bundle(bundles[db_id])
        registry.bundle_db_ids[bundle] = db_id
        step_s = bundles[db_id].archives[0].step_s
        floor_s = (clock.now_s() // step_s + 1) * step_s
        to_id[ids[mine]] = registry.replace(ids[mine], rrd_ids[mine], bundle, floor_s)
    intake.journal_names()
    for late in intake.late:
        late.ids = to_id[late.ids]
    moved = ids[to_id[ids] != ids]
    _carry_over(intake, moved, to_id)
    log.info("%d new series were in the store already, with archives of their own", len(moved))


def _carry_over(intake: Intake, ids: Ids, to_id: Ids) -> None:
    """Queues what the ring holds of ``ids`` as late points of the series that took their place."""
    ring = intake.ring
    segments, columns = ring.locate(ids)
    for segment in np.unique(segments[segments >= 0]).tolist():
        at = np.flatnonzero(segments == segment)
        low, high = ring.span(segment)
        if low == high:
            continue
        spec = intake.registry.bundle_specs[intake.registry.segment_bundle[segment]]
        values = ring.gather(segment, columns[at], low, high)
        row, slot = np.nonzero(~np.isnan(values))
        if len(row) == 0:
            continue
        times = (slot + low) * spec.archives[0].step_s
        intake.ledger.stored -= len(row)
        intake.add_late(to_id[ids[at[row]]], times, values[row, slot], clock.now_s())
