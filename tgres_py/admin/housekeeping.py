"""What a server does by itself every hour: series expire by their schema's rule, old trash is purged."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
from numpy.typing import NDArray

from tgres_py import clock
from tgres_py.admin.frame import Admin
from tgres_py.admin.select import SelectArgs, Series, select_with_rows
from tgres_py.admin.series import last_points
from tgres_py.admin.series_trash import purge_due, trash
from tgres_py.model.duration import format_duration
from tgres_py.model.rules import RuleSet

log = logging.getLogger(__name__)

WHY = "no point for"  # a batch of expired series: "no point for 90d"


async def keep_house(admin: Admin, rules: RuleSet) -> None:
    """One round. StoreUnavailable: the next one does what is left."""
    await expire(admin, rules)
    await purge_old(admin)


async def expire(admin: Admin, rules: RuleSet) -> int:
    """Moves series to the trash that had no point for as long as their schema says; how many."""
    if not rules.expires:
        return 0
    found = await select_with_rows(admin, SelectArgs())
    limits = await asyncio.to_thread(rules.expiry_many, found.names)
    limit_s = np.array([np.inf if limit is None else limit for limit in limits])
    found, limit_s = _take(found, limit_s, np.isfinite(limit_s))
    last_s, created_s = await last_points(admin, found)
    since = np.where(last_s > 0, last_s, created_s)
    due = (since > 0) & (since < clock.now_s() - limit_s)
    found, limit_s = _take(found, limit_s, due)
    count = 0
    for limit in np.unique(limit_s).tolist():
        batch = await admin.store.next_batch()
        why = f"{WHY} {format_duration(limit)}"
        async for moved in trash(admin, found.rrd_id[limit_s == limit], batch, why):
            count += moved
        log.info("%d series expired (%s): batch %d in the trash", count, why, batch)
    return count


def _take(
    found: Series, limit_s: NDArray[np.float64], wanted: NDArray[np.bool_]
) -> tuple[Series, NDArray[np.float64]]:
    return found.take(np.flatnonzero(wanted)), limit_s[wanted]


async def purge_old(admin: Admin) -> int:
    """Purges what was in the trash for ``trash_keep_s``; how many series."""
    count = 0
    async for series, _ in purge_due(admin, admin.settings.trash_keep_s):
        count += series
    if count:
        log.info("%d series were long enough in the trash and are gone for good", count)
    return count
