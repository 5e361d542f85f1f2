"""Curves of many series at once are those of each series alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tgres_py.functions.forecast import _curves


@pytest.mark.parametrize("degree", [1, 3, 7])
@pytest.mark.parametrize("gaps", [0.0, 0.3, 0.97])
def test_rows_do_not_see_each_other(degree: int, gaps: float) -> None:
    pick = np.random.default_rng(degree)
    values = pick.uniform(10, 20, (60, 40))
    values[pick.random(values.shape) < gaps] = np.nan
    values[20:40][np.isnan(values[0:20])] = np.nan  # the same gaps as others have
    values[3] = np.nan
    values[4, 1:] = np.inf
    looks: list[None] = []
    context = SimpleNamespace(check_time=lambda: looks.append(None))
    found = _curves(values, degree, 50, context)  # type: ignore[arg-type]  # its time is all that is asked of a context
    for row, curve in zip(values, found, strict=True):
        at = np.flatnonzero(np.isfinite(row))
        if len(at) < 2:
            assert np.isnan(curve).all()
            continue
        power = min(degree, len(at) - 1)
        expected = np.polynomial.Polynomial.fit(at, row[at], power)(np.arange(50))
        scale = max(1.0, float(np.abs(expected).max()))
        assert curve == pytest.approx(expected, rel=1e-9, abs=1e-9 * scale)
    assert looks
