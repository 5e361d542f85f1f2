"""``doctor``: looks at everything that goes wrong quietly, and says how to mend it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator

import numpy as np

from tgres_py import clock
from tgres_py.admin.doctor.finding import ORDER, Finding, Severity
from tgres_py.admin.doctor.postgres import bundle_findings, postgres_findings
from tgres_py.admin.doctor.series import (
    case_findings,
    ring_facts,
    ring_findings,
    watch_findings,
)
from tgres_py.admin.doctor.server import (
    limit_findings,
    refusal_findings,
    state_findings,
    state_of,
)
from tgres_py.admin.doctor.watch import Watch
from tgres_py.admin.frame import Admin, Args, Live, Row, arg, progress, verb
from tgres_py.admin.limits import limits
from tgres_py.errors import StoreUnavailable
from tgres_py.ingest.traffic import tapped
from tgres_py.storage.inspect import postgres_facts

PREFIXES_SHOWN = 5  # of new series that were refused


class DoctorArgs(Args):
    watch_s: int = arg(15, "seconds that senders are watched; 0 = not at all", ge=0, le=3_600)


@verb("doctor")
async def doctor(admin: Admin, args: DoctorArgs) -> AsyncIterator[Row]:
    """Look for what goes wrong quietly, and say how to mend it.

    Sending intervals that don't fit the archives, roll-ups that stay empty, clocks, two senders of one
    series, names that differ by case, refused points, lost datagrams, limits, PostgreSQL. With the store
    alone (--dsn, --data-dir) only what it knows.
    """
    found: list[Finding] = []
    if admin.live is not None:
        watch = Watch(admin.live.registry.table.size)
        with tapped(admin.live.intake, watch):
            for second in range(args.watch_s):
                yield progress(second, args.watch_s, "seconds watched")
                await asyncio.sleep(1)
        found += await _of_server(admin.live, watch)
    found += await _of_store(admin)
    for finding in sorted_findings(found):
        yield finding.row()


def sorted_findings(found: Iterable[Finding]) -> Iterator[Finding]:
    """The worst first."""
    yield from sorted(found, key=lambda one: ORDER[one.severity])


async def _of_server(live: Live, watch: Watch) -> list[Finding]:
    found = [*state_findings(state_of(live)), *limit_findings(limits(live))]
    found += refusal_findings(
        live.intake.ledger.rejected,
        live.intake.rejects.last,
        live.registry.refused_prefixes(PREFIXES_SHOWN),
    )
    found += ring_findings(await ring_facts(live))
    found += watch_findings(watch, live.registry)
    registry = live.registry
    size = registry.table.size
    lives = (registry.bundle_of[:size] >= 0) & ~registry.retired[:size]
    ids = np.flatnonzero(lives).astype(np.int32)
    found += await asyncio.to_thread(lambda: list(case_findings(registry.names(ids))))
    return found


async def _of_store(admin: Admin) -> list[Finding]:
    """What the store says; that it is away is a finding, too."""
    try:
        facts = await postgres_facts(admin.store)
        now_s = clock.now()
        bundles = dict(await admin.store.load_bundles())
        names = [] if admin.live is not None else (await admin.store.load_series()).names
    except StoreUnavailable as error:
        if admin.live is None:
            raise
        what = f"PostgreSQL can't be asked: {error}"
        return [Finding(Severity.ERROR, "store", what, "start it, or mend the way to it")]
    found = [*postgres_findings(facts, now_s, admin.settings.dsn is None)]
    found += bundle_findings(bundles)
    found += await asyncio.to_thread(lambda: list(case_findings(names)))
    return found
