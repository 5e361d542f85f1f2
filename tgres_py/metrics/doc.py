"""docs/METRICS.md, made from the declarations: ``python -m tgres_py.metrics.doc docs/METRICS.md``."""

from __future__ import annotations

import sys
from pathlib import Path

from tgres_py.metrics import GROUPS
from tgres_py.metrics.agents import CARBON_NAMES, OWN_NAMES

HEAD = """\
# Metrics

`GET /metrics` answers in Prometheus' text format. Counters (`_total`) count since the start; units stand in
the names; histograms have the series `_bucket`, `_sum` and `_count`. What the server has none of (statsd off,
no other nodes) isn't shown.

This page is made from the declarations in `tgres_py/metrics/`.
"""

AGENTS = """
## The same as series

Every `self_metrics_s` seconds (60; 0 = off) the server stores points about itself under
`self_metrics_prefix` (`carbon.agents.{host}-a`, as a carbon-cache with instance `a` does; dots in the host's
name become `_`), so that dashboards made for carbon go on. Counts are those of the last interval, at the
times of the wall clock's grid.

| series | what |
|---|---|
"""


def page() -> str:
    """The whole document."""
    parts = [HEAD]
    for group in GROUPS:
        parts.append(
            f"\n## {group.title}\n\n| metric | type | labels | what |\n|---|---|---|---|\n"
        )
        for one in group.metrics:
            labels = ", ".join(f"`{label}`" for label in one.labels)
            parts.append(f"| `{one.name}` | {one.kind} | {labels} | {one.help} |\n")
    parts.append(AGENTS)
    for name, text in {**CARBON_NAMES, **OWN_NAMES}.items():
        parts.append(f"| `{name}` | {text} |\n")
    return "".join(parts)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        Path(argument).write_text(page(), encoding="utf-8")
