"""Limits of the server that fill up: how much each one allows and how much of it is used."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from tgres_py.admin.frame import Live
from tgres_py.ingest.footprint import cache_bytes, index_bytes
from tgres_py.machine import memory_bytes, open_files, resident_bytes


@dataclass(frozen=True, slots=True)
class Limit:
    """``name``: the setting, or what of the machine it is; ``unit``: of ``used`` and ``most``."""

    name: str
    used: float
    most: float
    unit: str = ""

    @property
    def share(self) -> float:
        """0 to 1, more when it is exceeded."""
        return self.used / self.most if self.most else 0.0


def limits(server: Live) -> Iterator[Limit]:
    """All limits that fill up while the server runs."""
    settings, intake = server.settings, server.intake
    most = intake.limits
    yield Limit("series_max", len(server.registry), settings.series_max)
    yield Limit("cache", cache_bytes(intake), most.cache_pause_bytes, "bytes")
    yield Limit("index", index_bytes(server.registry), server.shares.index, "bytes")
    yield Limit("late_points_max", intake.late_points, most.late_points_max, "points")
    yield Limit("journal_bytes_max", server.journal.total_bytes, most.journal_bytes_max, "bytes")
    yield Limit("connections_max", server.tcp_totals.connections, server.places.tcp)
    if server.statsd is not None:
        aggregator = server.statsd.aggregator
        yield Limit("statsd.keysMax", aggregator.keys, aggregator.settings.keysMax)
    yield Limit("memory_max", server.memory.resident, server.shares.total, "bytes")
    yield Limit("memory", resident_bytes(), memory_bytes(), "bytes")
    if opened := open_files():
        yield Limit("open files", opened, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    disk = shutil.disk_usage(settings.data_dir)
    yield Limit("disk of data_dir", disk.used, disk.used + disk.free, "bytes")
    inodes = os.statvfs(settings.data_dir)
    if inodes.f_files:
        used = inodes.f_files - inodes.f_ffree
        yield Limit("inodes of data_dir", used, used + inodes.f_favail)
