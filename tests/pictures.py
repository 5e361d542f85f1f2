"""Pictures for tests: drawn from a few values, read back as pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from http_api.pictures import draw
from tgres_py.functions.series import Grid, Label, SeriesBlock

NAN = float("nan")
T0 = 1_700_000_000
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# a hundred pixels for values from 0 to 100: a value's row is 100 minus itself
PLAIN = {
    "width": "100",
    "height": "100",
    "graphOnly": "true",
    "yMin": "0",
    "yMax": "100",
    "colorList": "ff0000,00ff00,0000ff",
    "lineWidth": "3",
}

Pixels = NDArray[np.uint8]


def block(name: str, values: list[float], **options: Any) -> SeriesBlock:
    grid = Grid(T0, T0 + 10 * len(values), 10)
    made = Label(name, name, {"name": name}, options=options)
    return SeriesBlock.uniform([made], grid, np.array([values], float))


def picture(*blocks: SeriesBlock, **params: str) -> Pixels:
    body = draw("png", {**PLAIN, **params}, blocks)
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))


def rows_of(pixels: Pixels, column: int, color: tuple[int, int, int]) -> list[int]:
    """Rows of a column that have a colour, near enough for the edges' smoothing."""
    distance = np.abs(pixels[:, column].astype(int) - color).sum(axis=1)
    return np.flatnonzero(distance < 150).tolist()


def is_blank(pixels: Pixels, column: int) -> bool:
    return bool((pixels[:, column] == 255).all())
