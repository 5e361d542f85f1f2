"""Settings of statsd: etsy's own names and defaults, and switches for what was added since.

``from_table`` checks the TOML table ``[statsd]``; unknown names are refused with a suggestion. What JavaScript
would silently bend (``percentThreshold = 0`` is 90 there) is bent alike, so that a carried-over file means the same.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tgres_py.errors import ConfigError

# Checks and converts one value; ValueError with the reason.
Check = Callable[[Any], Any]
Checks = Mapping[str, Check]

TAG_STYLES = ("influx", "librato", "signalfx")

# What each dialect switches on; single settings are stronger.
DIALECTS: dict[str, dict[str, Any]] = {
    "etsy": {},
    "dogstatsd": {
        "valuePacking": True,
        "timerTypes": ("h", "d"),
        "timestamps": True,
        "extraFields": True,
        "events": True,
        "serviceChecks": True,
    },
}


def _doc(default: Any, text: str) -> Any:
    """A field with its default and its help text."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class HistogramRule:
    """Bins of the timers whose key contains ``metric``; ``bins``: exclusive upper limits, inf catches all."""

    metric: str
    bins: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyFlush:
    """Report of the most frequent keys. ``interval``: ms, 0 = none; ``log``: file, empty = the server's log."""

    interval: int = _doc(0, "report the most frequent keys this often, in ms; 0 = never")
    percent: float = _doc(100.0, "share of the keys that a report lists")
    log: str = _doc("", "file that reports are appended to; empty = the server's log")


@dataclass(frozen=True, slots=True)
class GraphiteNames:
    """How the names in the store are made (etsy's ``graphite`` table)."""

    legacyNamespace: bool = _doc(True, "old names: stats.K and stats_counts.K for counters")
    globalPrefix: str = _doc("stats", "first part of all names (new names only)")
    prefixCounter: str = _doc("counters", "second part of counters' names (new names only)")
    prefixTimer: str = _doc("timers", "second part of timers' names (new names only)")
    prefixGauge: str = _doc("gauges", "second part of gauges' names (new names only)")
    prefixSet: str = _doc("sets", "second part of sets' names (new names only)")
    globalSuffix: str | None = _doc(
        None, "last part of all names, before the tags; set to an empty text: a dot at their end"
    )


_NO_REPORT = KeyFlush()
_NAMES = GraphiteNames()


