"""Pictures of graphs: png, svg and pdf, drawn by matplotlib (the extra ``images``).

matplotlib is imported when the first picture is drawn, not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, tzinfo

from http_api.pictures.options import (
    Picture,
    PictureLimits,
    canvas_of,
    line_options_of,
    pie_options_of,
)
from tgres_py.errors import LimitExceeded, NotInstalled
from tgres_py.functions.series import SeriesBlock, concat

CONTENT_TYPES = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/x-pdf"}
# a picture is no page: whatever names it holds, nothing in it runs
HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}

DEFAULT_LIMITS = PictureLimits()


def load() -> None:
    """Loads what drawing needs ahead of the first picture, where it is installed."""
    with suppress(ImportError):
        importlib.import_module("http_api.pictures.line_graph")
        importlib.import_module("http_api.pictures.pie")


def draw(
    form: str,
    params: Mapping[str, str],
    blocks: Sequence[SeriesBlock],
    zone: tzinfo = UTC,
    slices: Sequence[tuple[str, float] | None] | None = None,
    limits: PictureLimits = DEFAULT_LIMITS,
) -> bytes:
    """The picture of some series, in one of CONTENT_TYPES.

    ``slices``: of a pie, in order, None where a block's series come. NotInstalled: no matplotlib;
    BadRequest: parameters that can't be drawn; LimitExceeded.
    """
    picture = Picture(params)
    canvas = canvas_of(picture, limits.pixels_max)
    drawn = sum(map(len, blocks)) + sum(given is not None for given in slices or ())
    if drawn > limits.series_max:
        raise LimitExceeded("series to draw", drawn, limits.series_max, "picture_series_max")
    try:
        from http_api.pictures import line_graph, pie
    except ImportError:
        raise NotInstalled("pictures", "images") from None
    if slices is None:
        options = line_options_of(picture)
        return line_graph.draw_lines(concat(blocks), canvas, options, zone).save(form)
    pie_options = pie_options_of(picture)
    waiting = iter(blocks)
    sizes: list[tuple[str, float]] = []
    for given in slices:
        if given is not None:
            sizes.append(given)
            continue
        for label, _, values in next(waiting).rows():
            sizes.append((label.name, pie.slice_value(values, pie_options.mode)))
    return pie.draw_pie(sizes, canvas, pie_options).save(form)
