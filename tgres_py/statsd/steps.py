"""Whether the archives that flushed numbers go to are fine enough: a slot longer than the flush interval loses flushes."""

from __future__ import annotations

import logging

from tgres_py.model.retention import Archive, BundleSpec, OnDuplicate

log = logging.getLogger("tgres.statsd")


class StepCheck:
    """Warns once for each retention."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._seen: set[tuple[Archive, ...]] = set()

    def check(self, spec: BundleSpec, name: str) -> None:
        """``spec``: of a series that is flushed, ``name``."""
        step_s = spec.archives[0].step_s
        loses = step_s > self._interval_s and spec.on_duplicate is OnDuplicate.LAST
        if loses and spec.archives not in self._seen:
            log.warning(
                "%s gets an archive of %d s steps, but flushes come every %g s: of each step only the last flush is kept, "
                "counts are too low; set flushInterval of [statsd] to %d, or a retention of %gs steps for it",
                name,
                step_s,
                self._interval_s,
                step_s * 1000,
                self._interval_s,
            )
        self._seen.add(spec.archives)
