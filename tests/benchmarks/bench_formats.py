"""CPU time of /render's writers; printed, never asserted.

python -m tests.benchmarks.bench_formats
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC
from functools import partial

import numpy as np

from http_api import chunks, pictures
from http_api.formats import FORMATS
from http_api.formats.look import Look, Writer
from tgres_py.functions.series import Grid, Label, SeriesBlock

SIZES = ((1, 2_160), (100, 360), (1_000, 1_000), (10, 100_000))
RUNS = 5


def make_block(series: int, slots: int) -> SeriesBlock:
    """Two-decimal gauges with a few holes."""
    values = np.round(np.random.default_rng(1).normal(50, 10, (series, slots)), 2)
    values[values < 30] = np.nan
    labels = [
        Label(f"servers.web{i}.cpu", "x", {"name": f"servers.web{i}.cpu"}) for i in range(series)
    ]
    return SeriesBlock.uniform(labels, Grid(1_700_000_000, 1_700_000_000 + 10 * slots, 10), values)


def works_of(blocks: list[SeriesBlock]) -> dict[str, Callable[[], int]]:
    """What to measure, each giving its bytes."""
    out: dict[str, Callable[[], int]] = {
        name: partial(written, form.write, blocks) for name, form in FORMATS.items()
    }
    json = FORMATS["json"].write
    out["json gzip"] = lambda: sum(map(len, chunks.gzipped(chunks.chunked(json(blocks, Look())))))
    if len(blocks[0]) <= 100:
        out["png"] = lambda: len(pictures.draw("png", {"width": "800"}, blocks, UTC))
    return out


def written(write: Writer, blocks: list[SeriesBlock]) -> int:
    return sum(map(len, write(blocks, Look())))


def main() -> None:
    print(f"{'series x points':>16} {'format':9} {'CPU ms':>8} {'MB':>7}")
    for series, slots in SIZES:
        for name, work in works_of([make_block(series, slots)]).items():
            times = []
            for _ in range(RUNS):
                started = time.process_time()
                size = work()
                times.append((time.process_time() - started) * 1e3)
            print(f"{series:>7} x {slots:>6} {name:9} {min(times):8.2f} {size / 1e6:7.2f}")


if __name__ == "__main__":
    main()
