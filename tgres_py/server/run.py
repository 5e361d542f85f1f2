"""The server as a process: its loop, signals and garbage collector."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable

from tgres_py.config import Settings
from tgres_py.kernels.arrays import count_arrays
from tgres_py.machine import calm_allocator
from tgres_py.server.root import Server

log = logging.getLogger("tgres")

GC_THRESHOLDS = (10_000, 10, 10)


async def serve(settings: Settings, started: Callable[[Server], None] | None = None) -> None:
    """Runs a server until SIGTERM or SIGINT. ConfigError when its database can't be used as it is."""
    server = Server(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.ended.set)
    await server.start()
    _calm_collector()
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    if started:
        started(server)
    await server.ended.wait()
    log.info("stopping")
    await server.stop()
    log.info("stopped")
    if server.failure:
        raise server.failure


def _calm_collector() -> None:
    """Garbage collection leaves alone what was made until now (modules, settings, functions: it stays),
    and comes after more new objects: a pass over all of it stopped everything for up to 90 ms, at every
    other answer with some thousand entries.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def run(settings: Settings) -> None:
    """Runs a server in a loop of its own, uvloop's where it is installed."""
    calm_allocator(settings.memory_shares().total)
    count_arrays()
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(settings))
        return
    uvloop.run(serve(settings))