@dataclass(frozen=True, slots=True)
class StatsdSettings:
    """All settings of statsd; times in ms where etsy has ms.

    The delete* fields are None where ``deleteIdleStats`` decides; read them through ``deletes_…``.
    """

    flushInterval: int = _doc(10_000, "ms between flushes, whole seconds")
    percentThreshold: tuple[float, ...] = _doc(
        (90.0,), "percentiles of timers, a number or a list; negative = of the top values"
    )
    flush_counts: bool = _doc(
        True, "send the counts of counters (stats_counts.K) beside their rates"
    )
    deleteIdleStats: bool = _doc(False, "don't send what was idle since the last flush")
    deleteCounters: bool | None = _doc(None, "as deleteIdleStats, for counters only")
    deleteTimers: bool | None = _doc(None, "as deleteIdleStats, for timers only")
    deleteSets: bool | None = _doc(None, "as deleteIdleStats, for sets only")
    deleteGauges: bool | None = _doc(None, "as deleteIdleStats, for gauges only")
    gaugesMaxTTL: int = _doc(1, "with deleteGauges: idle flushes that a gauge lives")
    prefixStats: str = _doc("statsd", "prefix of statsd's own metrics")
    keyNameSanitize: bool = _doc(True, "clean keys when they come in; else at the flush")
    calculatedTimerMetrics: tuple[str, ...] = _doc(
        (), "numbers sent of timers (count, upper_percent, …); empty = all"
    )
    histogram: tuple[HistogramRule, ...] = _doc(
        (), 'bins of timers: {metric = "text in the key", bins = [1, 10, "inf"]}, …'
    )
    keyFlush: KeyFlush = field(
        default=_NO_REPORT, metadata={"help": "report of the most frequent keys"}
    )
    dumpMessages: bool = _doc(False, "log every line that comes in")
    debug: bool = _doc(False, "log bad lines")
    healthStatus: str = _doc("up", "what the management port's health says at first: up or down")
    graphite: GraphiteNames = field(default=_NAMES, metadata={"help": "how the names are made"})

    # Beyond etsy. False (or empty) is what etsy does, and the default: a drop-in gives the same numbers.
    dialect: str = _doc(
        "etsy", "etsy, or dogstatsd: switches on all from valuePacking to serviceChecks"
    )
    valuePacking: bool = _doc(False, "k:1:2:3|ms is three values; etsy: the last one and bad lines")
    timerTypes: tuple[str, ...] = _doc(
        (), "further types that are timers, such as h and d; etsy counts them"
    )
    timestamps: bool = _doc(False, "|T1700000000 on counters and gauges is the value's time")
    extraFields: bool = _doc(False, "fields as |c:container are ignored; etsy: a bad line")
    events: bool = _doc(False, "_e{…} becomes an event of /events; etsy: a bad line")
    serviceChecks: bool = _doc(False, "_sc|… is counted and left out; etsy: a bad line")
    tagDefault: str = _doc(
        "true",
        "value of tags that have none (|#debug); empty = such series are refused, as carbon does",
    )
    tagStyles: tuple[str, ...] = _doc(
        (),
        "tags in the key: influx (k,a=b), librato (k#a=b), signalfx (k[a=b]); etsy strips the signs",
    )
    countersMaxTTL: int = _doc(1, "with deleteCounters: idle flushes that a counter lives")
    timersMaxTTL: int = _doc(1, "with deleteTimers: idle flushes that a timer lives")
    setsMaxTTL: int = _doc(1, "with deleteSets: idle flushes that a set lives")
    socket: str = _doc("", "path of a unix datagram socket to listen on too; empty = none")
    socket_mod: str = _doc("", "file mode of that socket, such as 0660; empty = the umask decides")
    mgmtDelete: bool = _doc(False, "the management port may delete (delcounters, …)")

    # Limits; what they refuse is counted.
    keysMax: int = _doc(1_000_000, "keys of all types together; lines of further ones are refused")
    timerValuesMax: int = _doc(20_000_000, "values of all timers between two flushes")
    setMembersMax: int = _doc(20_000_000, "members of all sets that are held between two flushes")
    setExactMax: int = _doc(100_000, "members that a set holds; beyond it its size is estimated")

    @property
    def deletes_counters(self) -> bool:
        return self.deleteIdleStats if self.deleteCounters is None else self.deleteCounters

    @property
    def deletes_timers(self) -> bool:
        return self.deleteIdleStats if self.deleteTimers is None else self.deleteTimers

    @property
    def deletes_sets(self) -> bool:
        return self.deleteIdleStats if self.deleteSets is None else self.deleteSets

    @property
    def deletes_gauges(self) -> bool:
        return self.deleteIdleStats if self.deleteGauges is None else self.deleteGauges

    @property
    def interval_s(self) -> float:
        """Seconds between flushes; what rates are divided by."""
        return self.flushInterval / 1000


# What needs a restart: the grid, names that are counted under already, a task, sockets, and what is said only at first.
RESTART = (
    "flushInterval",
    "prefixStats",
    "keyFlush.interval",
    "socket",
    "socket_mod",
    "healthStatus",
)


def reloaded(old: StatsdSettings, new: StatsdSettings) -> tuple[StatsdSettings, list[str]]:
    """What is taken over of changed settings while running, and the names of those that wait for a restart."""
    waiting = [name for name in RESTART if _of(old, name) != _of(new, name)]
    for name in waiting:
        if name == "keyFlush.interval":
            new = replace(new, keyFlush=replace(new.keyFlush, interval=old.keyFlush.interval))
        else:
            new = replace(new, **{name: getattr(old, name)})
    return new, waiting


