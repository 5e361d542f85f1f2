"""Fourier transforms, as carbonapi has them. Column i of a spectrum stands at the time of point i."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from tgres_py.errors import BadRequest
from tgres_py.functions.params import Float, Options, String
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Matrix, Part, Row, SeriesBlock


@render_function(group="Transform")
def fft(
    seriesList: SeriesBlock, mode: Annotated[String, Options("", "abs", "phase", "both")] = ""
) -> SeriesBlock:
    """The Fourier transform of each series: sizes ("abs"), angles ("phase"), or both one after the
    other. Unknown values count as 0. As in carbonapi.

    load 10s  a 1 0 -1 _
    eval fft(a, "abs")    => fft(a,abs): 0 2 0 2
    eval fft(a, "phase")  => fft(a,phase): 0 0 0 0
    """
    wanted = [mode] if mode in ("abs", "phase") else ["abs", "phase"]
    rows: list[Row] = []
    for label, grid, values in seriesList.rows():
        # + 0.0: the angle of a zero that happens to be negative is no half turn
        spectrum = np.fft.fft(_finite(values)) + 0.0 if len(values) else values
        for kind in wanted:
            new = label.derived(f"fft({label.name},{kind})", fft=kind)
            part = np.abs(spectrum) if kind == "abs" else np.angle(spectrum)
            rows.append((new, grid, part))
    return SeriesBlock.of_rows(rows)


@render_function(group="Transform")
def ifft(seriesList: SeriesBlock, phaseSeriesList: SeriesBlock | None = None) -> SeriesBlock:
    """The sizes of the inverse Fourier transform of spectra: the n-th of ``seriesList`` with the n-th
    of ``phaseSeriesList`` for its angles (0 where there is none). As in carbonapi.

    load 10s  a 1 2 3 2
    eval ifft(fft(a, "abs"), fft(a, "phase"))  => 1 2 3 2
    """
    phases = list(phaseSeriesList.rows()) if phaseSeriesList is not None else []
    rows: list[Row] = []
    for place, (label, grid, values) in enumerate(seriesList.rows()):
        spectrum = _finite(values).astype(np.complex128)
        name = f"ifft({label.name})"
        if place < len(phases):
            phase_label, _, phase = phases[place]
            if len(phase) != len(values):
                raise BadRequest(
                    "target: ifft(): series and their phases must have the same length"
                )
            spectrum = spectrum * np.exp(1j * _finite(phase))
            name = f"ifft({label.name}, {phase_label.name})"
        back = np.abs(np.fft.ifft(spectrum)) if len(values) else values
        rows.append((label.derived(name, ifft="1"), grid, back))
    return SeriesBlock.of_rows(rows)


@render_function(group="Transform", aliases=("lpf",))
def lowPass(seriesList: SeriesBlock, cutPercent: Float) -> SeriesBlock:
    """Keeps the outer ``cutPercent`` of a spectrum's columns, where its low frequencies are, and
    drops those between. As in carbonapi; between fft and ifft.

    load 10s  a 1 2 3 4
    eval lowPass(a, 50)  => lowPass(a,50): 1 _ _ 4
    """
    if not 0 <= cutPercent <= 100:
        raise BadRequest(f"target: lowPass(): cutPercent is {cutPercent:g}; it must be 0 to 100")

    def compute(part: Part) -> tuple[Grid, Matrix]:
        slots = part.values.shape[1]
        kept = int(cutPercent / 200 * slots)
        columns = np.arange(slots)
        return part.grid, np.where(
            (columns < kept) | (columns >= slots - kept), part.values, np.nan
        )

    return seriesList.map_values(compute).map_labels(
        lambda label: label.derived(f"lowPass({label.name},{cutPercent:g})", lowPass="1")
    )


def _finite(values: Matrix) -> Matrix:
    return np.where(np.isfinite(values), values, 0.0)
