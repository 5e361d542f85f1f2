"""maxDataPoints: fewer points for the answer, exactly as graphite-web does it.

The range is that of the whole answer. A series with n = range / step points more than allowed is
consolidated ceil(n / allowed) to one; its start moves on to the next multiple of the new step, so
that the buckets of a refreshed graph stay where they are; the points before it are dropped.
maxDataPoints=1: one bucket from the start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tgres_py.functions.grids import consolidate_part
from tgres_py.functions.series import Grid, Matrix, Part, SeriesBlock


def consolidate_blocks(blocks: Sequence[SeriesBlock], points_max: int) -> list[SeriesBlock]:
    """Blocks whose series have about ``points_max`` >= 1 points at most. BadRequest: unknown
    consolidation function.
    """
    grids = [part.grid for block in blocks for part in block.parts]
    if not grids:
        return list(blocks)
    range_s = max(grid.end_s for grid in grids) - min(grid.start_s for grid in grids)
    out = []
    for block in blocks:

        def compute(part: Part, block: SeriesBlock = block) -> tuple[Grid, Matrix]:
            return _consolidate(block, part, range_s, points_max)

        out.append(block.map_values(compute))
    return out


def _consolidate(
    block: SeriesBlock, part: Part, range_s: int, points_max: int
) -> tuple[Grid, Matrix]:
    grid = part.grid
    slots = part.values.shape[1]
    if points_max == 1:
        per = max(slots, 1)
        return Grid(grid.start_s, grid.end_s, grid.step_s * per), consolidate_part(block, part, per)
    points = range_s / grid.step_s
    if points_max >= points:
        return grid, part.values
    per = math.ceil(points / points_max)
    step_s = per * grid.step_s
    nudge_s = step_s + grid.start_s % grid.step_s - grid.start_s % step_s
    # one point fewer is dropped than the start moves over (so does graphite-web)
    kept = part.values[:, max(0, nudge_s // grid.step_s - 1) :]
    return Grid(grid.start_s + nudge_s, grid.end_s, step_s), consolidate_part(
        block, part, per, kept
    )