def _of(settings: StatsdSettings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def from_table(table: Mapping[str, Any], where: str = "statsd") -> StatsdSettings:
    """Settings from a table of etsy's names, checked. ConfigError: one sentence, with ``where`` in front."""
    checks = {f.name: _checker(f.name) for f in fields(StatsdSettings)}
    values = checked(table, checks, where)
    return StatsdSettings(**{**DIALECTS[values.get("dialect", "etsy")], **values})


def checked(table: Mapping[str, Any], checks: Checks, where: str) -> dict[str, Any]:
    """The table's values, each through its check; ConfigError for a wrong value or an unknown name."""
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in checks:
            close = difflib.get_close_matches(name, checks, n=1)
            mend = (
                f"did you mean {close[0]}?" if close else "remove it, or see `tgres config sample`"
            )
            raise ConfigError(f"{where}: unknown setting {name}; {mend}")
        try:
            values[name] = checks[name](value)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{where}: {name}: {error}; it is {value!r}") from None
    return values


def _checker(name: str) -> Check:
    """What checks and converts one setting; it raises ValueError with the reason."""
    special: Checks = {
        "flushInterval": _interval,
        "percentThreshold": _percentiles,
        "gaugesMaxTTL": _ttl,
        "countersMaxTTL": _ttl,
        "timersMaxTTL": _ttl,
        "setsMaxTTL": _ttl,
        "calculatedTimerMetrics": _texts,
        "timerTypes": _texts,
        "tagStyles": _tag_styles,
        "tagDefault": _tag_value,
        "histogram": _histogram,
        "healthStatus": lambda value: _one_of(value, ("up", "down")),
        "dialect": lambda value: _one_of(value, tuple(DIALECTS)),
        "socket_mod": check_file_mode,
        "keyFlush": lambda table: KeyFlush(
            **checked(
                _table(table),
                {"interval": whole_number, "percent": _number, "log": check_text},
                "statsd.keyFlush",
            )
        ),
        "graphite": lambda table: GraphiteNames(
            **checked(
                _table(table),
                {
                    f.name: check_bool if f.name == "legacyNamespace" else check_text
                    for f in fields(GraphiteNames)
                },
                "statsd.graphite",
            )
        ),
    }
    if name in special:
        return special[name]
    default = next(f.default for f in fields(StatsdSettings) if f.name == name)
    if default is None or isinstance(default, bool):
        return check_bool
    return _limit if isinstance(default, int) else check_text


def check_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is wanted")
    return value


def check_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is wanted")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise ValueError("a list of texts is wanted")
    return tuple(value)


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("a table is wanted")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a number is wanted")
    return float(value)


def whole_number(value: Any) -> int:
    number = _number(value)
    if number < 0 or number != int(number):
        raise ValueError("a whole number that is not negative is wanted")
    return int(number)


def _limit(value: Any) -> int:
    number = whole_number(value)
    if number < 1:
        raise ValueError("at least 1 is wanted")
    return number


def _interval(value: Any) -> int:
    number = whole_number(value)
    if number < 1_000 or number % 1_000 or number > 86_400_000:
        raise ValueError(
            "whole seconds, in ms, from 1000 to 86400000 are wanted (archives have steps of whole seconds: two "
            "flushes within one would overwrite each other)"
        )
    return number


def _ttl(value: Any) -> int:
    """etsy: whatever isn't a whole number above 1 is 1."""
    number = _number(value)
    return int(number) if number > 1 and number == int(number) else 1


def _percentiles(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        return (_number(value) or 90.0,)
    return tuple(_number(v) for v in value)


def _tag_styles(value: Any) -> tuple[str, ...]:
    styles = _texts(value)
    if unknown := set(styles) - set(TAG_STYLES):
        raise ValueError(f"{sorted(unknown)[0]} is none of {', '.join(TAG_STYLES)}")
    return styles


def _tag_value(value: Any) -> str:
    text = check_text(value)
    if not re.fullmatch(r"[A-Za-z0-9_.\-]*", text):
        raise ValueError("letters, digits, _, . and - are wanted")
    return text


def _histogram(value: Any) -> tuple[HistogramRule, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list of tables is wanted")
    rules = []
    for entry in value:
        known = checked(_table(entry), {"metric": check_text, "bins": _bins}, "statsd.histogram")
        if "metric" not in known:
            raise ValueError("an entry has no metric")
        rules.append(HistogramRule(**known))
    return tuple(rules)


def _bins(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list of numbers is wanted")
    return tuple(math.inf if bound in ("inf", math.inf) else _number(bound) for bound in value)


def _one_of(value: Any, words: tuple[str, ...]) -> str:
    if value not in words:
        raise ValueError(f"{' or '.join(words)} is wanted")
    return str(value)


def check_file_mode(value: Any) -> str:
    text = check_text(value)
    if text and not re.fullmatch("0?[0-7]{3}", text):
        raise ValueError("an octal file mode such as 0660 is wanted")
    return text
