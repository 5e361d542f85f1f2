"""Names of what statsd stores: where the parts of a key go (backends/graphite.js of npm statsd 0.9.0).

    legacy   counters stats.K and stats_counts.K, else stats.timers.K.X, stats.gauges.K, stats.sets.K.count
    new      G.C.K.rate and .count, G.T.K.X, G.GA.K, G.S.K.count; empty prefixes are left out

The suffix goes before the tags. Of statsd's own numbers, numStats alone stands outside ``stats.`` in the old names.
"""

from __future__ import annotations

from tgres_py.statsd.parser import clean_key
from tgres_py.statsd.settings import StatsdSettings


class Names:
    """Makes names; remembers none."""

    def __init__(self, settings: StatsdSettings) -> None:
        graphite = settings.graphite
        self._legacy = graphite.legacyNamespace
        self._sanitize = not settings.keyNameSanitize
        # etsy: an empty suffix is one, too: names end with a dot then
        self._suffix = "" if graphite.globalSuffix is None else f".{graphite.globalSuffix}"
        self._own = settings.prefixStats
        root = graphite.globalPrefix
        if self._legacy:
            heads = ("stats", "stats.timers", "stats.gauges", "stats.sets")
            root = "stats"
        else:
            parts = (
                graphite.prefixCounter,
                graphite.prefixTimer,
                graphite.prefixGauge,
                graphite.prefixSet,
            )
            heads = tuple(".".join(p for p in (root, part) if p) for part in parts)  # type: ignore[assignment]  # as many as there are parts: the names' tuple
        self._counters, self._timers, self._gauges, self._sets = (
            h + "." if h else "" for h in heads
        )
        self._root = root + "." if root else ""

    def _join(self, head: str, key: str, leaf: str = "") -> str:
        path, mark, tags = key.partition(";")
        if self._sanitize:
            path = clean_key(path)
        return f"{head}{path}{leaf}{self._suffix}{mark}{tags}"

    def rate(self, key: str) -> str:
        return self._join(self._counters, key, "" if self._legacy else ".rate")

    def count(self, key: str) -> str:
        if self._legacy:
            return self._join("stats_counts.", key)
        return self._join(self._counters, key, ".count")

    def gauge(self, key: str) -> str:
        return self._join(self._gauges, key)

    def set_size(self, key: str) -> str:
        return self._join(self._sets, key, ".count")

    def timer(self, key: str, number: str) -> str:
        """``number``: what is known of the timer (mean_90, histogram.bin_1 …)."""
        return self._join(self._timers, key, f".{number}")

    def own(self, leaf: str) -> str:
        """statsd's own numbers."""
        if self._legacy and leaf == "numStats":
            return f"{self._own}.numStats{self._suffix}"
        return f"{self._root}{self._own}.{leaf}{self._suffix}"


def with_tag_values(name: str, default: str) -> str:
    """The name with ``default`` as the value of tags that have none; tags without a name go."""
    path, mark, tags = name.partition(";")
    if not mark or not default:
        return name
    whole = []
    for tag in tags.split(";"):
        key, _, value = tag.partition("=")
        if key:
            whole.append(f";{key}={value or default}")
    return path + "".join(whole)
