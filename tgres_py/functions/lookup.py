"""Functions that look things up: series by their tags, events."""

from __future__ import annotations

import numpy as np

from tgres_py.errors import LimitExceeded
from tgres_py.functions.params import String
from tgres_py.functions.reads import Context, EventReads, StepSet
from tgres_py.functions.registry import render_function
from tgres_py.functions.series import Grid, Label, SeriesBlock


@render_function(group="Special")
def seriesByTag(*tagExpressions: String) -> SeriesBlock:
    """All series whose tags fulfil every expression.

    An expression is tag=value, tag!=value, tag=~regex or tag!=~regex; the path of a series is its tag
    ``name``. Regular expressions are anchored at the start. A condition that the empty value fulfils
    also takes series without the tag; one at least must not be fulfilled by it.

    load 10s  cpu;dc=eu 1 2
    load 10s  cpu;dc=us 3 4
    eval seriesByTag("name=cpu", "dc!=us")  => cpu;dc=eu: 1 2
    """
    raise AssertionError("the plan reads it as a path")


def _one_second(arguments: object, steps: StepSet, context: Context) -> StepSet:
    return frozenset((1,))


@render_function(group="Special", reads=EventReads(), steps=_one_second)
def events(*tags: String, context: Context) -> SeriesBlock:
    """How many events with all of the tags happened in each second; "*" counts all events.

    eval events("deploy")  => events("deploy"): _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _
    """
    seconds = context.until_s - context.from_s
    if seconds > context.points_max:
        raise LimitExceeded("points of events()", seconds, context.points_max, "query_points_max")
    at = np.floor(np.array(context.event_times_s)).astype(np.int64) - context.from_s
    # an event in the range's last second has no place (graphite-web fails on it)
    counts = np.bincount(at[at < seconds], minlength=seconds).astype(np.float64)
    counts[counts == 0] = np.nan
    name = "events(" + ", ".join(f'"{tag}"' for tag in tags or ("",)) + ")"
    label = Label(name, name, {"name": name}, "sum", context.xff)
    return SeriesBlock.uniform([label], Grid(context.from_s, context.until_s, 1), counts[None, :])
