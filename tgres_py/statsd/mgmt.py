"""The management port's commands, with etsy's answers to the byte; no socket.

    command = name { " " argument }         one for each packet that comes in; blanks around it don't count
    help | health [up|down] | stats | counters | timers | gauges | config | quit
    delcounters | deltimers | delgauges NAME…       NAME.* is all that is below; only where mgmtDelete allows it

Whatever else comes is answered with ``ERROR``, and so are the del… commands where they aren't allowed, or with more than
FOLDERS_MAX patterns NAME.* at once. Source: stats.js,
lib/mgmt_console.js and lib/helpers.js of npm statsd 0.9.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from tgres_py.statsd.inspect import inspect_lists, inspect_numbers
from tgres_py.statsd.js import number_text
from tgres_py.statsd.settings import StatsdSettings

END = "END\n\n"
FOLDERS_MAX = 100  # patterns NAME.* of one command: each looks at all keys, and nothing else goes on meanwhile
HELP = (
    "Commands: stats, counters, timers, gauges, delcounters, deltimers, delgauges, health, "
    "config, quit\n\n"
)
Answer = str | Callable[[], str]


class Statistics(Protocol):
    """What the commands ask of an Aggregator."""

    settings: StatsdSettings
    started_s: int
    last_msg_seen_s: int
    bad_lines_seen: int

    def counters(self) -> dict[str, float]: ...

    def gauges(self) -> dict[str, float]: ...

    def timers(self) -> dict[str, list[float]]: ...

    def delete_counter(self, key: str) -> bool: ...

    def delete_timer(self, key: str) -> bool: ...

    def delete_gauge(self, key: str) -> bool: ...

    def backend_status(self) -> dict[str, float]: ...


class Management:
    """Answers commands. ``health`` is what was set last; ``given``: the settings as they were written, for ``config``."""

    def __init__(self, statistics: Statistics, given: Mapping[str, Any] = {}) -> None:
        self._statistics = statistics
        self.health = statistics.settings.healthStatus
        self.reconfigure(statistics.settings, given)

    def reconfigure(self, settings: StatsdSettings, given: Mapping[str, Any]) -> None:
        """Other settings from now on."""
        self._commands: dict[str, Callable[[list[str], int], Answer]] = {
            "help": lambda arguments, now_s: HELP,
            "health": self._health,
            "stats": self._stats,
            "config": lambda arguments, now_s: _config_text(given, settings),
            "counters": self._counters,
            "timers": self._timers,
            "gauges": self._gauges,
        }
        if settings.mgmtDelete:
            self._commands |= {
                "delcounters": self._delete_counters,
                "deltimers": self._delete_timers,
                "delgauges": self._delete_gauges,
            }

    def handle(self, command: bytes, now_s: int) -> bytes | None:
        """The answer to what came in one packet; None closes the connection (``quit``)."""
        answer = self.begin(command, now_s)
        return None if answer is None else answer()

    def begin(self, command: bytes, now_s: int) -> Callable[[], bytes] | None:
        """As ``handle``, but what takes long with many keys is left: the returned function, for any thread."""
        text = command.translate(_SEVEN_BITS).decode("ascii").strip()
        name, *arguments = text.split(" ")
        if name == "quit":
            return None
        command_of = self._commands.get(name)
        answer = "ERROR\n" if command_of is None else command_of(arguments, now_s)
        return partial(_encoded, answer)

    def _health(self, arguments: list[str], now_s: int) -> str:
        wanted = arguments[0].lower() if arguments else ""
        if wanted in ("up", "down"):
            self.health = wanted
        return f"health: {self.health}\n"

    def _stats(self, arguments: list[str], now_s: int) -> str:
        of = self._statistics
        lines = [
            f"uptime: {now_s - of.started_s}",
            f"messages.last_msg_seen: {now_s - of.last_msg_seen_s}",
            f"messages.bad_lines_seen: {of.bad_lines_seen}",
        ]
        for name, value in of.backend_status().items():
            shown = now_s - value if name.startswith("last_") else value
            lines.append(f"graphite.{name}: {number_text(shown)}")
        return "\n".join([*lines, END])

    def _counters(self, arguments: list[str], now_s: int) -> Answer:
        counters = self._statistics.counters()
        return lambda: f"{inspect_numbers(counters)}\n{END}"

    def _timers(self, arguments: list[str], now_s: int) -> Answer:
        timers = self._statistics.timers()
        return lambda: f"{inspect_lists(timers)}\n{END}"

    def _gauges(self, arguments: list[str], now_s: int) -> Answer:
        gauges = self._statistics.gauges()
        return lambda: f"{inspect_numbers(gauges)}\n{END}"

    def _delete_counters(self, arguments: list[str], now_s: int) -> str:
        of = self._statistics
        return _delete(arguments, of.counters, of.delete_counter)

    def _delete_timers(self, arguments: list[str], now_s: int) -> str:
        of = self._statistics
        return _delete(arguments, of.timers, of.delete_timer)

    def _delete_gauges(self, arguments: list[str], now_s: int) -> str:
        of = self._statistics
        return _delete(arguments, of.gauges, of.delete_gauge)


_SEVEN_BITS = bytes(byte & 0x7F for byte in range(256))


def _encoded(answer: Answer) -> bytes:
    return (answer if isinstance(answer, str) else answer()).encode()


def _delete(
    patterns: Sequence[str],
    members: Callable[[], Mapping[str, object]],
    delete: Callable[[str], bool],
) -> str:
    if sum(pattern.endswith(".*") for pattern in patterns) > FOLDERS_MAX:
        return "ERROR\n"
    left = dict.fromkeys(members())
    lines = []
    for pattern in patterns:
        found = [pattern] if pattern in left else []
        if pattern.endswith(".*"):
            found = [key for key in left if key.startswith(pattern[:-1])]
        for key in found:
            del left[key]
        lines += [f"deleted: {key}\n" for key in found if delete(key)]
        if not found:
            lines.append(f"metric {pattern} not found\n")
    return "".join(lines) + END


def _config_text(given: Mapping[str, Any], settings: StatsdSettings) -> str:
    """etsy's config object after its first flush: what the file says in its order, then what the daemon itself puts in."""
    own: dict[str, Any] = {"gaugesMaxTTL": settings.gaugesMaxTTL, "deleteIdleStats": False}
    deletes = {
        "deleteCounters": settings.deletes_counters,
        "deleteTimers": settings.deletes_timers,
        "deleteSets": settings.deletes_sets,
        "deleteGauges": settings.deletes_gauges,
    }
    own |= deletes if settings.deleteIdleStats else {}
    own |= {"flushInterval": settings.flushInterval} | deletes
    lines = ["\n"]
    for name, value in {**given, **{n: v for n, v in own.items() if n not in given}}.items():
        value = settings.gaugesMaxTTL if name == "gaugesMaxTTL" else value
        lines += [f"{line}\n" for line in _config_lines(name, value)]
    return "".join(lines)


def _config_lines(name: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{name} > {member}: {_text(of)}" for member, of in value.items()]
    if isinstance(value, list | tuple):
        return [f"{name} > {i}: {_text(of)}" for i, of in enumerate(value)]
    return [f"{name}: {_text(value)}"]


def _text(value: Any) -> str:
    """As JavaScript's String() writes a value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return number_text(value)
    if isinstance(value, list | tuple):
        return ",".join(_text(of) for of in value)
    return value if isinstance(value, str) else "[object Object]"
