"""How long /render takes in the server: plan, fetch from memory, functions, JSON; printed, never asserted.

python -m tests.benchmarks.bench_render
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from http_api.render import finish, parse_request
from http_api.reply import Params
from tests.fake_source import FakeSource, archives
from tgres_py.model.points import Ids
from tgres_py.model.retention import BundleSpec
from tgres_py.query.evaluate import fetch_all
from tgres_py.query.plan import make_plan

NOW_S = 1_700_000_000
BUNDLE = BundleSpec(archives("10s:2d,1m:7d"))


class RandomSource(FakeSource):
    """Every fetch gives two-decimal gauges with a few holes, made beforehand."""

    def __init__(self, series: int) -> None:
        super().__init__()
        for number in range(series):
            self.add(f"servers.web{number // 10:04}.cpu.{number % 10}", [], BUNDLE)
        generator = np.random.default_rng(1)
        self.values = np.round(generator.normal(50, 10, 2_000_000), 2)
        self.values[generator.random(2_000_000) < 0.01] = math.nan

    async def fetch(
        self, ids: Ids, bundle: BundleSpec, archive: int, from_slot: int, until_slot: int
    ) -> NDArray[np.float64]:
        shape = (len(ids), until_slot - from_slot)
        return np.resize(self.values, shape)


async def render(
    source: FakeSource, target: str, hours: int, extra: Sequence[tuple[str, str]]
) -> tuple[float, float, int]:
    """Milliseconds of all but the fetch, of the fetch, and the answer's bytes."""
    started = time.perf_counter()
    pairs = [("target", target), ("from", f"-{hours}h"), ("now", str(NOW_S)), ("format", "json"), *extra]
    request, output = parse_request(Params(pairs))
    plan = make_plan(request, source)
    planned = time.perf_counter()
    fetched = await fetch_all(plan, source)
    read = time.perf_counter()
    body = finish(plan, fetched, output, 1 << 30, None)
    done = time.perf_counter()
    return (done - read + planned - started) * 1e3, (read - planned) * 1e3, len(body)


CASES: list[tuple[str, int, str, int, list[tuple[str, str]]]] = [
    ("1 series x 24 h", 1, "servers.*.cpu.*", 24, []),
    ("1 series x 24 h, 1000 points", 1, "servers.*.cpu.*", 24, [("maxDataPoints", "1000")]),
    ("1,000 series x 1 h", 1_000, "servers.*.cpu.*", 1, []),
    ("1,000 series x 1 h, aliasByNode", 1_000, "aliasByNode(servers.*.cpu.*,1,3)", 1, []),
    (
        "1,000 series x 1 h, perSecond + alias",
        1_000,
        "aliasByNode(perSecond(servers.*.cpu.*),1)",
        1,
        [],
    ),
    ("1,000 series x 1 h, movingAverage", 1_000, "movingAverage(servers.*.cpu.*,'5min')", 1, []),
    ("10,000 series x 1 h, sumSeries", 10_000, "sumSeries(servers.*.cpu.*)", 1, []),
    ("10,000 series x 1 h, 100 points", 10_000, "servers.*.cpu.*", 1, [("maxDataPoints", "100")]),
]


async def main() -> None:
    sources: dict[int, FakeSource] = {}
    print(f"{'query':45} {'server ms':>10} {'fetch ms':>9} {'MB':>7}")
    for name, series, target, hours, extra in CASES:
        if series not in sources:
            sources[series] = RandomSource(series)
        runs = [await render(sources[series], target, hours, extra) for _ in range(5)]
        server_ms, fetch_ms, size = min(runs)
        print(f"{name:45} {server_ms:10.1f} {fetch_ms:9.1f} {size / 1e6:7.2f}")


if __name__ == "__main__":
    asyncio.run(main())
