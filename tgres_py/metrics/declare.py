"""What one metric is: a declaration, from which /metrics and docs/METRICS.md are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from tgres_py.measure import Histogram

if TYPE_CHECKING:
    from tgres_py.server import Server

Value = float | Histogram
Labelled = Iterable[tuple[tuple[str, ...], Value]]


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric. ``read`` gives its value, with ``labels`` pairs of label values and value, or None
    where the server has nothing of the kind (statsd off, no peers): then it isn't shown.

    ``name`` is the full one: counters end in ``_total``, the unit stands before that.
    """

    name: str
    kind: Kind
    help: str
    read: Callable[[Server], Value | Labelled | None]
    labels: tuple[str, ...] = ()

    def family(self, server: Server) -> Metric | None:
        """The metric with its present values."""
        found = self.read(server)
        if found is None:
            return None
        values = [((), found)] if isinstance(found, int | float | Histogram) else found
        if self.kind is Kind.HISTOGRAM:
            return self._histogram(values)
        make = CounterMetricFamily if self.kind is Kind.COUNTER else GaugeMetricFamily
        family = make(self.name.removesuffix("_total"), self.help, labels=self.labels)
        for labels, value in values:
            assert not isinstance(value, Histogram)
            family.add_metric(labels, value)
        return family

    def _histogram(self, values: Labelled) -> HistogramMetricFamily:
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in values:
            assert isinstance(value, Histogram)
            family.add_metric(labels, value.cumulated(), value.sum)
        return family


@dataclass(frozen=True, slots=True)
class Group:
    """Metrics that belong together: a section of the document."""

    title: str
    metrics: tuple[Declared, ...]
